"""Covariances of turned and carried-over poses against samples."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vpr.geometry import inverse, pose_from_quaternion
from vpr.uncertain_pose import between, body_axes, inverted

SAMPLES = 20_000
A_T_B = pose_from_quaternion(
    (1.0, -2.0, 0.5), Rotation.from_euler("xyz", [0.3, -0.2, 1.0]).as_quat()
)
B_T_C = pose_from_quaternion(
    (3.0, 1.0, -1.0), Rotation.from_euler("xyz", [0.1, 0.4, -2.0]).as_quat()
)
C_T_D = pose_from_quaternion(
    (-0.5, 2.0, 1.0), Rotation.from_euler("xyz", [-0.6, 0.2, 0.3]).as_quat()
)
SIGMAS = np.array([0.02, 0.05, 0.01, 0.004, 0.01, 0.006])
MIXING = np.eye(6) + 0.3 * np.random.default_rng(1).standard_normal((6, 6))
COVARIANCE = MIXING @ np.diag(SIGMAS**2) @ MIXING.T


def disturbed(pose):
    """Poses whose translation and fixed-axis rotation have the covariance."""
    noise = np.random.default_rng(0).multivariate_normal(np.zeros(6), COVARIANCE, SAMPLES)
    poses = np.tile(pose, (SAMPLES, 1, 1))
    poses[:, :3, 3] += noise[:, :3]
    poses[:, :3, :3] = Rotation.from_rotvec(noise[:, 3:]).as_matrix() @ pose[:3, :3]
    return poses


def measured_covariance(poses, mean):
    turns = Rotation.from_matrix(poses[:, :3, :3] @ mean[:3, :3].T).as_rotvec()
    return np.cov(np.hstack([poses[:, :3, 3] - mean[:3, 3], turns]).T)


def test_the_inverse_has_the_covariance_that_samples_have():
    pose, covariance = inverted(B_T_C, COVARIANCE)
    np.testing.assert_allclose(pose, inverse(B_T_C), atol=1e-12)
    sampled = measured_covariance(np.linalg.inv(disturbed(B_T_C)), pose)
    np.testing.assert_allclose(sampled, covariance, atol=0.04 * np.abs(covariance).max())


def test_between_exact_poses_it_has_the_covariance_that_samples_have():
    pose, covariance = between(A_T_B, B_T_C, COVARIANCE, C_T_D)
    np.testing.assert_allclose(pose, A_T_B @ B_T_C @ C_T_D, atol=1e-12)
    sampled = measured_covariance(A_T_B @ disturbed(B_T_C) @ C_T_D, pose)
    np.testing.assert_allclose(sampled, covariance, atol=0.04 * np.abs(covariance).max())


def test_body_axes_are_those_of_g2o_and_gtsam():
    gtsam = pytest.importorskip("gtsam")
    poses = disturbed(B_T_C)[:4000]
    mean = gtsam.Pose3(B_T_C)
    tangent = np.array([mean.localCoordinates(gtsam.Pose3(pose)) for pose in poses])
    sampled = np.cov(tangent[:, [3, 4, 5, 0, 1, 2]].T)
    covariance = body_axes(B_T_C, COVARIANCE)
    np.testing.assert_allclose(sampled, covariance, atol=0.08 * np.abs(covariance).max())


def test_twice_inverted_is_the_same():
    pose, covariance = inverted(*inverted(B_T_C, COVARIANCE))
    np.testing.assert_allclose(pose, B_T_C, atol=1e-12)
    np.testing.assert_allclose(covariance, COVARIANCE, atol=1e-12)
