"""What becomes of a pose's covariance when the pose is turned round or tied to other frames.

A covariance is (6, 6) as in geometry_msgs: translation (m), then fixed-axis rotation (rad), both
in the axes of the frame that the pose is given in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpr.geometry import inverse
from vpr.records import Covariance, Pose


def inverted(a_T_b: Pose, covariance: Covariance) -> tuple[Pose, Covariance]:
    """b_T_a of a_T_b, its covariance in b's axes."""
    turn = a_T_b[:3, :3].T
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = jacobian[3:, 3:] = -turn
    jacobian[:3, 3:] = -turn @ _cross(a_T_b[:3, 3])
    return inverse(a_T_b), jacobian @ covariance @ jacobian.T


def between(
    a_T_b: Pose, b_T_c: Pose, covariance: Covariance, c_T_d: Pose
) -> tuple[Pose, Covariance]:
    """a_T_d of an uncertain b_T_c between two exact poses, its covariance in a's axes."""
    turn = a_T_b[:3, :3]
    lever = turn @ b_T_c[:3, :3] @ c_T_d[:3, 3]
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = jacobian[3:, 3:] = turn
    jacobian[:3, 3:] = -_cross(lever) @ turn
    return a_T_b @ b_T_c @ c_T_d, jacobian @ covariance @ jacobian.T


def body_axes(a_T_b: Pose, covariance: Covariance) -> Covariance:
    """The covariance in b's own axes, as g2o and GTSAM have it; the order stays."""
    turn = np.kron(np.eye(2), a_T_b[:3, :3].T)
    result: Covariance = turn @ covariance @ turn.T
    return result


def _cross(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) matrix that multiplies as the cross product from the left."""
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
