"""Places that are certainly others: how near do they come to a view?

A view with a car close ahead is near to many others of its kind, one of a rare facade to none; the
same distance means less for the first. Nothing remembered can tell, as what is near there may be
the place itself, seen in an earlier session. So a model brings places of its training along, which
no robot elsewhere will be at. After score normalisation by a cohort of impostors in speaker
verification: Sturim & Reynolds, "Speaker adaptive cohort selection for Tnorm in text-independent
speaker verification", ICASSP 2005.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAREST = 10  # impostors whose mean distance is taken


@dataclass(frozen=True)
class Impostors:
    """Descriptors (M, d) of other places, by the model that they are kept with."""

    descriptors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.descriptors)

    def distances(self, descriptors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean L2 distance (N,) of each descriptor (N, d) to its nearest impostors."""
        own = np.einsum("nd,nd->n", descriptors, descriptors)
        others = np.einsum("md,md->m", self.descriptors, self.descriptors)
        squared = own[:, None] + others[None] - 2.0 * descriptors @ self.descriptors.T
        count = min(NEAREST, len(self))
        nearest = np.partition(squared, count - 1, axis=1)[:, :count]
        return np.asarray(np.sqrt(np.maximum(nearest, 0.0)).mean(axis=1), np.float64)
