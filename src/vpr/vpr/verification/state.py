"""The features of all keyframes in the map on disk: keyframes in rows, features one by one.

Triangulated landmarks are not saved: features and odometry give them again when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vpr.maps.folder import Part, PartWriter
from vpr.maps.table import PIECE_ROWS
from vpr.records import CameraModel, GpsFix, Keyframe
from vpr.verification.features import LocalFeatures
from vpr.verification.stored_cells import StoredCells, append_cells

VIEWS, KEYPOINTS, THUMBNAILS = "views", "keypoints", "thumbnails"  # the tables
ENDS = {KEYPOINTS: "ends", THUMBNAILS: "thumbnail_ends"}  # rows of this and all views before
JPEG = "jpeg"  # the one column of the thumbnails, byte by byte
VIEW_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "ids": ("<i8", ()),
    "sessions": ("<i8", ()),
    "stamps_ns": ("<i8", ()),
    "odometry": ("<f8", (4, 4)),  # NaN where unknown, as the fixes
    "paths": ("<f8", ()),
    "fixes": ("<f8", (3,)),
    "fix_covariances": ("<f8", (3, 3)),
    "counts": ("<i8", ()),  # features of each keyframe; -1 where its image was lost
    "ends": ("<i8", ()),
    "cameras": ("<i8", ()),  # which of those in the metadata
    "thumbnail_ends": ("<i8", ()),
}
KEYPOINT_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {  # and their descriptors
    "pixels": ("<f4", (2,)),
    "sizes": ("<f4", ()),
    "angles": ("<f4", ()),
    "depths": ("<f4", ()),
}
DESCRIPTORS: dict[str, tuple[str, tuple[int, ...]]] = {  # of each kind of features
    "ORB": ("|u1", (32,)),
    "XFeat": ("<f2", (64,)),
}
Remembered = tuple[Keyframe, LocalFeatures | None, float]  # and metres driven in its session


class FeatureStateError(ValueError):
    """Saved features that are incomplete or contradict themselves."""


class StoredFeatures:
    """The keyframes of a map with their features, read from disk when they are asked for.

    Args:
        kind: of the features that are expected, a key of ``DESCRIPTORS``; None takes any of them.

    Raises:
        FeatureStateError: the features are of another kind, or contradict themselves.
        MapError: a column is missing, of another type, or damaged.
    """

    def __init__(self, part: Part, kind: str | None = None) -> None:
        found = part.metadata.get("feature")
        if kind is not None and found != kind:
            raise FeatureStateError(
                f"saved features are {found!r}, but loop_closure.features asks for {kind}"
            )
        if found not in DESCRIPTORS:
            raise FeatureStateError(f"saved features are {found!r}, not {' or '.join(DESCRIPTORS)}")
        self.cameras = [tuple(values) for values in part.metadata.get("cameras", [])]
        views, keypoints = part.table(VIEWS), part.table(KEYPOINTS)
        self.views = {n: views.column(n, *holds) for n, holds in VIEW_COLUMNS.items()}
        self.keypoints = {
            n: keypoints.column(n, *holds) for n, holds in _keypoint_columns(found).items()
        }
        thumbnails = part.table(THUMBNAILS)
        self.thumbnails = thumbnails.column(JPEG, "|u1", ())
        self.of_views = {KEYPOINTS: self.keypoints, THUMBNAILS: {JPEG: self.thumbnails}}
        self.cells = StoredCells(part)
        self._ids = self.views["ids"].all()
        self._check(keypoints.rows, thumbnails.rows)

    def __len__(self) -> int:
        return len(self._ids)

    def index_of(self, keyframe_id: int) -> int | None:
        """Row of a keyframe, None where it is not known."""
        row = int(np.searchsorted(self._ids, keyframe_id))
        return row if row < len(self._ids) and self._ids[row] == keyframe_id else None

    def remembered(self, row: int) -> Remembered:
        """A keyframe, without its place descriptor, which is another part of the map.

        Raises:
            MapError: what is read is damaged.
        """
        values = {name: column[row] for name, column in self.views.items()}
        features = None
        if (count := int(values["counts"])) >= 0:
            own = slice(int(values["ends"]) - count, int(values["ends"]))
            arrays: dict[str, Any] = {
                name: np.array(column[own]) for name, column in self.keypoints.items()
            }
            features = LocalFeatures(
                **arrays,
                cells=self.cells.of(int(values["ids"])),
                camera=_camera(self.cameras[values["cameras"]]),
                thumbnail=self.thumbnail(row),
            )
        return _keyframe(values), features, float(values["paths"])

    def thumbnail(self, row: int) -> NDArray[np.uint8]:
        """(B,) the JPEG of a keyframe; empty where none was kept.

        Raises:
            MapError: what is read is damaged.
        """
        ends = self.views["thumbnail_ends"]
        start = int(ends[row - 1]) if row else 0
        return np.array(self.thumbnails[start : int(ends[row])])

    def _check(self, features: int, thumbnail_bytes: int) -> None:
        if (np.diff(self._ids) <= 0).any():
            raise FeatureStateError("ids of the saved keyframes do not ascend")
        counts, ends = self.views["counts"].all(), self.views["ends"].all()
        if not np.array_equal(np.cumsum(np.maximum(counts, 0)), ends):
            raise FeatureStateError("the saved keyframes' counts of features contradict each other")
        total = int(ends[-1]) if len(ends) else 0
        if features != total:
            raise FeatureStateError(f"{features} features are saved, the keyframes have {total}")
        images = self.views["thumbnail_ends"].all()
        if (np.diff(images, prepend=0) < 0).any() or (images[-1:] != thumbnail_bytes).any():
            raise FeatureStateError("the saved thumbnails do not add up")
        seen, deep = self._ids[counts >= 0], self.cells.ids
        if (np.diff(deep) <= 0).any() or not np.isin(deep, seen).all():
            raise FeatureStateError("the saved views with depth are not those of the keyframes")
        used = self.views["cameras"].all()[counts >= 0]
        if len(used) and not 0 <= used.min() <= used.max() < len(self.cameras):
            raise FeatureStateError("a keyframe's camera is not among those saved")


class FeatureSaver:
    """Writes keyframes with their features behind those that a map has already.

    Args:
        stored: the map the first keyframes were loaded from, which need not be the one written.
        kind: of the features, a key of ``DESCRIPTORS``.
    """

    def __init__(self, writer: PartWriter, stored: StoredFeatures | None, kind: str) -> None:
        self._writer, self._stored, self._kind = writer, stored, kind
        self.saved = writer.saved(VIEWS)
        self.last_id: int | None = None
        self._ends = dict.fromkeys(ENDS, 0)
        part = writer.saved_part()
        known = [] if stored is None else stored.cameras
        if part is not None and self.saved:
            written = StoredFeatures(part, kind)
            self.last_id = int(written.views["ids"][self.saved - 1])
            for table, column in ENDS.items():
                self._ends[table] = int(written.views[column][self.saved - 1])
            known = written.cameras
        self._cameras = {camera: index for index, camera in enumerate(known)}

    @property
    def metadata(self) -> dict[str, Any]:
        """What is not in rows, once all is written."""
        return {"cameras": [list(values) for values in self._cameras], "feature": self._kind}

    def refuse(self, reason: str) -> NoReturn:
        """Raise ``FeatureStateError``."""
        raise FeatureStateError(reason)

    def add_stored(self) -> None:
        """Write the stored keyframes from the first that is not yet written."""
        if self._stored is None:
            return
        for start in range(self.saved, len(self._stored), PIECE_ROWS):
            rows = slice(start, start + PIECE_ROWS)
            views = {name: column[rows] for name, column in self._stored.views.items()}
            self._writer.append(VIEWS, views)
            for table, columns in self._stored.of_views.items():
                own = slice(self._ends[table], int(views[ENDS[table]][-1]))
                self._writer.append(table, {name: column[own] for name, column in columns.items()})
                self._ends[table] = own.stop
        self._stored.cells.copy_after(self.last_id, self._writer)

    def add(self, remembered: Sequence[Remembered]) -> None:
        """Write more keyframes."""
        present = [features for _, features, _ in remembered if features is not None]
        joined = {
            name: np.concatenate(
                [np.zeros((0, *shape), dtype), *(getattr(f, name) for f in present)], dtype=dtype
            )
            for name, (dtype, shape) in _keypoint_columns(self._kind).items()
        }
        views = _view_rows(remembered, self._camera_index)
        jpegs = [np.zeros(0, np.uint8) if f is None else f.thumbnail for _, f, _ in remembered]
        sizes = {
            KEYPOINTS: np.maximum(views["counts"], 0),
            THUMBNAILS: np.array([len(jpeg) for jpeg in jpegs], np.int64),
        }
        for table, size in sizes.items():
            views[ENDS[table]] = self._ends[table] + np.cumsum(size)
            self._ends[table] += int(size.sum())
        self._writer.append(VIEWS, views)
        self._writer.append(KEYPOINTS, joined)
        self._writer.append(THUMBNAILS, {JPEG: np.concatenate([np.zeros(0, np.uint8), *jpegs])})
        append_cells(
            self._writer,
            [(k, f.cells) for k, f, _ in remembered if f is not None and f.cells is not None],
        )

    def _camera_index(self, features: LocalFeatures | None) -> int:
        if features is None:
            return 0
        camera = features.camera
        values = (camera.width, camera.height, camera.assumed, *camera.matrix.ravel().tolist())
        return self._cameras.setdefault(values, len(self._cameras))


def _keypoint_columns(kind: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    return KEYPOINT_COLUMNS | {"descriptors": DESCRIPTORS[kind]}


def _view_rows(
    remembered: Sequence[Remembered], camera_index: Callable[[LocalFeatures | None], int]
) -> dict[str, NDArray[Any]]:
    """Columns of the keyframes, all but what counts up."""
    columns: dict[str, list[Any]] = {name: [] for name in VIEW_COLUMNS if name not in ENDS.values()}
    for keyframe, features, path in remembered:
        fix = keyframe.fix
        row = {
            "ids": keyframe.id,
            "sessions": keyframe.session,
            "stamps_ns": keyframe.stamp_ns,
            "odometry": _or_nan(keyframe.odometry, (4, 4)),
            "paths": path,
            "fixes": (np.nan,) * 3 if fix is None else (fix.latitude, fix.longitude, fix.altitude),
            "fix_covariances": _or_nan(None if fix is None else fix.covariance, (3, 3)),
            "counts": -1 if features is None else len(features),
            "cameras": camera_index(features),
        }
        for name, value in row.items():
            columns[name].append(value)
    return {
        name: np.array(values, VIEW_COLUMNS[name][0]).reshape(-1, *VIEW_COLUMNS[name][1])
        for name, values in columns.items()
    }


def _or_nan(value: NDArray[np.float64] | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.full(shape, np.nan) if value is None else value


def _keyframe(values: dict[str, Any]) -> Keyframe:
    odometry = np.array(values["odometry"], np.float64)
    latitude, longitude, altitude = (float(value) for value in values["fixes"])
    covariance = np.array(values["fix_covariances"], np.float64)
    fix = GpsFix(
        latitude, longitude, altitude, covariance if np.isfinite(covariance).all() else None
    )
    return Keyframe(
        id=int(values["ids"]),
        session=int(values["sessions"]),
        stamp_ns=int(values["stamps_ns"]),
        descriptor=np.zeros(0, np.float32),
        model="",
        odometry=odometry if np.isfinite(odometry).all() else None,
        fix=fix if np.isfinite((latitude, longitude, altitude)).all() else None,
    )


def _camera(values: Sequence[Any]) -> CameraModel:
    matrix = np.array(values[3:], np.float64).reshape(3, 3)
    return CameraModel(int(values[0]), int(values[1]), matrix, assumed=bool(values[2]))
