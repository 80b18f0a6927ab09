"""A small trainable attention head: which classes, in which surroundings, tell places apart.

The future work that "Exploring the Addition of Attention Mechanisms guided by Semantic
Segmentation in Place Recognition" proposes (section V): instead of averaging classes chosen by
hand, weights are learnt with the loss of place recognition itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vpr.semantics.classes import CLASS_COUNT

HIDDEN = 16
LEAST_WEIGHT = 0.02  # so that nothing is erased and every cell of the pooling has some weight


class AttentionHead(nn.Module):
    """Activations (B, 19, h, w) to attention (B, 1, h, w) between ``LEAST_WEIGHT`` and 1.

    A weight for each class, learnt as a logit, plus what a 3x3 neighbourhood of classes adds to
    it; the latter starts at nothing, so that training begins from the plain weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_class = nn.Conv2d(CLASS_COUNT, 1, 1)
        self.around = nn.Sequential(
            nn.Conv2d(CLASS_COUNT, HIDDEN, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(HIDDEN, 1, 1),
        )
        last = self.around[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        for parameter in (self.of_class.weight, last.weight, last.bias):
            nn.init.zeros_(parameter)
        assert self.of_class.bias is not None
        nn.init.constant_(self.of_class.bias, 1.0)

    def forward(self, activations: Tensor) -> Tensor:
        logit = self.of_class(activations) + self.around(activations)
        return LEAST_WEIGHT + (1.0 - LEAST_WEIGHT) * torch.sigmoid(logit)
