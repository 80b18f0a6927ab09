"""Rigid transforms and poses over time.

A pose is a (4, 4) float64 matrix; quaternions are x y z w as in ROS messages; stamps are
integer nanoseconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vpr.records import Pose


class PoseUnavailable(LookupError):
    """No pose can be interpolated at the asked stamp; ``str(error)`` says why."""


def pose_from_quaternion(translation: ArrayLike, quaternion_xyzw: ArrayLike) -> Pose:
    """Pose of a translation (3,) in metres and a quaternion (4,).

    Raises:
        ValueError: when a value is not finite or the quaternion is (nearly) zero.
    """
    t = np.asarray(translation, dtype=np.float64)
    q = np.asarray(quaternion_xyzw, dtype=np.float64)
    if not (np.isfinite(t).all() and np.isfinite(q).all()):
        raise ValueError("pose has a value that is not finite")
    if np.linalg.norm(q) < 1e-6:
        raise ValueError("pose has a zero quaternion")
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(q).as_matrix()
    pose[:3, 3] = t
    return pose


def poses_from_quaternions(
    translations: ArrayLike, quaternions_xyzw: ArrayLike
) -> NDArray[np.float64]:
    """(N, 4, 4) poses of translations (N, 3) in metres and quaternions (N, 4).

    Raises:
        ValueError: as ``pose_from_quaternion``, for any of them.
    """
    t = np.asarray(translations, dtype=np.float64).reshape(-1, 3)
    q = np.asarray(quaternions_xyzw, dtype=np.float64).reshape(-1, 4)
    if not (np.isfinite(t).all() and np.isfinite(q).all()):
        raise ValueError("a pose has a value that is not finite")
    if len(q) and np.linalg.norm(q, axis=1).min() < 1e-6:
        raise ValueError("a pose has a zero quaternion")
    poses = np.tile(np.eye(4), (len(t), 1, 1))
    poses[:, :3, 3] = t
    if len(q):
        poses[:, :3, :3] = Rotation.from_quat(q).as_matrix()
    return poses


def pose_from_xy_yaw(x: float, y: float, yaw: float) -> Pose:
    """Planar pose in metres and radians."""
    pose = np.eye(4)
    c, s = np.cos(yaw), np.sin(yaw)
    pose[:2, :2] = [[c, -s], [s, c]]
    pose[:2, 3] = x, y
    return pose


def quaternion_of(pose: Pose) -> NDArray[np.float64]:
    """Quaternion x y z w of a pose's rotation, w >= 0."""
    quaternion: NDArray[np.float64] = Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True)
    return quaternion


def yaw_of(pose: Pose) -> float:
    """Heading about +z, radians in (-pi, pi]."""
    return float(np.arctan2(pose[1, 0], pose[0, 0]))


def inverse(pose: Pose) -> Pose:
    """Inverse of a rigid transform."""
    rotation, result = pose[:3, :3].T, np.eye(4)
    result[:3, :3] = rotation
    result[:3, 3] -= rotation.dot(pose[:3, 3])
    return result


def relative(a: Pose, b: Pose) -> Pose:
    """a_T_b of two poses given in one common frame."""
    return inverse(a) @ b


def rotation_angle(pose: Pose) -> float:
    """Angle of the rotation, radians in [0, pi]."""
    cosine = (float(pose[0, 0] + pose[1, 1] + pose[2, 2]) - 1.0) / 2.0
    return math.acos(min(max(cosine, -1.0), 1.0))


def translation_norm(pose: Pose) -> float:
    """Length of the translation, metres."""
    return math.hypot(*pose[:3, 3].tolist())


def interpolate(a: Pose, b: Pose, fraction: float) -> Pose:
    """Linear in translation, geodesic (slerp) in rotation; fraction 0 gives a, 1 gives b."""
    result = np.eye(4)
    result[:3, 3] = (1.0 - fraction) * a[:3, 3] + fraction * b[:3, 3]
    step = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).as_rotvec()
    result[:3, :3] = a[:3, :3] @ Rotation.from_rotvec(fraction * step).as_matrix()
    return result


class PoseTrack:
    """Recent poses in stamp order, interpolated on demand.

    Args:
        max_gap_ns: two neighbours further apart than this are not interpolated between.
        capacity: oldest poses are forgotten beyond this many.
    """

    def __init__(self, max_gap_ns: int, capacity: int = 10_000) -> None:
        self.max_gap_ns = max_gap_ns
        self.capacity = capacity
        self._stamps: list[int] = []
        self._poses: list[Pose] = []

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def last_stamp_ns(self) -> int | None:
        """Stamp of the newest pose."""
        return self._stamps[-1] if self._stamps else None

    def append(self, stamp_ns: int, pose: Pose) -> None:
        """Add the newest pose.

        Raises:
            ValueError: when the stamp does not ascend.
        """
        if self._stamps and stamp_ns <= self._stamps[-1]:
            raise ValueError(f"stamp {stamp_ns} ns is not after {self._stamps[-1]} ns")
        self._stamps.append(stamp_ns)
        self._poses.append(pose)
        if len(self._stamps) > 2 * self.capacity:  # amortised trimming
            del self._stamps[: -self.capacity], self._poses[: -self.capacity]

    def clear(self) -> None:
        """Forget everything, as when time jumped back."""
        self._stamps.clear()
        self._poses.clear()

    def at(self, stamp_ns: int) -> Pose:
        """Pose at a stamp, interpolated between its two neighbours.

        Raises:
            PoseUnavailable: outside the track, or in a gap longer than ``max_gap_ns``.
        """
        if not self._stamps:
            raise PoseUnavailable("no pose received")
        after = bisect_left(self._stamps, stamp_ns)
        if after < len(self._stamps) and self._stamps[after] == stamp_ns:
            return self._poses[after]
        if after == 0:
            raise PoseUnavailable("stamp is before the first pose")
        if after == len(self._stamps):
            raise PoseUnavailable("stamp is after the last pose")
        before_ns, after_ns = self._stamps[after - 1], self._stamps[after]
        if after_ns - before_ns > self.max_gap_ns:
            raise PoseUnavailable(f"poses are {(after_ns - before_ns) / 1e9:.2f} s apart there")
        fraction = (stamp_ns - before_ns) / (after_ns - before_ns)
        return interpolate(self._poses[after - 1], self._poses[after], fraction)
