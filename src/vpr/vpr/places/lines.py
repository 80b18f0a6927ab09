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

import numpy as np
from numpy.typing import NDArray

RESOLUTION = 2.0**-10  # of a row's values; int16 holds -32 .. 32, beyond which they saturate
LARGEST = np.iinfo(np.int16).max
SMALLEST_RING = 256  # slots
ROOM_SHARE = 8  # one slot more for so many, for places to come
PHASES = 10  # kept for each slope that is not whole

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
    """The sums of one slope and phase, one for each line that passes within the window."""

    def __init__(self, slope: float, phase: float) -> None:
        self._slope = slope
        self._phase = phase
        self._ring: NDArray[np.int32] = np.zeros(SMALLEST_RING, np.int32)

    @property
    def slots(self) -> int:
        """How many lines there is room for."""
        return len(self._ring)

    def offset(self, frame: int) -> int:
        """By how much the lines have moved at a frame."""
        return int(np.floor(self._slope * frame + self._phase))

    def off_centre(self, frame: int) -> float:
        """How far, 0 .. 0.5, lines at a frame are from the middle between two steps aside."""
        return abs((self._slope * frame + self._phase) % 1.0 - 0.5)

    def resize(self, slots: int, rows: deque[LineRow]) -> None:
        """Make room for more lines and sum up the rows of the window anew."""
        self._ring = np.zeros(slots, np.int32)
        for row in rows:
            self.add(row, 1)

    def clear(self) -> None:
        """Forget all sums."""
        self._ring[:] = 0

    def add(self, row: LineRow, sign: int) -> None:
        """Add a row to the lines through its positions, or with sign -1 take it out."""
        if row.positions is not None:
            self._ring[self._slots_of(row.positions, row.frame)] += sign * row.values.astype(
                np.int32
            )
            return
        accumulate = np.add if sign > 0 else np.subtract
        first, split = self._dense(row.frame, len(row.values))
        whole = self._ring[first : first + split]
        accumulate(whole, row.values[:split], out=whole)
        wrapped = self._ring[: len(row.values) - split]
        accumulate(wrapped, row.values[split:], out=wrapped)

    def dense(self, frame: int, count: int) -> NDArray[np.int32]:
        """(count,) sums of the lines that pass the positions 0 .. count - 1 at a frame."""
        first, split = self._dense(frame, count)
        return np.concatenate([self._ring[first : first + split], self._ring[: count - split]])

    def at(self, positions: Positions, frame: int) -> NDArray[np.int32]:
        """Sums of the lines that pass ``positions`` at a frame."""
        return self._ring[self._slots_of(positions, frame)]

    def _slots_of(self, positions: Positions, frame: int) -> Positions:
        return (positions - self.offset(frame)) % len(self._ring)

    def _dense(self, frame: int, count: int) -> tuple[int, int]:
        first = -self.offset(frame) % len(self._ring)
        return first, min(count, len(self._ring) - first)


class LineMatcher:
    """Best mean along lines of several slopes that end in the newest frame.

    Rows may grow from frame to frame, and may be sparse. What a line meets outside of a row counts
    as zero.
    """

    def __init__(self, length: int, slopes: NDArray[np.float64]) -> None:
        self._length = length
        self._slopes = [_phases_of(float(slope)) for slope in slopes]
        self._sums = [sums for phases in self._slopes for sums in phases]
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
        for sums in self._sums:
            sums.clear()

    def push(self, values: Values, positions: Positions | None = None, extent: int = 0) -> None:
        """Add the newest frame's row.

        Args:
            values: (N,) quantised.
            positions: (N,) distinct, ascending or not; None for 0 .. N - 1.
            extent: one more than the largest position there is; taken from a dense row.
        """
        extent = max(extent, len(values) if positions is None else 0)
        needed = extent + self._span
        if needed > self._sums[0].slots:
            slots = needed + max(SMALLEST_RING, needed // ROOM_SHARE)
            for sums in self._sums:
                sums.resize(slots, self._rows)
        self._frame += 1
        row = LineRow(self._frame, values, positions)
        self._rows.append(row)
        leaving = self._rows.popleft() if len(self._rows) > self._length else None
        for sums in self._sums:
            sums.add(row, 1)
            if leaving is not None:
                sums.add(leaving, -1)

    def amend(self, values: Values, positions: Positions | None = None, extent: int = 0) -> None:
        """Put another row in the place of the newest, as when the camera has not moved on."""
        newest = self._rows.pop()
        for sums in self._sums:
            sums.add(newest, -1)
        self._frame -= 1
        self.push(values, positions, extent)

    def best(self, count: int) -> NDArray[np.float32]:
        """(count,) best mean over the slopes of the lines that end at each position."""
        first, *others = self._centred()
        total = first.dense(self._frame, count)
        for sums in others:
            np.maximum(total, sums.dense(self._frame, count), out=total)
        return self._means(total)

    def best_at(self, positions: Positions) -> NDArray[np.float32]:
        """As ``best``, at the given positions alone."""
        total = np.max([sums.at(positions, self._frame) for sums in self._centred()], axis=0)
        return self._means(total)

    def _centred(self) -> list[LineSums]:
        """Of each slope the sums whose phase is best now."""
        return [
            min(phases, key=lambda sums: sums.off_centre(self._frame)) for phases in self._slopes
        ]

    def _means(self, total: NDArray[np.int32]) -> NDArray[np.float32]:
        exact = total.astype(np.float32) * np.float32(RESOLUTION)
        return np.asarray(exact / np.float32(len(self._rows)))


def _phases_of(slope: float) -> list[LineSums]:
    if slope.is_integer():
        return [LineSums(slope, 0.5)]
    return [LineSums(slope, phase / PHASES) for phase in range(PHASES)]
