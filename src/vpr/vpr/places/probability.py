"""From how far a place stands out to the probability that it is the same place."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpr.config import CandidateChoice


class StandoutProbability:
    """Logistic curves over the sequence score, one for the best candidate, one for the others.

    The score counts standard deviations above the average of all places, so one curve serves
    different worlds, lights and cameras better than any raw similarity would. A score means less
    behind a better one: what stands out there is often the better one's neighbourhood. How well
    the configured curves are calibrated is said beside them.
    """

    def __init__(self, config: CandidateChoice) -> None:
        self._best = config.probability_midpoint, config.probability_width
        self._further = config.further_midpoint, config.further_width

    def __call__(self, scores: ArrayLike) -> NDArray[np.float64]:
        """P(same place), 0 .. 1, of the scores (K,) of one view's candidates, best first."""
        values = np.asarray(scores, np.float64).tolist()
        best = [_logistic(score, *self._best) for score in values[:1]]
        return np.array(best + [_logistic(score, *self._further) for score in values[1:]])

    def as_best(self, scores: ArrayLike) -> NDArray[np.float64]:
        """What each score (K,) would mean if it were the best one."""
        values = np.asarray(scores, np.float64).tolist()
        return np.array([_logistic(score, *self._best) for score in values])


def _logistic(score: float, midpoint: float, width: float) -> float:
    """Of one number: for the few candidates of a view NumPy takes longer to begin."""
    return 0.5 + 0.5 * math.tanh((score - midpoint) / (2.0 * width))
