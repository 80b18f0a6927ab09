"""Sums of similarities along straight lines through the last frames, in O(N) a frame.

A line of slope v passes, at frame t, through position ``slot + floor(v * t + phase)``: seen from
its slot it stands still. So each slope needs one accumulator a slot; the newest row is added where
its positions fall, the row that leaves the window is taken out where it was added, whatever the
length of the window. Sums are integers: they do not drift, and equal the convolution exactly.

Where a line of a broken slope steps aside depends on the phase. Lines are wanted that begin to do
so half a step away from the newest frame, as rounding from there would have it; a few phases are
kept for each slope and the one nearest to that is read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

RESOLUTION = 2.0**-10  # of a row's values; int16 holds -32 .. 32, beyond which they saturate
LARGEST = np.iinfo(np.int16).max
SMALLEST_RING = 256  # slots
ROOM_SHARE = 8  # one slot more for so many, for places to come
PHASES = 10  # kept at most for each slope
ROUNDING = 1e-6  # a line that just reaches a step aside may be rounded over it

Positions = NDArray[np.int64]
Values = NDArray[np.int16]


def quantised(row: NDArray[np.float32]) -> Values:
    """A row as multiples of ``RESOLUTION``; no frame can weigh more than 32 in a sum."""
    scaled = row * np.float32(1.0 / RESOLUTION)
    return np.clip(np.rint(scaled, out=scaled), -LARGEST, LARGEST, out=scaled).astype(np.int16)


@dataclass(frozen=True)
class LineRow:
    """One frame's values; ``positions`` None means 0, 1, 2, ... (a dense row)."""

    frame: int
    values: Values
    positions: Positions | None


class LineSums:
    """The sums of some slopes and phases, one for each line that passes within the window."""

    def __init__(self, slopes: NDArray[np.float64], phases: NDArray[np.float64]) -> None:
        """Slopes and phases (S,), pair by pair."""
        self._slopes, self._phases = slopes, phases
        self.clear(SMALLEST_RING)

    @property
    def slots(self) -> int:
        """How many lines of a slope there is room for."""
        return self._rings.shape[1]

    def clear(self, slots: int) -> None:
        """Forget all sums and have room for so many lines of each slope."""
        self._rings: NDArray[np.int32] = np.zeros((len(self._slopes), slots), np.int32)

    def off_centre(self, frame: int) -> NDArray[np.float64]:
        """(S,) how far, 0 .. 0.5, lines are at a frame from the middle between two steps aside."""
        return np.asarray(np.abs((self._slopes * frame + self._phases) % 1.0 - 0.5))

    def add(self, row: LineRow, sign: int) -> None:
        """Add a row to the lines through its positions, or with sign -1 take it out."""
        values = row.values.astype(np.int32)
        if row.positions is not None:
            every = np.arange(len(self._slopes))
            self._rings.reshape(-1)[self._flat(row.positions, row.frame, every)] += sign * values
            return
        accumulate = np.add if sign > 0 else np.subtract
        for ring, first in zip(self._rings, self._first_slots(row.frame), strict=True):
            split = self.slots - first
            whole, wrapped = ring[first : first + len(values)], ring[: max(len(values) - split, 0)]
            accumulate(whole, values[:split], out=whole)
            accumulate(wrapped, values[split:], out=wrapped)

    def dense(self, which: int, frame: int, count: int) -> NDArray[np.int32]:
        """(count,) sums of the lines of one slope through positions 0 .. count - 1 at a frame."""
        ring, first = self._rings[which], self._first_slots(frame)[which]
        split = self.slots - first
        return np.concatenate([ring[first : first + count], ring[: max(count - split, 0)]])

    def at(self, which: NDArray[np.int64], positions: Positions, frame: int) -> NDArray[np.int32]:
        """(K, M) sums of the lines of some slopes that pass ``positions`` at a frame."""
        return self._rings.reshape(-1)[self._flat(positions, frame, which)]

    def _flat(self, positions: Positions, frame: int, which: NDArray[np.int64]) -> Positions:
        """(K, M) where lines of some slopes are in all rings one after the other."""
        slots = (positions + self._first_slots(frame)[which, None]) % self.slots
        return np.asarray(slots + which[:, None] * self.slots)

    def _first_slots(self, frame: int) -> NDArray[np.int64]:
        """(S,) slots of the lines that pass position 0 at a frame."""
        moved = np.floor(self._slopes * frame + self._phases).astype(np.int64)
        return np.asarray(-moved % self.slots)


class LineMatcher:
    """Best mean along lines of several slopes that end in the newest frame.

    Rows may grow from frame to frame, and may be sparse. What a line meets outside of a row counts
    as zero.
    """

    def __init__(self, length: int, slopes: NDArray[np.float64]) -> None:
        self._length = length
        phases = [_phases_of(float(slope), length) for slope in slopes]
        counts = [len(values) for values in phases]
        self._sums = LineSums(np.repeat(slopes, counts), np.concatenate(phases))
        self._firsts = np.cumsum([0, *counts])  # of each slope, among the sums
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
        self._rows.append(row)
        self._sums.add(row, 1)
        if len(self._rows) > self._length:
            self._sums.add(self._rows.popleft(), -1)

    def amend(self, values: Values, positions: Positions | None = None, extent: int = 0) -> None:
        """Put another row in place of the newest frame's; arguments as of ``push``."""
        self._sums.add(self._rows.pop(), -1)
        self._frame -= 1
        self.push(values, positions, extent)

    def best(self, count: int) -> NDArray[np.float32]:
        """(count,) best mean over the slopes of the lines that end at each position."""
        first, *others = self._centred().tolist()
        total = self._sums.dense(first, self._frame, count)
        for which in others:
            np.maximum(total, self._sums.dense(which, self._frame, count), out=total)
        return self._means(total)

    def best_at(self, positions: Positions) -> NDArray[np.float32]:
        """As ``best``, at the given positions alone."""
        return self._means(self._sums.at(self._centred(), positions, self._frame).max(axis=0))

    def _make_room(self, slots: int) -> None:
        if slots <= self._sums.slots:
            return
        self._sums.clear(slots + max(SMALLEST_RING, slots // ROOM_SHARE))
        for row in self._rows:
            self._sums.add(row, 1)

    def _centred(self) -> NDArray[np.int64]:
        """Of each slope the sums whose phase is best now."""
        off = self._sums.off_centre(self._frame)
        bounds = pairwise(self._firsts.tolist())
        return np.array([first + off[first:last].argmin() for first, last in bounds])

    def _means(self, total: NDArray[np.int32]) -> NDArray[np.float32]:
        means = total.astype(np.float32)
        means *= np.float32(RESOLUTION)
        means /= np.float32(len(self._rows))
        return means


def _phases_of(slope: float, length: int) -> NDArray[np.float64]:
    """As few as needed: lines that hardly slope need not step aside within the window at all."""
    if slope.is_integer():
        return np.array([0.5])
    drift = abs(slope - round(slope)) * (length - 1)
    enough = int(1.0 / (1.0 - 2.0 * drift) + ROUNDING) + 1 if drift < 0.5 else PHASES
    count = min(enough, PHASES)
    return np.arange(count) / count
