from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_scene import BASE_T_CAMERA, CAMERA, Scene, relative_truth
from scipy.spatial.transform import Rotation

from vpr.config import LoopClosureConfig
from vpr.geometry import pose_from_quaternion, pose_from_xy_yaw, relative, rotation_angle
from vpr.verification.landmarks import from_depth
from vpr.verification.relative_pose import metric_pose, weak_pose
from vpr.verification.two_view import match_views

CONFIG = LoopClosureConfig.from_file()
SCENE = Scene.along_x(40.0)
HERE = pose_from_xy_yaw(8.0, 0.0, 0.0)


def measured(query_pose, of_reference=True, seed=0, config=CONFIG, **view):
    reference = SCENE.view(HERE, seed=2 * seed, depth_noise=config.depth_noise, **view)
    query = SCENE.view(query_pose, seed=2 * seed + 1, depth_noise=config.depth_noise, **view)
    views = match_views(query, reference, config)
    landmarks = from_depth(reference if of_reference else query, config)
    base_T_camera = view.get("base_T_camera", BASE_T_CAMERA)
    return metric_pose(query, reference, views, landmarks, of_reference, base_T_camera, config)


def error_vector(found, truth):
    """Translation and fixed-axis rotation from the truth to what was found."""
    turn = Rotation.from_matrix(found.pose[:3, :3] @ truth[:3, :3].T).as_rotvec()
    return np.concatenate([found.pose[:3, 3] - truth[:3, 3], turn])


@settings(max_examples=25, deadline=None)
@given(
    ahead=st.floats(-1.5, 1.5),
    left=st.floats(-0.8, 0.8),
    yaw=st.floats(-0.2, 0.2),
    of_reference=st.booleans(),
    changed=st.floats(0.0, 0.6),
    seed=st.integers(0, 100),
)
def test_pose_between_bases_is_found(ahead, left, yaw, of_reference, changed, seed):
    query_pose = pose_from_xy_yaw(8.0 + ahead, left, yaw)
    mounted = pose_from_quaternion((0.4, -0.1, 0.9), (-0.5, 0.5, -0.5, 0.5))
    found = measured(query_pose, of_reference, seed, changed=changed, base_T_camera=mounted)

    assert found is not None
    assert found.metric
    truth = relative_truth(HERE, query_pose)
    assert np.linalg.norm(found.pose[:3, 3] - truth[:3, 3]) < 0.12
    assert rotation_angle(relative(found.pose, truth)) < np.radians(1.0)
    assert found.inliers >= CONFIG.min_landmarks
    assert found.coverage > 0.3


@pytest.mark.parametrize("of_reference", [True, False])
def test_covariance_is_the_spread_of_the_errors(of_reference):
    """With keypoints noisy enough that the floor for unmodelled errors hardly counts."""
    noisy = CONFIG.model_copy(update={"pixel_noise": 2.0, "inlier_threshold": 6.0})
    query_pose = pose_from_xy_yaw(9.0, 0.4, 0.1)
    truth = relative_truth(HERE, query_pose)
    normalised, translations, sigmas = [], [], []
    for seed in range(40):
        found = measured(query_pose, of_reference, seed, noisy, changed=0.4, noise=2.0, limit=400)
        assert found is not None
        error = error_vector(found, truth)
        normalised.append(error @ np.linalg.solve(found.covariance, error))
        translations.append(error[:3])
        sigmas.append(np.sqrt(np.diag(found.covariance)[:3]))
    assert 1.0 < np.mean(normalised) < 7.0  # 6 where nothing is added for unmodelled errors
    spread = np.sqrt(np.mean(np.square(translations), axis=0))
    ratio = spread / np.mean(sigmas, axis=0)
    assert (ratio > 0.5).all()
    assert (ratio < 1.3).all()


def test_covariance_is_symmetric_and_positive():
    found = measured(pose_from_xy_yaw(9.0, 0.4, 0.1))
    assert found.covariance == pytest.approx(found.covariance.T)
    assert np.linalg.eigvalsh(found.covariance).min() > 0


def test_uncertain_scale_widens_along_the_translation():
    query_pose = pose_from_xy_yaw(10.0, 0.0, 0.0)
    reference = SCENE.view(HERE, seed=0, depth_noise=0.0)
    query = SCENE.view(query_pose, seed=1)
    views = match_views(query, reference, CONFIG)
    exact = from_depth(reference, CONFIG)
    scaled = replace(exact, scale_sigma=0.1)
    sure, unsure = (
        metric_pose(query, reference, views, landmarks, True, BASE_T_CAMERA, CONFIG)
        for landmarks in (exact, scaled)
    )
    grown = np.diag(unsure.covariance - sure.covariance)
    assert np.sqrt(grown[0]) == pytest.approx(0.2, rel=0.05)  # a tenth of 2 m
    assert grown[1:3] == pytest.approx([0.0, 0.0], abs=1e-3)


def test_guessed_field_of_view_widens_the_covariance():
    query_pose = pose_from_xy_yaw(9.5, 0.3, 0.0)
    known = measured(query_pose)
    guessed = measured(query_pose, camera=replace(CAMERA, assumed=True))
    assert np.trace(guessed.covariance[:3, :3]) > 1.5 * np.trace(known.covariance[:3, :3])


def test_too_few_landmarks_give_no_pose():
    reference = SCENE.view(HERE, seed=0, depth_noise=0.0)
    query = SCENE.view(pose_from_xy_yaw(8.5, 0.0, 0.0), seed=1)
    depths = reference.depths.copy()
    views = match_views(query, reference, CONFIG)
    depths[views.reference[CONFIG.min_landmarks - 1 :]] = np.nan
    reference = replace(reference, depths=depths)
    landmarks = from_depth(reference, CONFIG)
    assert metric_pose(query, reference, views, landmarks, True, BASE_T_CAMERA, CONFIG) is None


def test_weak_closure_is_that_of_the_paper():
    views = match_views(SCENE.view(HERE, seed=1), SCENE.view(HERE), CONFIG)
    weak = weak_pose(views, CONFIG)
    assert not weak.metric
    assert np.array_equal(weak.pose, np.eye(4))
    assert np.sqrt(np.diag(weak.covariance)) == pytest.approx([3.0] * 3 + [0.3] * 3)
