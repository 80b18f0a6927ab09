"""Rigid transforms and poses over time.

A pose is a (4, 4) float64 matrix; quaternions are x y z w as in ROS messages; stamps are
integer nanoseconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpr.records import Pose

Rows = tuple[tuple[float, float, float], ...]  # of a matrix


class PoseUnavailable(LookupError):
    """No pose can be interpolated at the asked stamp; ``str(error)`` says why."""


def pose_from_quaternion(translation: ArrayLike, quaternion_xyzw: ArrayLike) -> Pose:
    """Pose of a translation (3,) in metres and a quaternion (4,).

    Raises:
        ValueError: when a value is not finite or the quaternion is (nearly) zero.
    """
    tx, ty, tz = map(float, np.asarray(translation, np.float64).tolist())
    x, y, z, w = map(float, np.asarray(quaternion_xyzw, np.float64).tolist())
    if not all(map(math.isfinite, (tx, ty, tz, x, y, z, w))):
        raise ValueError("pose has a value that is not finite")
    if math.hypot(x, y, z, w) < 1e-6:
        raise ValueError("pose has a zero quaternion")
    pose = np.eye(4)
    pose[:3, :3] = _rotation(x, y, z, w)
    pose[:3, 3] = tx, ty, tz
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
    if (np.linalg.norm(q, axis=1) < 1e-6).any():
        raise ValueError("a pose has a zero quaternion")
    poses = np.tile(np.eye(4), (len(t), 1, 1))
    poses[:, :3, :3] = np.array([_rotation(*turn) for turn in q.tolist()]).reshape(-1, 3, 3)
    poses[:, :3, 3] = t
    return poses


def rotation_from_vector(turn: ArrayLike) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) of a rotation vector (3,): its axis times its angle in radians."""
    x, y, z = map(float, np.asarray(turn, np.float64).tolist())
    angle = math.hypot(x, y, z)
    share = math.sin(angle / 2.0) / angle if angle > 1e-12 else 0.5
    return np.array(_rotation(share * x, share * y, share * z, math.cos(angle / 2.0)))


def pose_from_xy_yaw(x: float, y: float, yaw: float) -> Pose:
    """Planar pose in metres and radians."""
    pose = np.eye(4)
    c, s = np.cos(yaw), np.sin(yaw)
    pose[:2, :2] = [[c, -s], [s, c]]
    pose[:2, 3] = x, y
    return pose


def quaternion_of(pose: Pose) -> NDArray[np.float64]:
    """Quaternion x y z w of a pose's rotation, w >= 0."""
    return np.array(_quaternion(pose))


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
    x, y, z, w = _quaternion(relative(a, b))
    sine = math.hypot(x, y, z)
    turned = fraction * math.atan2(sine, w)  # half the angle
    share = math.sin(turned) / sine if sine > 1e-12 else fraction
    step = _rotation(share * x, share * y, share * z, math.cos(turned))
    result[:3, :3] = a[:3, :3] @ np.array(step)
    return result


# One rotation by NumPy or SciPy takes 60 to 370 us, which was most of what a node did; in plain
# numbers it takes two or three.


def _rotation(x: float, y: float, z: float, w: float) -> Rows:
    """Rotation matrix of a quaternion of any length."""
    length = math.hypot(x, y, z, w)
    x, y, z, w = x / length, y / length, z / length, w / length
    return (
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)),
        (2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)),
        (2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)),
    )


def _quaternion(pose: Pose) -> tuple[float, float, float, float]:
    """x y z w, w >= 0, by the largest of the four (Shepperd, J. Guidance & Control 1978)."""
    (a, b, c), (d, e, f), (g, h, i) = pose[:3, :3].tolist()
    squares = 1.0 + a - e - i, 1.0 - a + e - i, 1.0 - a - e + i, 1.0 + a + e + i  # times four
    largest = squares.index(max(squares))
    x, y, z, w = (
        (squares[0], b + d, c + g, h - f),
        (b + d, squares[1], f + h, c - g),
        (c + g, f + h, squares[2], d - b),
        (h - f, c - g, d - b, squares[3]),
    )[largest]
    length = math.copysign(math.hypot(x, y, z, w), w)
    return x / length, y / length, z / length, w / length


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
