"""The encoder-decoder of the attention pipeline's appendix: one image in, one attention map out.

"Attention-based Representations in Deep Reinforcement Learning for Autonomous Driving", Table I:
a U-Net of 14,788,929 parameters. The table lists its convolutions, numbered with two modules after
each; their parameters sum to 14,780,993, and the 7,936 to its total are those of a batch
normalisation of each convolution of a level. The map is a logit; its sigmoid is the attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INPUT_SIZE = 256  # px, square, as in the table
WIDTHS = (64, 128, 256, 512, 512)  # channels of the levels, finest first


def _level(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each normalised and rectified."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class AttentionEncoderDecoder(nn.Module):
    """RGB (B, 3, H, W) in -1..1, H and W multiples of 16, to attention logits (B, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.encoder = nn.ModuleList(
            _level(before, width) for before, width in zip(inputs, WIDTHS, strict=True)
        )
        self.halve = nn.MaxPool2d(2)
        coarse_to_fine = WIDTHS[::-1]
        narrowed = (*WIDTHS[-3::-1], WIDTHS[0])  # what each decoder level hands on
        widths = zip((coarse_to_fine[0], *narrowed[:-1]), coarse_to_fine[1:], narrowed, strict=True)
        self.enlarge, self.decoder = nn.ModuleList(), nn.ModuleList()
        for coarse, skipped, outputs in widths:
            self.enlarge.append(nn.ConvTranspose2d(coarse, coarse, 2, stride=2))
            self.decoder.append(_level(coarse + skipped, outputs))
        self.attention = nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for level in self.encoder[:-1]:
            x = level(x)
            skipped.append(x)
            x = self.halve(x)
        x = self.encoder[-1](x)
        for enlarge, level in zip(self.enlarge, self.decoder, strict=True):
            x = level(torch.cat([enlarge(x), skipped.pop()], dim=1))
        logits: Tensor = self.attention(x)
        return logits
