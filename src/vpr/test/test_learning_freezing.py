"""Freezing schemes."""

import pytest

from vpr.learning.freezing import FreezingError, freeze, layers_of
from vpr.models.backbone import make_backbone


def learning(scheme: str, name: str = "torchvision:resnet18") -> set[str]:
    network = make_backbone(name, "none" if ":" in name else "embedded").network
    freeze(network, scheme)
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def first_parts(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_a_residual_network_has_a_stem_and_four_layers() -> None:
    network = make_backbone("torchvision:resnet18", "none").network
    assert list(layers_of(network)) == ["conv1", "layer1", "layer2", "layer3", "layer4"]


def test_schemes_let_the_first_and_the_last_layers_learn() -> None:
    assert first_parts(learning("0-2")) == {"layer3", "layer4"}
    assert first_parts(learning("2-2")) == {"conv1", "bn1", "layer1", "layer3", "layer4"}
    assert first_parts(learning("0-4")) == {"layer1", "layer2", "layer3", "layer4"}
    assert "conv1.weight" in learning("All")
    assert learning("0-0") == set()


def test_the_classifier_never_learns_and_blocks_are_layers() -> None:
    assert not any(name.startswith("_fc") for name in learning("All", "efficientnet_lite0"))
    assert {name.split(".")[0] for name in learning("0-1", "efficientnet_lite0")} == {"_conv_head"}
    assert all(
        name.startswith(("_conv_head", "_blocks.15."))
        for name in learning("0-2", "efficientnet_lite0")
    )


@pytest.mark.parametrize("scheme", ["two", "1", "-1-2", "3-3", "all"])
def test_what_is_no_scheme_is_refused(scheme: str) -> None:
    with pytest.raises(FreezingError):
        learning(scheme)
