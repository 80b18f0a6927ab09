"""From the embeddings of two views to the overlap that they stand for.

Cosines of views of an unseen place are pulled together: the training's balance raises those of
views that share nothing, and what an encoder is unsure of lowers those of loops. A monotone map,
fitted on sequences that the encoder did not learn from, undoes that. It changes no ranking.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

KNOTS = 41  # from -1 to 1


def centred_cosines(embeddings: Tensor, of_map: Tensor) -> Tensor:
    """(N, N) cosines of embeddings (N, D) once what all views of the map share is taken out.

    Halls of one building are papered alike, which says nothing of where in it one is.

    Args:
        of_map: (N,) bool, the views whose mean is taken out.
    """
    aside = functional.normalize(embeddings - embeddings[of_map].mean(dim=0), dim=1)
    return aside @ aside.T


class SimilarityScale(nn.Module):
    """A rising piecewise-linear map from cosines (-1..1) to IoU (0..1); before ``fit``, max(c, 0).

    Attributes:
        overlaps: (KNOTS,) float32, IoU at equally spaced cosines.
    """

    overlaps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("overlaps", torch.linspace(-1.0, 1.0, KNOTS).clamp(min=0.0))

    def forward(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """IoU of cosines of any shape."""
        knots = np.linspace(-1.0, 1.0, KNOTS)
        return np.interp(cosines, knots, self.overlaps.numpy()).astype(np.float32)

    def fit(self, cosines: NDArray[np.float32], truth: NDArray[np.float32]) -> None:
        """Take the median IoU around each knot, which has the least absolute error, made to rise.

        Args:
            cosines, truth: (N,) of pairs of two different views.
        """
        from sklearn.isotonic import IsotonicRegression

        nearest = np.rint((np.clip(cosines, -1.0, 1.0) + 1.0) / 2.0 * (KNOTS - 1)).astype(int)
        met, counts = np.unique(nearest, return_counts=True)
        medians = [float(np.median(truth[nearest == knot])) for knot in met]
        rising = IsotonicRegression().fit_transform(met, medians, sample_weight=counts)
        values = np.interp(np.arange(KNOTS), met, rising)
        self.overlaps.copy_(torch.from_numpy(values.astype(np.float32)))
