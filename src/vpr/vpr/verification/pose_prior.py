"""A pose that somebody guesses, as a prior on where to look: never as a fact.

It only orders the candidates of a query: those it makes likely are verified first, and as the
first good one ends the search, the others are looked at only where none of these is good. All face
the same tests, whatever the guess.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from vpr.records import Covariance, PlaceMatches, Pose

CAPACITY = 200  # guesses that wait for their query


class PosePrior:
    """Guessed poses map_T_base by stamp, and where the map's keyframes are.

    Args:
        sigmas: standard deviations of the guess within which a place is likely.
        slack: m that a revisit may be away from its place.
    """

    def __init__(self, sigmas: float, slack: float) -> None:
        self._sigmas, self._slack = sigmas, slack
        self._guesses: OrderedDict[int, tuple[Pose, Covariance]] = OrderedDict()
        self._places: dict[int, Pose] = {}

    def guess(self, stamp_ns: int, pose: Pose, covariance: Covariance) -> None:
        """Keep the guess for the image of this stamp."""
        self._guesses[stamp_ns] = pose, covariance
        if len(self._guesses) > CAPACITY:
            self._guesses.popitem(last=False)

    def map_is(self, places: Mapping[int, Pose]) -> None:
        """Learn where the keyframes (by id) are in the map, as the pose graph has them now."""
        self._places = dict(places)

    def likely(self, stamp_ns: int, keyframe_id: int) -> bool | None:
        """Whether a keyframe is where the guess is; None where either is not known."""
        guess, place = self._guesses.get(stamp_ns), self._places.get(keyframe_id)
        if guess is None or place is None:
            return None
        pose, covariance = guess
        apart = float(np.linalg.norm(place[:3, 3] - pose[:3, 3]))
        sigma = float(np.sqrt(np.linalg.eigvalsh(covariance[:3, :3]).max()))
        return apart <= self._slack + self._sigmas * sigma

    def ordered(self, matches: PlaceMatches) -> PlaceMatches:
        """The same candidates, the likely ones first; else in the order they came."""
        ranks = [
            self.likely(matches.query_stamp_ns, candidate.reference_id) is not True
            for candidate in matches.candidates
        ]
        order = sorted(range(len(ranks)), key=ranks.__getitem__)
        return replace(matches, candidates=tuple(matches.candidates[i] for i in order))
