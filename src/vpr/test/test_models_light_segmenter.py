"""The light segmentation network."""

import pytest
import torch

from vpr.models.efficientnet_lite0 import EfficientNetLite0
from vpr.models.light_segmenter import LightSegmenter

torch.set_num_threads(1)  # two would wait for each other on a busy machine


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 47), (8, 8)])
def test_logits_are_a_quarter_of_the_image_whatever_its_size(height: int, width: int) -> None:
    network = LightSegmenter(19).eval()
    with torch.inference_mode():
        logits = network(torch.zeros(1, 3, height, width))
    assert logits.shape == (1, 19, -(-height // 4), -(-width // 4))


def test_folding_the_norms_changes_nothing() -> None:
    torch.manual_seed(0)
    network = LightSegmenter(19)
    network.train()
    for _ in range(2):  # norms with statistics of their own
        network(torch.rand(2, 3, 64, 64) * 2 - 1)
    network.eval()
    image = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.inference_mode():
        before = network(image)
        network.fold_batch_norms()
        after = network(image)
    torch.testing.assert_close(after, before, atol=2e-4, rtol=1e-3)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_the_encoder_is_taken_over_whole() -> None:
    encoder, network = EfficientNetLite0(), LightSegmenter(19)
    network.take_encoder(encoder)
    theirs = encoder.state_dict()
    taken = [name for name in network.state_dict() if name.startswith("_")]
    assert all(torch.equal(network.state_dict()[name], theirs[name]) for name in taken)
    assert sum(name.endswith("weight") for name in taken) > 50
