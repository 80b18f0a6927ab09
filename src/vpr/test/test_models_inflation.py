"""More input channels without losing pre-trained weights."""

import pytest
import torch
from torch import nn

from vpr.models.backbone import make_backbone
from vpr.models.inflation import InflationError, inflate_first_convolution

torch.set_num_threads(1)  # two would wait for each other on a busy machine


@pytest.mark.parametrize("extra", [1, 19])
def test_the_network_answers_as_before_whatever_the_new_channels_hold(extra: int) -> None:
    plain, inflated = (make_backbone("efficientnet_lite0", "embedded") for _ in range(2))
    inflate_first_convolution(inflated.network, extra)
    generator = torch.Generator().manual_seed(0)
    more = torch.rand(1, 3 + extra, 64, 64, generator=generator) * 2 - 1
    with torch.inference_mode():
        expected = plain.features(more[:, :3])
        torch.testing.assert_close(inflated.features(more), expected, atol=1e-4, rtol=1e-4)


def test_the_new_weights_learn_from_the_first_step() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    inflate_first_convolution(network, 1)
    network(torch.rand(2, 4, 8, 8)).square().sum().backward()
    gradient = network[0].weight.grad
    assert gradient is not None
    assert gradient[:, 3].abs().max() > 0.0


def test_a_network_that_does_not_begin_with_rgb_is_refused_by_its_layer() -> None:
    with pytest.raises(InflationError, match=r"layer '0' takes 1 channels"):
        inflate_first_convolution(nn.Sequential(nn.Conv2d(1, 4, 3)), 1)
    with pytest.raises(InflationError, match="no convolution"):
        inflate_first_convolution(nn.Sequential(nn.Linear(3, 4)), 1)
