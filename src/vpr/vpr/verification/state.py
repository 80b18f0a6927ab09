"""The features of all keyframes as flat arrays, for the map on disk.

Triangulated landmarks are not saved: features and odometry give them again when they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.records import CameraModel, GpsFix, Keyframe
from vpr.verification.features import LocalFeatures

ROW_SHAPES: dict[str, tuple[int, ...]] = {
    "ids": (),
    "sessions": (),
    "stamps_ns": (),
    "odometry": (4, 4),  # NaN where unknown, as the fixes
    "paths": (),
    "fixes": (3,),
    "fix_covariances": (3, 3),
    "counts": (),  # features of each keyframe; -1 where its image was lost
    "cameras": (),
}
FEATURE_SHAPES: dict[str, tuple[int, ...]] = {
    "pixels": (2,),
    "sizes": (),
    "angles": (),
    "depths": (),
}
DESCRIPTORS: dict[str, tuple[int, type[np.generic]]] = {  # width and type of each kind
    "ORB": (32, np.uint8),
    "XFeat": (64, np.float16),
}
Remembered = tuple[Keyframe, LocalFeatures | None, float]  # and metres driven in its session


class FeatureStateError(ValueError):
    """Saved features that are incomplete or contradict themselves."""


def _feature_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    return FEATURE_SHAPES | {"descriptors": (DESCRIPTORS[kind][0],)}


def pack_features(
    remembered: Sequence[Remembered], kind: str = "ORB"
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays by name and JSON-able metadata: keyframes in rows, features one after another."""
    keyframes = [keyframe for keyframe, _, _ in remembered]
    present = [features for _, features, _ in remembered if features is not None]
    cameras, camera_of = _distinct_cameras([features for _, features, _ in remembered])
    unknown = np.full((4, 4), np.nan)
    fixes = [keyframe.fix for keyframe in keyframes]
    arrays: dict[str, NDArray[Any]] = {
        "ids": np.array([k.id for k in keyframes], np.int64),
        "sessions": np.array([k.session for k in keyframes], np.int64),
        "stamps_ns": np.array([k.stamp_ns for k in keyframes], np.int64),
        "odometry": np.array([unknown if k.odometry is None else k.odometry for k in keyframes]),
        "paths": np.array([path for _, _, path in remembered], np.float64),
        "fixes": np.array(
            [
                (np.nan,) * 3 if fix is None else (fix.latitude, fix.longitude, fix.altitude)
                for fix in fixes
            ]
        ),
        "fix_covariances": np.array(
            [
                np.full((3, 3), np.nan) if fix is None or fix.covariance is None else fix.covariance
                for fix in fixes
            ]
        ),
        "counts": np.array([-1 if f is None else len(f) for _, f, _ in remembered], np.int64),
        "cameras": camera_of,
        "pixels": _joined([f.pixels for f in present], np.float32),
        "sizes": _joined([f.sizes for f in present], np.float32),
        "angles": _joined([f.angles for f in present], np.float32),
        "descriptors": _joined([f.descriptors for f in present], DESCRIPTORS[kind][1]),
        "depths": _joined([f.depths for f in present], np.float32),
    }
    shapes = ROW_SHAPES | _feature_shapes(kind)
    arrays = {name: array.reshape(-1, *shapes[name]) for name, array in arrays.items()}
    return arrays, {"cameras": cameras, "feature": kind}


def unpack_features(
    arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any], kind: str = "ORB"
) -> list[Remembered]:
    """The keyframes in order with their features and the distance driven.

    Args:
        kind: of the features that are expected, a key of ``DESCRIPTORS``.

    Raises:
        FeatureStateError: an array is missing or of the wrong shape, or of other features.
    """
    _check(arrays, metadata, kind)
    cameras = [_camera(values) for values in metadata["cameras"]]
    counts = arrays["counts"]
    ends = np.cumsum(np.maximum(counts, 0))
    remembered: list[Remembered] = []
    for row, count in enumerate(counts):
        features = None
        if count >= 0:
            part = slice(int(ends[row] - count), int(ends[row]))
            own = {name: np.array(arrays[name][part]) for name in _feature_shapes(kind)}
            features = LocalFeatures(**own, camera=cameras[int(arrays["cameras"][row])])
        remembered.append((_keyframe(arrays, row), features, float(arrays["paths"][row])))
    return remembered


def _keyframe(arrays: Mapping[str, NDArray[Any]], row: int) -> Keyframe:
    """A keyframe without its place descriptor, which is another node's part of the map."""
    odometry = np.array(arrays["odometry"][row], np.float64)
    latitude, longitude, altitude = (float(value) for value in arrays["fixes"][row])
    covariance = np.array(arrays["fix_covariances"][row], np.float64)
    known = np.isfinite(covariance).all()
    fix = GpsFix(latitude, longitude, altitude, covariance if known else None)
    return Keyframe(
        id=int(arrays["ids"][row]),
        session=int(arrays["sessions"][row]),
        stamp_ns=int(arrays["stamps_ns"][row]),
        descriptor=np.zeros(0, np.float32),
        model="",
        odometry=odometry if np.isfinite(odometry).all() else None,
        fix=fix if np.isfinite((latitude, longitude, altitude)).all() else None,
    )


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _distinct_cameras(
    features: Sequence[LocalFeatures | None],
) -> tuple[list[list[Any]], NDArray[np.int64]]:
    """Every camera model once, and which of them each keyframe has (0 without features)."""
    index: dict[tuple[Any, ...], int] = {}
    rows = []
    for f in features:
        if f is None:
            rows.append(0)
            continue
        c = f.camera
        values = (c.width, c.height, c.assumed, *c.matrix.ravel().tolist())
        rows.append(index.setdefault(values, len(index)))
    return [list(values) for values in index], np.array(rows, np.int64)


def _camera(values: Sequence[Any]) -> CameraModel:
    matrix = np.array(values[3:], np.float64).reshape(3, 3)
    return CameraModel(int(values[0]), int(values[1]), matrix, assumed=bool(values[2]))


def _check(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any], kind: str) -> None:
    missing = {*ROW_SHAPES, *_feature_shapes(kind)} - set(arrays)
    if missing or "cameras" not in metadata:
        raise FeatureStateError(f"saved features lack {', '.join(sorted(missing)) or 'cameras'}")
    if metadata.get("feature") != kind:
        raise FeatureStateError(
            f"saved features are {metadata.get('feature')!r}, "
            f"but loop_closure.features asks for {kind}"
        )
    rows = len(arrays["counts"])
    total = int(np.maximum(arrays["counts"], 0).sum())
    for shapes, length in ((ROW_SHAPES, rows), (_feature_shapes(kind), total)):
        for name, shape in shapes.items():
            if arrays[name].shape != (length, *shape):
                raise FeatureStateError(
                    f"'{name}' has shape {arrays[name].shape}, not {(length, *shape)}"
                )
    used = arrays["cameras"][arrays["counts"] >= 0]
    if len(used) and not 0 <= used.min() <= used.max() < len(metadata["cameras"]):
        raise FeatureStateError("a keyframe's camera is not among those saved")
