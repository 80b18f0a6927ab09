"""The losses of S3E-GNN: shrinkage on similarities, cross-entropy on graph queries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SPEED, LOCATION = 10.0, 0.2  # a and c of Lu et al. 2018, equation 6


def predicted_similarity(one: Tensor, other: Tensor) -> Tensor:
    """Cosine similarity of two sets of embeddings (..., D), row by row."""
    return functional.cosine_similarity(one, other, dim=-1)


def shrinkage(predicted: Tensor, truth: Tensor) -> Tensor:
    """Shrinkage loss of each element (Lu et al., ECCV 2018, equation 6, without target weight).

    A squared error that small errors hardly enter, so that the many easy pairs do not outweigh
    the few that are wrong.
    """
    error = (predicted - truth).abs()
    return error**2 / (1.0 + torch.exp(SPEED * (LOCATION - error)))


def graph_query_loss(scores: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of query scores (Q, R) against rows of the IoU matrix (Q, R).

    Rows become distributions over the reference nodes; queries that see nothing of the reference
    are left out. Zero where all are.
    """
    weight = truth.sum(dim=1)
    known = weight > 0
    if not bool(known.any()):
        return scores.sum() * 0.0
    wanted = truth[known] / weight[known, None]
    return functional.cross_entropy(scores[known], wanted)
