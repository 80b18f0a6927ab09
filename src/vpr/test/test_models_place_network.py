"""The ways semantics enter a place network."""

import pytest
import torch
from torch import Tensor

from vpr.models.backbone import make_backbone
from vpr.models.place_network import Integration, PlaceNetwork

torch.set_num_threads(1)  # two would wait for each other on a busy machine


@pytest.fixture(scope="module")
def scene() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rgb = 255.0 * torch.rand(2, 3, 64, 96, generator=generator)
    activations = torch.rand(2, 19, 64, 96, generator=generator).softmax(dim=1)
    mask = (torch.rand(2, 1, 64, 96, generator=generator) > 0.5).float()
    return rgb, mask, activations


def described(integration: Integration, *scene: Tensor) -> Tensor:
    network = PlaceNetwork(make_backbone("efficientnet_lite0", "embedded"), integration).eval()
    with torch.inference_mode():
        return network(*scene)


@pytest.mark.parametrize("integration", list(Integration))
def test_descriptors_are_finite_and_of_unit_length(
    integration: Integration, scene: tuple[Tensor, Tensor, Tensor]
) -> None:
    descriptors = described(integration, *scene)
    assert descriptors.shape == (2, 1280)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("added", [Integration.MASK_CHANNEL, Integration.ACTIVATION_CHANNELS])
def test_added_channels_begin_without_a_voice(
    added: Integration, scene: tuple[Tensor, Tensor, Tensor]
) -> None:
    torch.testing.assert_close(described(added, *scene), described(Integration.NONE, *scene))


@pytest.mark.parametrize("how", [Integration.MULTIPLIED, Integration.POOLING])
def test_a_mask_of_ones_is_no_mask_and_another_is_one(
    how: Integration, scene: tuple[Tensor, Tensor, Tensor]
) -> None:
    rgb, mask, activations = scene
    none = described(Integration.NONE, *scene)
    whole = described(how, rgb, torch.ones_like(mask), activations)
    torch.testing.assert_close(whole, none, atol=1e-5, rtol=1e-4)
    mask = torch.zeros_like(mask)
    mask[..., :48] = 1.0
    assert (described(how, rgb, mask, activations) - none).norm(dim=1).min() > 0.05
