"""The features of all keyframes as flat arrays, for the map on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.records import CameraModel, Keyframe
from vpr.verification.features import LocalFeatures
from vpr.verification.landmarks import Landmarks

ROW_ARRAYS = (
    "ids",
    "sessions",
    "stamps_ns",
    "odometry",
    "paths",
    "counts",
    "scale_sigmas",
    "kinds",
)
FEATURE_ARRAYS = (
    "pixels", "sizes", "angles", "descriptors", "depths", "points", "depth_sigmas",
)  # fmt: skip
NO_LANDMARKS, TRIANGULATED, MEASURED = 0, 1, 2
Restored = tuple[Keyframe, LocalFeatures | None, Landmarks | None, float]


class FeatureStateError(ValueError):
    """Saved features that are incomplete or contradict themselves."""


def pack_features(
    keyframes: Sequence[Keyframe],
    features: Sequence[LocalFeatures | None],
    landmarks: Sequence[Landmarks | None],
    paths: Sequence[float],
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays by name and JSON-able metadata: keyframes in rows, features one after another."""
    present = [f for f in features if f is not None]
    counts = np.array([-1 if f is None else len(f) for f in features], np.int64)
    unknown = np.full((4, 4), np.nan)
    points = [
        np.full((len(f), 3), np.nan, np.float32) if known is None else known.points
        for f, known in zip(features, landmarks, strict=True)
        if f is not None
    ]
    depth_sigmas = [
        np.full(len(f), np.nan, np.float32) if known is None else known.depth_sigmas
        for f, known in zip(features, landmarks, strict=True)
        if f is not None
    ]
    kinds = [NO_LANDMARKS if k is None else MEASURED if k.measured else TRIANGULATED
             for k in landmarks]  # fmt: skip
    arrays = {
        "ids": np.array([k.id for k in keyframes], np.int64),
        "sessions": np.array([k.session for k in keyframes], np.int64),
        "stamps_ns": np.array([k.stamp_ns for k in keyframes], np.int64),
        "odometry": np.array(
            [unknown if k.odometry is None else k.odometry for k in keyframes]
        ).reshape(-1, 4, 4),
        "paths": np.array(paths, np.float64),
        "counts": counts,
        "kinds": np.array(kinds, np.int64),
        "scale_sigmas": np.array([0.0 if k is None else k.scale_sigma for k in landmarks]),
        "pixels": _joined([f.pixels for f in present], (0, 2), np.float32),
        "sizes": _joined([f.sizes for f in present], (0,), np.float32),
        "angles": _joined([f.angles for f in present], (0,), np.float32),
        "descriptors": _joined([f.descriptors for f in present], (0, 32), np.uint8),
        "depths": _joined([f.depths for f in present], (0,), np.float32),
        "points": _joined(points, (0, 3), np.float32),
        "depth_sigmas": _joined(depth_sigmas, (0,), np.float32),
    }
    cameras, camera_of = _distinct_cameras(features)
    arrays["cameras"] = camera_of
    return arrays, {"cameras": cameras, "feature": "ORB"}


def unpack_features(
    arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> list[Restored]:
    """The keyframes in order with their features, landmarks and distance driven.

    Raises:
        FeatureStateError: an array is missing or of the wrong length, or of other features.
    """
    _check(arrays, metadata)
    cameras = [_camera(values) for values in metadata["cameras"]]
    counts = arrays["counts"]
    ends = np.cumsum(np.maximum(counts, 0))
    restored: list[Restored] = []
    for row in range(len(counts)):
        odometry = np.array(arrays["odometry"][row], np.float64)
        keyframe = Keyframe(
            id=int(arrays["ids"][row]),
            session=int(arrays["sessions"][row]),
            stamp_ns=int(arrays["stamps_ns"][row]),
            descriptor=np.zeros(0, np.float32),
            model="",
            odometry=odometry if np.isfinite(odometry).all() else None,
        )
        features = landmarks = None
        if counts[row] >= 0:
            part = slice(int(ends[row] - counts[row]), int(ends[row]))
            camera = cameras[int(arrays["cameras"][row])]
            features = LocalFeatures(
                np.array(arrays["pixels"][part]),
                np.array(arrays["sizes"][part]),
                np.array(arrays["angles"][part]),
                np.array(arrays["descriptors"][part]),
                np.array(arrays["depths"][part]),
                camera,
            )
            if arrays["kinds"][row] != NO_LANDMARKS:
                landmarks = Landmarks(
                    np.array(arrays["points"][part]),
                    np.array(arrays["depth_sigmas"][part]),
                    float(arrays["scale_sigmas"][row]),
                    bool(arrays["kinds"][row] == MEASURED),
                )
        restored.append((keyframe, features, landmarks, float(arrays["paths"][row])))
    return restored


def _joined(
    parts: Sequence[NDArray[Any]], empty: tuple[int, ...], dtype: type[np.generic]
) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(empty, dtype)


def _distinct_cameras(
    features: Sequence[LocalFeatures | None],
) -> tuple[list[list[Any]], NDArray[np.int64]]:
    """Every camera model once, and which of them each keyframe has."""
    index: dict[str, int] = {}
    cameras: list[list[Any]] = []
    rows = []
    for f in features:
        if f is None:
            rows.append(0)
            continue
        c = f.camera
        values: list[Any] = [c.width, c.height, c.assumed, *c.matrix.ravel().tolist()]
        if str(values) not in index:
            index[str(values)] = len(cameras)
            cameras.append(values)
        rows.append(index[str(values)])
    return cameras, np.array(rows, np.int64)


def _camera(values: Sequence[Any]) -> CameraModel:
    matrix = np.array(values[3:], np.float64).reshape(3, 3)
    return CameraModel(int(values[0]), int(values[1]), matrix, assumed=bool(values[2]))


def _check(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    missing = {*ROW_ARRAYS, *FEATURE_ARRAYS} - set(arrays)
    if missing or "cameras" not in metadata:
        raise FeatureStateError(f"saved features lack {', '.join(sorted(missing)) or 'cameras'}")
    if metadata.get("feature") != "ORB":
        raise FeatureStateError(f"saved features are {metadata.get('feature')!r}, not ORB")
    rows = len(arrays["counts"])
    total = int(np.maximum(arrays["counts"], 0).sum())
    for names, length in ((ROW_ARRAYS, rows), (FEATURE_ARRAYS, total)):
        for name in names:
            if len(arrays[name]) != length:
                raise FeatureStateError(f"'{name}' has {len(arrays[name])} rows, not {length}")
    if rows and int(arrays["cameras"].max()) >= max(len(metadata["cameras"]), 1):
        raise FeatureStateError("a keyframe's camera is not among those saved")
