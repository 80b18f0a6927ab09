"""map -> odom as published: slow enough to follow, and flagged where it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.config import PoseGraphConfig
from vpr.geometry import pose_from_xy_yaw, relative, rotation_angle, translation_norm
from vpr.graph.correction import SmoothCorrection

SECOND = 10**9
CONFIG = PoseGraphConfig.from_file(
    correction_max_speed=0.5, correction_max_turn_rate=0.05, correction_jump=20.0
)


def test_the_first_correction_is_published_as_it_is():
    target = pose_from_xy_yaw(300, -20, 2.0)
    step = SmoothCorrection(CONFIG).follow(0, target, np.eye(4), SECOND)
    np.testing.assert_array_equal(step.pose, target)
    assert step.jumped_from is None


@settings(max_examples=15, deadline=None)
@given(
    st.floats(-8, 8), st.floats(-8, 8), st.floats(-1, 1),
    st.floats(-300, 300), st.floats(-3, 3), st.floats(0.05, 0.5),
)  # fmt: skip
def test_robot_and_transform_keep_to_the_limits_and_arrive(x, y, turn, far, heading, period):
    smooth = SmoothCorrection(CONFIG)
    odometry = pose_from_xy_yaw(far, far / 3, heading)
    smooth.follow(0, np.eye(4), odometry, 0)
    robot = pose_from_xy_yaw(x, y, turn)  # how the robot's pose in the map is corrected
    target = odometry @ robot @ np.linalg.inv(odometry)
    before, left = np.eye(4), np.inf
    for i in range(1, 20):
        step = smooth.follow(0, target, odometry, round(i * period * SECOND))
        for moved in (
            translation_norm(relative(before @ odometry, step.pose @ odometry)),
            float(np.linalg.norm(step.pose[:3, 3] - before[:3, 3])),
        ):
            assert moved <= 0.5 * period + 1e-6
        assert rotation_angle(relative(before, step.pose)) <= 0.05 * period + 1e-6
        assert step.left_translation <= left + 1e-6
        assert step.jumped_from is None
        before, left = step.pose, step.left_translation
    for i in range(1, 1000):
        step = smooth.follow(0, target, odometry, (20 + i) * SECOND)
        if step.left_translation == step.left_rotation == 0.0:
            break
    np.testing.assert_allclose(step.pose, target, atol=1e-6)


def test_it_takes_as_long_as_the_limits_say_and_a_silence_is_not_made_up_for():
    smooth, target = SmoothCorrection(CONFIG), pose_from_xy_yaw(2.0, 0, 0)
    smooth.follow(0, np.eye(4), np.eye(4), 0)
    half = smooth.follow(0, target, np.eye(4), SECOND)
    assert half.pose[0, 3] == pytest.approx(0.5)
    assert half.left_translation == pytest.approx(1.5)
    late = smooth.follow(0, target, np.eye(4), 60 * SECOND)
    assert late.pose[0, 3] == pytest.approx(1.0)
    early = smooth.follow(0, target, np.eye(4), 59 * SECOND)  # older data moves nothing
    np.testing.assert_array_equal(early.pose, late.pose)
    back = smooth.follow(0, np.eye(4), np.eye(4), 61 * SECOND)  # the graph changed its mind
    assert back.pose[0, 3] == pytest.approx(0.5)


def test_another_session_jumps_and_says_so():
    smooth, target = SmoothCorrection(CONFIG), pose_from_xy_yaw(5.0, 0, 0)
    smooth.follow(0, np.eye(4), np.eye(4), 0)
    step = smooth.follow(1, target, np.eye(4), SECOND)
    np.testing.assert_array_equal(step.pose, target)
    np.testing.assert_array_equal(step.jumped_from, np.eye(4))
    near = pose_from_xy_yaw(5.3, 0, 0)  # within what is allowed: no jump to speak of
    assert smooth.follow(2, near, np.eye(4), 2 * SECOND).jumped_from is None
    smooth.leave_session()
    assert smooth.follow(2, np.eye(4), np.eye(4), 3 * SECOND).jumped_from is not None


def test_what_is_too_far_to_follow_jumps_and_says_so():
    smooth = SmoothCorrection(CONFIG)
    smooth.follow(0, np.eye(4), np.eye(4), 0)
    step = smooth.follow(0, pose_from_xy_yaw(20.5, 0, 0), np.eye(4), SECOND)
    assert step.pose[0, 3] == 20.5
    assert step.jumped_from is not None
