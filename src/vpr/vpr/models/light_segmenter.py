"""A segmentation network for robots without a GPU: EfficientNet-Lite0 and a small decoder.

The encoder-decoder of DeepLabV3+ (Chen et al., "Encoder-Decoder with Atrous Separable Convolution
for Semantic Image Segmentation", ECCV 2018) with everything made light: the encoder stops at a
sixteenth of the image, the context pyramid is separable and narrow, and the decoder takes the
encoder's finer maps in at an eighth and at a quarter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vpr.models.efficientnet_lite0 import EfficientNetLite0, InvertedResidual, fold_norms_of

QUARTER, EIGHTH, SIXTEENTH = 24, 40, 112  # channels of the encoder's maps
CONTEXT = 96  # channels of the context pyramid
DECODER = 48  # channels of the decoder
ATROUS_RATES = (1, 3, 6)  # cells of a sixteenth of the image


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)
    )


def _separable(inputs: int, outputs: int, rate: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=rate, dilation=rate, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        *_convolution(inputs, outputs),
    )


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class ContextPyramid(nn.Module):
    """What is around each cell, near and far, and in the whole image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = _convolution(inputs, outputs)
        self.branches = nn.ModuleList(_separable(outputs, outputs, rate) for rate in ATROUS_RATES)
        self.scene = nn.Conv2d(outputs, outputs, 1)
        self.merge = _convolution(outputs * len(ATROUS_RATES), outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(x)
        around = self.merge(torch.cat([branch(x) for branch in self.branches], dim=1))
        gated: Tensor = around * torch.sigmoid(self.scene(x.mean((2, 3), keepdim=True)))
        return gated


class LightSegmenter(nn.Module):
    """Images (B, 3, H, W) RGB in -1..1 to logits (B, classes, ceil(H / 4), ceil(W / 4))."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        encoder = EfficientNetLite0()
        self._conv_stem, self._bn0 = encoder._conv_stem, encoder._bn0
        self._blocks = encoder._blocks[:11]
        self.context = ContextPyramid(SIXTEENTH, CONTEXT)
        self.eighth = _convolution(EIGHTH, DECODER // 2)
        self.quarter = _convolution(QUARTER, DECODER // 2)
        self.at_eighth = _separable(CONTEXT + DECODER // 2, DECODER)
        self.at_quarter = _separable(DECODER + DECODER // 2, DECODER)
        self.classify = nn.Conv2d(DECODER, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        maps = {}
        for index, block in enumerate(self._blocks):
            x = block(x)
            maps[index] = x
        quarter, eighth = self.quarter(maps[2]), self.eighth(maps[4])
        x = torch.cat([_enlarged(self.context(x), eighth), eighth], dim=1)
        x = torch.cat([_enlarged(self.at_eighth(x), quarter), quarter], dim=1)
        logits: Tensor = self.classify(self.at_quarter(x))
        return logits

    def take_encoder(self, encoder: EfficientNetLite0) -> None:
        """Copy the weights of an encoder trained elsewhere."""
        weights = encoder.state_dict()
        own = {name for name in self.state_dict() if name in weights}
        self.load_state_dict({name: weights[name] for name in own}, strict=False)

    @torch.no_grad()
    def fold_batch_norms(self) -> None:
        """Merge every batch normalisation into the convolution before it (inference only)."""
        self.eval()
        fold_norms_of(self)
        for module in self.modules():
            if isinstance(module, InvertedResidual):
                fold_norms_of(module)
            elif isinstance(module, nn.Sequential):
                _fold_sequence(module)


def _fold_sequence(layers: nn.Sequential) -> None:
    for index in range(len(layers) - 1):
        convolution, norm = layers[index], layers[index + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index] = fuse_conv_bn_eval(convolution, norm)
            layers[index + 1] = nn.Identity()
