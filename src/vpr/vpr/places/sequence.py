"""Matching a sliding window of views against remembered sequences.

After Milford & Wyeth, "SeqSLAM: Visual route-based navigation for sunny summer days and stormy
winter nights", ICRA 2012: each row of similarities is normalised, then summed along straight lines
of several speeds, forwards and if wanted backwards, through the last rows.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from vpr.config import SequenceMatchingConfig
from vpr.places.line_sums import Values
from vpr.places.lines import LineMatcher, quantised

Row = NDArray[np.float32]  # one value for each remembered place, in order


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _standardised(similarities: Row, searched: int, prior_places: float, result: Row) -> None:
    """What ``normalised_row`` says, of one place at least, in two passes."""
    total = 0.0
    for k in range(searched):
        total += similarities[k]
    mean = np.float32(total / searched)
    squares, farthest = 0.0, np.float32(0.0)
    for k in range(searched):
        off = similarities[k] - mean
        squares += off * off
        farthest = max(farthest, abs(off))
    variance = (squares + prior_places * farthest**2) / (searched + prior_places)
    scale = np.float32(0.0 if variance < 1e-12 else 1.0 / np.sqrt(variance))
    for k in range(len(similarities)):
        result[k] = (similarities[k] - mean) * scale


def normalised_row(similarities: Row, searched: int, prior_places: float) -> Row:
    """By how many standard deviations each place stands out of the row.

    What stands out in one row can be compared with what stands out in another, whatever light or
    camera made all views of one of them alike.

    Args:
        similarities: (N,) of the query to every place.
        searched: mean and deviation are those of the first ``searched`` places: the most recent
            ones resemble the query without being a revisit.
        prior_places: pull of the deviation towards that of a row with one hit (its largest
            distance from the mean), in places: a handful of places cannot stand out by much.

    Returns:
        (N,) float32; all zero, which says nothing, when nothing is searched.
    """
    if not searched:
        return np.zeros_like(similarities)
    result = np.empty_like(similarities)
    _standardised(similarities, searched, prior_places, result)
    return result


def load_kernels() -> None:
    """Compile now, or load from numba's cache, rather than at the first frame."""
    normalised_row(np.zeros(1, np.float32), 1, 0.0)


def contrast_enhanced(row: Row, window: int) -> Row:
    """Local contrast normalisation of SeqSLAM: each place against ``window`` places around it.

    A place has to stand out of its neighbourhood, so a whole stretch that looks a little alike (a
    tunnel, a forest) does not outvote the one right place elsewhere. Near the ends the window
    reflects. Values are pulled to zero where a neighbourhood has no contrast of its own.
    """
    values = row.astype(np.float64)
    mean = uniform_filter1d(values, window, mode="reflect")
    square = uniform_filter1d(values**2, window, mode="reflect")
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    floor = 0.1 * max(float(values.std()), 1e-6)  # of a neighbourhood that is all alike
    return np.asarray((values - mean) / (deviation + floor), np.float32)


def searched_slopes(config: SequenceMatchingConfig) -> NDArray[np.float64]:
    """Reference places passed for each query frame, in all trajectories searched."""
    speeds = np.geomspace(config.min_speed_ratio, config.max_speed_ratio, config.speed_steps)
    return np.concatenate([speeds, -speeds]) if config.search_reverse else speeds


class SequenceMatcher:
    """Scores every place as the end of a remembered sequence that the last views retrace.

    A frame costs O(N * slopes), whatever the length of the sequence, without touching descriptors.
    A line stays within the session of the place it ends at. Where it leaves that session, or runs
    into places younger than the row, it collects zero: the average of the row, neither for nor
    against.
    """

    def __init__(self, config: SequenceMatchingConfig) -> None:
        self._lines = LineMatcher(config.sequence_length, searched_slopes(config))

    def __len__(self) -> int:
        return len(self._lines)

    def clear(self) -> None:
        """Begin a new window, as with a new session."""
        self._lines.clear()

    def push(self, row: Row, session_starts: NDArray[np.int64], advance: int = 1) -> None:
        """Add the newest normalised row; rows may grow from push to push as places are added.

        Args:
            session_starts: (S,) ascending index of the first place of each session, first is 0.
            advance: by how many frames the view has moved on. The row stands for all of them; with
                0 it takes the place of the newest.
        """
        laid_out = self._laid_out(quantised(row), session_starts)
        if advance == 0 and len(self._lines):
            self._lines.amend(laid_out)
        for _ in range(advance if len(self._lines) else 1):
            self._lines.push(laid_out)

    def push_sparse(
        self,
        places: NDArray[np.int64],
        values: Row,
        session_starts: NDArray[np.int64],
        count: int,
        advance: int = 1,
    ) -> None:
        """As ``push`` for a row of ``count`` places that is zero at all but the given ones."""
        positions = self._positions(places, session_starts)
        extent = count + (len(session_starts) - 1) * self._lines.span
        row = quantised(values)
        if advance == 0 and len(self._lines):
            self._lines.amend(row, positions, extent)
        for _ in range(advance if len(self._lines) else 1):
            self._lines.push(row, positions, extent)

    def scores(self, session_starts: NDArray[np.int64], count: int) -> Row:
        """(count,) float32: for each place the best mean of the window along a line ending there.

        ``count`` is the length of the newest row.
        """
        gap = self._lines.span
        best = self._lines.best(count + (len(session_starts) - 1) * gap)
        if len(session_starts) == 1:
            return best
        bounds = [*session_starts.tolist(), count]
        parts = [
            best[first + index * gap : last + index * gap]
            for index, (first, last) in enumerate(pairwise(bounds))
        ]
        return np.concatenate(parts)

    def scores_at(self, places: NDArray[np.int64], session_starts: NDArray[np.int64]) -> Row:
        """As ``scores``, for the given places alone."""
        return self._lines.best_at(self._positions(places, session_starts))

    def _positions(
        self, places: NDArray[np.int64], session_starts: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        sessions = session_starts.searchsorted(places, "right") - 1
        return np.asarray(places + sessions * self._lines.span, np.int64)

    def _laid_out(self, values: Values, session_starts: NDArray[np.int64]) -> Values:
        """Sessions one after the other with gaps that no line bridges."""
        if len(session_starts) == 1:
            return values
        gap = self._lines.span
        result = np.zeros(len(values) + (len(session_starts) - 1) * gap, np.int16)
        for index, (first, last) in enumerate(pairwise([*session_starts.tolist(), len(values)])):
            result[first + index * gap : last + index * gap] = values[first:last]
        return result
