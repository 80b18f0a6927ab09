"""Places on a grid along the path, in steps of which sequences are compared.

A robot that stops, or drives twice as fast as before, sees a place in more frames or in fewer, but
over the same metres. Sequences can therefore be matched from cell to cell of a grid of distance
driven, each cell standing for the places within it. Otherwise every place is a cell of its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vpr.places.encoded import Places
from vpr.places.growable import GrowableArray
from vpr.places.sequence import Row
from vpr.records import Pose

Indices = NDArray[np.int64]


class Odometer:
    """Cells passed since the last frame, from odometry."""

    def __init__(self, step: float) -> None:
        """``step``: metres a cell."""
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

    def advances(self, odometry: NDArray[np.float64]) -> Indices:
        """As ``advance`` of one frame after the other, (N, 4, 4) with NaN where not known."""
        positions = np.concatenate([self._last[None], odometry[:, :3, 3]])
        metres = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        known = np.isfinite(metres)
        steps = np.where(known, metres, 0.0) / self._step
        driven = np.cumsum(np.concatenate([[self._driven], steps]))
        self._last, self._driven = positions[-1], float(driven[-1])
        return np.where(known, np.diff(np.floor(driven)), 1.0).astype(np.int64)


class PlaceGrid(Protocol):
    """Cells in order, and which places are in them."""

    def __len__(self) -> int:
        """How many cells there are."""
        ...

    @property
    def session_starts(self) -> Indices:
        """(S,) first cell of each session, ascending."""
        ...

    def begin_session(self) -> None:
        """The next view begins a new path."""
        ...

    def advance(self, odometry: Pose | None) -> int:
        """How many cells further the newest view is than the one before."""
        ...

    def append(self, advance: int, new_session: bool) -> None:
        """Add a place that is ``advance`` cells after the last one."""
        ...

    def cells_of(self, places: Indices) -> Indices:
        """(M,) the cells that places are in."""
        ...

    def cells_before(self, place: int) -> int:
        """How many cells, from the first, hold only places before this one."""
        ...

    def row(self, similarities: Row) -> Row:
        """(cells,) the best similarity of the places in each cell, of (places,)."""
        ...

    def of_places(self, scores: Row, cells: Row, similarities: Row) -> Row:
        """(places,) scores of (cells,): the place of a cell that looks most alike has it."""
        ...


class FrameGrid:
    """Every place is a cell, however far it is from the last."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def session_starts(self) -> Indices:
        return self._places.session_starts

    def begin_session(self) -> None:
        """Nothing is kept of a path."""

    def advance(self, _: Pose | None) -> int:
        return 1

    def append(self, advance: int, new_session: bool) -> None:
        """The places themselves have grown."""

    def cells_of(self, places: Indices) -> Indices:
        return places

    def cells_before(self, place: int) -> int:
        return place

    def row(self, similarities: Row) -> Row:
        return similarities

    def of_places(self, scores: Row, cells: Row, similarities: Row) -> Row:
        return scores


class DistanceGrid:
    """Cells of a fixed distance driven.

    Cells that a fast drive skips are filled with the nearest place: half of the gap from either
    side.
    """

    def __init__(self, places: Places, step: float) -> None:
        """``step``: metres a cell."""
        self._odometer = Odometer(step)
        self._groups: GrowableArray[np.int64] = GrowableArray((), np.int64)  # first place of each
        self._group_of_cell: GrowableArray[np.int64] = GrowableArray((), np.int64)
        self._cell_of_place: GrowableArray[np.int64] = GrowableArray((), np.int64)
        self._starts: list[int] = []
        for first, last in pairwise([*places.session_starts.tolist(), len(places)]):
            self._odometer.forget()
            self.extend(self._odometer.advances(places.odometry(first, last)), new_session=True)

    def __len__(self) -> int:
        return len(self._group_of_cell)

    @property
    def session_starts(self) -> Indices:
        return np.asarray(self._starts, np.int64)

    def begin_session(self) -> None:
        self._odometer.forget()

    def advance(self, odometry: Pose | None) -> int:
        return self._odometer.advance(odometry)

    def append(self, advance: int, new_session: bool) -> None:
        self.extend(np.array([advance]), new_session)

    def extend(self, advances: Indices, new_session: bool) -> None:
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

    def cells_of(self, places: Indices) -> Indices:
        return np.asarray(self._cell_of_place.rows[places])

    def cells_before(self, place: int) -> int:
        cells = self._cell_of_place.rows
        return int(cells[place]) if place < len(cells) else len(self)

    def row(self, similarities: Row) -> Row:
        best = np.maximum.reduceat(similarities, self._groups.rows)
        return np.asarray(best[self._group_of_cell.rows])

    def of_places(self, scores: Row, cells: Row, similarities: Row) -> Row:
        cell = self._cell_of_place.rows
        best = similarities >= cells[cell]
        return np.where(best, scores[cell], -np.inf).astype(np.float32)
