"""Metric 3-D points of a keyframe's features: from its depth image, or triangulated.

Without depth, a keyframe's features are triangulated against neighbouring keyframes of the same
session over the baseline that odometry measured, as VINS-Mono does for its loop closures; that
is where a single camera's metric scale comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.geometry import inverse
from vpr.records import Pose
from vpr.verification.epipolar import sharpened_motion
from vpr.verification.features import LocalFeatures
from vpr.verification.matching import match_features

MIN_PARALLAX = 3.0  # px of a 640 px wide image; less says nothing of depth
MAX_DEPTH = 80.0  # m


@dataclass(frozen=True)
class Neighbour:
    """A nearby view of the same session and the motion to it as odometry has it.

    Attributes:
        motion: own_T_other between the two camera optical frames, metres.
        steps: keyframes between the two.
    """

    features: LocalFeatures
    motion: Pose
    steps: int


@dataclass(frozen=True)
class Landmarks:
    """3-D points of a keyframe's features in its camera's optical frame.

    Attributes:
        points: (N, 3) metres; NaN where unknown.
        depth_sigmas: (N,) standard deviation of each depth, metres.
        scale_sigma: standard deviation of a common factor on all points, relative; 0 for depth
            images.
        measured: whether the points come from a depth image.
    """

    points: NDArray[np.float32]
    depth_sigmas: NDArray[np.float32]
    scale_sigma: float
    measured: bool

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) which features have a point."""
        return np.asarray(np.isfinite(self.points[:, 2]))


def from_depth(features: LocalFeatures, config: LoopClosureConfig) -> Landmarks:
    """Back-project the features that have a depth; its noise grows with its square."""
    ones = np.ones((len(features), 1))
    points = np.hstack([features.rays, ones]) * features.depths[:, None]
    sigmas = config.depth_noise * features.depths**2
    return Landmarks(points.astype(np.float32), sigmas.astype(np.float32), 0.0, measured=True)


def triangulated(
    own: LocalFeatures,
    neighbours: Sequence[Neighbour],
    config: LoopClosureConfig,
) -> Landmarks:
    """Triangulate features against neighbouring views; the widest parallax wins.

    The length of each baseline is odometry's, its rotation and direction are sharpened by the
    matches themselves.
    """
    points = np.full((len(own), 3), np.nan)
    parallaxes = np.zeros(len(own))
    scale_sigmas = []
    for neighbour in neighbours:
        rows, found, parallax = _from_pair(own, neighbour, config)
        better = parallax > parallaxes[rows]
        points[rows[better]] = found[better]
        parallaxes[rows[better]] = parallax[better]
        scale_sigmas.append(_scale_sigma(neighbour, config))
    # a parallax known to the pixel noise of two views says this much of the depth
    noise = np.sqrt(2.0) * config.pixel_noise
    with np.errstate(divide="ignore"):
        depth_sigmas = points[:, 2] * noise / parallaxes
    return Landmarks(
        points.astype(np.float32),
        depth_sigmas.astype(np.float32),
        max(scale_sigmas, default=0.0),
        measured=False,
    )


def _scale_sigma(neighbour: Neighbour, config: LoopClosureConfig) -> float:
    """Relative standard deviation of a baseline's length."""
    noise = config.odometry_noise * np.sqrt(neighbour.steps)
    baseline = np.linalg.norm(neighbour.motion[:3, 3])
    return float(np.hypot(noise / baseline, config.odometry_scale_noise))


def _from_pair(
    own: LocalFeatures, neighbour: Neighbour, config: LoopClosureConfig
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Feature indices, points (M, 3) and parallax (M,) in pixels of the consistent matches."""
    other = neighbour.features
    rows, columns = match_features(own, other, config)
    ones = np.ones((len(rows), 1))
    a = np.hstack([own.rays[rows], ones])
    b = np.hstack([other.rays[columns], ones])
    own_T_other = sharpened_motion(
        neighbour.motion,
        a,
        b,
        ray_noise=config.pixel_noise * float(np.hypot(own.unit, other.unit)),
        rotation_noise=config.odometry_rotation_noise * float(np.sqrt(neighbour.steps)),
        direction_noise=_scale_sigma(neighbour, config),
    )
    b = b @ own_T_other[:3, :3].T
    baseline = own_T_other[:3, 3]
    depth_a, depth_b, parallax = _closest_points(a, b, baseline)
    points = a * depth_a[:, None]
    in_other = (points - baseline) @ own_T_other[:3, :3]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(in_other[:, :2] / in_other[:, 2:] - other.rays[columns], axis=1)
    good = (depth_a > 0.1) & (depth_b > 0.1) & (depth_a < MAX_DEPTH)
    good &= parallax > MIN_PARALLAX * own.unit
    good &= error < 2.0 * config.inlier_threshold * other.unit
    return rows[good], points[good], parallax[good] / own.unit


def _closest_points(
    a: NDArray[np.float64], b: NDArray[np.float64], baseline: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Where the rays ``s a`` and ``baseline + t b`` are closest: s, t and the angle in radians."""
    aa, bb, ab = (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)
    ac, bc = a @ baseline, b @ baseline
    determinant = np.maximum(aa * bb - ab**2, 1e-12)
    s = (bb * ac - ab * bc) / determinant
    t = (ab * ac - aa * bc) / determinant
    sine = np.sqrt(determinant / (aa * bb))
    return s, t, np.arcsin(np.clip(sine, 0.0, 1.0))


def camera_step(own: Pose, other: Pose, base_T_camera: Pose) -> Pose:
    """own_T_other between camera frames of two base poses in one odometry frame."""
    return inverse(own @ base_T_camera) @ other @ base_T_camera
