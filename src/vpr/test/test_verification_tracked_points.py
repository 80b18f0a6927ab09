"""Tracked points are found again in an old image of a painted wall, at the true pose."""

import cv2
import numpy as np
import pytest

from vpr.config import VinsMonoBridgeConfig
from vpr.geometry import inverse
from vpr.records import CameraModel
from vpr.verification.tracked_points import find_again, old_points, tracked_points

CONFIG = VinsMonoBridgeConfig.from_file()
CAMERA = CameraModel(640, 480, np.array([[400.0, 0, 320], [0, 400.0, 240], [0, 0, 1]]))
DISTANCE, SCALE = 4.0, 80.0  # m, px a metre of the wall


def wall(seed):
    rng = np.random.default_rng(seed)
    painted = np.zeros((800, 1200), np.float32)
    for size in (5, 10, 20, 40):
        coarse = rng.uniform(0, 255, (800 // size, 1200 // size)).astype(np.float32)
        painted += cv2.resize(coarse, (1200, 800), interpolation=cv2.INTER_NEAREST) / 4
    return cv2.GaussianBlur(painted, (3, 3), 0).astype(np.uint8)


def camera_at(x, y=0.0, z=0.0):
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def on_wall(pixels):
    """World points (N, 3) of texture pixels: the wall is the plane z = DISTANCE."""
    x, y = (pixels - (600, 400)).T / SCALE
    return np.column_stack([x, y, np.full(len(pixels), DISTANCE)])


def project(points, world_T_camera):
    camera = (points - world_T_camera[:3, 3]) @ world_T_camera[:3, :3]
    return (camera[:, :2] / camera[:, 2:]) * 400.0 + (320, 240)


def picture(painted, world_T_camera):
    corners = np.array([[0, 0], [1200, 0], [1200, 800], [0, 800]], np.float32)
    seen = project(on_wall(corners), world_T_camera).astype(np.float32)
    return cv2.warpPerspective(painted, cv2.getPerspectiveTransform(corners, seen), (640, 480))


def tracked(painted, world_T_camera):
    corners = cv2.goodFeaturesToTrack(painted, 400, 0.02, 15).reshape(-1, 2)
    points = on_wall(corners)
    pixels = project(points, world_T_camera)
    seen = np.flatnonzero(((pixels > 0) & (pixels < (640, 480))).all(axis=1))[:150]
    grey = picture(painted, world_T_camera)
    return points, tracked_points(grey, seen, points[seen], pixels[seen].astype(np.float32))


@pytest.mark.parametrize("moved", [(0.0, 0.0, 0.0), (0.3, -0.1, 0.0), (0.1, 0.05, 0.2)])
def test_points_and_pose_are_found(moved):
    painted, old_camera = wall(0), camera_at(*moved)
    points, new = tracked(painted, camera_at(0.0))
    found = find_again(new, old_points(picture(painted, old_camera), CAMERA, CONFIG), CONFIG)
    assert found is not None
    assert len(found.ids) >= CONFIG.min_matches
    assert np.all(np.diff(found.ids) > 0)
    expected = (project(points[found.ids], old_camera) - (320, 240)) / 400.0
    assert np.median(np.linalg.norm(found.rays - expected, axis=1)) * 400.0 < 1.5  # px
    assert np.linalg.norm((inverse(old_camera) @ found.camera_pose)[:3, 3]) < 0.1


def test_another_wall_is_not_recognised():
    _, new = tracked(wall(0), camera_at(0.0))
    old = old_points(picture(wall(1), camera_at(0.0)), CAMERA, CONFIG)
    assert find_again(new, old, CONFIG) is None


def test_a_blank_image_has_no_points_and_nothing_is_found_in_it():
    _, new = tracked(wall(0), camera_at(0.0))
    old = old_points(np.full((480, 640), 128, np.uint8), CAMERA, CONFIG)
    assert len(old.rays) == 0
    assert find_again(new, old, CONFIG) is None


def test_points_at_the_border_have_no_patch_and_are_left_out():
    grey = picture(wall(0), camera_at(0.0))
    pixels = np.array([[2.0, 2.0], [320.0, 240.0], [638.0, 100.0]], np.float32)
    kept = tracked_points(grey, np.array([5, 6, 7]), np.zeros((3, 3)), pixels)
    assert kept.ids.tolist() == [6]
