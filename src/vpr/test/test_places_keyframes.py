import numpy as np
import pytest

from vpr.config import SequenceMatchingConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.places.keyframes import KeyframeSelector

SECOND = 1_000_000_000
VIEW = np.array([1.0, 0.0], np.float32)
OTHER_VIEW = np.array([0.8, 0.6], np.float32)  # at a cosine distance of 0.2


@pytest.fixture
def selector():
    config = SequenceMatchingConfig.from_file(
        keyframe_translation=0.5, keyframe_rotation=0.2, keyframe_max_interval=10.0
    )
    chosen = KeyframeSelector(config)
    chosen.keep(0, pose_from_xy_yaw(1.0, 2.0, 0.1), VIEW)
    return chosen


@pytest.mark.parametrize(
    ("stamp", "pose", "kept"),
    [
        (1, (1.3, 2.3, 0.1), False),
        (1, (1.4, 2.4, 0.1), True),
        (1, (1.0, 2.0, 0.25), False),
        (1, (1.0, 2.0, 0.31), True),
        (9, (1.0, 2.0, 0.1), False),
        (10, (1.0, 2.0, 0.1), True),
    ],
)
def test_motion_rotation_or_time_make_a_keyframe(selector, stamp, pose, kept):
    reason = selector.reason_to_skip(stamp * SECOND, pose_from_xy_yaw(*pose), VIEW)
    assert (reason == "") is kept


def test_the_reason_says_how_far_it_moved(selector):
    reason = selector.reason_to_skip(1, pose_from_xy_yaw(1.3, 2.0, 0.1), VIEW)
    assert reason.startswith("moved 0.30 m < 0.50 m and turned 0.00 rad < 0.20 rad")


def test_every_frame_is_kept_without_odometry(selector):
    assert selector.reason_to_skip(1, None, VIEW) == ""
    selector.keep(1, None, VIEW)
    assert selector.reason_to_skip(2, np.eye(4), VIEW) == ""


def test_the_first_frame_after_forgetting_is_kept(selector):
    selector.forget()
    assert selector.reason_to_skip(1, pose_from_xy_yaw(1.0, 2.0, 0.1), VIEW) == ""


def test_a_stop_without_odometry_shows_in_the_images():
    selector = KeyframeSelector(SequenceMatchingConfig.from_file(keyframe_novelty=0.1))
    assert selector.reason_to_skip(0, None, VIEW) == ""
    selector.keep(0, None, VIEW)
    assert "looks like the last keyframe (0.000 < 0.100)" in selector.reason_to_skip(1, None, VIEW)
    assert selector.reason_to_skip(1, None, OTHER_VIEW) == ""
    selector.keep(2, np.eye(4), VIEW)
    assert selector.reason_to_skip(3, np.eye(4), OTHER_VIEW).startswith("moved 0.00 m")
