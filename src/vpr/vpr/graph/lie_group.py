"""The two groups a trajectory can live on, SE(3) and SE(2), over GTSAM's types.

Outside this file covariances are (6, 6) in the order of geometry_msgs, x y z roll pitch yaw about
the fixed axes of the frame a pose is given in. GTSAM's tangent space is another one: body axes,
and for SE(3) rotation before translation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import gtsam
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vpr.geometry import pose_from_xy_yaw, yaw_of
from vpr.records import Covariance, Pose

Matrix = NDArray[np.float64]


class LieGroup(Protocol):
    """What the smoother needs of a group; elements are ``gtsam.Pose3`` or ``gtsam.Pose2``."""

    dimension: int

    def tangent(self, translation: float, rotation: float) -> NDArray[np.float64]:
        """Tangent vector (d,): one value for all translations (m), one for all rotations (rad)."""

    def element(self, pose: Pose) -> Any:
        """Group element of a (4, 4) pose."""

    def pose(self, element: Any) -> Pose:
        """(4, 4) pose of a group element."""

    def tangent_covariance(self, covariance: Covariance, pose: Pose) -> Matrix:
        """Covariance (d, d) in the tangent space at the pose, from geometry_msgs order."""

    def moves(self, tangents: Matrix) -> NDArray[np.float64]:
        """(N, 4, 4) poses of tangent vectors (N, d) at the identity: the exponential map."""

    def covariance(self, tangent: Matrix, pose: Pose) -> Covariance:
        """Inverse of ``tangent_covariance``; what the group does not hold is zero."""

    def between(self, from_key: int, to_key: int, measured: Any, noise: Any) -> Any:
        """Factor of a measured from_T_to."""

    def prior(self, key: int, element: Any, noise: Any) -> Any:
        """Factor that ties a variable to an element."""

    def estimate(self, isam: gtsam.ISAM2, key: int) -> Any:
        """Current element of one variable."""

    def poses(self, values: gtsam.Values) -> NDArray[np.float64]:
        """(N, 4, 4) poses of all values, ascending by key."""


class SE3:
    """Rigid motions of space; tangent order rotation, translation."""

    dimension = 6

    def tangent(self, translation: float, rotation: float) -> NDArray[np.float64]:
        return np.array((rotation,) * 3 + (translation,) * 3)

    def element(self, pose: Pose) -> gtsam.Pose3:
        return gtsam.Pose3(pose)

    def pose(self, element: gtsam.Pose3) -> Pose:
        return np.asarray(element.matrix())

    @staticmethod
    def _to_tangent(pose: Pose) -> Matrix:
        change = np.zeros((6, 6))
        change[:3, 3:] = change[3:, :3] = pose[:3, :3].T
        return change

    def tangent_covariance(self, covariance: Covariance, pose: Pose) -> Matrix:
        change = self._to_tangent(pose)
        return np.asarray(change @ covariance @ change.T)

    def moves(self, tangents: Matrix) -> NDArray[np.float64]:
        turns, shifts = tangents[:, :3], tangents[:, 3:, None]
        angles = np.linalg.norm(turns, axis=1)[:, None, None]
        small = angles < 1e-4  # there, the first terms of the series
        safe = np.where(small, 1.0, angles)
        first = np.where(small, 0.5, (1.0 - np.cos(safe)) / safe**2)
        second = np.where(small, 1.0 / 6.0, (safe - np.sin(safe)) / safe**3)
        cross = np.cross(turns[:, None, :], np.eye(3)).transpose(0, 2, 1)
        result = np.tile(np.eye(4), (len(tangents), 1, 1))
        result[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
        screw = np.eye(3) + first * cross + second * (cross @ cross)
        result[:, :3, 3] = (screw @ shifts)[:, :, 0]
        return result

    def covariance(self, tangent: Matrix, pose: Pose) -> Covariance:
        change = self._to_tangent(pose).T
        return np.asarray(change @ tangent @ change.T)

    def between(self, from_key: int, to_key: int, measured: Any, noise: Any) -> Any:
        return gtsam.BetweenFactorPose3(from_key, to_key, measured, noise)

    def prior(self, key: int, element: Any, noise: Any) -> Any:
        return gtsam.PriorFactorPose3(key, element, noise)

    def estimate(self, isam: gtsam.ISAM2, key: int) -> gtsam.Pose3:
        return isam.calculateEstimatePose3(key)

    def poses(self, values: gtsam.Values) -> NDArray[np.float64]:
        rows = np.asarray(gtsam.utilities.extractPose3(values))  # rotation row by row, translation
        result = np.tile(np.eye(4), (len(rows), 1, 1))
        result[:, :3, :3] = rows[:, :9].reshape(-1, 3, 3)
        result[:, :3, 3] = rows[:, 9:]
        return result


class SE2:
    """Rigid motions of the plane; tangent order x, y, yaw."""

    dimension = 3
    _PLANE = np.ix_((0, 1, 5), (0, 1, 5))

    def tangent(self, translation: float, rotation: float) -> NDArray[np.float64]:
        return np.array([translation, translation, rotation])

    def element(self, pose: Pose) -> gtsam.Pose2:
        return gtsam.Pose2(pose[0, 3], pose[1, 3], yaw_of(pose))

    def pose(self, element: gtsam.Pose2) -> Pose:
        return pose_from_xy_yaw(element.x(), element.y(), element.theta())

    @staticmethod
    def _to_tangent(pose: Pose) -> Matrix:
        return pose_from_xy_yaw(0.0, 0.0, yaw_of(pose))[:3, :3].T

    def tangent_covariance(self, covariance: Covariance, pose: Pose) -> Matrix:
        change = self._to_tangent(pose)
        return np.asarray(change @ covariance[self._PLANE] @ change.T)

    def moves(self, tangents: Matrix) -> NDArray[np.float64]:
        in_space = np.zeros((len(tangents), 6))
        in_space[:, [3, 4, 2]] = tangents
        return SE3().moves(in_space)

    def covariance(self, tangent: Matrix, pose: Pose) -> Covariance:
        change = self._to_tangent(pose).T
        result = np.zeros((6, 6))
        result[self._PLANE] = change @ tangent @ change.T
        return result

    def between(self, from_key: int, to_key: int, measured: Any, noise: Any) -> Any:
        return gtsam.BetweenFactorPose2(from_key, to_key, measured, noise)

    def prior(self, key: int, element: Any, noise: Any) -> Any:
        return gtsam.PriorFactorPose2(key, element, noise)

    def estimate(self, isam: gtsam.ISAM2, key: int) -> gtsam.Pose2:
        return isam.calculateEstimatePose2(key)

    def poses(self, values: gtsam.Values) -> NDArray[np.float64]:
        rows = np.asarray(gtsam.utilities.extractPose2(values))  # x y yaw
        cosine, sine = np.cos(rows[:, 2]), np.sin(rows[:, 2])
        result = np.tile(np.eye(4), (len(rows), 1, 1))
        result[:, 0, 0], result[:, 0, 1] = cosine, -sine
        result[:, 1, 0], result[:, 1, 1] = sine, cosine
        result[:, :2, 3] = rows[:, :2]
        return result


def diagonal(values: Sequence[float] | NDArray[np.float64]) -> Matrix:
    """As ``numpy.diag`` of a vector; for a few values in a fifth of its time."""
    size = len(values)
    result = np.zeros(size * size)
    result[:: size + 1] = values
    return result.reshape(size, size)


def lie_group(mode: str) -> LieGroup:
    """The group of ``PoseGraphConfig.mode``."""
    return SE2() if mode == "se2" else SE3()
