"""From the distance of two descriptors to the probability that they show the same place.

Monotone maps, fitted on drives that were not trained on and kept with the model whose distances
they read: one for single images, one for sequences.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

SPACING_FACTOR = 1.5  # by which sequences may be longer or shorter than the calibrated ones
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class PrecisionThreshold(BaseModel):
    """A reduced distance below which matches are right often enough, and on how many drives.

    With ``confidence``, the matches of a drive that are no further hold ``wanted_precision`` on a
    share ``assured_drives`` of all drives; see ``vpr.learning.calibrating``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    distance: float
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


class ReducedMap(FallingMap):
    """P(same place) of a distance, whatever the memory's size and however common the views.

    By Bayes' rule the odds that the nearest of n places is the right one fall as 1 / n where other
    places' distances are independent, and slower where they are alike; and a distance says less
    where either view is near to places that are certainly others (its impostor distance, see
    ``vpr.models.impostors``). Both move the falling map along its axis: it is read at
    ``distance - impostor_weight * impostor_distance + places_weight * log(n)``.
    """

    impostor_weight: Annotated[float, Field(ge=0.0)] = 0.0
    places_weight: Annotated[float, Field(ge=0.0)] = 0.0

    def reduced(
        self, distances: ArrayLike, impostor_distances: ArrayLike, places: ArrayLike
    ) -> NDArray[np.float64]:
        """Distances with the two influences taken out; arguments may broadcast.

        Args:
            impostor_distances: mean of the two views' distances to their nearest impostors.
            places: how many places were searched, one or more.
        """
        common = self.impostor_weight * np.asarray(impostor_distances, np.float64)
        crowd = self.places_weight * np.log(np.asarray(places, np.float64))
        return np.asarray(np.asarray(distances, np.float64) - common + crowd)


class Calibration(BaseModel):
    """P(same place) of L2 distances.

    A distance means less for the nearest of all places than for one behind it, which is usually
    a neighbour of the right one: ``best`` is for the nearest, ``further`` for the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    best: ReducedMap
    further: ReducedMap
    thresholds: tuple[PrecisionThreshold, ...] = ()  # on reduced distances of the nearest

    def __call__(
        self, distances: ArrayLike, impostor_distances: ArrayLike, places: ArrayLike
    ) -> NDArray[np.float64]:
        """P(same place) of candidates (k,) of one query, the nearest first."""
        return np.concatenate(
            [
                part(part.reduced(distances, impostor_distances, places))[ranks]
                for part, ranks in ((self.best, slice(0, 1)), (self.further, slice(1, None)))
            ]
        )

    def as_best(
        self, distances: ArrayLike, impostor_distances: ArrayLike, places: ArrayLike
    ) -> NDArray[np.float64]:
        """What each distance (k,) would mean if it were the nearest one's."""
        return self.best(self.best.reduced(distances, impostor_distances, places))


class SequenceCalibration(Calibration):
    """P(same place) of sequence scores; ``distances`` are scores with the sign turned.

    It holds for the matching that it was fitted with: a score depends on how many frames are
    compared, and on how far apart they are.
    """

    method: str
    sequence_length: int
    spacing: Annotated[float, Field(gt=0.0)]  # m between two frames compared, median

    def holds_for(self, method: str, sequence_length: int, spacing: float | None) -> bool:
        """Whether scores of such a matching mean what they meant here.

        Args:
            spacing: m between two frames compared; None, where nothing tells it, is taken to be
                another one.
        """
        same = (method, sequence_length) == (self.method, self.sequence_length)
        return (
            same
            and spacing is not None
            and (self.spacing / SPACING_FACTOR <= spacing <= self.spacing * SPACING_FACTOR)
        )
