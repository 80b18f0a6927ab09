"""The places remembered so far: everything about each keyframe, in columns.

What came from a map stays on disk and is read from there; what is new is kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.maps.folder import Part, PartOutdated, PartWriter
from vpr.maps.table import PIECE_ROWS, Table
from vpr.places.descriptors import DescriptorRows, single_precision
from vpr.places.growable import GrowableArray
from vpr.records import Keyframe

TABLE = "keyframes"
INDEX: tuple[str, ...] = ("ids", "sessions", "stamps_ns")  # of all keyframes in memory
COLUMNS: dict[str, tuple[tuple[int, ...], str]] = {
    "ids": ((), "int64"),
    "sessions": ((), "int64"),
    "stamps_ns": ((), "int64"),
    "odometry": ((4, 4), "float64"),  # NaN where there was none, as in the columns below
    "odometry_covariance": ((6, 6), "float64"),
    "fixes": ((3,), "float64"),  # latitude, longitude, altitude
    "fix_covariance": ((3, 3), "float64"),
    "frames": ((), "int64"),  # which of the frame ids in the metadata
}
FORGOTTEN = "forgotten_sessions"  # in the metadata, where there are any
DESCRIPTORS = "descriptors"  # (D,) float16


class StateError(ValueError):
    """A saved state that is incomplete or contradicts itself; says where."""


class PlaceMemory:
    """Keyframes in columns; one row each, sessions one after the other, ids ascending."""

    def __init__(self, model: str, dimension: int) -> None:
        self.model = model
        self.dimension = dimension
        self._stored: Table | None = None
        self._descriptors = DescriptorRows(dimension)
        self._index: dict[str, GrowableArray[Any]] = {
            name: GrowableArray((), np.int64) for name in INDEX
        }
        self._others: dict[str, GrowableArray[Any]] = {
            name: GrowableArray(*COLUMNS[name]) for name in COLUMNS if name not in INDEX
        }
        self._session_starts: GrowableArray[np.int64] = GrowableArray((), np.int64)
        self._frame_ids: dict[str, int] = {}
        self._forgotten: set[int] = set()

    def __len__(self) -> int:
        return len(self._index["ids"])

    @property
    def session_starts(self) -> NDArray[np.int64]:
        """Index of the first row of each session, ascending."""
        return self._session_starts.rows

    @property
    def forgotten(self) -> list[slice]:
        """Rows of the sessions that nothing is to be matched with any more."""
        sessions = self.column("sessions")
        bounds = (np.searchsorted(sessions, (s, s + 1)) for s in sorted(self._forgotten))
        return [slice(int(first), int(last)) for first, last in bounds]

    def column(self, name: str) -> NDArray[Any]:
        """One of ``INDEX``, (N,)."""
        return self._index[name].rows

    def similarities(self, descriptor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine similarity (N,) of every place to a descriptor (D,).

        Raises:
            MapError: the map that the places are read from is damaged.
        """
        return self._descriptors.similarities(descriptor)

    def similarities_at(
        self, rows: NDArray[np.int64], descriptor: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The same of some places alone, (M,).

        Raises:
            MapError: the map that the places are read from is damaged.
        """
        return self._descriptors.similarities_at(rows, descriptor)

    def append(self, keyframe: Keyframe) -> None:
        """Remember one more keyframe."""
        sessions = self.column("sessions")
        if len(sessions) == 0 or sessions[-1] != keyframe.session:
            self._session_starts.append(len(self))
        fix, nan = keyframe.fix, np.nan
        self._descriptors.append(keyframe.descriptor)
        for name, number in zip(
            INDEX, (keyframe.id, keyframe.session, keyframe.stamp_ns), strict=True
        ):
            self._index[name].append(number)
        row = {
            "odometry": _or_nan(keyframe.odometry),
            "odometry_covariance": _or_nan(keyframe.odometry_covariance),
            "fixes": nan if fix is None else (fix.latitude, fix.longitude, fix.altitude),
            "fix_covariance": nan if fix is None else _or_nan(fix.covariance),
            "frames": self._frame_ids.setdefault(keyframe.frame_id, len(self._frame_ids)),
        }
        for name, value in row.items():
            self._others[name].append(value)

    def descriptor(self, row: int) -> NDArray[np.float32]:
        """(D,) of one place."""
        return np.asarray(self.descriptors(np.array([row]))[0])

    def descriptors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, D) of some places.

        Raises:
            MapError: the map that the places are read from is damaged.
        """
        return self._descriptors.at(rows)

    def release(self) -> None:
        """Keep no descriptors of a map in memory that only a look at all of them brought there."""
        self._descriptors.release()

    def odometry(self, first: int, last: int) -> NDArray[np.float64]:
        """(M, 4, 4) poses of the places first .. last - 1; NaN where there was no odometry."""
        stored = self._stored_rows
        new = self._others["odometry"].rows[max(first - stored, 0) : max(last - stored, 0)]
        if self._stored is None or first >= stored:
            return np.asarray(new)
        shape, dtype = COLUMNS["odometry"]
        old = self._stored.column("odometry", dtype, shape)[first : min(last, stored)]
        return np.concatenate([old, new])

    def described_by(
        self, model: str, describe: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> PlaceMemory:
        """The same keyframes with descriptors of another model, all of them in memory.

        Args:
            describe: gives descriptors (N, d) of the model for those (N, D) here; N may be 0.

        Raises:
            MapError: the map that the places are read from is damaged.
        """
        described = [describe(np.empty((0, self.dimension), np.float32))]
        described += [describe(single_precision(rows)) for _, rows in self._descriptors.pieces()]
        memory = PlaceMemory(model, described[0].shape[1])
        for rows in described:
            memory._descriptors.extend(rows.astype(np.float16))
        columns = memory._index | memory._others
        for piece in self._pieces(0):
            for name, column in columns.items():
                column.extend(piece[name])
        memory._session_starts.extend(self.session_starts)
        memory._frame_ids = dict(self._frame_ids)
        memory._forgotten = set(self._forgotten)
        return memory

    def check(self) -> None:
        """Look at what is too much to look at whenever a map is opened.

        Raises:
            StateError: a descriptor is not finite, or a frame id is not known.
            MapError: the map is damaged.
        """
        for first, rows in self._descriptors.pieces():
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise StateError(f"descriptor of place {first + bad[0]} is not finite")
        for piece in self._pieces(0):
            frames = piece["frames"]
            if len(frames) and not 0 <= frames.min() <= frames.max() < len(self._frame_ids):
                raise StateError("a place's frame id is not among those saved")

    def forget(self, session: int) -> None:
        """Match nothing with a session any more; its rows stay, so that a map can go on growing.

        Raises:
            StateError: there is no such session.
        """
        known = self.column("sessions")[self.session_starts].tolist()
        if session not in known:
            there = ", ".join(map(str, known)) or "none"
            raise StateError(f"no places of session {session} are remembered (only of {there})")
        self._forgotten.add(session)

    def save(self, writer: PartWriter) -> dict[str, Any]:
        """Write the rows that a map does not have yet; returns the metadata.

        Raises:
            StateError: the map holds other places than the first ones here.
            PartOutdated: its places are described by another model.
            MapError: as ``PartWriter.append``.
        """
        first = writer.saved(TABLE)
        self._check_continues(writer, first)
        for rows in self._pieces(first):
            writer.append(TABLE, rows)
        metadata = {"model": self.model, "frame_ids": list(self._frame_ids)}
        return metadata | ({FORGOTTEN: sorted(self._forgotten)} if self._forgotten else {})

    @classmethod
    def of_map(cls, part: Part) -> PlaceMemory:
        """The places of a map, left on disk but for their ids, sessions and stamps.

        Raises:
            MapError: a column is missing, of another type, or damaged.
            StateError: the columns contradict each other.
        """
        if not {"model", "frame_ids"} <= set(part.metadata):
            raise StateError("the saved places lack their model or frame ids")
        table = part.table(TABLE)
        descriptors = table.column(DESCRIPTORS, "<f2", (None,))
        for name, (shape, dtype) in COLUMNS.items():
            table.column(name, dtype, shape)
        memory = cls(str(part.metadata["model"]), descriptors.shape[1])
        memory._stored = table
        memory._descriptors = DescriptorRows(memory.dimension, descriptors)
        for name in INDEX:
            column = table.column(name, "int64")
            memory._index[name].extend(column.all())
            column.release()
        memory._frame_ids = {str(f): i for i, f in enumerate(part.metadata["frame_ids"])}
        memory._forgotten = set(part.metadata.get(FORGOTTEN, ()))
        ids, sessions = memory.column("ids"), memory.column("sessions")
        if (np.diff(ids) <= 0).any() or (np.diff(sessions) < 0).any():
            raise StateError("saved ids or sessions are out of order")
        changes = np.flatnonzero(np.diff(sessions, prepend=sessions[:1] - 1))
        memory._session_starts.extend(changes)
        return memory

    @property
    def _stored_rows(self) -> int:
        return 0 if self._stored is None else self._stored.rows

    def _check_continues(self, writer: PartWriter, rows: int) -> None:
        part = writer.saved_part()
        if not rows or part is None:
            return
        if rows > len(self):
            raise StateError(f"the map has {rows} places, here are only {len(self)}")
        for name in INDEX:
            if part.table(TABLE).column(name, "int64")[rows - 1] != self.column(name)[rows - 1]:
                raise StateError(f"place {rows - 1} of the map is another one than here")
        if part.metadata["model"] != self.model:
            raise PartOutdated(
                f"the map's places are described by {part.metadata['model']}, those here by "
                f"{self.model}: the map has to be written anew"
            )

    def _pieces(self, first: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Rows from the first on, piece by piece, as they are on disk."""
        stored = self._stored_rows
        descriptors = self._descriptors
        for start in range(first, stored, PIECE_ROWS):
            assert self._stored is not None
            assert descriptors.stored is not None
            rows = slice(start, min(start + PIECE_ROWS, stored))
            piece = {
                name: self._stored.column(name, dtype, shape)[rows]
                for name, (shape, dtype) in COLUMNS.items()
            }
            yield piece | {DESCRIPTORS: descriptors.stored[rows]}
        for start in range(max(first, stored), len(self), PIECE_ROWS):
            rows = slice(start, start + PIECE_ROWS)
            new = slice(start - stored, start - stored + PIECE_ROWS)
            piece = {name: column.rows[rows] for name, column in self._index.items()}
            piece |= {name: column.rows[new] for name, column in self._others.items()}
            yield piece | {DESCRIPTORS: descriptors.new[new]}


class ChosenPlaces:
    """Some rows of a memory, to be searched alone.

    Args:
        rows: (M,) ascending.
    """

    def __init__(self, memory: PlaceMemory, rows: NDArray[np.int64]) -> None:
        self._memory, self._rows = memory, rows
        self.model, self.dimension = memory.model, memory.dimension
        self.forgotten = [
            slice(*np.searchsorted(rows, (gone.start, gone.stop)).tolist())
            for gone in memory.forgotten
        ]
        sessions = self.column("sessions")
        self.session_starts: NDArray[np.int64] = np.flatnonzero(
            np.diff(sessions, prepend=sessions[:1] - 1)
        )

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str) -> NDArray[Any]:
        """One of ``INDEX``, (M,)."""
        return np.asarray(self._memory.column(name)[self._rows])

    def similarities(self, descriptor: NDArray[np.float32]) -> NDArray[np.float32]:
        """As of ``PlaceMemory``, (M,)."""
        return self._memory.similarities(descriptor)[self._rows]

    def similarities_at(
        self, rows: NDArray[np.int64], descriptor: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """As of ``PlaceMemory``."""
        return self._memory.similarities_at(self._rows[rows], descriptor)

    def descriptors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As of ``PlaceMemory``."""
        return self._memory.descriptors(self._rows[rows])

    def release(self) -> None:
        """As of ``PlaceMemory``."""
        self._memory.release()

    def odometry(self, first: int, last: int) -> NDArray[np.float64]:
        """As of ``PlaceMemory``."""
        rows = self._rows[first:last]
        if len(rows) == 0:
            return np.empty((0, 4, 4))
        return np.asarray(self._memory.odometry(int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]])


def _or_nan(value: NDArray[np.float64] | None) -> Any:
    return np.nan if value is None else value
