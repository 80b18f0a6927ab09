import cv2
import numpy as np
import pytest
import torch
from torch import nn

from vpr.models.efficientnet_lite0 import EfficientNetLite0, SameConv2d, embedded_weights_file

torch.set_num_threads(1)  # two would wait for each other on a busy machine


@pytest.fixture(scope="module")
def network():
    pretrained = EfficientNetLite0()
    pretrained.load_state_dict(torch.load(embedded_weights_file(), weights_only=True))
    return pretrained.eval()


@pytest.mark.parametrize(("rows", "columns"), [(64, 96), (65, 97), (33, 64)])
def test_feature_maps_round_up_as_tensorflow_does(network, rows, columns):
    with torch.inference_mode():
        features = network(torch.zeros(1, 3, rows, columns))
    assert features.shape == (1, 1280, -(-rows // 32), -(-columns // 32))


def test_the_odd_pixel_of_padding_goes_right_and_below():
    convolution = SameConv2d(1, 1, 3, stride=2)
    with torch.no_grad():
        convolution.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
        output = convolution(torch.ones(1, 1, 2, 2))
    assert output.item() == 0 + 1 + 3 + 4  # the kernel's last row and column see padding


def test_folding_batch_norms_changes_no_output(network):
    folded = EfficientNetLite0()
    folded.load_state_dict(network.state_dict())
    folded.fold_batch_norms()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    image = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 96, 128))).float()
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), network(image), rtol=1e-3, atol=1e-3)


def test_the_embedded_weights_recognise_a_clock(network):
    image = np.full((224, 224, 3), 235, np.uint8)
    cv2.circle(image, (112, 112), 95, (40, 40, 40), 8)
    for hour in range(12):
        angle = np.pi * hour / 6
        at = (int(112 + 75 * np.sin(angle)) - 10, int(112 - 75 * np.cos(angle)) + 8)
        cv2.putText(image, str(hour or 12), at, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2)
    cv2.line(image, (112, 112), (150, 85), (0, 0, 0), 6)
    cv2.line(image, (112, 112), (105, 45), (0, 0, 0), 4)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    with torch.inference_mode():
        best = network.classify(batch)[0].topk(3).indices.tolist()
    assert {409, 892} & set(best)  # ImageNet's "analog clock", "wall clock"
