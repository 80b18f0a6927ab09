"""From the distance of two descriptors to the probability that they show the same place.

A monotone map, fitted on drives that were not trained on and kept with the model whose distances
it reads.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class PrecisionThreshold(BaseModel):
    """A distance below which matches are right often enough, and on how many drives.

    With ``confidence``, the matches of a drive that are no further hold ``wanted_precision`` on a
    share ``assured_drives`` of all drives; see ``vpr.learning.calibrating``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    distance: Annotated[float, Field(ge=0.0)]
    wanted_precision: Probability
    wanted_drives: Probability  # share of drives that was asked for
    confidence: Probability
    assured_drives: Probability  # less than asked for where the calibration drives are few
    drives: int
    accepted: int  # calibration matches below the distance


class FallingMap(BaseModel):
    """Piecewise-linear map from distance to probability that never rises, level beyond its ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    distances: tuple[float, ...]
    probabilities: tuple[Probability, ...]

    @model_validator(mode="after")
    def _monotone(self) -> Self:
        if len(self.distances) != len(self.probabilities) or not self.distances:
            raise ValueError("a calibration needs as many probabilities as distances")
        if (np.diff(self.distances) <= 0).any() or (np.diff(self.probabilities) > 0).any():
            raise ValueError("a calibration's distances must rise and its probabilities must not")
        return self

    def __call__(self, distances: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of distances of any shape."""
        return np.interp(np.asarray(distances, np.float64), self.distances, self.probabilities)


class Calibration(BaseModel):
    """P(same place) of L2 distances.

    A distance means less for the nearest of all places than for one behind it, which is usually
    a neighbour of the right one: ``best`` is for the nearest, ``further`` for the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    best: FallingMap
    further: FallingMap
    thresholds: tuple[PrecisionThreshold, ...] = ()

    def __call__(self, distances: ArrayLike) -> NDArray[np.float64]:
        """P(same place) of candidates (..., k) of one query each, the nearest first."""
        values = np.asarray(distances, np.float64)
        probabilities = self.further(values)
        probabilities[..., :1] = self.best(values[..., :1])
        return probabilities
