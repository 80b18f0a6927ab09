"""The table of a map that keeps the views with depth; a map without any does not have it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vpr.maps.folder import Part, PartWriter
from vpr.maps.table import Column
from vpr.records import Keyframe
from vpr.verification.depth_cells import HEIGHT, WIDTH, DepthCells

TABLE = "cells"
COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "ids": ("<i8", ()),
    "sessions": ("<i8", ()),
    "near": ("<f2", (HEIGHT, WIDTH)),
    "shown": ("|u1", (HEIGHT, WIDTH)),
}
PIECE_VIEWS = 256  # written, and checked when one of them is read, together: 3.7 MB


class StoredCells:
    """Views with depth of a map, by the id of their keyframe, read when they are asked for.

    Attributes:
        ids: (N,) of the keyframes that have one, as saved.

    Raises:
        MapError: a column is missing, of another type or of another size than here, or damaged.
    """

    def __init__(self, part: Part) -> None:
        self._columns: dict[str, Column] = {}
        self.ids: NDArray[np.int64] = np.zeros(0, np.int64)
        if TABLE in part.tables:
            table = part.table(TABLE)
            self._columns = {name: table.column(name, *holds) for name, holds in COLUMNS.items()}
            self.ids = self._columns["ids"].all()

    def of(self, keyframe_id: int) -> DepthCells | None:
        """The view of a keyframe; None where it has no depth.

        Raises:
            MapError: what is read is damaged.
        """
        row = int(np.searchsorted(self.ids, keyframe_id))
        if row == len(self.ids) or self.ids[row] != keyframe_id:
            return None
        return DepthCells(*(np.array(self._columns[name][row]) for name in ("near", "shown")))

    def copy_after(self, keyframe_id: int | None, writer: PartWriter) -> None:
        """Write those of later keyframes; None: all."""
        first = 0 if keyframe_id is None else int(np.searchsorted(self.ids, keyframe_id, "right"))
        for start in range(first, len(self.ids), PIECE_VIEWS):
            rows = slice(start, start + PIECE_VIEWS)
            writer.append(TABLE, {name: column[rows] for name, column in self._columns.items()})


def append_cells(writer: PartWriter, views: Iterable[tuple[Keyframe, DepthCells]]) -> None:
    """Write the views of more keyframes, ascending by id."""
    new = list(views)
    for start in range(0, len(new), PIECE_VIEWS):
        piece = new[start : start + PIECE_VIEWS]
        values = {
            "ids": [keyframe.id for keyframe, _ in piece],
            "sessions": [keyframe.session for keyframe, _ in piece],
            "near": [cells.near for _, cells in piece],
            "shown": [cells.shown for _, cells in piece],
        }
        arrays = {name: np.array(rows, COLUMNS[name][0]) for name, rows in values.items()}
        writer.append(TABLE, arrays)
