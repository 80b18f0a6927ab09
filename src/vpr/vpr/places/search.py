"""How much each remembered place looks like where the robot is, by the configured method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.places.alignment import DistanceGrid, FrameGrid, PlaceGrid
from vpr.places.encoded import EncodedPlaces, Places
from vpr.places.methods import SequenceMethod
from vpr.places.sequence import Row, SequenceMatcher, contrast_enhanced, normalised_row
from vpr.places.shortlist import GrowingShortlist, Shortlist
from vpr.records import Pose

CARRIED_STEPS = (0, 1, 2)  # cells by which the last frame's best places may have moved on
CARRIED_PER_CANDIDATE = 4  # places carried on for each match handed on
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ScoredPlaces:
    """The places that were compared, ascending, with their scores and similarities.

    A place of the score -inf is out of question. Similarities are cosines of what the method
    compares.
    """

    places: Indices
    steps: Indices  # ascending: where along the paths each is, in steps of the alignment
    scores: Row
    similarities: Row
    frames: int  # that the scores are of
    searched: int  # how many there were to be the answer: steps of the alignment, or else places


class PlaceSearch:
    """Compares each new view with the same places, and keeps what it needs to be quick about it."""

    def __init__(
        self, config: SequenceMatchingConfig, method: SequenceMethod, places: Places
    ) -> None:
        """All of the places are of finished sessions.

        Raises:
            WeightsError: the method's transform is of another model than the places.
            MapError: the map that the places are read from is damaged.
        """
        self.places = places
        self._config = config
        self._method = method
        self._window = min(method.matched_frames, config.sequence_length)
        self._matcher = SequenceMatcher(config.model_copy(update={"sequence_length": self._window}))
        self._encoded_places = EncodedPlaces(method.encoder, places)
        self._shortlisting: EncodedPlaces | None = None
        if method.shortlister is not None:
            self._shortlisting = EncodedPlaces(method.shortlister, places)
        aligned = config.alignment_step > 0.0 and self._window > 1
        self._grid: PlaceGrid = (
            DistanceGrid(places, config.alignment_step) if aligned else FrameGrid(places)
        )
        self._counted: Indices = np.arange(0)
        self._shortlist: GrowingShortlist | None = None
        if self._shortlisting is None and not config.contrast_window:
            self._shortlist = GrowingShortlist(self._encoded_places, config)
        self.begin_session()

    def begin_session(self) -> None:
        """The views to come are of a new path."""
        self._matcher.clear()
        self._grid.begin_session()
        self._carried: Indices = np.empty(0, np.int64)
        for encoded in (self._encoded_places, self._shortlisting):
            if encoded is not None:
                encoded.live.forget()

    def settle(self, searched: int) -> None:
        """Wait for all that is prepared in the background, for results that repeat."""
        if self._shortlist is not None:
            self._shortlist.settle(searched)

    def match(
        self, descriptor: NDArray[np.float32], odometry: Pose | None, searched: int
    ) -> ScoredPlaces:
        """Compare the newest view with the first ``searched`` places.

        Call ``append`` next, after the memory's.
        """
        self._advance = self._grid.advance(odometry)
        self._encoded = self._encoded_places.live(descriptor)
        forgotten = self.places.forgotten
        shortlist = None
        if self._shortlist is not None:
            shortlist = self._shortlist.of_first(searched, forgotten)
        if shortlist is None:
            found = self._match_all(descriptor, searched)
        else:
            found = self._match_shortlisted(shortlist, searched)
        for gone in forgotten:
            first, last = np.searchsorted(found.places, (gone.start, gone.stop))
            found.scores[first:last] = -np.inf
        return found

    def append(self) -> None:
        """The newest view has become one of the places."""
        self._encoded_places.append(self._encoded)
        if self._shortlisting is not None:
            self._shortlisting.append(self._encoded_for_shortlist)
        newest = len(self.places) - 1
        self._grid.append(self._advance, new_session=newest == self.places.session_starts[-1])

    def _match_all(self, descriptor: NDArray[np.float32], searched: int) -> ScoredPlaces:
        similarities = self._encoded_places.similarities(self._encoded)
        if self._shortlisting is not None:
            self._encoded_for_shortlist = self._shortlisting.live(descriptor)
        if len(similarities) == 0:
            self._matcher.push(similarities, np.zeros(1, np.int64), self._advance)
            none = np.empty(0, np.int64)
            return ScoredPlaces(none, none, similarities, similarities, 1, 0)
        cells = self._grid.row(similarities)
        before = self._grid.cells_before(searched)
        row = normalised_row(cells, before, self._config.prior_places)
        if self._config.contrast_window:
            row = contrast_enhanced(row, self._config.contrast_window)
        starts = self._grid.session_starts
        self._matcher.push(row, starts, min(self._advance, self._window))
        scores = self._matcher.scores(starts, len(row))
        scores = self._grid.of_places(scores, cells, similarities)[:searched]
        kept = self._kept_by_hierarchy(scores)
        places = self._first_places(searched)
        steps = self._grid.cells_of(places)
        return ScoredPlaces(
            places, steps, kept, similarities[:searched], len(self._matcher), before
        )

    def _first_places(self, count: int) -> Indices:
        """0 .. count - 1, which need not be written anew for every view."""
        if count > len(self._counted):
            self._counted = np.arange(count + count // 8)
        return self._counted[:count]

    def _kept_by_hierarchy(self, scores: Row) -> Row:
        """HVPR: only the places that the sequence descriptor shortlists can be the answer."""
        kept = self._config.hierarchy_size
        if self._shortlisting is None or len(scores) <= kept:
            return scores
        similarities = self._shortlisting.similarities(self._encoded_for_shortlist)[: len(scores)]
        others = np.argpartition(-similarities, kept - 1)[kept:]
        result = scores.copy()
        result[others] = -np.inf
        return result

    def _match_shortlisted(self, shortlist: Shortlist, searched: int) -> ScoredPlaces:
        """As ``_match_all``, where places far from the view have the average similarity.

        Compared are the most similar places, those that the last frame's best ones lead to, and
        those that the shortlist has not got yet.
        """
        near, near_similarities = shortlist.nearest(self._encoded)
        own = np.arange(len(shortlist), searched)
        every = np.concatenate([near, self._carried_on(searched), own])
        places, first = np.unique(every, return_index=True)
        compared = first < len(near)
        similarities = np.empty(len(places), np.float32)
        similarities[compared] = near_similarities[first[compared]]
        others = places[~compared]
        similarities[~compared] = self._encoded_places.similarities_at(others, self._encoded)
        mean, deviation = shortlist.average(self._encoded)
        values = (similarities - np.float32(mean)) / np.float32(max(deviation, 1e-6))
        scores = self._scores_of(places, values)
        best = np.argsort(-scores)[: self._config.top_k * CARRIED_PER_CANDIDATE]
        self._carried = places[best]
        steps, before = self._grid.cells_of(places), self._grid.cells_before(searched)
        return ScoredPlaces(places, steps, scores, similarities, len(self._matcher), before)

    def _scores_of(self, places: Indices, values: Row) -> Row:
        """Push the values of ascending places, zero for all others, and score those places."""
        cells = self._grid.cells_of(places)
        starts, count = self._grid.session_starts, len(self._grid)
        advance = min(self._advance, self._window)
        begins = np.ones(len(cells), bool)
        np.not_equal(cells[1:], cells[:-1], out=begins[1:])
        if begins.all():
            self._matcher.push_sparse(cells, values, starts, count, advance)
            return self._matcher.scores_at(cells, starts)
        cell, of_cell = cells[begins], np.cumsum(begins) - 1
        highest = np.maximum.reduceat(values, np.flatnonzero(begins))
        self._matcher.push_sparse(cell, highest, starts, count, advance)
        scores = self._matcher.scores_at(cell, starts)[of_cell]
        return np.where(values >= highest[of_cell], scores, np.float32(-np.inf))

    def _carried_on(self, searched: int) -> Indices:
        """Places next to the last frame's best ones, on from them; some of them twice."""
        steps = np.array(CARRIED_STEPS) * max(1, self._advance)
        if self._config.search_reverse:
            steps = np.union1d(steps, -steps)
        moved = (self._carried[:, None] + steps[None]).ravel()
        return moved[(moved >= 0) & (moved < searched)]
