import pytest
import torch

from vpr.models.backbone import BackboneError, make_backbone
from vpr.models.weights import WeightsError

torch.set_num_threads(1)  # two would wait for each other on a busy machine


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("efficientnet_lite0", (1, 1280, 2, 3)),
        ("timm:mobilenetv3_small_100", (1, 576, 2, 3)),
        ("torchvision:resnet18", (1, 512, 2, 3)),
        ("torchvision:mobilenet_v3_small", (1, 576, 2, 3)),
    ],
)
def test_random_backbones_give_the_same_map_every_time(name, shape):
    image = torch.linspace(-1, 1, 3 * 64 * 96).view(1, 3, 64, 96)
    first, second = make_backbone(name, "none"), make_backbone(name, "none")
    with torch.inference_mode():
        features = first.features(image)
        torch.testing.assert_close(features, second.features(image))
    assert features.shape == shape
    assert first.fingerprint == second.fingerprint


def test_a_transformers_tokens_become_a_map():
    backbone = make_backbone("timm:vit_tiny_patch16_224", "none")
    with torch.inference_mode():
        assert backbone.features(torch.zeros(1, 3, 224, 224)).shape == (1, 192, 14, 14)


def test_building_a_random_network_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    make_backbone("efficientnet_lite0", "none")
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("name", "weights", "error", "message"),
    [
        ("resnet18", "none", BackboneError, "unknown backbone 'resnet18'"),
        ("keras:resnet18", "none", BackboneError, "library 'keras'"),
        ("timm:no_such_network", "none", BackboneError, "timm has no network"),
        ("torchvision:no_such_network", "none", BackboneError, "torchvision has no network"),
        ("torchvision:vit_b_16", "none", BackboneError, "no convolutional feature map"),
        ("timm:mobilenetv3_small_100", "embedded", WeightsError, "none or a file"),
        ("efficientnet_lite0", "library", WeightsError, "belongs to no library"),
        ("efficientnet_lite0", "/nowhere/weights.pth", WeightsError, "no weights file"),
    ],
)
def test_wrong_names_are_refused_in_words(name, weights, error, message):
    with pytest.raises(error, match=message):
        make_backbone(name, weights)


def test_weights_of_another_network_name_the_first_layer(tmp_path):
    other = make_backbone("torchvision:mobilenet_v3_small", "none").network
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth: layer '_conv_stem.weight' .* is missing"):
        make_backbone("efficientnet_lite0", str(tmp_path / "other.pth"))


def test_layers_are_found_by_path_or_refused():
    backbone = make_backbone("efficientnet_lite0", "none")
    assert backbone.layer("_blocks.3._project_conv").out_channels == 40
    with pytest.raises(BackboneError, match=r"'_blocks\.99'"):
        backbone.layer("_blocks.99")
