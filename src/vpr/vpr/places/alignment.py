"""Places on a grid of distance driven, so that sequences are compared metre by metre.

A robot that stops, or drives twice as fast as before, sees a place in more frames or in fewer, but
over the same metres. Sequences are therefore matched from cell to cell of a grid along the path,
each cell standing for the places within it. Without odometry a cell is a frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpr.places.growable import GrowableArray
from vpr.places.sequence import Row
from vpr.records import Pose


class Odometer:
    """Cells passed since the last frame, from odometry."""

    def __init__(self, step: float) -> None:
        """``step``: metres a cell; 0 counts frames, whatever is driven."""
        self._step = step
        self.forget()

    def forget(self) -> None:
        """The next frame begins a new path."""
        self._driven = 0.5  # cells, from the middle of the first
        self._last: NDArray[np.float64] = np.full(3, np.nan)

    def advance(self, odometry: Pose | None) -> int:
        """How many cells further the frame is than the one before; 1 where that is not known."""
        pose = np.full((4, 4), np.nan) if odometry is None else odometry
        return int(self.advances(pose[None])[0])

    def advances(self, odometry: NDArray[np.float64]) -> NDArray[np.int64]:
        """As ``advance`` of one frame after the other, (N, 4, 4) with NaN where not known."""
        if self._step == 0.0:
            return np.ones(len(odometry), np.int64)
        positions = np.concatenate([self._last[None], odometry[:, :3, 3]])
        metres = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        known = np.isfinite(metres)
        steps = np.where(known, metres, 0.0) / self._step
        driven = np.cumsum(np.concatenate([[self._driven], steps]))
        self._last, self._driven = positions[-1], float(driven[-1])
        return np.where(known, np.diff(np.floor(driven)), 1.0).astype(np.int64)


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
        self.extend(np.array([advance]), new_session)

    def extend(self, advances: NDArray[np.int64], new_session: bool) -> None:
        """Add places one after the other, (N,) cells apart; the first may begin a session."""
        if len(advances) == 0:
            return
        if new_session:
            self._starts.append(len(self))
            advances = np.concatenate([[1], advances[1:]])
        first_cell, first_place = len(self), len(self._cell_of_place)
        begins = np.flatnonzero(advances)
        groups = len(self._groups) + np.arange(len(begins))
        of_group_before = (advances[begins] - 1) // 2
        counts = np.stack([of_group_before, advances[begins] - of_group_before], axis=1)
        self._group_of_cell.extend(
            np.repeat(np.stack([groups - 1, groups], axis=1).ravel(), counts.ravel())
        )
        self._groups.extend(first_place + begins)
        self._cell_of_place.extend(first_cell - 1 + np.cumsum(advances))

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
