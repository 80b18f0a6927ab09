"""Tours of indoor levels: closed, in the free, driven twice and once reversed."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from vpr.relocalization.rgbd import RgbdError
from vpr.simulation.doom_levels import (
    CELL,
    KEYFRAME,
    LANE,
    UNITS_PER_METRE,
    FloorPlan,
    laps_of,
    plan_tour,
    record_level,
)

START = np.array([400.0, 400.0])


def hall(rows=120, columns=120):
    """A hall with a block in its middle."""
    walls = np.ones((rows, columns), bool)
    walls[2:-2, 2:-2] = False
    walls[50:70, 50:70] = True
    clearance = distance_transform_edt(~walls)
    return FloorPlan(clearance > 2, clearance, np.zeros(2))


def test_a_tour_is_evenly_spaced_and_stays_in_the_free():
    plan = hall()
    tour = plan_tour(plan, START, 80, np.random.default_rng(0))
    steps = np.linalg.norm(np.diff(tour, axis=0), axis=1) / UNITS_PER_METRE
    assert np.all(steps < 1.01 * KEYFRAME)
    assert np.median(steps) == pytest.approx(KEYFRAME, rel=0.02)
    assert all(plan.free[plan.cell(point)] for point in tour)
    assert np.linalg.norm(tour[0] - START) < 6 * CELL


def test_laps_run_beside_each_other_and_the_last_one_backwards():
    plan = hall()
    tour = plan_tour(plan, START, 60, np.random.default_rng(0))
    first, second, reverse = (
        np.array(lap) for lap in laps_of(plan, tour, np.random.default_rng(0))
    )
    for later in (second, reverse[::-1]):
        apart = np.linalg.norm(first[:, :2] - later[:, :2], axis=1)
        assert apart.max() < 3.0 * LANE
        assert np.median(apart) > 0.5 * LANE
    turned = first[:, 2] - reverse[::-1, 2]
    assert np.mean(np.cos(turned)) == pytest.approx(-1.0, abs=0.05)
    assert all(
        plan.free[plan.cell(point)] for lap in (first, second, reverse) for point in lap[:, :2]
    )


def test_a_cell_without_room_is_refused():
    plan = FloorPlan(np.zeros((5, 5), bool), np.ones((5, 5)), np.zeros(2))
    with pytest.raises(RgbdError, match="no room"):
        plan_tour(plan, np.array([40.0, 40.0]), 50, np.random.default_rng(0))


def carried(sequence, source, target):
    """Mean grey difference of one view carried into another by depth and pose, and left alone."""
    camera = sequence.camera.matrix
    grey = [
        cv2.GaussianBlur(cv2.cvtColor(sequence.images[row], cv2.COLOR_BGR2GRAY), (5, 5), 1.5)
        for row in (source, target)
    ]
    rows, columns = np.mgrid[0:240:3, 0:320:3]
    depth = sequence.depths[source][rows, columns]
    rays = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ np.linalg.inv(camera).T
    known = np.isfinite(depth)
    motion = np.linalg.inv(sequence.poses[target]) @ sequence.poses[source]
    points = (rays * depth[..., None])[known] @ motion[:3, :3].T + motion[:3, 3]
    seen = points @ camera.T
    u, v = np.rint(seen[:, :2] / seen[:, 2:]).T
    inside = (seen[:, 2] > 0.2) & (u >= 0) & (u < 320) & (v >= 0) & (v < 240)
    u, v = u[inside].astype(int), v[inside].astype(int)
    visible = np.abs(sequence.depths[target][v, u] - points[inside, 2]) < 0.3
    there = grey[1][v, u].astype(float)[visible]
    here = grey[0][rows, columns][known][inside].astype(float)[visible]
    left = np.abs(grey[0].astype(float) - grey[1]).mean()
    return float(np.abs(there - here).mean()), float(left)


def test_depth_pose_and_focal_length_carry_a_view_into_the_next():
    pytest.importorskip("vizdoom")
    level = record_level("map02", 20)
    pairs = [carried(level, row, row + 1) for row in range(2, 17, 3)]
    moved, left = np.mean(pairs, axis=0)
    assert moved < 0.5 * left
