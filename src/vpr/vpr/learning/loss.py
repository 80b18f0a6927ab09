"""The contrastive loss of equations 7 and 8."""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive_loss(
    anchors: Tensor, positives: Tensor, negatives: Tensor, margin: float
) -> Tensor:
    """``D^2`` over similar pairs and ``[margin - D]_+^2`` over dissimilar ones, classes balanced.

    Each class is averaged over its own pairs, which are the class weights that undo drawing more
    negatives than positives.

    Args:
        anchors, positives: (P, d) embeddings.
        negatives: (P, n, d), n for each anchor.
    """
    together = (anchors - positives).square().sum(dim=1)
    apart = distances(anchors[:, None], negatives)
    return together.mean() + (margin - apart).clamp(min=0.0).square().mean()


def distances(a: Tensor, b: Tensor) -> Tensor:
    """L2 distances (equation 8) along the last axis; the gradient at zero is zero, not NaN."""
    squared = (a - b).square().sum(dim=-1)
    return torch.where(squared > 0.0, squared.clamp(min=1e-12).sqrt(), squared)
