"""More input channels for a network that was trained on RGB, without losing what it learnt.

Carreira & Zisserman ("Quo Vadis, Action Recognition?", CVPR 2017) inflate the first convolution
instead of replacing it. Here the new channels start with zero weights: before training, the network
answers to its RGB input exactly as it did, whatever the other channels hold; gradients reach the
new weights from the first step.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

RGB = 3


class InflationError(ValueError):
    """A network whose first convolution does not take RGB."""


def inflate_first_convolution(network: nn.Module, extra_channels: int) -> None:
    """Let the first convolution take ``extra_channels`` behind RGB, their weights at zero.

    Raises:
        InflationError: the network has no ungrouped convolution of three input channels at first.
    """
    path, first = first_convolution(network)
    if first.in_channels != RGB or first.groups != 1:
        raise InflationError(f"layer '{path}' takes {first.in_channels} channels, not RGB")
    inflated = copy.deepcopy(first)
    inflated.in_channels = RGB + extra_channels
    extra = first.weight.new_zeros(first.out_channels, extra_channels, *first.kernel_size)
    inflated.weight = nn.Parameter(torch.cat([first.weight.detach(), extra], dim=1))
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, inflated)


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """Dotted path and module of the convolution that is declared first.

    Raises:
        InflationError: the network has none.
    """
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return path, module
    raise InflationError("the network has no convolution")
