"""Whitening learned from pairs of one place: where a linear head begins.

Mikolajczyk & Matas, "Improving descriptors for fast tree matching by optimal linear projection",
ICCV 2007; for image descriptors Radenovic et al., TPAMI 2019. What differs between two views of
one place (light, traffic, a step aside) is scaled to count alike in all directions, then the
directions in which places differ most are kept. It is the closed form of what the contrastive
loss asks of a linear map, and by far the largest step; descent goes on from there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpr.models.whitening import Whitening


def learned_whitening(
    features: NDArray[np.float32],
    pairs: NDArray[np.int64],
    dimension: int,
    shrinkage: float,
) -> Whitening:
    """A whitening of features (N, D) to ``dimension`` or fewer values.

    Args:
        pairs: (P, 2) rows of one place.
        shrinkage: added to each variance within places, as a share of the largest, so that
            directions that happen not to differ in a few pairs are not blown up.

    Returns:
        projection (D, d), d at most N - 1 and D, scaled such that embeddings have a mean square
        length of one.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    differences = (features[pairs[:, 0]] - features[pairs[:, 1]]).astype(np.float64)
    within = differences.T @ differences / (2.0 * len(pairs))
    variances, axes = np.linalg.eigh(within)
    levelled = axes / np.sqrt(np.maximum(variances, 0.0) + shrinkage * variances[-1])
    _, _, directions = np.linalg.svd((features - mean) @ levelled, full_matrices=False)
    kept = min(dimension, len(features) - 1, len(mean))
    projection = levelled @ directions[:kept].T
    lengths = (((features - mean) @ projection) ** 2).sum(axis=1)
    projection /= np.sqrt(lengths.mean())
    return Whitening(mean.astype(np.float32), np.ascontiguousarray(projection, np.float32))
