"""Reprojection IoU: identity, shifts, occlusion, missing depth, wrong intrinsics."""

from dataclasses import replace

import numpy as np
import pytest

from vpr.records import CameraModel
from vpr.relocalization.reprojection import mutual, similarity_matrix
from vpr.relocalization.rgbd import RgbdError, RgbdSequence

CAMERA = CameraModel(64, 48, np.array([[32.0, 0, 32], [0, 32.0, 24], [0, 0, 1]]))


def views(depths, poses):
    depths = np.asarray(depths, np.float32)
    count = len(depths)
    return RgbdSequence(
        "made up",
        CAMERA,
        np.zeros((count, 48, 64, 3), np.uint8),
        depths,
        np.asarray(poses, np.float64),
        np.arange(count),
        np.zeros(count, np.int64),
    )


def moved(x=0.0, z=0.0):
    pose = np.eye(4)
    pose[0, 3], pose[2, 3] = x, z
    return pose


def test_a_view_sees_itself_and_half_of_what_is_shifted_by_half():
    wall = np.full((48, 64), 2.0)  # 4 m of it in view
    made = views([wall, wall, wall], [moved(), moved(x=2.0), moved(x=10.0)])
    matrix = similarity_matrix(made, made, stride=1)
    assert np.allclose(np.diag(matrix), 1.0)
    assert matrix[0, 1] == pytest.approx(0.5, abs=0.02)
    assert matrix[0, 2] == 0.0


def test_what_is_behind_the_target_camera_does_not_count():
    wall = np.full((48, 64), 2.0)
    turned = np.diag([-1.0, 1.0, -1.0, 1.0])
    assert similarity_matrix(views([wall], [moved()]), views([wall], [turned]))[0, 0] == 0.0


def test_a_surface_in_front_hides_what_is_behind_it():
    far, screened = np.full((48, 64), 4.0), np.full((48, 64), 4.0)
    screened[:, :32] = 1.0  # the target sees a screen in its left half
    matrix = similarity_matrix(views([far], [moved()]), views([screened], [moved()]), stride=1)
    assert matrix[0, 0] == pytest.approx(0.5, abs=0.02)


def test_pixels_without_depth_do_not_count():
    wall, partly = np.full((48, 64), 2.0), np.full((48, 64), 2.0)
    partly[:12] = np.nan
    matrix = similarity_matrix(views([partly], [moved()]), views([wall], [moved()]), stride=1)
    assert matrix[0, 0] == pytest.approx(0.75)


def test_no_depth_at_all_and_foreign_intrinsics_are_refused():
    wall, none = np.full((48, 64), 2.0), np.full((48, 64), np.nan)
    good = views([wall], [moved()])
    with pytest.raises(RgbdError, match="view 0 has no depth"):
        similarity_matrix(views([none], [moved()]), good)
    foreign = replace(good, camera=CameraModel(640, 480, CAMERA.matrix))
    with pytest.raises(RgbdError, match="640x480"):
        similarity_matrix(foreign, good)


def test_a_close_view_is_not_the_same_as_the_wide_one_around_it():
    close, wide = np.full((48, 64), 1.0), np.full((48, 64), 4.0)
    made = views([close, wide], [moved(z=3.0), moved()])
    matrix = similarity_matrix(made, made, stride=1)
    assert matrix[0, 1] > 0.95
    assert matrix[1, 0] == pytest.approx(1.0 / 16.0, abs=0.01)
    assert np.allclose(mutual(matrix)[0, 1], matrix[1, 0])
