"""How much each remembered place looks like where the robot is, by the configured method."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.places.alignment import Odometer, PlaceGrid
from vpr.places.encoded import EncodedPlaces, Places
from vpr.places.methods import SequenceMethod
from vpr.places.sequence import Row, SequenceMatcher, contrast_enhanced, normalised_row
from vpr.places.shortlist import Shortlist
from vpr.records import Pose

CARRIED_STEPS = (0, 1, 2)  # cells by which the last frame's best places may have moved on
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ScoredPlaces:
    """The places that were compared, ascending, with their scores and similarities.

    A place of the score -inf is out of question. Similarities are cosines of what the method
    compares.
    """

    places: Indices
    scores: Row
    similarities: Row
    frames: int  # that the scores are of


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
        self._odometer = Odometer(config.alignment_step if self._window > 1 else 0.0)
        self._grid = PlaceGrid()
        for first, last in pairwise([*places.session_starts.tolist(), len(places)]):
            self._odometer.forget()
            advances = self._odometer.advances(places.odometry(first, last))
            self._grid.extend(advances, new_session=True)
        self._shortlist: Shortlist | None = None
        self.begin_session()

    def begin_session(self) -> None:
        """The views to come are of a new path; many places are indexed for approximate search."""
        self._matcher.clear()
        self._odometer.forget()
        self._carried: Indices = np.empty(0, np.int64)
        for encoded in (self._encoded_places, self._shortlisting):
            if encoded is not None:
                encoded.live.forget()
        known = len(self.places)
        large = 0 < self._config.shortlist_above <= known
        if large and self._shortlisting is None and not self._config.contrast_window:
            self._shortlist = Shortlist(self._encoded_places, known, self._config)

    def match(
        self, descriptor: NDArray[np.float32], odometry: Pose | None, searched: int
    ) -> ScoredPlaces:
        """Compare the newest view with the first ``searched`` places.

        Call ``append`` next, after the memory's.
        """
        self._advance = self._odometer.advance(odometry)
        self._encoded = self._encoded_places.live(descriptor)
        if self._shortlist is not None and len(self._shortlist) <= searched:
            return self._match_shortlisted(self._shortlist, searched)
        return self._match_all(descriptor, searched)

    def append(self) -> None:
        """The newest view has become one of the places."""
        self._encoded_places.append(self._encoded)
        if self._shortlisting is not None:
            self._shortlisting.append(self._encoded_for_shortlist)
        newest = len(self.places) - 1
        self._grid.append(self._advance, new_session=newest in self.places.session_starts[-1:])

    def _match_all(self, descriptor: NDArray[np.float32], searched: int) -> ScoredPlaces:
        similarities = self._encoded_places.similarities(self._encoded)
        if self._shortlisting is not None:
            self._encoded_for_shortlist = self._shortlisting.live(descriptor)
        if len(similarities) == 0:
            self._matcher.push(similarities, np.zeros(1, np.int64), self._advance)
            return ScoredPlaces(np.empty(0, np.int64), similarities, similarities, 1)
        cells = self._grid.row(similarities)
        before = self._grid.cells_before(searched)
        row = normalised_row(cells, before, self._config.prior_places)
        if self._config.contrast_window:
            row = contrast_enhanced(row, self._config.contrast_window)
        starts = self._grid.session_starts
        self._matcher.push(row, starts, min(self._advance, self._window))
        scores = self._matcher.scores(starts, len(row))
        scores = self._of_places(scores, cells, similarities)[:searched]
        for rows in self.places.forgotten:
            scores[rows] = -np.inf
        kept = self._kept_by_hierarchy(scores)
        return ScoredPlaces(np.arange(searched), kept, similarities[:searched], len(self._matcher))

    def _of_places(self, scores: Row, cells: Row, similarities: Row) -> Row:
        """Scores of cells to those of places: the place of a cell that looks most alike has it."""
        if self._grid.one_to_one:
            return scores
        cell = self._grid.cell_of_place
        best = similarities >= cells[cell]
        return np.where(best, scores[cell], -np.inf).astype(np.float32)

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
        """As ``_match_all``, where all but the most similar places have the average similarity."""
        near, near_similarities = shortlist.nearest(self._encoded)
        own = np.arange(len(shortlist), searched)
        places = np.concatenate([near, own])
        own_similarities = self._encoded_places.descriptors(own) @ self._encoded
        similarities = np.concatenate([near_similarities, own_similarities]).astype(np.float32)
        sample = shortlist.sampled(self._encoded)
        values = (similarities - sample.mean()) / max(float(sample.std()), 1e-6)
        cells = self._grid.cell_of_place[places]
        order = np.lexsort((-values, cells))
        cells, first = np.unique(cells[order], return_index=True)
        values, places, similarities = (x[order][first] for x in (values, places, similarities))
        starts = self._grid.session_starts
        advance = min(self._advance, self._window)
        self._matcher.push_sparse(cells, values, starts, len(self._grid), advance)
        scores = self._matcher.scores_at(cells, starts)
        return self._with_carried(ScoredPlaces(places, scores, similarities, 0), searched)

    def _with_carried(self, found: ScoredPlaces, searched: int) -> ScoredPlaces:
        """Also score the places next to the last frame's best, which this frame may have missed."""
        steps = np.array(CARRIED_STEPS) * max(1, self._advance)
        if self._config.search_reverse:
            steps = np.union1d(steps, -steps)
        moved = np.unique(self._carried[:, None] + steps[None])
        moved = np.setdiff1d(moved[(moved >= 0) & (moved < searched)], found.places)
        starts = self._grid.session_starts
        scores = self._matcher.scores_at(self._grid.cell_of_place[moved], starts)
        similarities = self._encoded_places.descriptors(moved) @ self._encoded
        places = np.concatenate([found.places, moved])
        order = np.argsort(places)
        all_scores = np.concatenate([found.scores, scores])[order].astype(np.float32)
        all_similarities = np.concatenate([found.similarities, similarities])[order]
        places = places[order]
        best = np.argsort(-all_scores)[: self._config.top_k * 4]
        self._carried = places[best]
        return ScoredPlaces(places, all_scores, all_similarities, len(self._matcher))
