"""Matching a sliding window of views against remembered sequences.

After Milford & Wyeth, "SeqSLAM: Visual route-based navigation for sunny summer days and stormy
winter nights", ICRA 2012: each row of similarities is normalised, then summed along straight lines
of several speeds through the last rows. Only the newest row is new work: the older ones are kept.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig

Row = NDArray[np.float32]  # one value for each remembered place, in order


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
    if searched == 0:
        return np.zeros_like(similarities)
    candidates = similarities[:searched].astype(np.float64)
    mean = candidates.mean()
    spread = np.abs(candidates - mean).max()
    variance = (searched * candidates.var() + prior_places * spread**2) / (searched + prior_places)
    if variance < 1e-12:
        return np.zeros_like(similarities)
    return np.asarray((similarities - mean) / np.sqrt(variance), np.float32)


def alignment_shifts(config: SequenceMatchingConfig) -> NDArray[np.int64]:
    """How many places back each row of the window is read: (different speeds, sequence_length).

    Column k belongs to the row of k keyframes ago.
    """
    speeds = np.geomspace(config.min_speed_ratio, config.max_speed_ratio, config.speed_steps)
    back = np.arange(config.sequence_length)
    return np.unique(np.rint(speeds[:, None] * back).astype(np.int64), axis=0)


class SequenceMatcher:
    """Scores every place as the end of a remembered sequence that the last views retrace.

    A push costs O(N) and the scores O(N * speeds * sequence_length) additions, without touching
    descriptors.
    """

    def __init__(self, config: SequenceMatchingConfig) -> None:
        self._shifts = alignment_shifts(config)
        self._rows: deque[Row] = deque(maxlen=config.sequence_length)

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Begin a new window, as with a new session."""
        self._rows.clear()

    def push(self, row: Row) -> None:
        """Add the newest normalised row; rows may grow from push to push as places are added."""
        self._rows.append(row)

    def scores(self, session_starts: NDArray[np.int64]) -> Row:
        """For each place, the best mean of the window's rows along a line that ends there.

        A line stays within the session of the place it ends at. Where it leaves that session, or
        runs into places younger than the row, it collects zero: the average of the row, neither
        for nor against.

        Args:
            session_starts: (S,) ascending index of the first place of each session, first is 0.

        Returns:
            (N,) float32, N the length of the newest row.
        """
        newest = self._rows[-1]
        bounds = np.append(session_starts, len(newest))
        best = np.full(len(newest), -np.inf, np.float32)
        for shifts in self._shifts:
            total = np.zeros(len(newest), np.float32)
            for row, shift in zip(reversed(self._rows), shifts, strict=False):
                for first, last in pairwise(bounds):
                    end = min(last, len(row) + shift)
                    if first + shift < end:
                        total[first + shift : end] += row[first : end - shift]
            np.maximum(best, total, out=best)
        return best / np.float32(len(self._rows))
