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
from fractions import Fraction

import numpy as np
from numba import njit
from numpy.typing import NDArray

RESOLUTION = 2.0**-10  # of a row's values; int16 holds -32 .. 32, beyond which they saturate
LARGEST = np.iinfo(np.int16).max
SMALLEST_RING = 256  # slots
ROOM_SHARE = 8  # one slot more for so many, for places to come
PHASES = 10  # at most, kept for each slope that is not whole
ROUNDING = 1e-6  # a line that just reaches a step aside may be rounded over it
SAME_SLOPE = 1e-9  # what is nearer to a fraction is that fraction

Positions = NDArray[np.int64]
Values = NDArray[np.int16]
Sums = NDArray[np.int32]
Reals = NDArray[np.float64]


@njit(cache=True, nogil=True)
def _add(ring: Sums, first: int, values: Values, sign: int) -> None:
    """Add values to the slots from ``first`` on, and round the end of the ring."""
    start = first % len(ring)
    whole = min(len(values), len(ring) - start)
    for values_there, there in (
        (values[:whole], ring[start : start + whole]),
        (values[whole:], ring[: len(values) - whole]),
    ):
        for k in range(len(there)):
            there[k] += sign * np.int32(values_there[k])


@njit(cache=True, nogil=True)
def _exchange_in(ring: Sums, first: int, added: Values, removed: Values) -> None:
    """As ``_add`` of the difference of two rows of one length."""
    start = first % len(ring)
    whole = min(len(added), len(ring) - start)
    for in_place, out_of_place, there in (
        (added[:whole], removed[:whole], ring[start : start + whole]),
        (added[whole:], removed[whole:], ring[: len(added) - whole]),
    ):
        for k in range(len(there)):
            there[k] += np.int32(in_place[k]) - np.int32(out_of_place[k])


@njit(cache=True, nogil=True)
def _first_slot(slope: float, phase: float, frame: int, slots: int) -> int:
    """Slot of the line that passes position 0 at a frame."""
    return -int(np.floor(slope * frame + phase)) % slots


@njit(cache=True, nogil=True)
def _add_row(
    rings: Sums, slopes: Reals, phases: Reals, frame: int, values: Values, sign: int
) -> None:
    """Add a frame's dense row to each ring."""
    for which in range(len(rings)):
        first = _first_slot(slopes[which], phases[which], frame, rings.shape[1])
        _add(rings[which], first, values, sign)


@njit(cache=True, nogil=True)
def _exchange(
    rings: Sums,
    slopes: Reals,
    phases: Reals,
    frame: int,
    added: Values,
    frame_removed: int,
    removed: Values,
) -> None:
    """Add one frame's row to each ring and take another's out, in one pass."""
    slots = rings.shape[1]
    for which in range(len(rings)):
        ring, slope, phase = rings[which], slopes[which], phases[which]
        first = _first_slot(slope, phase, frame, slots)
        shift = (_first_slot(slope, phase, frame_removed, slots) - first) % slots
        if shift > slots // 2:
            shift -= slots
        low, high = max(0, shift), min(len(added), len(removed) + shift)
        if high <= low:
            _add(ring, first, added, 1)
            _add(ring, first + shift, removed, -1)
            continue
        _exchange_in(ring, first + low, added[low:high], removed[low - shift : high - shift])
        _add(ring, first, added[:low], 1)
        _add(ring, first + high, added[high:], 1)
        _add(ring, first + shift, removed[: low - shift], -1)
        _add(ring, first + high, removed[high - shift :], -1)


@njit(cache=True, nogil=True)
def _centred(slope: float, phases: Reals, first: int, last: int, frame: int) -> int:
    """Which of a slope's phases is nearest to half a step from stepping aside at a frame."""
    best, least = first, 1.0
    for which in range(first, last):
        line = slope * frame + phases[which]
        off = abs(line - np.floor(line) - 0.5)
        if off < least:
            best, least = which, off
    return best


@njit(cache=True, nogil=True)
def _highest(
    rings: Sums,
    slopes: Reals,
    phases: Reals,
    bounds: Positions,
    frame: int,
    scale: float,
    result: NDArray[np.float32],
) -> None:
    """Largest sum over the slopes, each by its best phase now, times ``scale``.

    ``bounds``: (slopes + 1,) the first phase of each slope.
    """
    for index in range(len(bounds) - 1):
        slope = slopes[bounds[index]]
        which = _centred(slope, phases, bounds[index], bounds[index + 1], frame)
        ring = rings[which]
        start = _first_slot(slope, phases[which], frame, len(ring))
        whole = min(len(result), len(ring) - start)
        for sums, of_part in (
            (ring[start : start + whole], result[:whole]),
            (ring[: len(result) - whole], result[whole:]),
        ):
            for k in range(len(of_part)):
                mean = np.float32(sums[k]) * np.float32(scale)
                of_part[k] = mean if index == 0 else max(of_part[k], mean)


