"""What a view shows in strips side by side, and how much that may differ where the place is right.

One embedding of a whole image says nothing of where in it things are. Means over strips do, and can
be made up for a view that nobody took, from the patches that others saw of the same walls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

STRIPS = 3  # side by side
COMPONENTS = 32  # of what a patch shows, its first
LENGTH = STRIPS * COMPONENTS
FEW = 3.0  # patches in a strip, below which it says little; it is drawn towards the map's mean
SPREAD = 0.05  # of the mean variance, added to each: no direction is told too sharply
TEMPER = 0.03  # of a likelihood: neighbours in an image and on the way err alike; of map20, map12


def strip_means(sums: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, LENGTH) descriptions from sums (N, STRIPS, COMPONENTS) less the map's mean."""
    return np.asarray((sums / (weights[..., None] + FEW)).reshape(len(sums), -1), np.float32)


def strips_of(values: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, LENGTH) descriptions of views by what their patches show.

    Args:
        values: (N, K, COMPONENTS) less the map's mean.
        places: (N, K, 2) of the patches, in 0..1 of width and height.
    """
    strip = np.minimum((places[..., 0] * STRIPS).astype(np.int64), STRIPS - 1)
    within = np.eye(STRIPS, dtype=np.float32)[strip]  # (N, K, STRIPS)
    return strip_means(np.einsum("nks,nkd->nsd", within, values), within.sum(axis=1))


class StripAppearance(nn.Module):
    """Gaussian of the differences between descriptions of one place by a view and by the map.

    Attributes:
        precision: (LENGTH, LENGTH) float32, the inverse covariance; zeros before ``fit``.
    """

    precision: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("precision", torch.zeros(LENGTH, LENGTH))

    @property
    def fitted(self) -> bool:
        """Whether it tells anything apart."""
        return bool(self.precision.any())

    def fit(self, differences: Sequence[NDArray[np.float32]]) -> None:
        """Learn from differences (N, LENGTH) of some sequences, at places that are known."""
        given = np.concatenate(differences).astype(np.float64)
        covariance = given.T @ given / len(given)
        covariance += SPREAD * np.trace(covariance) / LENGTH * np.eye(LENGTH)
        self.precision.copy_(torch.from_numpy(np.linalg.inv(covariance).astype(np.float32)))

    def log_likelihoods(
        self, asked: NDArray[np.float32], known: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(Q, S) of views (Q, LENGTH) at places that the map describes (S, LENGTH)."""
        precision = self.precision.numpy()
        mixed = known @ precision
        squares = (asked @ precision * asked).sum(axis=1)[:, None] + (mixed * known).sum(axis=1)
        return np.asarray(-0.5 * TEMPER * (squares - 2.0 * asked @ mixed.T), np.float32)
