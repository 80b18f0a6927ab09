"""Views of a made-up wall laid over each other: the pose comes back, other places do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_wall import wall
from scipy.spatial.transform import Rotation

from vpr.geometry import relative, rotation_angle, translation_norm
from vpr.verification.dense_alignment import DepthView, align, expected_overlap
from vpr.verification.depth_cells import DepthCells

BESIDE, ELSEWHERE = 1, 16  # views 0.2 m and 3.2 m further along the wall


@pytest.fixture(scope="module")
def hall():
    return wall(laps=1, views=24, step=0.2, size=(320, 240))


def view_of(hall, image, depth):
    return DepthView.of(DepthCells.of(image, depth, hall.camera), hall.camera)


@pytest.fixture(scope="module")
def views(hall):
    return [
        view_of(hall, image, depth) for image, depth in zip(hall.images, hall.depths, strict=True)
    ]


def moved(pose, metres, degrees):
    off = np.eye(4)
    off[:3, 3] = metres
    off[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return pose @ off


def test_the_pose_comes_back_from_a_start_that_is_off(hall, views):
    truth = relative(hall.poses[0], hall.poses[BESIDE])
    found = align(views[BESIDE], views[0], moved(truth, (0.02, -0.015, 0.1), (0.5, 0.4, -1.0)))
    difference = relative(truth, found.pose)
    assert translation_norm(difference) < 0.02
    assert np.degrees(rotation_angle(difference)) < 0.5
    assert found.agreement > 0.98
    assert found.correlation > 0.8
    assert found.overlap > 0.5
    assert found.cells > 1000
    assert np.all(np.linalg.eigvalsh(found.covariance) > 0.0)


def test_what_is_shown_elsewhere_does_not_correlate(views):
    assert align(views[ELSEWHERE], views[0], np.eye(4)).correlation < 0.3


def test_a_start_that_the_depth_contradicts_does_not_agree(views):
    behind = moved(np.eye(4), (0.0, 0.0, -3.0), (0.0, 0.0, 0.0))
    assert align(views[0], views[0], behind).agreement < 0.5


def test_overlap_is_expected_where_views_share_something(hall, views):
    near = relative(hall.poses[0], hall.poses[BESIDE])
    assert expected_overlap(views[BESIDE], views[0], near) > 0.7
    assert expected_overlap(views[0], views[0], moved(np.eye(4), (50.0, 0, 0), (0, 0, 0))) == 0.0


def test_views_without_depth_or_nothing_in_common_overlap_nowhere(hall, views):
    nothing = DepthCells(np.full((60, 80), np.nan, np.float16), np.zeros((60, 80), np.uint8))
    blind = DepthView.of(nothing, hall.camera)
    for query, start in ((blind, np.eye(4)), (views[0], moved(np.eye(4), (50.0, 0, 0), (0, 0, 0)))):
        found = align(query, views[0], start)
        assert (found.overlap, found.agreement, found.cells) == (0.0, 0.0, 0)
        assert np.isfinite(found.pose).all()
