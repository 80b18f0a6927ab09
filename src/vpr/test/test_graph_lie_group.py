"""Conversions between poses and covariances as ROS has them and GTSAM's."""

import gtsam
import numpy as np
import pytest

from vpr.geometry import pose_from_quaternion, pose_from_xy_yaw
from vpr.graph.lie_group import lie_group

POSE = pose_from_quaternion([1.0, -2.0, 0.5], [0.1, 0.2, -0.3, 0.9])


def random_covariance(seed):
    root = np.random.default_rng(seed).normal(size=(6, 6))
    return root @ root.T


def test_se3_covariance_is_that_of_small_motions_about_fixed_axes():
    """A small motion in geometry_msgs terms, seen by GTSAM, is what the conversion says it is."""
    group = lie_group("se3")
    for axis in range(6):
        step = np.zeros(6)
        step[axis] = 1e-6
        moved = POSE.copy()
        moved[:3, 3] += step[:3]
        moved[:3, :3] = gtsam.Rot3.Expmap(step[3:]).matrix() @ POSE[:3, :3]
        tangent = group.element(POSE).localCoordinates(group.element(moved))
        expected = np.outer(tangent, tangent)
        converted = group.tangent_covariance(np.outer(step, step), POSE)
        np.testing.assert_allclose(converted, expected, atol=1e-16)


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_covariance_round_trips(mode):
    group = lie_group(mode)
    covariance = random_covariance(1)
    if mode == "se2":
        covariance[[2, 3, 4], :] = 0.0
        covariance[:, [2, 3, 4]] = 0.0
    again = group.covariance(group.tangent_covariance(covariance, POSE), POSE)
    np.testing.assert_allclose(again, covariance, atol=1e-12)


def test_se2_keeps_the_plane_and_drops_the_rest():
    group = lie_group("se2")
    planar = pose_from_xy_yaw(3.0, 4.0, -2.5)
    lifted = planar.copy()
    lifted[2, 3] = 7.0
    np.testing.assert_allclose(group.pose(group.element(lifted)), planar, atol=1e-12)


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_poses_of_values_come_by_ascending_key(mode):
    group = lie_group(mode)
    values = gtsam.Values()
    poses = {5: pose_from_xy_yaw(1, 2, 3), 2: pose_from_xy_yaw(-1, 0, 1), 9: np.eye(4)}
    for key, pose in poses.items():
        values.insert(key, group.element(pose))
    expected = np.array([poses[key] for key in sorted(poses)])
    np.testing.assert_allclose(group.poses(values), expected, atol=1e-12)


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_tangent_has_the_groups_order(mode):
    group = lie_group(mode)
    limits = group.tangent(translation=2.0, rotation=0.1)
    turned = group.element(pose_from_xy_yaw(0, 0, 0.05))
    shifted = group.element(pose_from_xy_yaw(1.0, 0, 0))
    origin = group.element(np.eye(4))
    assert limits[np.abs(origin.localCoordinates(turned)).argmax()] == 0.1
    assert limits[np.abs(origin.localCoordinates(shifted)).argmax()] == 2.0