@njit(cache=True, nogil=True)
def _add_at(
    rings: Sums,
    slopes: Reals,
    phases: Reals,
    frame: int,
    positions: Positions,
    values: Values,
    sign: int,
) -> None:
    """As ``_add_row``, of a row that has values at some positions alone."""
    slots = rings.shape[1]
    for which in range(len(rings)):
        ring, first = rings[which], _first_slot(slopes[which], phases[which], frame, slots)
        for k in range(len(positions)):
            slot = first + positions[k]
            ring[slot if slot < slots else slot - slots] += sign * np.int32(values[k])


@njit(cache=True, nogil=True)
def _highest_at(
    rings: Sums,
    slopes: Reals,
    phases: Reals,
    bounds: Positions,
    frame: int,
    positions: Positions,
    scale: float,
    result: NDArray[np.float32],
) -> None:
    """As ``_highest``, at some positions alone."""
    slots = rings.shape[1]
    for index in range(len(bounds) - 1):
        slope = slopes[bounds[index]]
        which = _centred(slope, phases, bounds[index], bounds[index + 1], frame)
        ring, first = rings[which], _first_slot(slope, phases[which], frame, slots)
        for k in range(len(positions)):
            slot = first + positions[k]
            mean = np.float32(ring[slot if slot < slots else slot - slots]) * np.float32(scale)
            result[k] = mean if index == 0 else max(result[k], mean)


@njit(cache=True, nogil=True)
def quantised(row: NDArray[np.float32]) -> Values:
    """A row as multiples of ``RESOLUTION``; no frame can weigh more than 32 in a sum."""
    result = np.empty(len(row), np.int16)
    for k in range(len(row)):
        scaled = np.rint(row[k] * np.float32(1.0 / RESOLUTION))
        result[k] = np.int16(min(max(scaled, np.float32(-LARGEST)), np.float32(LARGEST)))
    return result


@dataclass(frozen=True)
class LineRow:
    """One frame's values; ``positions`` None means 0, 1, 2, ... (a dense row)."""

    frame: int
    values: Values
    positions: Positions | None


class LineSums:
    """The sums of some slopes and phases, one for each line that passes within the window."""

    def __init__(self, slopes: Reals, phases: list[Reals]) -> None:
        """Slopes (S,), and the phases kept for each."""
        counts = [len(values) for values in phases]
        self._slopes, self._phases = np.repeat(slopes, counts), np.concatenate(phases)
        self._bounds: Positions = np.cumsum([0, *counts])
        self.clear(SMALLEST_RING)

    @property
    def slots(self) -> int:
        """How many lines of a slope there is room for."""
        return self._rings.shape[1]

    def clear(self, slots: int) -> None:
        """Forget all sums and have room for so many lines of each slope."""
        self._rings: Sums = np.zeros((len(self._slopes), slots), np.int32)

    def add(self, row: LineRow, sign: int) -> None:
        """Add a row to the lines through its positions, or with sign -1 take it out."""
        lines = self._rings, self._slopes, self._phases, row.frame
        if row.positions is None:
            _add_row(*lines, row.values, sign)
        else:
            _add_at(*lines, row.positions, row.values, sign)

    def exchange(self, added: LineRow, removed: LineRow) -> None:
        """Add one row and take out another."""
        if added.positions is not None or removed.positions is not None:
            self.add(added, 1)
            self.add(removed, -1)
            return
        lines = self._rings, self._slopes, self._phases
        _exchange(*lines, added.frame, added.values, removed.frame, removed.values)

    def highest(self, frame: int, count: int, scale: float) -> NDArray[np.float32]:
        """(count,) over the slopes' lines through positions 0 .. count - 1 at a frame, scaled."""
        result = np.empty(count, np.float32)
        _highest(self._rings, self._slopes, self._phases, self._bounds, frame, scale, result)
        return result

    def highest_at(self, frame: int, positions: Positions, scale: float) -> NDArray[np.float32]:
        """As ``highest``, of the lines through the given positions."""
        result = np.empty(len(positions), np.float32)
        lines = self._rings, self._slopes, self._phases, self._bounds, frame
        _highest_at(*lines, positions, scale, result)
        return result


class LineMatcher:
    """Best mean along lines of several slopes that end in the newest frame.

    Rows may grow from frame to frame, and may be sparse. What a line meets outside of a row counts
    as zero.
    """

    def __init__(self, length: int, slopes: Reals) -> None:
        self._length = length
        slopes = _distinct(slopes, length)
        self._sums = LineSums(slopes, [phases_of(float(slope)) for slope in slopes])
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
        if len(self._rows) > self._length:
            self._sums.exchange(row, self._rows.popleft())
        else:
            self._sums.add(row, 1)

    def amend(self, values: Values, positions: Positions | None = None, extent: int = 0) -> None:
        """Put another row in place of the newest frame's; arguments as of ``push``."""
        self._sums.add(self._rows.pop(), -1)
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
            self._sums.add(row, 1)

    @property
    def _scale(self) -> float:
        """From a sum to the mean of a frame's values."""
        return RESOLUTION / len(self._rows)


def load_kernels() -> None:
    """Compile the sums now, or load them from numba's cache, rather than at the first frames."""
    matcher = LineMatcher(1, np.ones(1))
    row, places = quantised(np.zeros(2, np.float32)), np.arange(2)
    for positions in (None, None, places):
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
