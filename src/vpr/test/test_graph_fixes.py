"""GPS fixes in the live graph: drift is held, wrong fixes are not believed, maps remember them."""

from dataclasses import replace

import numpy as np
import pymap3d
import pytest
from test_graph_pose_graph import (
    SECOND,
    circle,
    drifting,
    keyframe,
    make_graph,
    poses_of,
    saved_and_restored,
    true_closure,
)

from vpr.geometry import inverse, pose_from_xy_yaw, relative
from vpr.graph.edges import EdgeKind, PoseGraphError
from vpr.graph.sessions import joined
from vpr.graph.state import GraphState
from vpr.records import GpsFix

ORIGIN = (48.1, 11.5, 500.0)
EAST_OF_MAP = pose_from_xy_yaw(40.0, -15.0, 0.7)  # enu_T_map
COVARIANCE = np.diag([1.0, 1.0, 4.0])
BIASED = pose_from_xy_yaw(0, 0, 2e-3)  # rad a step, which no white noise explains


def fix_at(pose, rng, sigma=1.0, origin=ORIGIN, covariance=COVARIANCE):
    """Of a true pose in the map."""
    place = (EAST_OF_MAP @ pose)[:3, 3] + rng.normal(0, sigma, 3)
    return GpsFix(*(float(v) for v in pymap3d.enu2geodetic(*place, *origin)), covariance)


def drive(mode="se3", laps=2.0, wrong=(), **overrides):
    """A drive with a bias in its odometry's heading, and a fix every second keyframe."""
    truth = circle(laps=laps, steps_a_lap=100, radius=40.0)
    settings = {"gps": True, "gps_distance": 0.0} | overrides
    graph, rng = make_graph(mode=mode, **settings), np.random.default_rng(5)
    odometry, white = [truth[0]], drifting(truth, seed=2, planar=True)
    for i, pose in enumerate(truth):
        if i:
            odometry.append(odometry[-1] @ relative(white[i - 1], white[i]) @ BIASED)
        fix = fix_at(pose, rng) if i % 2 else None
        if i in wrong:
            fix = fix_at(pose @ pose_from_xy_yaw(60, 30, 0), rng)
        graph.add_keyframe(replace(keyframe(i, odometry[i]), fix=fix))
    return graph, truth


def error(graph, truth):
    """RMS of positions, m, the first pose in common."""
    difference = (poses_of(graph) - truth)[:, :3, 3]
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_fixes_hold_the_drift(mode):
    drifted, truth = drive(mode, gps=False)
    held, _ = drive(mode)
    assert error(drifted, truth) > 8.0
    assert error(held, truth) < 1.5
    assert held.counters["fixes"] == 100
    assert len(poses_of(held)) == len(truth)
    np.testing.assert_allclose(poses_of(held)[0], np.eye(4), atol=1e-3)  # the map's frame stays


def test_wrong_fixes_are_not_believed():
    wrong = range(61, 200, 20)
    clean, truth = drive()
    graph, _ = drive(wrong=wrong)
    assert error(graph, truth) < error(clean, truth) + 0.3


def test_closures_and_fixes_go_together():
    graph, truth = drive()
    before = error(graph, truth)
    for i in range(100, 200, 5):
        assert graph.add_closure(true_closure(truth, i, i - 100)).state == 1
    assert error(graph, truth) < before + 0.05
    assert {edge.kind for edge in graph.case().edges} == {EdgeKind.ODOMETRY, EdgeKind.CLOSURE}


def test_a_robot_that_has_not_moved_far_is_not_placed_by_its_fixes():
    graph, rng = make_graph(gps=True), np.random.default_rng(0)
    for i in range(10):
        pose = pose_from_xy_yaw(i, 0, 0)
        graph.add_keyframe(replace(keyframe(i, pose), fix=fix_at(pose, rng, sigma=3.0)))
    assert {edge.kind for edge in graph.edges()} == {EdgeKind.ODOMETRY}
    np.testing.assert_allclose(poses_of(graph)[-1], pose_from_xy_yaw(9, 0, 0), atol=1e-6)


