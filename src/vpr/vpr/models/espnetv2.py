"""ESPNetv2 for segmentation, as its authors trained it on Cityscapes.

Mehta et al., "ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional Neural
Network", CVPR 2019; the decoder is that of the authors' EdgeNets release. Module names follow the
released state dict, so that the authors' checkpoints load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = {1.0: (32, 64, 128, 256), 2.0: (32, 128, 256, 512)}  # channels of levels 1 to 4, by scale
REPEATS = {"level3": 3, "level4": 7}  # EESP units behind each strided one
BRANCHES = 4  # parallel dilated convolutions of a unit
LARGEST_KERNELS = (13, 11, 9, 7)  # px a branch may reach, at each strided or plain level
DECODER_WIDTHS = (64, 48, 32)
PYRAMID_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)  # of the map a decoder stage looks at
SMALLEST_SCALED = 5  # cells; a scaled map is never smaller
IMAGE_CHANNELS = 3


class _Unit(nn.Module):
    """Convolution, batch normalisation and PReLU, each of them optional but the norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1,
        activated: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.PReLU(outputs) if activated else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class _NormAct(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(x))
        return y


class _Dilated(nn.Module):
    """A depthwise 3x3 convolution whose taps lie ``dilation`` cells apart."""

    def __init__(self, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class EespUnit(nn.Module):
    """Extremely Efficient Spatial Pyramid of depthwise dilated convolutions (section 3.2).

    Reduce by grouped 1x1, transform in parallel branches of growing reach, fuse each branch with
    those before it (which removes gridding), expand by grouped 1x1, and add the input.
    """

    def __init__(self, inputs: int, outputs: int, largest_kernel: int, stride: int = 1) -> None:
        super().__init__()
        narrow = outputs // BRANCHES
        self.strided = stride > 1
        self.proj_1x1 = _Unit(inputs, narrow, 1, groups=BRANCHES)
        kernels = [3 + 2 * branch for branch in range(BRANCHES)]
        reach = sorted(kernel if kernel <= largest_kernel else 3 for kernel in kernels)
        self.spp_dw = nn.ModuleList(_Dilated(narrow, stride, (kernel - 1) // 2) for kernel in reach)
        self.conv_1x1_exp = _Unit(outputs, outputs, 1, groups=BRANCHES, activated=False)
        self.br_after_cat = _NormAct(outputs)
        self.module_act = nn.PReLU(outputs)  # strided: in the checkpoint, but not applied

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.proj_1x1(x)
        fused: list[Tensor] = []
        for branch in self.spp_dw:
            seen = branch(reduced)
            fused.append(seen + fused[-1] if fused else seen)
        expanded: Tensor = self.conv_1x1_exp(self.br_after_cat(torch.cat(fused, dim=1)))
        if self.strided:
            return expanded
        merged: Tensor = self.module_act(expanded + x if expanded.shape == x.shape else expanded)
        return merged


class StridedEesp(nn.Module):
    """Half the size: average pooling beside a strided unit, and the shrunken image added."""

    def __init__(self, inputs: int, outputs: int, largest_kernel: int) -> None:
        super().__init__()
        self.eesp = EespUnit(inputs, outputs - inputs, largest_kernel, stride=2)
        self.inp_reinf = nn.Sequential(
            _Unit(IMAGE_CHANNELS, IMAGE_CHANNELS, 3),
            _Unit(IMAGE_CHANNELS, outputs, 1, activated=False),
        )
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(x, 3, stride=2, padding=1)
        joined = torch.cat([pooled, self.eesp(x)], dim=1)
        while image.shape[-2] > pooled.shape[-2]:
            image = functional.avg_pool2d(image, 3, stride=2, padding=1)
        y: Tensor = self.act(joined + self.inp_reinf(image))
        return y


class EespEncoder(nn.Module):
    """Levels 1 to 4 of the classification network, down to a sixteenth of the image."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.level1 = _Unit(IMAGE_CHANNELS, first, 3, stride=2)
        self.level2_0 = StridedEesp(first, second, LARGEST_KERNELS[0])
        self.level3_0 = StridedEesp(second, third, LARGEST_KERNELS[1])
        self.level3 = _units(third, REPEATS["level3"], LARGEST_KERNELS[2])
        self.level4_0 = StridedEesp(third, fourth, LARGEST_KERNELS[2])
        self.level4 = _units(fourth, REPEATS["level4"], LARGEST_KERNELS[3])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half = self.level1(image)
        quarter = self.level2_0(half, image)
        eighth = self.level3(self.level3_0(quarter, image))
        sixteenth = self.level4(self.level4_0(eighth, image))
        return half, quarter, eighth, sixteenth


def _units(channels: int, count: int, largest_kernel: int) -> nn.Sequential:
    return nn.Sequential(*(EespUnit(channels, channels, largest_kernel) for _ in range(count)))


class PyramidPooling(nn.Module):
    """Depthwise convolutions of one map at several scales, merged."""

    def __init__(self, inputs: int, width: int, outputs: int, last: bool = False) -> None:
        super().__init__()
        joined = width * len(PYRAMID_SCALES)
        self.stages = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False) for _ in PYRAMID_SCALES
        )
        self.projection_layer = _Named("cbr", _sequence(inputs, width, 1))
        self.merge_layer = nn.Sequential(
            _Named("br", nn.Sequential(nn.BatchNorm2d(joined), nn.PReLU(joined))),
            nn.ChannelShuffle(len(PYRAMID_SCALES)),
            _Named("cbr", _sequence(joined, width, 3, groups=width)),
            nn.Conv2d(width, outputs, 1, bias=last),
        )
        norm = nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU(outputs))
        self.br = nn.Identity() if last else _Named("br", norm)

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection_layer(x)
        seen = [
            self._at_scale(x, stage, scale)
            for stage, scale in zip(self.stages, PYRAMID_SCALES, strict=True)
        ]
        y: Tensor = self.br(self.merge_layer(torch.cat(seen, dim=1)))
        return y

    @staticmethod
    def _at_scale(x: Tensor, stage: nn.Module, scale: float) -> Tensor:
        height, width = x.shape[-2:]
        scaled = _scaled(height, scale), _scaled(width, scale)
        if scale < 1.0:
            return _enlarged(stage(functional.adaptive_avg_pool2d(x, scaled)), (height, width))
        if scale > 1.0:
            return functional.adaptive_avg_pool2d(stage(_enlarged(x, scaled)), (height, width))
        y: Tensor = stage(x)
        return y


class _Named(nn.Module):
    """A module under the name that the checkpoint knows it by."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self._only = name
        self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = getattr(self, self._only)(x)
        return y


def _sequence(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.PReLU(outputs),
    )


class GatedProjection(nn.Module):
    """An encoder map brought to the decoder's width, its channels weighed by the whole image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wt_layer = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid()
        )
        groups = math.gcd(inputs, outputs)
        self.expansion_layer = _Named("cbr", _sequence(inputs, outputs, 3, groups))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.expansion_layer(x) * self.wt_layer(x)
        return y


class EspNetV2(nn.Module):
    """Normalised RGB (B, 3, H, W), H and W multiples of 16, to logits (B, classes, H / 2, W / 2).

    Args:
        classes: of the checkpoint; the authors' Cityscapes networks have 20, the last of them
            "unlabelled".
        scale: width of the network, 1.0 or 2.0.
    """

    def __init__(self, classes: int, scale: float) -> None:
        super().__init__()
        widths, (first, second, third) = WIDTHS[scale], DECODER_WIDTHS
        narrow = min(classes // 2, third // 2)
        self.base_net = EespEncoder(widths)
        self.bu_dec_l1 = PyramidPooling(widths[3], narrow, first)
        self.bu_dec_l2 = PyramidPooling(first, narrow, second)
        self.bu_dec_l3 = PyramidPooling(second, narrow, third)
        self.bu_dec_l4 = PyramidPooling(third, narrow, classes, last=True)
        self.merge_enc_dec_l2 = GatedProjection(widths[2], first)
        self.merge_enc_dec_l3 = GatedProjection(widths[1], second)
        self.merge_enc_dec_l4 = GatedProjection(widths[0], third)
        self.bu_br_l2 = nn.Sequential(nn.BatchNorm2d(first), nn.PReLU(first))
        self.bu_br_l3 = nn.Sequential(nn.BatchNorm2d(second), nn.PReLU(second))
        self.bu_br_l4 = nn.Sequential(nn.BatchNorm2d(third), nn.PReLU(third))

    def forward(self, image: Tensor) -> Tensor:
        half, quarter, eighth, sixteenth = self.base_net(image)
        x = self.bu_dec_l1(sixteenth)
        x = self.bu_dec_l2(self.bu_br_l2(self.merge_enc_dec_l2(eighth) + _doubled(x)))
        x = self.bu_dec_l3(self.bu_br_l3(self.merge_enc_dec_l3(quarter) + _doubled(x)))
        logits: Tensor = self.bu_dec_l4(self.bu_br_l4(self.merge_enc_dec_l4(half) + _doubled(x)))
        return logits


def espnetv2_scale(state: Mapping[str, Tensor]) -> float:
    """Which scale a checkpoint is of, told by the width of its second level; 1.0 when unclear."""
    layer = state.get("base_net.level2_0.act.weight")
    width = None if layer is None else layer.shape[0]
    return next((scale for scale, widths in WIDTHS.items() if widths[1] == width), 1.0)


def _scaled(cells: int, scale: float) -> int:
    return max(math.ceil(cells * scale), SMALLEST_SCALED)


def _enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(x, size, mode="bilinear", align_corners=True)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
