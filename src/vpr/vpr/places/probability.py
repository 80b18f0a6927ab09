"""From how far a place stands out to the probability that it is the same place."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpr.config import SequenceMatchingConfig


class StandoutProbability:
    """A logistic curve over the sequence score.

    The score counts standard deviations above the average of all places, so one curve serves
    different worlds, lights and cameras better than any raw similarity would. Midpoint and width
    are set by hand in the configuration, from real and simulated traverses: the ordering is
    meaningful, the value is not yet calibrated.
    """

    def __init__(self, config: SequenceMatchingConfig) -> None:
        self._midpoint = config.probability_midpoint
        self._width = config.probability_width

    def __call__(self, scores: ArrayLike) -> NDArray[np.float64]:
        """P(same place), 0 .. 1, of scores of any shape; rises with the score."""
        exponents = (self._midpoint - np.asarray(scores, np.float64)) / self._width
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(exponents, -60.0, 60.0))), np.float64)
