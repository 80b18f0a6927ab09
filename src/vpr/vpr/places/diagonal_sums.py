"""Sums of dense rows along lines that are nearly as steep as a whole slope, in few passes.

Such a line runs along a diagonal of the whole slope for many frames before it steps to the next.
Along each diagonal all rows so far are added up, and what stood there after each of the last frames
is kept: the difference of two of these is the sum of the frames between, whatever their number. A
line takes a difference for each diagonal that it runs along, where ``LineSums`` has to carry ten
sums on at every frame. Sums may wrap round: their differences do not notice.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vpr.places.line_sums import (
    LineRow,
    Positions,
    Reals,
    Sums,
    Values,
    centred,
    first_slot,
)

BLOCK = 2048  # positions whose sums stay in the processor's nearest cache

History = NDArray[np.int32]  # (whole slopes, length + 1, slots), by frame modulo length + 1


@njit(cache=True, nogil=True)
def _add_up(before: Sums, after: Sums, first: int, values: Values) -> None:
    """``before`` with values added to the slots from ``first`` on, and round the end."""
    slots = len(before)
    whole = min(len(values), slots - first)
    around = len(values) - whole
    for k in range(whole):
        after[first + k] = before[first + k] + np.int32(values[k])
    for k in range(around):
        after[k] = before[k] + np.int32(values[whole + k])
    after[around:first] = before[around:first]
    after[first + whole :] = before[first + whole :]


@njit(cache=True, nogil=True)
def _accumulate(history: History, wholes: Reals, frame: int, values: Values) -> None:
    """Carry all sums on to a frame with its row added."""
    kept, slots = history.shape[1:]
    for which in range(len(wholes)):
        before, after = history[which, (frame - 1) % kept], history[which, frame % kept]
        _add_up(before, after, first_slot(wholes[which], 0.0, frame, slots), values)


@njit(cache=True, nogil=True)
def _runs(
    slope: float, phase: float, whole: float, frame: int, ages: Positions, asides: Positions
) -> int:
    """Of the line through a position at a frame: which diagonals it runs along, and how long.

    From ``ages[k]`` frames ago back to ``ages[k + 1]``, exclusive, it is on the one that passes
    ``asides[k]`` beside the position.

    Returns:
        how many they are.
    """
    length, count = len(asides), 0
    newest = np.floor(slope * frame + phase)
    for age in range(length):
        aside = int(whole * age - (newest - np.floor(slope * (frame - age) + phase)))
        if count == 0 or aside != asides[count - 1]:
            ages[count], asides[count] = age, aside
            count += 1
    ages[count] = length
    return count


@njit(cache=True, nogil=True)
def _add_difference(newer: Sums, older: Sums, first: int, total: Sums) -> None:
    """Add one kept sum less another to ``total``, slot by slot from ``first`` on, and round."""
    whole = min(len(total), len(newer) - first)
    for there, gone, here in (
        (newer[first : first + whole], older[first : first + whole], total[:whole]),
        (newer[: len(total) - whole], older[: len(total) - whole], total[whole:]),
    ):
        for k in range(len(here)):
            here[k] += there[k] - gone[k]


@njit(cache=True, nogil=True)
def _highest(
    history: History,
    wholes: Reals,
    slopes: Reals,
    phases: Reals,
    bounds: Positions,
    frame: int,
    scale: float,
    result: NDArray[np.float32],
) -> None:
    """As ``LineSums.highest``."""
    kept, slots = history.shape[1:]
    count = len(bounds) - 1
    ages, asides = np.empty((count, kept), np.int64), np.empty((count, kept - 1), np.int64)
    runs, on = np.empty(count, np.int64), np.empty(count, np.int64)
    for index in range(count):
        slope = slopes[bounds[index]]
        phase = phases[centred(slope, phases, bounds[index], bounds[index + 1], frame)]
        on[index] = np.searchsorted(wholes, np.rint(slope))
        runs[index] = _runs(slope, phase, wholes[on[index]], frame, ages[index], asides[index])
    best, total = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    for begin in range(0, len(result), BLOCK):
        part = result[begin : begin + BLOCK]
        for index in range(count):
            sums = history[on[index]]
            start = first_slot(wholes[on[index]], 0.0, frame, slots) + begin
            total[: len(part)] = 0
            for run in range(runs[index]):
                newer, older = (
                    (frame - ages[index, run]) % kept,
                    (frame - ages[index, run + 1]) % kept,
                )
                first = (start + asides[index, run]) % slots
                _add_difference(sums[newer], sums[older], first, total[: len(part)])
            for k in range(len(part)):
                best[k] = total[k] if index == 0 else max(best[k], total[k])
        for k in range(len(part)):
            part[k] = np.float32(best[k]) * np.float32(scale)


class DiagonalSums:
    """As ``LineSums``, for dense rows of frames one after the other."""

    def __init__(self, length: int, slopes: Reals, phases: list[Reals], slots: int) -> None:
        """Slopes (S,), the phases kept for each, and lines of a slope that there is room for."""
        counts = [len(values) for values in phases]
        self._slopes, self._phases = np.repeat(slopes, counts), np.concatenate(phases)
        self._bounds: Positions = np.cumsum([0, *counts])
        self._wholes: Reals = np.unique(np.rint(slopes))
        self._length = length
        self.clear(slots)

    @property
    def slots(self) -> int:
        """How many lines of a slope there is room for."""
        return self._history.shape[2]

    def clear(self, slots: int) -> None:
        """Forget all sums and have room for so many lines of each slope."""
        self._history: History = np.zeros((len(self._wholes), self._length + 1, slots), np.int32)

    def add(self, row: LineRow) -> None:
        """Add the newest frame's dense row; one that was there before is replaced."""
        _accumulate(self._history, self._wholes, row.frame, row.values)

    def take_out(self, row: LineRow) -> None:
        """Do nothing: what takes the place of the newest row replaces it."""

    def exchange(self, added: LineRow, removed: LineRow) -> None:
        """Add the newest row; what has left the window is in no difference any more."""
        self.add(added)

    def highest(self, frame: int, count: int, scale: float) -> NDArray[np.float32]:
        """(count,) over the slopes' lines through positions 0 .. count - 1 at a frame, scaled."""
        result = np.empty(count, np.float32)
        lines = self._history, self._wholes, self._slopes, self._phases, self._bounds
        _highest(*lines, frame, scale, result)
        return result

    def highest_at(self, frame: int, positions: Positions, scale: float) -> NDArray[np.float32]:
        """As ``highest``, of the lines through the given positions."""
        return self.highest(frame, int(positions.max(initial=-1)) + 1, scale)[positions]
