"""How much two views share, from where they were taken: the supervision of Pillai & Leonard IV-A.

The Gaussian kernel of equation 6 over translation and rotation, with bandwidths from the camera's
viewing frustum, and the thresholds of equation 9 that make labels of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Viewpoints:
    """Where N images were taken: positions (N, 2) east north in m, headings (N,) rad from east."""

    positions: NDArray[np.float64]
    headings: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.headings)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Viewpoints:
        return Viewpoints(self.positions[rows], self.headings[rows])

    def distances(self, others: Viewpoints) -> Matrix:
        """Metres between each of these and each of the others, (N, M)."""
        difference = self.positions[:, None] - others.positions[None]
        return np.asarray(np.hypot(difference[..., 0], difference[..., 1]))

    def turns(self, others: Viewpoints) -> Matrix:
        """Radians, 0 .. pi, between each heading and each of the others', (N, M)."""
        return turn_between(self.headings[:, None], others.headings[None])


@dataclass(frozen=True)
class SimilarityMatrices:
    """The matrices of Fig. 2: similarity by translation, by rotation and their product, 0 .. 1."""

    t: Matrix
    R: Matrix
    Rt: Matrix


@dataclass(frozen=True)
class SimilarityKernel:
    """Equation 6: ``exp(-gamma_t |dt|^2) * exp(-gamma_R dR^2)``.

    ``translation_gamma`` is in 1/m^2, ``rotation_gamma`` in 1/rad^2.
    """

    translation_gamma: float
    rotation_gamma: float

    @classmethod
    def from_frustum(cls, horizontal_fov: float, seen_distance: float) -> SimilarityKernel:
        """Bandwidths at which a similarity of one half means half of the frustum shared.

        A turn by half the field of view leaves half of the view. The frustum is as wide as
        ``seen_distance * tan(fov / 2)`` in the middle of its depth; a step by half of that does
        the same.

        Args:
            horizontal_fov: rad.
            seen_distance: m to which things in view still tell the place.
        """
        half_turn = horizontal_fov / 2.0
        half_width = seen_distance * np.tan(half_turn) / 2.0
        return cls(float(np.log(2.0) / half_width**2), float(np.log(2.0) / half_turn**2))

    def matrices(self, a: Viewpoints, b: Viewpoints) -> SimilarityMatrices:
        """Similarity of all pairs, (len(a), len(b)) each."""
        t = np.exp(-self.translation_gamma * a.distances(b) ** 2)
        R = np.exp(-self.rotation_gamma * a.turns(b) ** 2)
        return SimilarityMatrices(t, R, t * R)

    def of_pairs(self, a: Viewpoints, b: Viewpoints) -> NDArray[np.float64]:
        """Combined similarity of row i of one and row i of the other; shapes may broadcast."""
        squared = ((a.positions - b.positions) ** 2).sum(axis=-1)
        turned = turn_between(a.headings, b.headings)
        exponent = self.translation_gamma * squared + self.rotation_gamma * turned**2
        return np.asarray(np.exp(-exponent))

    def reach(self, similarity: float) -> float:
        """Metres beyond which no two views are as similar as this."""
        return float(np.sqrt(-np.log(similarity) / self.translation_gamma))


def turn_between(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radians, 0 .. pi, between two headings; shapes may broadcast."""
    return np.asarray(np.abs(np.mod(a - b + np.pi, 2.0 * np.pi) - np.pi))
