import numpy as np
import pytest
from made_up_scene import BASE_T_CAMERA, Scene

from vpr.config import LoopClosureConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.verification.landmarks import Neighbour, camera_step, from_depth, triangulated

CONFIG = LoopClosureConfig.from_file()
SCENE = Scene.along_x(60.0)
HERE = pose_from_xy_yaw(10.0, 0.0, 0.0)


def true_depths(features):
    """Depths of the same features without noise: what a perfect depth image would say."""
    return features.depths.astype(np.float64)


def neighbour(pose, odometry, seed):
    motion = camera_step(HERE, odometry, BASE_T_CAMERA)
    return Neighbour(SCENE.view(pose, seed=seed), motion, steps=4)


def test_triangulated_depths_are_right_within_their_sigmas():
    own = SCENE.view(HERE, seed=0, depth_noise=0.0)
    poses = [pose_from_xy_yaw(10.0 + x, 0.05 * x, 0.02 * x) for x in (-1.6, 1.6)]
    landmarks = triangulated(own, [neighbour(p, p, k + 1) for k, p in enumerate(poses)], CONFIG)

    known = landmarks.known
    assert known.sum() > 100
    assert not landmarks.measured
    error = landmarks.points[known, 2] - true_depths(own)[known]
    assert np.median(np.abs(error) / true_depths(own)[known]) < 0.06
    assert np.percentile(np.abs(error) / landmarks.depth_sigmas[known], 90) < 3.0


def test_scale_is_odometrys():
    own = SCENE.view(HERE, seed=0, depth_noise=0.0)
    true, said = pose_from_xy_yaw(11.6, 0.0, 0.0), pose_from_xy_yaw(11.76, 0.0, 0.0)
    landmarks = triangulated(own, [neighbour(true, said, 1)], CONFIG)
    known = landmarks.known
    ratio = landmarks.points[known, 2] / true_depths(own)[known]
    assert np.median(ratio) == pytest.approx(1.1, abs=0.02)
    expected = np.hypot(CONFIG.odometry_noise * 2.0 / 1.76, CONFIG.odometry_scale_noise)
    assert landmarks.scale_sigma == pytest.approx(expected)


def test_sideways_odometry_error_does_not_bend_the_points():
    own = SCENE.view(HERE, seed=0, depth_noise=0.0)
    true, said = pose_from_xy_yaw(11.6, 0.0, 0.0), pose_from_xy_yaw(11.6, 0.1, 0.01)
    landmarks = triangulated(own, [neighbour(true, said, 1)], CONFIG)
    known = landmarks.known
    assert known.sum() > 80
    ratio = landmarks.points[known, 2] / true_depths(own)[known]
    side = np.sign(landmarks.points[known, 0])
    for one in (-1, 1):  # unsharpened, the two walls would be 20 % off in opposite ways
        assert np.median(ratio[side == one]) == pytest.approx(1.0, abs=0.05)


def test_landmarks_of_a_depth_image():
    own = SCENE.view(HERE, seed=0, depth_noise=0.0)
    landmarks = from_depth(own, CONFIG)
    assert landmarks.measured
    assert landmarks.scale_sigma == 0.0
    assert landmarks.points[:, 2] == pytest.approx(own.depths)
    assert landmarks.points[:, :2] / landmarks.points[:, 2:] == pytest.approx(own.rays, abs=1e-5)
    assert landmarks.depth_sigmas == pytest.approx(CONFIG.depth_noise * own.depths**2)


def test_neighbour_of_another_place_gives_no_landmarks():
    own = SCENE.view(HERE, seed=0)
    elsewhere = Scene.along_x(60.0, seed=9).view(pose_from_xy_yaw(11.6, 0.0, 0.0))
    step = camera_step(HERE, pose_from_xy_yaw(11.6, 0.0, 0.0), BASE_T_CAMERA)
    landmarks = triangulated(own, [Neighbour(elsewhere, step, 4)], CONFIG)
    assert landmarks.known.sum() < CONFIG.min_landmarks
