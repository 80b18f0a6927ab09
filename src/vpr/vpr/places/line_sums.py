"""Sums along lines of any slope, each kept for itself, in O(1) a line and frame.

A line of slope v passes, at frame t, through position ``slot + floor(v * t + phase)``: seen from
its slot it stands still. So each slope needs one accumulator a slot; the newest row is added where
its positions fall, the row that leaves the window is taken out where it was added, whatever the
length of the window. Sums are integers: they do not drift, and equal the convolution exactly.

Where a line of a broken slope steps aside depends on the phase. Lines are wanted that begin to do
so half a step away from the newest frame, as rounding from there would have it; a few phases are
kept for each slope and the one nearest to that is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

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
def first_slot(slope: float, phase: float, frame: int, slots: int) -> int:
    """Slot of the line that passes position 0 at a frame."""
    return -int(np.floor(slope * frame + phase)) % slots


@njit(cache=True, nogil=True)
def _add_row(
    rings: Sums, slopes: Reals, phases: Reals, frame: int, values: Values, sign: int
) -> None:
    """Add a frame's dense row to each ring."""
    for which in range(len(rings)):
        first = first_slot(slopes[which], phases[which], frame, rings.shape[1])
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
        first = first_slot(slope, phase, frame, slots)
        shift = (first_slot(slope, phase, frame_removed, slots) - first) % slots
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
def centred(slope: float, phases: Reals, first: int, last: int, frame: int) -> int:
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
        which = centred(slope, phases, bounds[index], bounds[index + 1], frame)
        ring = rings[which]
        start = first_slot(slope, phases[which], frame, len(ring))
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
        ring, first = rings[which], first_slot(slopes[which], phases[which], frame, slots)
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
        which = centred(slope, phases, bounds[index], bounds[index + 1], frame)
        ring, first = rings[which], first_slot(slope, phases[which], frame, slots)
        for k in range(len(positions)):
            slot = first + positions[k]
            mean = np.float32(ring[slot if slot < slots else slot - slots]) * np.float32(scale)
            result[k] = mean if index == 0 else max(result[k], mean)


@dataclass(frozen=True)
class LineRow:
    """One frame's values; ``positions`` None means 0, 1, 2, ... (a dense row)."""

    frame: int
    values: Values
    positions: Positions | None


class LineSums:
    """The sums of some slopes and phases, one for each line that passes within the window."""

    def __init__(self, slopes: Reals, phases: list[Reals], slots: int) -> None:
        """Slopes (S,), the phases kept for each, and lines of a slope that there is room for."""
        counts = [len(values) for values in phases]
        self._slopes, self._phases = np.repeat(slopes, counts), np.concatenate(phases)
        self._bounds: Positions = np.cumsum([0, *counts])
        self.clear(slots)

    @property
    def slots(self) -> int:
        """How many lines of a slope there is room for."""
        return self._rings.shape[1]

    def clear(self, slots: int) -> None:
        """Forget all sums and have room for so many lines of each slope."""
        self._rings: Sums = np.zeros((len(self._slopes), slots), np.int32)

    def add(self, row: LineRow) -> None:
        """Add a row to the lines through its positions."""
        self._count(row, 1)

    def take_out(self, row: LineRow) -> None:
        """Take out a row that was added."""
        self._count(row, -1)

    def _count(self, row: LineRow, sign: int) -> None:
        lines = self._rings, self._slopes, self._phases, row.frame
        if row.positions is None:
            _add_row(*lines, row.values, sign)
        else:
            _add_at(*lines, row.positions, row.values, sign)

    def exchange(self, added: LineRow, removed: LineRow) -> None:
        """Add one row and take out another."""
        if added.positions is not None or removed.positions is not None:
            self.add(added)
            self.take_out(removed)
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
