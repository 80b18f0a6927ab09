"""The Generalised Contrastive Loss and its pairs.

Leyva-Vallina, Strisciuglio & Petkov, "Data-Efficient Large Scale Place Recognition with Graded
Similarity Supervision", CVPR 2023: how much two images are alike is a number between 0 and 1.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIKE = 0.5  # a graded similarity from which a pair counts as positive
SHARES = (0.5, 0.25, 0.25)  # of positive, slightly similar and dissimilar pairs in a batch


class GradedPairsError(ValueError):
    """Images of which no pairs of one kind can be drawn."""


def generalised_contrastive_loss(
    first: Tensor, second: Tensor, similarity: Tensor, margin: float
) -> Tensor:
    """Mean over pairs of ``psi d^2 / 2 + (1 - psi) max(margin - d, 0)^2 / 2`` (equation 3).

    With similarities of only 0 and 1 this is the contrastive loss.

    Args:
        first, second: (B, D) descriptors of the pairs.
        similarity: (B,) graded similarity psi in 0..1.
        margin: distance that dissimilar pairs are pushed to.
    """
    square = (first - second).square().sum(dim=1)
    distance = torch.sqrt(square + 1e-12)
    apart = (margin - distance).clamp(min=0.0).square()
    return (0.5 * (similarity * square + (1.0 - similarity) * apart)).mean()


class GradedPairs:
    """Pairs of images by how much they see of the same, drawn kind by kind (their section 4).

    Args:
        similarity: (N, M) graded similarity of N queries to M references.

    Raises:
        GradedPairsError: one of the kinds (alike, a little alike, not at all) does not occur.
    """

    def __init__(self, similarity: NDArray[np.float32]) -> None:
        self._similarity = similarity
        kinds = {
            "alike": similarity >= ALIKE,
            "a little alike": (similarity > 0.0) & (similarity < ALIKE),
            "not alike": similarity == 0.0,
        }
        empty = [name for name, chosen in kinds.items() if not chosen.any()]
        if empty:
            raise GradedPairsError(f"no pair of images is {empty[0]}: graded pairs need all kinds")
        self._kinds = [np.argwhere(chosen) for chosen in kinds.values()]

    def draw(
        self, rng: np.random.Generator, count: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        """Query index, reference index and similarity of ``count`` pairs."""
        kinds = rng.choice(len(SHARES), count, p=SHARES)
        pairs = np.array([self._kinds[k][rng.integers(len(self._kinds[k]))] for k in kinds])
        return pairs[:, 0], pairs[:, 1], self._similarity[pairs[:, 0], pairs[:, 1]]
