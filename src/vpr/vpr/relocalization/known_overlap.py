"""What a map knows of itself, used on a query: overlaps between its own views need no guess.

A query's cosines say which views of the map it may be; how much those show of each other follows
from the map's poses and depth. The reference graph has an edge wherever two views overlap, weighted
by how much, and a query's matches are passed on along these edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

SHARPNESS = 4.0  # of the matches, a standard deviation of a query's cosines; of map20 and map12


def passed_on(cosines: NDArray[np.float32], overlaps: NDArray[np.float32]) -> NDArray[np.float32]:
    """(Q, R) IoU of queries with the views of a map: the mean over what each query may be.

    Args:
        cosines: (Q, R) of the queries with the map's views.
        overlaps: (R, R) IoU between the map's views.
    """
    spread = np.maximum(cosines.std(axis=1, keepdims=True), 1e-6)
    matches = softmax(SHARPNESS * (cosines - cosines.mean(axis=1, keepdims=True)) / spread, axis=1)
    return np.asarray(matches @ overlaps, np.float32)
