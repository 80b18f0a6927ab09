"""The pose graph on made-up drives, and on a real trajectory with simulated odometry."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vpr.config import PoseGraphConfig
from vpr.evaluation.trajectory import StampedPoses, absolute_trajectory_error
from vpr.geometry import inverse, pose_from_xy_yaw, relative, rotation_angle, translation_norm
from vpr.graph.edges import EdgeKind, PoseGraphError
from vpr.graph.pose_graph import PoseGraph
from vpr.graph.state import GraphState
from vpr.records import ClosureState, Keyframe, LoopClosure

KITTI = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "kitti_poses" / "00.txt"
DESCRIPTOR = np.zeros(4, np.float32)
COVARIANCE = np.diag([0.01] * 3 + [4e-4] * 3)
SECOND = 10**9
PAPER_NOISE = {  # 1e-3 rad and 5e-2 m a step, and no more (Pillai & Leonard V-B)
    "odometry_translation_per_metre": 0.0,
    "odometry_rotation_per_metre": 0.0,
    "odometry_rotation_per_radian": 0.0,
}


def noise(rng, translation_sigma, rotation_sigma, planar):
    shift, turn = rng.normal(0, translation_sigma, 3), rng.normal(0, rotation_sigma, 3)
    if planar:
        shift[2] = turn[0] = turn[1] = 0.0
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), shift
    return pose


def drifting(truth, seed, planar=False):
    """Odometry of a true trajectory with the noise of Pillai & Leonard V-B a step."""
    rng = np.random.default_rng(seed)
    poses = [truth[0]]
    for a, b in pairwise(truth):
        poses.append(poses[-1] @ relative(a, b) @ noise(rng, 5e-2, 1e-3, planar))
    return np.array(poses)


def circle(laps=2.0, steps_a_lap=60, radius=10.0):
    angles = np.arange(int(laps * steps_a_lap)) * 2 * np.pi / steps_a_lap
    return np.array(
        [pose_from_xy_yaw(radius * np.sin(a), radius * (1 - np.cos(a)), a) for a in angles]
    )


def keyframe(keyframe_id, odometry, session=0, stamp_ns=None):
    stamp_ns = keyframe_id * SECOND if stamp_ns is None else stamp_ns
    return Keyframe(keyframe_id, session, stamp_ns, DESCRIPTOR, "test@0", odometry=odometry)


def closure(query, reference, pose, covariance=COVARIANCE, state=ClosureState.VERIFIED):
    return LoopClosure(
        query_id=query,
        query_session=0,
        query_stamp_ns=query * SECOND,
        reference_id=reference,
        reference_session=0,
        reference_stamp_ns=reference * SECOND,
        state=state,
        reason="40 inliers",
        relative_pose=pose,
        covariance=covariance,
    )


def true_closure(truth, query, reference):
    return closure(query, reference, relative(truth[reference], truth[query]))


def make_graph(**overrides):
    return PoseGraph(PoseGraphConfig.from_file(**overrides))


def driven(odometry, **overrides):
    graph = make_graph(**overrides)
    for keyframe_id, pose in enumerate(odometry):
        graph.add_keyframe(keyframe(keyframe_id, pose))
    return graph


def poses_of(graph):
    return np.array([node.pose for node in graph.trajectory()])


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_odometry_alone_is_reproduced_and_the_map_is_the_odometry_frame(mode):
    odometry = drifting(circle(), seed=3, planar=True)
    graph = driven(odometry, mode=mode)
    np.testing.assert_allclose(poses_of(graph), odometry, atol=1e-6)
    np.testing.assert_allclose(graph.map_to_odom(0), np.eye(4), atol=1e-6)
    assert graph.chi2() < 1e-9


@pytest.mark.parametrize("mode", ["se3", "se2"])
@pytest.mark.parametrize("kernel", ["cauchy", "huber", "dcs", "none"])
def test_closures_correct_the_drift(mode, kernel):
    truth = circle()
    odometry = drifting(truth, seed=1, planar=mode == "se2")
    graph = make_graph(mode=mode, robust_kernel=kernel)
    for i, pose in enumerate(odometry):
        graph.add_keyframe(keyframe(i, pose))
        if i >= 60:
            assert graph.add_closure(true_closure(truth, i, i - 60)).state == ClosureState.VERIFIED
    before = translation_norm(relative(truth[-1], odometry[-1]))
    after = translation_norm(relative(truth[-1], poses_of(graph)[-1]))
    assert after < 0.5 * before
    np.testing.assert_allclose(graph.map_to_odom(0) @ odometry[-1], poses_of(graph)[-1], atol=1e-6)


def test_robust_width_lets_a_drifted_loop_close():
    """The widest innovation that passes the gate must still be pulled together by the kernel."""
    graph = driven([pose_from_xy_yaw(0.5 * i, 0, 0) for i in range(200)])
    sigma = np.sqrt(200 * (0.05**2 + 0.015**2))
    z = pose_from_xy_yaw(0.5 * 199 + 3.0 * sigma, 0, 0)  # three sigmas too long
    verdict = graph.add_closure(closure(199, 0, z))
    assert verdict.state == ClosureState.VERIFIED
    graph.settle()
    assert abs(poses_of(graph)[-1][0, 3] - z[0, 3]) < 0.3


def test_a_contradicting_closure_is_refused_and_changes_nothing():
    truth = circle()
    graph = driven(drifting(truth, seed=2))
    assert graph.add_closure(true_closure(truth, 61, 1)).state == ClosureState.VERIFIED
    poses, chi2 = poses_of(graph), graph.chi2()
    verdict = graph.add_closure(closure(90, 5, np.eye(4)))  # half a lap apart
    assert verdict.state == ClosureState.REJECTED
    assert verdict.rejected_by == "inconsistent"
    assert verdict.reason.startswith("chi2 ")
    assert verdict.chi2 > verdict.gate
    assert verdict.correction_translation == 0.0
    np.testing.assert_allclose(poses_of(graph), poses, atol=1e-3)  # stretches are parted there
    assert graph.chi2() == pytest.approx(chi2, abs=1e-2)
    refused = graph.edges()[-1]
    assert (refused.kind, refused.state) == (EdgeKind.CLOSURE, ClosureState.REJECTED)
    assert graph.counters["refused_inconsistent"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_steady_bias_of_the_odometry_does_not_lock_true_closures_out(seed):
    """Noise thrice the variance that is configured, and 1 mrad of yaw bias a metre."""
    truth = circle(laps=2, steps_a_lap=220, radius=28.0)
    rng = np.random.default_rng(seed)
    bias = pose_from_xy_yaw(0, 0, 0.8e-3 * rng.choice([-1, 1]))
    odometry = [truth[0]]
    for a, b in pairwise(truth):
        odometry.append(odometry[-1] @ relative(a, b) @ noise(rng, 0.087, 1.7e-3, False) @ bias)
    graph = driven(odometry[:220])
    accepted = wrong = 0
    for i in range(220, 440):
        graph.add_keyframe(keyframe(i, odometry[i]))
        if i % 5 == 0:
            z = relative(truth[i - 220], truth[i]) @ noise(rng, 0.1, 0.02, False)
            accepted += graph.add_closure(closure(i, i - 220, z)).state == ClosureState.VERIFIED
            stray = graph.add_closure(closure(i, (i - 110) % 220, np.eye(4)))  # across the circle
            wrong += stray.state == ClosureState.VERIFIED
    assert accepted == 44
    assert wrong == 0


def test_gate_is_calibrated():
    """Over many drives with honest noise, chi2 of the first closure follows chi2(6)."""
    truth = circle(laps=1.1, steps_a_lap=30)
    rng, values = np.random.default_rng(0), []
    exact = {"closure_translation_sigma": 1e-6, "closure_rotation_sigma": 1e-6}
    for seed in range(60):
        graph = driven(drifting(truth, seed), **PAPER_NOISE, **exact)
        z = relative(truth[1], truth[31]) @ noise(rng, 0.1, 0.02, False)
        values.append(graph.add_closure(closure(31, 1, z)).chi2)
    assert 4.5 < np.mean(values) < 7.5  # 6 +- 3.3 sigma of the mean of 60


def test_verdict_tells_the_step_of_the_correction():
    truth = circle()
    odometry = drifting(truth, seed=4)
    graph = driven(odometry)
    before = graph.map_to_odom(0) @ odometry[-1]
    verdict = graph.add_closure(true_closure(truth, 119, 59))
    step = relative(before, graph.map_to_odom(0) @ odometry[-1])
    assert verdict.correction_translation == pytest.approx(translation_norm(step), abs=1e-6)
    assert verdict.correction_rotation == pytest.approx(rotation_angle(step), abs=1e-6)
    assert verdict.correction_translation > 0.0


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"state": ClosureState.REJECTED}, "not_verified", "REJECTED"),
        ({"query_id": 99}, "unknown_keyframe", "99 is not in the graph"),
        ({"reference_id": 4}, "same_keyframe", "to itself"),
        ({"relative_pose": None}, "no_relative_pose", "no relative pose"),
        ({"relative_pose": np.full((4, 4), np.nan)}, "bad_pose", "not finite"),
        ({"relative_pose": 2.0 * np.eye(4)}, "bad_pose", "no proper rotation"),
        ({"covariance": None}, "bad_covariance", "no covariance"),
        ({"covariance": np.zeros((6, 6))}, "bad_covariance", "zero"),
        ({"covariance": -COVARIANCE}, "bad_covariance", "positive"),
        ({"covariance": np.full((6, 6), np.inf)}, "bad_covariance", "finite"),
        ({"covariance": np.triu(np.ones((6, 6)))}, "bad_covariance", "symmetric"),
        ({"covariance": np.eye(3)}, "bad_covariance", "shape"),
    ],
)
def test_unusable_closures_are_refused_in_words(changes, key, words):
    graph = driven([pose_from_xy_yaw(i, 0, 0) for i in range(5)])
    good = closure(4, 0, pose_from_xy_yaw(4, 0, 0))
    verdict = graph.add_closure(replace(good, **changes))
    assert verdict.state == ClosureState.REJECTED
    assert verdict.rejected_by == key
    assert words in verdict.reason
    assert graph.add_closure(good).state == ClosureState.VERIFIED
    assert graph.add_closure(good).rejected_by == "duplicate"


def test_unusable_keyframes_are_refused_in_words_and_the_graph_goes_on():
    graph = driven([np.eye(4), pose_from_xy_yaw(1, 0, 0)])
    bad = np.eye(4)
    bad[0, 3] = np.nan
    with pytest.raises(PoseGraphError, match="keyframe 2: odometry pose has a value"):
        graph.add_keyframe(keyframe(2, bad))
    with pytest.raises(PoseGraphError, match="keyframe 1 is here already, seen at 1000000000 ns"):
        graph.add_keyframe(keyframe(1, pose_from_xy_yaw(7, 0, 0), stamp_ns=9 * SECOND))
    with pytest.raises(PoseGraphError, match="is not after"):
        graph.add_keyframe(keyframe(2, np.eye(4), stamp_ns=0))
    graph.add_keyframe(keyframe(3, pose_from_xy_yaw(2, 0, 0)))
    with pytest.raises(PoseGraphError, match="keyframe 2 comes after keyframe 3"):
        graph.add_keyframe(keyframe(2, np.eye(4)))
    assert [node.id for node in graph.trajectory()] == [0, 1, 3]


def test_a_step_without_odometry_is_bridged_by_the_next_with_it():
    graph = make_graph()
    track = [np.eye(4), pose_from_xy_yaw(1, 0, 0), None, pose_from_xy_yaw(3, 0, 0)]
    for i, pose in enumerate(track):
        graph.add_keyframe(keyframe(i, pose))
    np.testing.assert_allclose(poses_of(graph)[3], track[3], atol=1e-6)
    assert graph.counters["missing_odometry"] == 1
    kinds = [edge.kind for edge in graph.edges()]
    assert kinds == [EdgeKind.ODOMETRY, EdgeKind.CONSTANT_POSITION, EdgeKind.ODOMETRY]


def test_no_odometry_at_all_gives_a_map_but_no_correction():
    graph = make_graph()
    for i in range(5):
        graph.add_keyframe(keyframe(i, None))
    assert graph.map_to_odom(0) is None
    z = pose_from_xy_yaw(2, 1, 0.3)
    assert graph.add_closure(closure(4, 0, z)).state == ClosureState.VERIFIED
    np.testing.assert_allclose(poses_of(graph)[4], z, atol=1e-2)


def test_a_drive_that_begins_without_odometry_is_closed_all_the_same():
    """What lies behind is loose, with long arms: too ill conditioned to solve by Cholesky."""
    truth = circle(laps=2, steps_a_lap=60, radius=200.0)
    odometry = drifting(truth, seed=1)
    graph = make_graph()
    for i in range(5):
        graph.add_keyframe(keyframe(i, None))
    for i in range(5, 120):
        graph.add_keyframe(keyframe(i, odometry[i]))
        if i > 60 and i % 6 == 0:
            assert graph.add_closure(true_closure(truth, i, i - 60)).state == ClosureState.VERIFIED
    poses = poses_of(graph)
    before, after = (
        translation_norm(relative(relative(truth[5], truth[114]), relative(p[5], p[114])))
        for p in (odometry, poses)
    )
    assert len(poses) == 120
    assert after < 0.5 * before


def test_an_odometry_jump_is_not_motion():
    graph = make_graph()
    track = [(0.0, 0.0), (1.0, 0.0), (5000.0, 0.0), (5001.0, 0.0)]
    for i, (x, y) in enumerate(track):
        graph.add_keyframe(keyframe(i, pose_from_xy_yaw(x, y, 0)))
    assert graph.counters["odometry_jumps"] == 1
    assert "jumped 4999.0 m" in graph.edges()[1].reason
    np.testing.assert_allclose(poses_of(graph)[3][0, 3], 2.0, atol=1e-6)
    step = graph.map_to_odom(0) @ pose_from_xy_yaw(*track[-1], 0)
    np.testing.assert_allclose(step, poses_of(graph)[3], atol=1e-6)


def two_sessions(offset, **overrides):
    """A lap in session 0, then one in session 1 whose odometry starts at another origin."""
    truth = circle()
    graph = driven(truth[:60], **overrides)
    for i in range(60, 90):
        graph.add_keyframe(keyframe(i, offset @ truth[i], session=1, stamp_ns=(i - 60) * SECOND))
    return graph, truth


def test_a_second_session_waits_for_two_closures_that_agree_and_then_stands_right():
    offset = pose_from_xy_yaw(300.0, -200.0, 2.5)
    graph, truth = two_sessions(offset)
    assert graph.map_to_odom(1) is None
    assert graph.latest_covariance(1) is None
    assert not graph.anchored(1)
    assert len(graph.trajectory()) == 60
    assert [node.anchored for node in graph.nodes()] == [True] * 60 + [False] * 30
    first = graph.add_closure(true_closure(truth, 78, 18))
    assert (first.state, first.anchored_sessions) == (ClosureState.CANDIDATE, ())
    assert "1 closures agree" in first.reason
    assert graph.add_closure(true_closure(truth, 78, 18)).rejected_by == "duplicate"
    assert not graph.anchored(1)
    verdict = graph.add_closure(true_closure(truth, 80, 20))
    assert graph.counters["closures"] == 2
    assert verdict.anchored_sessions == (1,)
    assert "session 1 to the map" in verdict.reason
    np.testing.assert_allclose(poses_of(graph), truth[:90], atol=1e-2)
    np.testing.assert_allclose(graph.map_to_odom(1), inverse(offset), atol=0.5)
    np.testing.assert_allclose(graph.map_to_odom(0), np.eye(4), atol=1e-3)
    graph.add_keyframe(keyframe(90, offset @ truth[90], session=1))
    np.testing.assert_allclose(poses_of(graph)[-1], truth[90], atol=2e-2)
    assert graph.add_closure(true_closure(truth, 90, 30)).state == ClosureState.VERIFIED


def test_a_closure_from_the_map_back_to_a_loose_session_ties_it_too():
    offset = pose_from_xy_yaw(-30.0, 20.0, 1.0)
    graph, truth = two_sessions(offset, joining_closures=1)
    verdict = graph.add_closure(closure(20, 80, relative(truth[80], truth[20])))
    assert verdict.anchored_sessions == (1,)
    np.testing.assert_allclose(poses_of(graph), truth[:90], atol=1e-2)


def test_two_loose_sessions_join_and_are_anchored_together():
    offset = pose_from_xy_yaw(50.0, 0.0, -1.0)
    graph, truth = two_sessions(offset, joining_closures=1)
    for i in range(90, 110):
        graph.add_keyframe(keyframe(i, truth[i], session=2))
    loose = graph.add_closure(closure(100, 80, relative(truth[80], truth[100])))
    assert loose.state == ClosureState.VERIFIED
    assert loose.anchored_sessions == ()
    assert not graph.anchored(2)
    tied = graph.add_closure(true_closure(truth, 105, 45))
    assert tied.anchored_sessions == (1, 2)
    np.testing.assert_allclose(poses_of(graph), truth[:110], atol=2e-2)


def test_covariance_of_the_newest_pose_grows_with_the_drive_and_shrinks_with_a_closure():
    truth = circle()
    graph = driven(truth[:60])
    early = graph.latest_covariance(0)
    for i in range(60, 120):
        graph.add_keyframe(keyframe(i, truth[i]))
    late = graph.latest_covariance(0)
    graph.add_closure(true_closure(truth, 119, 0))
    closed = graph.latest_covariance(0)
    assert np.trace(early) < np.trace(late)
    assert np.trace(closed) < 0.5 * np.trace(late)
    np.testing.assert_allclose(late, late.T, atol=1e-9)


def saved_and_restored(graph):
    state = graph.state()
    return PoseGraph.restore(graph.config, GraphState.from_arrays(state.arrays(), state.metadata()))


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_a_restored_graph_goes_on_as_if_it_had_not_stopped(mode):
    graph, truth = two_sessions(pose_from_xy_yaw(5, 5, 1.0), mode=mode, joining_closures=1)
    graph.add_closure(true_closure(truth, 80, 20))
    graph.add_closure(closure(85, 5, np.eye(4)))  # refused, and remembered as such
    graph.add_keyframe(keyframe(90, None, session=1))
    graph.add_keyframe(keyframe(91, np.eye(4), session=7))  # loose
    again = saved_and_restored(graph)
    np.testing.assert_allclose(poses_of(again), poses_of(graph), atol=1e-3)
    assert again.chi2() == pytest.approx(graph.chi2(), abs=0.05)
    assert [edge.reason for edge in again.edges()] == [edge.reason for edge in graph.edges()]
    assert not again.anchored(7)
    assert again.anchored(1)
    for g in (graph, again):
        g.add_keyframe(keyframe(92, truth[30], session=8))
        assert g.add_closure(true_closure(truth, 80, 20)).rejected_by == "duplicate"
        verdict = g.add_closure(closure(92, 30, np.eye(4)))
        assert verdict.anchored_sessions == (8,)
    np.testing.assert_allclose(poses_of(again)[-1], poses_of(graph)[-1], atol=1e-3)


def test_an_empty_graph_is_kept_and_restored():
    again = saved_and_restored(make_graph())
    assert again.trajectory() == []
    assert again.map_to_odom(0) is None
    again.add_keyframe(keyframe(0, np.eye(4)))
    assert len(again.trajectory()) == 1


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("poses", None, "'poses' is missing"),
        ("poses", lambda poses: poses.astype(np.float32), "float32"),
        ("poses", lambda poses: poses * np.nan, "not finite"),
        ("ids", lambda ids: ids[::-1], "do not ascend"),
        ("odometry", lambda odometry: odometry[:3], "'odometry' is"),
        ("pieces", lambda pieces: pieces + 1, "numbered from 0"),
        ("edge_to", lambda to: to + 1, "no such ends"),
        ("edge_kind", lambda kind: kind + 9, "unknown kind"),
        ("edge_kind", lambda kind: kind[:2], "different lengths"),
        ("edge_covariance", lambda covariance: -covariance, "positive"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(name, change, words):
    state = driven(circle()[:10]).state()
    arrays, metadata = state.arrays(), state.metadata()
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    with pytest.raises(PoseGraphError, match=words):
        PoseGraph.restore(PoseGraphConfig.from_file(), GraphState.from_arrays(arrays, metadata))


def kitti(count, every):
    """True base_link poses of the first part of KITTI 00; the file's axes are the camera's."""
    rows = np.loadtxt(KITTI, max_rows=count * every)[::every]
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    poses[:, :3, :3] = Rotation.from_matrix(poses[:, :3, :3]).as_matrix()  # 7 digits in the file
    base_T_camera = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    return base_T_camera @ poses @ base_T_camera.T


@pytest.mark.skipif(not KITTI.exists(), reason="KITTI 00 poses are not on this machine")
@pytest.mark.parametrize(
    ("mode", "closure_model", "bound"),
    [("se3", "measured", 0.3), ("se2", "measured", 0.3), ("se2", "weak", 0.3)],
)
def test_kitti_with_the_odometry_noise_of_the_paper(mode, closure_model, bound):
    truth = kitti(count=1135, every=4)
    rng = np.random.default_rng(0)
    odometry = drifting(truth, seed=0, planar=mode == "se2")
    graph = make_graph(mode=mode, closure_model=closure_model, **PAPER_NOISE)
    verified = 0
    for i, pose in enumerate(odometry):
        graph.add_keyframe(keyframe(i, pose))
        if i < 150 or i % 2:
            continue
        distances = np.linalg.norm(truth[: i - 100, :3, 3] - truth[i, :3, 3], axis=1)
        nearest = int(distances.argmin())
        z = relative(truth[nearest], truth[i])
        if distances[nearest] < 5.0 and rotation_angle(z) < np.radians(30):
            z = z @ noise(rng, 0.1, 0.02, planar=False)
            verified += graph.add_closure(closure(i, nearest, z)).state == ClosureState.VERIFIED
    assert verified > 60
    stamps = tuple(range(len(truth)))
    before, after = (
        absolute_trajectory_error(StampedPoses(stamps, poses), StampedPoses(stamps, truth))
        for poses in (odometry, poses_of(graph))
    )
    assert after < bound * before, f"{before:.2f} m -> {after:.2f} m"
