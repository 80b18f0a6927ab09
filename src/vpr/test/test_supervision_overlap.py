"""Overlap of views: sectors on the ground, and points in depth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.records import CameraModel
from vpr.supervision.overlap import (
    OverlapError,
    Viewpoints2D,
    depth_overlap,
    field_of_view_overlap,
)

RIGHT_ANGLE = np.pi / 2
CAMERA = CameraModel.from_horizontal_fov(64, 48, 90.0)


def view(east: float, north: float, heading: float) -> Viewpoints2D:
    return Viewpoints2D(np.array([[east, north]], float), np.array([heading], float))


def overlap(first: Viewpoints2D, second: Viewpoints2D, reach: float = 50.0) -> float:
    return float(field_of_view_overlap(first, second, RIGHT_ANGLE, reach)[0, 0])


positions = st.floats(-60.0, 60.0)
headings = st.floats(-np.pi, np.pi)


@given(positions, positions, headings)
@settings(max_examples=40)
def test_a_view_overlaps_itself_wholly_even_in_utm(east: float, north: float, way: float) -> None:
    here = view(691_000.0 + east, 6_175_000.0 + north, way)
    assert overlap(here, here) == pytest.approx(1.0, abs=1e-3)


@given(positions, positions, headings, headings)
@settings(max_examples=40)
def test_overlap_is_symmetric_and_between_zero_and_one(
    east: float, north: float, first: float, second: float
) -> None:
    one, other = view(0.0, 0.0, first), view(east, north, second)
    value = overlap(one, other)
    assert 0.0 <= value <= 1.0
    assert overlap(other, one) == pytest.approx(value, abs=1e-3)


def test_turning_on_the_spot_loses_in_proportion() -> None:
    here = view(0.0, 0.0, 0.0)
    for turn in (0.2, 0.7, 1.2):
        shared = RIGHT_ANGLE - turn
        expected = shared / (2 * RIGHT_ANGLE - shared)
        assert overlap(here, view(0.0, 0.0, turn)) == pytest.approx(expected, abs=2e-3)
    assert overlap(here, view(0.0, 0.0, 1.7)) == pytest.approx(0.0, abs=1e-3)


def test_behind_and_beyond_there_is_none() -> None:
    here = view(0.0, 0.0, 0.0)
    assert overlap(here, view(-60.0, 0.0, np.pi)) == 0.0
    assert overlap(here, view(101.0, 0.0, 0.0)) == 0.0
    assert overlap(here, view(60.0, 0.0, np.pi)) > 0.3  # face to face


def test_an_angle_that_is_no_sector_is_refused() -> None:
    here = view(0.0, 0.0, 0.0)
    with pytest.raises(OverlapError):
        field_of_view_overlap(here, here, np.pi, 50.0)


def wall(depth: float) -> np.ndarray:
    return np.full((CAMERA.height, CAMERA.width), depth, np.float32)


def moved(right: float = 0.0, forward: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3], pose[2, 3] = right, forward
    return pose


def test_depth_overlap_of_a_wall_seen_from_beside() -> None:
    assert depth_overlap(wall(10.0), moved(), wall(10.0), moved(), CAMERA) == 1.0
    half = 10.0 * np.tan(np.radians(45.0))  # half of what is seen of the wall
    value = depth_overlap(wall(10.0), moved(), wall(10.0), moved(right=half), CAMERA)
    assert value == pytest.approx(0.5, abs=0.05)
    assert depth_overlap(wall(10.0), moved(), wall(10.0), moved(right=3 * half), CAMERA) == 0.0


def test_what_is_hidden_there_does_not_count() -> None:
    behind_a_screen = depth_overlap(wall(10.0), moved(), wall(2.0), moved(), CAMERA)
    assert behind_a_screen == pytest.approx(0.5)  # the screen itself is not hidden from here


def test_unknown_depth_sees_nothing_and_another_size_is_refused() -> None:
    assert depth_overlap(wall(0.0), moved(), wall(0.0), moved(), CAMERA) == 0.0
    with pytest.raises(OverlapError, match="48x64"):
        depth_overlap(wall(1.0)[:10], moved(), wall(1.0), moved(), CAMERA)
