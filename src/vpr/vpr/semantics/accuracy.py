"""How well pixels are classified: intersection over union of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.semantics.classes import CLASS_COUNT, CLASS_NAMES


@dataclass
class Confusion:
    """Counts of pixels, (true class, predicted class); grows image by image."""

    counts: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Confusion:
        """Before the first image."""
        return cls(np.zeros((CLASS_COUNT, CLASS_COUNT), np.int64))

    def add(self, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> None:
        """Count the pixels of one image; true labels that are no class are passed over.

        Args:
            truth: (H, W) train ids.
            predicted: (H, W) train ids.
        """
        judged = truth < CLASS_COUNT
        pairs = truth[judged].astype(np.int64) * CLASS_COUNT + predicted[judged]
        self.counts += np.bincount(pairs, minlength=CLASS_COUNT**2).reshape(self.counts.shape)

    def intersection_over_union(self) -> dict[str, float]:
        """IoU of each class that is there in truth; a class only predicted costs the others."""
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        present = np.flatnonzero(self.counts.sum(1))
        return {CLASS_NAMES[k]: float(hits[k] / union[k]) for k in present}

    def mean_intersection_over_union(self) -> float:
        """Mean over the classes that are there; 0 without any."""
        values = list(self.intersection_over_union().values())
        return float(np.mean(values)) if values else 0.0
