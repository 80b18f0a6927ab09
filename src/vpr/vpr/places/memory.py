"""The places remembered so far: everything about each keyframe, in columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.places.growable import GrowableArray
from vpr.records import Keyframe

COLUMNS: dict[str, tuple[tuple[int, ...], str]] = {
    "ids": ((), "int64"),
    "sessions": ((), "int64"),
    "stamps_ns": ((), "int64"),
    "odometry": ((4, 4), "float64"),  # NaN where there was none, as in the columns below
    "odometry_covariance": ((6, 6), "float64"),
    "fixes": ((3,), "float64"),  # latitude, longitude, altitude
    "fix_covariance": ((3, 3), "float64"),
}


class StateError(ValueError):
    """A saved state that is incomplete or contradicts itself; says where."""


class PlaceMemory:
    """Keyframes in columns; one row each, sessions one after the other, ids ascending."""

    def __init__(self, model: str, dimension: int) -> None:
        self.model = model
        self._descriptors: GrowableArray[np.float32] = GrowableArray((dimension,), np.float32)
        self._columns: dict[str, GrowableArray[Any]] = {
            name: GrowableArray(shape, dtype) for name, (shape, dtype) in COLUMNS.items()
        }
        self._session_starts: list[int] = []
        self._frame_ids: list[str] = []

    def __len__(self) -> int:
        return len(self._descriptors)

    @property
    def dimension(self) -> int:
        """Length of a descriptor."""
        return int(self.descriptors.shape[1])

    @property
    def descriptors(self) -> NDArray[np.float32]:
        """(N, D) float32, contiguous."""
        return self._descriptors.rows

    @property
    def session_starts(self) -> NDArray[np.int64]:
        """Index of the first row of each session, ascending."""
        return np.asarray(self._session_starts, np.int64)

    def column(self, name: str) -> NDArray[Any]:
        """One of ``COLUMNS``, (N, ...)."""
        return self._columns[name].rows

    def append(self, keyframe: Keyframe) -> None:
        """Remember one more keyframe."""
        sessions = self.column("sessions")
        if len(sessions) == 0 or sessions[-1] != keyframe.session:
            self._session_starts.append(len(self))
        fix, nan = keyframe.fix, np.nan
        row = {
            "ids": keyframe.id,
            "sessions": keyframe.session,
            "stamps_ns": keyframe.stamp_ns,
            "odometry": _or_nan(keyframe.odometry),
            "odometry_covariance": _or_nan(keyframe.odometry_covariance),
            "fixes": nan if fix is None else (fix.latitude, fix.longitude, fix.altitude),
            "fix_covariance": nan if fix is None else _or_nan(fix.covariance),
        }
        self._descriptors.append(keyframe.descriptor)
        for name, value in row.items():
            self._columns[name].append(value)
        self._frame_ids.append(keyframe.frame_id)

    def described_by(self, model: str, descriptors: NDArray[np.float32]) -> PlaceMemory:
        """The same keyframes with descriptors (N, d) of another model."""
        return PlaceMemory.restored(
            {**self.arrays(), "descriptors": descriptors}, {**self.metadata(), "model": model}
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all columns and the descriptors, for writing to disk."""
        arrays = {name: column.rows.copy() for name, column in self._columns.items()}
        return {"descriptors": self.descriptors.copy(), **arrays}

    def metadata(self) -> dict[str, Any]:
        """What is not an array, for writing to disk as JSON."""
        return {"model": self.model, "frame_ids": list(self._frame_ids)}

    @classmethod
    def restored(
        cls, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
    ) -> PlaceMemory:
        """The memory that ``arrays`` and ``metadata`` were taken from.

        Raises:
            StateError: a column is missing, misshapen or out of order.
        """
        _check_state(arrays, metadata)
        descriptors = arrays["descriptors"]
        memory = cls(str(metadata["model"]), descriptors.shape[1])
        memory._descriptors.extend(descriptors)
        for name, column in memory._columns.items():
            column.extend(arrays[name])
        sessions = arrays["sessions"]
        changes = np.flatnonzero(np.diff(sessions, prepend=sessions[:1] - 1))
        memory._session_starts = [int(start) for start in changes]
        memory._frame_ids = list(metadata["frame_ids"])
        return memory


def _or_nan(value: NDArray[np.float64] | None) -> Any:
    return np.nan if value is None else value


def _check_state(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    absent = ({"descriptors"} | set(COLUMNS)) - set(arrays)
    absent |= {"model", "frame_ids"} - set(metadata)
    if absent:
        raise StateError(f"the saved places lack {', '.join(sorted(absent))}")
    descriptors = arrays["descriptors"]
    if descriptors.ndim != 2:
        raise StateError(f"descriptors are {descriptors.shape}, not (places, dimension)")
    for name, (shape, _) in COLUMNS.items():
        if arrays[name].shape != (len(descriptors), *shape):
            raise StateError(
                f"{name} is {arrays[name].shape}, {len(descriptors)} places need "
                f"{(len(descriptors), *shape)}"
            )
    if len(metadata["frame_ids"]) != len(descriptors):
        raise StateError(f"{len(metadata['frame_ids'])} frame ids for {len(descriptors)} places")
    if not np.isfinite(descriptors).all():
        raise StateError("a saved descriptor has a value that is not finite")
    if (np.diff(arrays["ids"]) <= 0).any() or (np.diff(arrays["sessions"]) < 0).any():
        raise StateError("saved ids or sessions are out of order")
