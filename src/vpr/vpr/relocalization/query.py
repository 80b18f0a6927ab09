"""Querying a reference graph: the inverse cross-entropy multiplication (S3E-GNN equation 2)."""

from __future__ import annotations

import torch
from torch import Tensor

ETA = 1e-3  # keeps the quotient finite where query and reference agree wholly
SMALLEST = 1e-6  # of a logarithm's argument


def inverse_cross_entropy(query: Tensor, reference: Tensor) -> Tensor:
    """(Q, R) similarities of (Q, D) queries and (R, D) references, all values in [0, 1].

    ``U_ij = 1 / (eta - sum_k q_ik log m_kj)``: one matrix product for the whole query sub-graph.

    Raises:
        ValueError: the two have different dimensions.
    """
    if query.shape[1] != reference.shape[1]:
        raise ValueError(
            f"query has {query.shape[1]} dimensions, the reference graph {reference.shape[1]}"
        )
    return 1.0 / (ETA - query @ torch.log(reference.clamp(min=SMALLEST)).T)


def distribution(features: Tensor) -> Tensor:
    """(N, D) positive features with every row summing to 1.

    Equation 2 of sigmoid outputs is largest for references near one, whatever the query; of
    distributions it is largest for the query's own (Gibbs' inequality).
    """
    positive = features.clamp(min=SMALLEST)
    return positive / positive.sum(dim=1, keepdim=True)


def closure_information(similarity: float, base: float = 1.0) -> Tensor:
    """(6, 6) information of a loop edge: the identity scaled by its similarity (equation 3).

    Raises:
        ValueError: a similarity that is not in (0, 1].
    """
    if not 0.0 < similarity <= 1.0:
        raise ValueError(f"similarity {similarity} is not in (0, 1]")
    return torch.eye(6, dtype=torch.float64) * (base * similarity)
