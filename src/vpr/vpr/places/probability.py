"""From how far a place stands out to the probability that it is the same place."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

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
        values = np.asarray(scores, np.float64)
        return np.concatenate(
            [_logistic(values[:1], *self._best), _logistic(values[1:], *self._further)]
        )

    def as_best(self, scores: ArrayLike) -> NDArray[np.float64]:
        """What each score (K,) would mean if it were the best one."""
        return _logistic(np.asarray(scores, np.float64), *self._best)


def _logistic(scores: NDArray[np.float64], midpoint: float, width: float) -> NDArray[np.float64]:
    return np.asarray(expit((scores - midpoint) / width), np.float64)
