"""Places on a grid of distance driven, so that sequences are compared metre by metre.

A robot that stops, or drives twice as fast as before, sees a place in more frames or in fewer, but
over the same metres. Sequences are therefore matched from cell to cell of a grid along the path,
each cell standing for the places within it. Without odometry a cell is a frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpr.geometry import relative, translation_norm
from vpr.places.growable import GrowableArray
from vpr.places.sequence import Row
from vpr.records import Pose


class Odometer:
    """Cells passed since the last frame, from odometry."""

    def __init__(self, step: float) -> None:
        """``step``: metres a cell; 0 counts frames, whatever is driven."""
        self._step = step
        self._driven = 0.5  # cells, from the middle of the first
        self._last: Pose | None = None

    def forget(self) -> None:
        """The next frame begins a new path."""
        self._driven = 0.5
        self._last = None

    def advance(self, odometry: Pose | None) -> int:
        """How many cells further the frame is than the one before; 1 where that is not known."""
        last, self._last = self._last, odometry
        if self._step == 0.0 or odometry is None or last is None:
            return 1
        before = int(self._driven)
        self._driven += translation_norm(relative(last, odometry)) / self._step
        return int(self._driven) - before


class PlaceGrid:
    """Which places are in which cell; one place is in one cell, or stands for several.

    Cells that a fast drive skips are filled with the nearest place: half of the gap from either
    side.
    """

    def __init__(self) -> None:
        self._groups: GrowableArray[np.int64] = GrowableArray((), np.int64)  # first place of each
        self._group_of_cell: GrowableArray[np.int64] = GrowableArray((), np.int64)
        self._cell_of_place: GrowableArray[np.int64] = GrowableArray((), np.int64)
        self._starts: list[int] = []

    def __len__(self) -> int:
        """How many cells there are."""
        return len(self._group_of_cell)

    @property
    def session_starts(self) -> NDArray[np.int64]:
        """(S,) first cell of each session, ascending."""
        return np.asarray(self._starts, np.int64)

    @property
    def cell_of_place(self) -> NDArray[np.int64]:
        """(N,) the cell that each place is in."""
        return self._cell_of_place.rows

    @property
    def one_to_one(self) -> bool:
        """Whether every cell is one place and every place one cell."""
        return len(self) == len(self._cell_of_place) == len(self._groups)

    def append(self, advance: int, new_session: bool) -> None:
        """Add a place that is ``advance`` cells after the last one."""
        if new_session:
            self._starts.append(len(self))
            advance = 1
        if advance == 0:
            self._cell_of_place.append(len(self) - 1)
            return
        group = len(self._groups)
        for skipped in range(advance - 1):
            self._group_of_cell.append(group - 1 if skipped < (advance - 1) // 2 else group)
        self._group_of_cell.append(group)
        self._groups.append(len(self._cell_of_place))
        self._cell_of_place.append(len(self) - 1)

    def row(self, similarities: Row) -> Row:
        """(cells,) the best similarity of the places in each cell, of (places,)."""
        if self.one_to_one:
            return similarities
        best = np.maximum.reduceat(similarities, self._groups.rows)
        return np.asarray(best[self._group_of_cell.rows])

    def cells_before(self, place: int) -> int:
        """How many cells, from the first, hold only places before this one."""
        cells = self._cell_of_place.rows
        return int(cells[place]) if place < len(cells) else len(self)
