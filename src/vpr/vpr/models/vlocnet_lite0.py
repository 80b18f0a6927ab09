"""Blocks of EfficientNet-Lite0 as Res1 to Res5 of VLocNet++, for CPUs.

Its ImageNet weights are inside an installed package, a ResNet-50's are a download. They were
trained with ReLU6, which stays. A block begins where the map halves, as in ResNet.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from vpr.models.efficientnet_lite0 import EfficientNetLite0, InvertedResidual, SameConv2d

BLOCKS = {1: slice(0, 1), 2: slice(1, 3), 3: slice(3, 5), 4: slice(5, 11), 5: slice(11, 16)}


class Lite0Res1(nn.Module):
    """Stem and first block."""

    def __init__(self) -> None:
        super().__init__()
        network = EfficientNetLite0()
        self._conv_stem, self._bn0 = network._conv_stem, network._bn0
        self._blocks = network._blocks[BLOCKS[1]]

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 16, H / 2, W / 2)."""
        x: Tensor = self._blocks[0](functional.relu6(self._bn0(self._conv_stem(image))))
        return x


def lite0_units(stage: int, views: int) -> tuple[list[InvertedResidual], list[int]]:
    """Units of Res2 to Res5 and the channels each has; behind ``views`` concatenated maps."""
    units = [cast(InvertedResidual, unit) for unit in EfficientNetLite0()._blocks[BLOCKS[stage]]]
    if views > 1:
        expand = units[0]._expand_conv
        units[0]._expand_conv = SameConv2d(views * expand.in_channels, expand.out_channels, 1)
    return units, [unit._project_conv.out_channels for unit in units]


def name_in_lite0(block: str, rest: list[str]) -> str:
    """Name in EfficientNet-Lite0 of a tensor of ``block`` (res1 to res5)."""
    if block == "res1":
        return ".".join(rest)
    first = BLOCKS[int(block[-1])].start
    return ".".join(["_blocks", str(first + ord(rest[0]) - ord("a")), *rest[1:]])
