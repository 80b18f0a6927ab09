from dataclasses import replace

import numpy as np
import pytest
from made_up_scene import CAMERA, Scene

from vpr.config import LoopClosureConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.verification.two_view import match_views

CONFIG = LoopClosureConfig.from_file()
SCENE = Scene.along_x(40.0)
HERE = pose_from_xy_yaw(5.0, 0.0, 0.0)
NEAR = pose_from_xy_yaw(6.0, 0.5, 0.1)


def test_matches_of_one_place_agree():
    reference, query = SCENE.view(HERE, seed=0), SCENE.view(NEAR, seed=1)
    views = match_views(query, reference, CONFIG)

    assert views.inliers > 100
    assert views.share > 0.9
    assert views.coverage > 0.4
    assert views.aligned > views.inliers // 2
    # an inlier is the same point in both
    shared = query.descriptors[views.query] ^ reference.descriptors[views.reference]
    assert np.unpackbits(shared, axis=1).sum(axis=1).max() <= 16


@pytest.mark.parametrize("assumed", [False, True])
def test_the_same_views_give_the_same_answer(assumed):
    camera = replace(CAMERA, assumed=assumed)
    reference = SCENE.view(HERE, seed=0, camera=camera)
    query = SCENE.view(NEAR, seed=1, camera=camera, changed=0.6)
    first, second = (match_views(query, reference, CONFIG) for _ in range(2))
    assert np.array_equal(first.query, second.query)
    assert first.aligned == second.aligned
    assert first.inliers > 50


def test_matches_that_moved_by_themselves_are_outliers():
    reference, query = SCENE.view(HERE, seed=0), SCENE.view(NEAR, seed=1)
    still = match_views(query, reference, CONFIG)
    moved = np.random.default_rng(0).permutation(still.query)[: still.inliers // 3]
    pixels = query.pixels.copy()
    pixels[moved] += np.random.default_rng(1).normal(0.0, 60.0, (len(moved), 2))  # traffic
    views = match_views(replace(query, pixels=pixels), reference, CONFIG)

    assert np.isin(moved, views.query).mean() < 0.2
    assert views.inliers >= 0.9 * (still.inliers - len(moved))


def test_other_places_do_not_agree():
    other = Scene.along_x(40.0, seed=1)
    views = match_views(other.view(NEAR, seed=1), SCENE.view(HERE), CONFIG)
    assert views.inliers < CONFIG.min_inliers
    assert views.aligned < CONFIG.min_aligned


def test_keypoints_that_turned_otherwise_than_the_camera_do_not_count():
    reference, query = SCENE.view(HERE, seed=0), SCENE.view(NEAR, seed=1)
    usual = match_views(query, reference, CONFIG)
    tilted = replace(query, angles=(query.angles + 200.0) % 360.0)  # all of them: a rolled camera
    assert match_views(tilted, reference, CONFIG).inliers == usual.inliers

    rng = np.random.default_rng(0)
    mixed = replace(query, angles=rng.uniform(0, 360, len(query)).astype(np.float32))
    assert match_views(mixed, reference, CONFIG).matches < 0.35 * usual.matches


def test_view_scale_says_how_much_nearer_the_query_is():
    further = pose_from_xy_yaw(1.0, 0.0, 0.0)
    nearer = match_views(SCENE.view(HERE, seed=1), SCENE.view(further), CONFIG)
    alike = match_views(SCENE.view(HERE, seed=1), SCENE.view(HERE), CONFIG)
    assert nearer.view_scale > 1.15
    assert alike.view_scale == pytest.approx(1.0, abs=0.02)


def test_views_with_hardly_any_features():
    full = SCENE.view(HERE)
    for count in (0, 1, 7):
        few = SCENE.view(HERE, limit=count)
        views = match_views(few, full, CONFIG)
        assert views.inliers == views.aligned == 0
        assert views.share == 0.0
