"""Sequence matching as a convolution of the distance matrix with an identity kernel.

Garg, Vankadari & Milford, "SeqMatchNet: Contrastive Learning with Sequence Matching for Place
Recognition & Relocalization", CoRL 2021: the distance of two sequences is the mean of the distances
of their frames along a diagonal, for all pairs of sequences at once. Differentiable, on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


class SequenceLengthError(ValueError):
    """A traverse that is shorter than the sequences asked of it."""


def descriptor_distances(queries: Tensor, references: Tensor) -> Tensor:
    """Cosine distances (Q, N), 0 .. 2, of L2-normalised descriptors (Q, D) and (N, D)."""
    return 1.0 - queries @ references.T


def sequence_distances(distances: Tensor, length: int) -> Tensor:
    """Mean distance along every diagonal of ``length`` frames.

    Args:
        distances: (..., Q, N) of single frames.

    Returns:
        (..., Q - length + 1, N - length + 1); entry (q, n) belongs to the sequences that begin at
        query q and reference n.

    Raises:
        SequenceLengthError: there are fewer queries or references than ``length``.
    """
    queries, references = distances.shape[-2:]
    if length < 1 or min(queries, references) < length:
        raise SequenceLengthError(
            f"sequences of {length} frames need as many queries and references, "
            f"there are {queries} and {references}"
        )
    kernel = torch.eye(length, dtype=distances.dtype, device=distances.device) / length
    stacked = distances.reshape(-1, 1, queries, references)
    summed = functional.conv2d(stacked, kernel[None, None])
    return summed.reshape(*distances.shape[:-2], *summed.shape[-2:])


def centred_sequence_distances(distances: Tensor, length: int) -> Tensor:
    """As ``sequence_distances`` with entry (q, n) at the middle of its sequences, (..., Q, N).

    Beyond the ends of a traverse a sequence is made of the frames that there are: sums run over
    fewer frames and are divided by their number.
    """
    queries, references = distances.shape[-2:]
    before = (length - 1) // 2
    after = length - 1 - before
    kernel = torch.eye(length, dtype=distances.dtype, device=distances.device)[None, None]
    stacked = distances.reshape(-1, 1, queries, references)
    padding = (before, after, before, after)
    summed = functional.conv2d(functional.pad(stacked, padding), kernel)
    present = functional.conv2d(functional.pad(torch.ones_like(stacked[:1]), padding), kernel)
    return (summed / present).reshape(distances.shape)