def test_of_keyframes_close_together_one_fix_is_used():
    graph, rng = make_graph(gps=True, gps_distance=10.0), np.random.default_rng(0)
    for i in range(101):
        pose = pose_from_xy_yaw(i, 0, 0)
        graph.add_keyframe(replace(keyframe(i, pose), fix=fix_at(pose, rng)))
    assert 9 <= graph.counters["fixes"] <= 11


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"latitude": float("nan")}, "bad_fix"),
        ({"latitude": 91.0}, "bad_fix"),
        ({"longitude": -200.0}, "bad_fix"),
        ({"covariance": -np.eye(3)}, "bad_fix_covariance"),
        ({"covariance": np.full((3, 3), np.nan)}, "bad_fix_covariance"),
        ({"covariance": np.diag([400.0, 1.0, 1.0])}, "uncertain_fix"),
    ],
)
def test_fixes_that_cannot_be_used_are_counted_and_left_out(changes, key):
    graph = make_graph(gps=True, gps_distance=0.0)
    good = fix_at(np.eye(4), np.random.default_rng(0))
    graph.add_keyframe(replace(keyframe(0, np.eye(4)), fix=replace(good, **changes)))
    graph.add_keyframe(replace(keyframe(1, np.eye(4)), fix=replace(good, covariance=None)))
    assert (graph.counters[key], graph.counters["fixes"]) == (1, 1)
    assert graph.counters["keyframes"] == 2


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_a_restored_map_keeps_its_fixes(mode):
    graph, truth = drive(mode)
    again = saved_and_restored(graph)
    np.testing.assert_allclose(poses_of(again), poses_of(graph), atol=0.05)
    assert error(again, truth) < 1.5
    rng = np.random.default_rng(1)
    graph.add_keyframe(replace(keyframe(200, truth[0]), fix=fix_at(truth[0], rng)))
    assert graph.counters["fixes"] == 101
    with pytest.raises(PoseGraphError, match="no origin"):
        replace(graph.state(), origin=None).check()
    state = graph.state()
    with pytest.raises(PoseGraphError, match="origin that is none"):
        GraphState.from_arrays(state.arrays(), {"origin": "Greenwich"})


def test_a_session_tied_later_brings_its_fixes():
    graph, truth = drive(laps=1.0)
    rng, offset = np.random.default_rng(3), pose_from_xy_yaw(70, 0, 1.0)
    for i in range(60):
        fix = fix_at(truth[i], rng)
        far = offset @ truth[i]
        stamp = (500 + i) * SECOND
        graph.add_keyframe(replace(keyframe(100 + i, far, session=1, stamp_ns=stamp), fix=fix))
    assert not graph.anchored(1)
    graph.add_closure(true_closure([*truth, *truth], 110, 10))
    assert graph.add_closure(true_closure([*truth, *truth], 140, 40)).anchored_sessions == (1,)
    assert error(graph, np.array([*truth, *truth[:60]])) < 1.5
    placed = inverse(graph.map_to_odom(1))
    np.testing.assert_allclose(placed[:2, 3], offset[:2, 3], atol=3.0)


def test_maps_of_two_origins_are_joined_in_one():
    first, truth = drive(laps=1.0)
    second = make_graph(gps=True, gps_distance=0.0)
    far = (48.1009, 11.5, 500.0)  # 100 m north
    rng = np.random.default_rng(4)
    for i, pose in enumerate(truth):
        second.add_keyframe(replace(keyframe(i, pose), fix=fix_at(pose, rng, 0.0, far)))
    state = joined(first.state(), second.state())
    assert state.origin == first.state().origin
    ends = [e for e in state.edges if e.kind is EdgeKind.FIX]
    north = [e.measured[1, 3] for e in ends if e.to_id in (1, 101)]
    assert north[1] - north[0] == pytest.approx(100.0, abs=5.0)
