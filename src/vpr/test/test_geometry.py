"""Rigid transforms and poses over time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vpr.geometry import (
    PoseTrack,
    PoseUnavailable,
    interpolate,
    inverse,
    pose_from_quaternion,
    pose_from_xy_yaw,
    poses_from_quaternions,
    quaternion_of,
    relative,
    rotation_angle,
    rotation_from_vector,
    translation_norm,
    yaw_of,
)

finite = st.floats(-50, 50)
quaternions = st.tuples(finite, finite, finite, finite).filter(lambda q: np.linalg.norm(q) > 0.1)
poses = st.builds(pose_from_quaternion, st.tuples(finite, finite, finite), quaternions)


@given(poses)
def test_inverse_undoes_and_quaternion_round_trips(pose):
    np.testing.assert_allclose(inverse(pose) @ pose, np.eye(4), atol=1e-9)
    again = pose_from_quaternion(pose[:3, 3], quaternion_of(pose))
    np.testing.assert_allclose(again, pose, atol=1e-9)


@given(quaternions)
def test_rotations_are_those_of_scipy(quaternion):
    expected = Rotation.from_quat(quaternion)
    pose = pose_from_quaternion((0.0, 0.0, 0.0), quaternion)
    np.testing.assert_allclose(pose[:3, :3], expected.as_matrix(), atol=1e-12)
    of_pose = quaternion_of(pose)
    assert of_pose[3] >= 0.0
    assert abs(of_pose @ expected.as_quat()) == pytest.approx(1.0, abs=1e-12)


@given(st.tuples(finite, finite, finite))
def test_rotation_vectors_are_those_of_scipy(turn):
    expected = Rotation.from_rotvec(turn).as_matrix()
    np.testing.assert_allclose(rotation_from_vector(turn), expected, atol=1e-12)


@pytest.mark.parametrize("turn", [(np.pi, 0, 0), (0, np.pi, 0), (0, 0, np.pi), (0, 0, 0)])
def test_half_turns_and_none_round_trip(turn):
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_vector(turn)
    again = pose_from_quaternion((0.0, 0.0, 0.0), quaternion_of(pose))
    np.testing.assert_allclose(again, pose, atol=1e-12)


@given(poses, poses)
def test_interpolation_meets_both_ends_and_halves_the_turn(a, b):
    np.testing.assert_allclose(interpolate(a, b, 0.0), a, atol=1e-9)
    np.testing.assert_allclose(interpolate(a, b, 1.0), b, atol=1e-6)
    middle = interpolate(a, b, 0.5)
    whole = rotation_angle(relative(a, b))
    assert rotation_angle(relative(a, middle)) == pytest.approx(whole / 2, abs=1e-4)
    assert translation_norm(relative(a, middle)) == pytest.approx(
        translation_norm(relative(a, b)) / 2, abs=1e-6
    )


@given(st.floats(-3.1, 3.1))
def test_yaw_round_trips(yaw):
    assert yaw_of(pose_from_xy_yaw(1.0, 2.0, yaw)) == pytest.approx(yaw)


@pytest.mark.parametrize(
    ("translation", "quaternion", "said"),
    [
        ((np.nan, 0, 0), (0, 0, 0, 1), "not finite"),
        ((0, 0, 0), (0, 0, np.inf, 1), "not finite"),
        ((0, 0, 0), (0, 0, 0, 0), "zero quaternion"),
    ],
)
def test_bad_poses_are_refused(translation, quaternion, said):
    with pytest.raises(ValueError, match=said):
        pose_from_quaternion(translation, quaternion)


def test_track_interpolates_inside_and_says_why_not_outside():
    track = PoseTrack(max_gap_ns=100)
    with pytest.raises(PoseUnavailable, match="no pose"):
        track.at(5)
    for stamp in (0, 50, 300):
        track.append(stamp, pose_from_xy_yaw(stamp, 0.0, 0.0))
    assert track.at(25)[0, 3] == pytest.approx(25)
    assert track.at(50)[0, 3] == pytest.approx(50)
    for stamp, said in ((-1, "before the first"), (301, "after the last"), (100, "apart")):
        with pytest.raises(PoseUnavailable, match=said):
            track.at(stamp)


def test_track_refuses_stamps_that_do_not_ascend_and_forgets_the_oldest():
    track = PoseTrack(max_gap_ns=100, capacity=3)
    for stamp in range(10):
        track.append(stamp, np.eye(4))
    assert len(track) <= 6
    assert track.at(9) is not None
    with pytest.raises(ValueError, match="not after"):
        track.append(9, np.eye(4))
    track.clear()
    track.append(0, np.eye(4))
    assert track.last_stamp_ns == 0


def test_many_poses_are_those_of_one_by_one():
    rng = np.random.default_rng(0)
    t, q = rng.normal(size=(20, 3)), rng.normal(size=(20, 4))
    one_by_one = [pose_from_quaternion(*pair) for pair in zip(t, q, strict=True)]
    np.testing.assert_allclose(poses_from_quaternions(t, q), one_by_one, atol=1e-12)
    assert poses_from_quaternions([], []).shape == (0, 4, 4)
    q[3] = 0.0
    with pytest.raises(ValueError, match="zero quaternion"):
        poses_from_quaternions(t, q)
    t[5, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        poses_from_quaternions(t, q)
