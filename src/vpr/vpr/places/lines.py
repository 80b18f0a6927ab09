"""Sums of similarities along straight lines through the last frames, in O(N) a frame.

As long as all rows are dense and the slopes nearly whole they are sums along diagonals; otherwise
each line's sum is carried on for itself. Both give the same to the bit.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vpr.places.diagonal_sums import DiagonalSums
from vpr.places.line_sums import LineRow, LineSums, Positions, Reals, Values

RESOLUTION = 2.0**-10  # of a row's values; int16 holds -32 .. 32, beyond which they saturate
LARGEST = np.iinfo(np.int16).max
SMALLEST_RING = 256  # slots
ROOM_SHARE = 8  # one slot more for so many, for places to come
PHASES = 10  # at most, kept for each slope that is not whole
ROUNDING = 1e-6  # a line that just reaches a step aside may be rounded over it
SAME_SLOPE = 1e-9  # what is nearer to a fraction is that fraction


@njit(cache=True, nogil=True)
def quantised(row: NDArray[np.float32]) -> Values:
    """A row as multiples of ``RESOLUTION``; no frame can weigh more than 32 in a sum."""
    result = np.empty(len(row), np.int16)
    for k in range(len(row)):
        scaled = np.rint(row[k] * np.float32(1.0 / RESOLUTION))
        result[k] = np.int16(min(max(scaled, np.float32(-LARGEST)), np.float32(LARGEST)))
    return result


class LineMatcher:
    """Best mean along lines of several slopes that end in the newest frame.

    Rows may grow from frame to frame, and may be sparse. What a line meets outside of a row counts
    as zero.
    """

    def __init__(self, length: int, slopes: Reals) -> None:
        self._length = length
        slopes = _distinct(slopes, length)
        self._slopes, self._phases = slopes, [phases_of(float(slope)) for slope in slopes]
        # a difference for each diagonal, or a carried sum for each phase
        asides = np.ceil(np.abs(slopes - np.rint(slopes)) * (length - 1))
        self._few_diagonals = asides.sum() + len(slopes) < sum(map(len, self._phases))
        self._sums = self._empty_sums(SMALLEST_RING, dense=True)
        self._span = int(np.ceil(np.abs(slopes).max() * length)) + 2
        self._rows: deque[LineRow] = deque()
        self._frame = 0

    def __len__(self) -> int:
        """Frames in the window."""
        return len(self._rows)

    @property
    def span(self) -> int:
        """Positions that no line of the window can bridge: the gap to leave between sessions."""
        return self._span

    def clear(self) -> None:
        """Begin a new window."""
        self._rows.clear()
        self._sums.clear(self._sums.slots)

    def push(self, values: Values, positions: Positions | None = None, extent: int = 0) -> None:
        """Add the newest frame's row.

        Args:
            values: (N,) quantised.
            positions: (N,) distinct, ascending or not; None for 0 .. N - 1.
            extent: one more than the largest position there is; taken from a dense row.
        """
        self._make_room(max(extent, len(values) if positions is None else 0) + self._span)
        self._frame += 1
        row = LineRow(self._frame, values, positions)
        removed = self._rows.popleft() if len(self._rows) == self._length else None
        if self._began_anew_for(row) or removed is None:
            self._sums.add(row)
        else:
            self._sums.exchange(row, removed)
        self._rows.append(row)

    def amend(self, values: Values, positions: Positions | None = None, extent: int = 0) -> None:
        """Put another row in place of the newest frame's; arguments as of ``push``."""
        self._sums.take_out(self._rows.pop())
        self._frame -= 1
        self.push(values, positions, extent)

    def best(self, count: int) -> NDArray[np.float32]:
        """(count,) best mean over the slopes of the lines that end at each position."""
        return self._sums.highest(self._frame, count, self._scale)

    def best_at(self, positions: Positions) -> NDArray[np.float32]:
        """As ``best``, at the given positions alone."""
        return self._sums.highest_at(self._frame, positions, self._scale)

    def _make_room(self, slots: int) -> None:
        if slots <= self._sums.slots:
            return
        self._sums.clear(slots + max(SMALLEST_RING, slots // ROOM_SHARE))
        for row in self._rows:
            self._sums.add(row)

    def _began_anew_for(self, row: LineRow) -> bool:
        """Whether this row makes the window all dense, or not, and it is summed the other way now.

        The rows that are left of the window are in the new sums then.
        """
        dense = row.positions is None and all(kept.positions is None for kept in self._rows)
        if isinstance(self._sums, DiagonalSums) == (dense and self._few_diagonals):
            return False
        self._sums = self._empty_sums(self._sums.slots, dense)
        for kept in self._rows:
            self._sums.add(kept)
        return True

    def _empty_sums(self, slots: int, dense: bool) -> LineSums | DiagonalSums:
        if dense and self._few_diagonals:
            return DiagonalSums(self._length, self._slopes, self._phases, slots)
        return LineSums(self._slopes, self._phases, slots)

    @property
    def _scale(self) -> float:
        """From a sum to the mean of a frame's values."""
        return RESOLUTION / len(self._rows)


def load_kernels() -> None:
    """Compile the sums now, or load them from numba's cache, rather than at the first frames."""
    row, places = quantised(np.zeros(2, np.float32)), np.arange(2)
    for length, slope in ((1, 1.0), (6, 0.9)):  # of lines, along diagonals
        matcher = LineMatcher(length, np.array([slope]))
        for positions in (*[None] * (length + 1), places):
            matcher.push(row, positions, 2)
            matcher.best(2)
            matcher.best_at(places)


def _distinct(slopes: Reals, length: int) -> Reals:
    """Slopes whose lines differ: one that steps aside nowhere in the window is as good as whole."""
    whole = np.rint(slopes)
    aside = np.abs(slopes - whole) * (length - 1)
    return np.asarray(np.unique(np.where(aside < 0.5 - ROUNDING, whole, slopes)))


def phases_of(slope: float) -> Reals:
    """So many that one of them is always half a step from stepping aside, or nearly.

    A slope p / q needs q: its lines come back to the same phase after q frames.
    """
    count = Fraction(slope).limit_denominator(PHASES).denominator
    if abs(slope * count - round(slope * count)) > SAME_SLOPE:
        count = PHASES
    return (0.5 + ROUNDING + np.arange(count) / count) % 1.0
