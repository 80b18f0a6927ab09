"""Figures of closures on a made-up drive: two laps of a circle, one keyframe a second."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from vpr.evaluation.closures import (
    closure_figures,
    same_place,
    same_place_matrix,
    searchable_matrix,
)
from vpr.geometry import PoseTrack, pose_from_xy_yaw, relative
from vpr.records import ClosureState, Keyframe, LoopClosure

SECOND = 10**9
LAP = 40  # keyframes
RADIUS = 20.0  # m: a keyframe each 3.1 m and 9 degrees


def pose_at(i):
    angle = 2 * np.pi * i / LAP
    return pose_from_xy_yaw(RADIUS * np.sin(angle), RADIUS * (1 - np.cos(angle)), angle)


def descriptor_of(place):
    vector = np.zeros(LAP, np.float32)
    vector[place] = 1.0
    return vector


def keyframes(count=2 * LAP, look=lambda i: i % LAP, session=0):
    return [
        Keyframe(i, session, (i + 1) * SECOND, descriptor_of(look(i)), "test@0")
        for i in range(count)
    ]


def truth(count=2 * LAP):
    track = PoseTrack(max_gap_ns=2 * SECOND)
    for i in range(count):
        track.append((i + 1) * SECOND, pose_at(i))
    return track


def closure(query, reference, verified=True, rejected_by="", pose=None, session=0):
    return LoopClosure(
        query_id=query,
        query_session=session,
        query_stamp_ns=(query + 1) * SECOND,
        reference_id=reference,
        reference_session=0,
        reference_stamp_ns=(reference + 1) * SECOND,
        state=ClosureState.VERIFIED if verified else ClosureState.REJECTED,
        reason="",
        relative_pose=pose,
        rejected_by=rejected_by,
    )


def judged(closures, frames=None, track=None):
    return closure_figures(frames or keyframes(), closures, track or truth(), 10.0, 20)


def test_a_perfect_run():
    pose = relative(pose_at(5), pose_at(5 + LAP))
    closures = [closure(i, i - LAP, pose=pose) for i in range(LAP, 2 * LAP)]
    figures = judged(closures)
    assert figures.verified_precision == 1.0
    assert figures.revisit_recall == 1.0
    assert figures.revisits == LAP + 1  # the last keyframe of lap one is near the first
    assert figures.naive_precision_at_revisits == pytest.approx(LAP / (LAP + 1), abs=0.03)
    assert figures.worst_translation_error_m == pytest.approx(0.0, abs=1e-9)
    assert figures.worst_rotation_error_deg == pytest.approx(0.0, abs=1e-5)
    json.dumps(asdict(figures))


def test_a_wrong_closure_costs_precision_and_closes_nothing():
    figures = judged([closure(50, 10), closure(70, 10)])
    assert figures.verified_precision == 0.5
    assert figures.verified == 2
    assert figures.revisit_recall == pytest.approx(5 / figures.revisits)  # 48 .. 52, 1 Hz


def test_a_right_place_seen_the_other_way_round_is_wrong():
    assert same_place(pose_at(0), pose_from_xy_yaw(4.9, 0, np.radians(29)))
    assert not same_place(pose_at(0), pose_from_xy_yaw(0, 0, np.radians(31)))
    assert not same_place(pose_at(0), pose_from_xy_yaw(5.1, 0, 0))


def test_the_matrix_agrees_with_single_pairs():
    poses = np.array([pose_at(i) for i in range(0, 2 * LAP, 3)])
    matrix = same_place_matrix(poses)
    singles = [[same_place(a, b) for b in poses] for a in poses]
    np.testing.assert_array_equal(matrix, singles)


def test_what_is_recent_is_not_searchable_and_other_sessions_are():
    frames = keyframes(30)
    searchable = searchable_matrix(frames, exclude_time_s=10.0, exclude_count=20)
    assert not searchable[20].any()
    assert searchable[21].nonzero()[0].tolist() == [0]
    by_time = searchable_matrix(frames, exclude_time_s=25.0, exclude_count=0)
    assert by_time[29].nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    other = frames + [
        Keyframe(30 + i, 1, (i + 1) * SECOND, descriptor_of(i), "test@0") for i in range(2)
    ]
    assert searchable_matrix(other, 10.0, 20)[31].nonzero()[0].tolist() == list(range(30))


def test_naive_precision_is_forced_to_answer_every_query():
    """A look-alike: the places 20 .. 39 look as 0 .. 19 do, so lap one already goes wrong."""
    figures = judged([], keyframes(look=lambda i: i % (LAP // 2)))
    assert figures.naive_precision is not None
    assert figures.naive_precision_at_revisits is not None
    assert figures.naive_precision < figures.naive_precision_at_revisits < 0.8
    assert figures.verified_precision is None
    assert figures.revisit_recall == 0.0


def test_errors_of_relative_poses_are_metres_and_degrees():
    wrong = relative(pose_at(5), pose_at(45)) @ pose_from_xy_yaw(0.3, 0.4, np.radians(2.0))
    figures = judged([closure(45, 5, pose=wrong)])
    assert figures.worst_translation_error_m == pytest.approx(0.5)
    assert figures.worst_rotation_error_deg == pytest.approx(2.0)


def test_rejections_are_counted_by_reason():
    closures = [closure(50, 10, False, key) for key in ("few", "few", "aliased")]
    figures = judged(closures)
    assert figures.rejected == 3
    assert figures.rejected_by_reason == {"few": 2, "aliased": 1}


def test_a_closure_of_another_session_does_not_close_a_revisit_at_the_same_stamp():
    lap = keyframes(LAP)
    again = [
        Keyframe(LAP + i, 1, frame.stamp_ns, frame.descriptor, "test@0")
        for i, frame in enumerate(lap)
    ]
    stray = closure(5, 4)  # of session 0, while the revisits are of session 1
    figures = judged([stray], lap + again, truth(LAP))
    assert figures.revisits == LAP + 1
    assert figures.revisit_recall == 0.0


def test_without_truth_or_keyframes_there_are_no_ratios():
    figures = closure_figures([], [], PoseTrack(SECOND), 10.0, 20)
    assert figures.verified_precision is None
    assert figures.revisit_recall is None
    assert figures.naive_precision is None


def test_a_closure_that_says_where_its_views_are_is_right_however_far_apart():
    frames = keyframes(LAP)
    true = relative(pose_at(2), pose_at(12))
    off = true @ pose_from_xy_yaw(1.0, 0.0, 0.0)
    for pose, precision in ((true, 1.0), (off, 0.0), (None, 0.0)):
        figures = closure_figures(frames, [closure(12, 2, pose=pose)], truth(LAP), 5.0, 5)
        assert figures.verified_precision == precision
