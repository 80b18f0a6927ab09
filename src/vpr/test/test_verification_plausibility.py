import numpy as np
import pytest

from vpr.config import LoopClosureConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.records import GpsFix, Keyframe
from vpr.verification.plausibility import (
    Pair,
    gps_forbids,
    is_checkable,
    odometry_contradicts,
    odometry_forbids,
)
from vpr.verification.relative_pose import RelativePose

CONFIG = LoopClosureConfig.from_file(
    drift_translation=0.05,
    drift_translation_floor=3.0,
    drift_rotation=0.003,
    drift_rotation_floor=0.35,
    max_translation=4.0,
    gps_tolerance=10.0,
)
NORTH_PER_DEGREE = 111_200.0  # m, near 49 degrees


def keyframe(odometry=None, session=0, fix=None):
    return Keyframe(0, session, 0, np.zeros(0, np.float32), "", odometry=odometry, fix=fix)


def pair(query, reference, driven=100.0):
    return Pair(query, reference, query_path=driven + 7.0, reference_path=7.0)


def closure(x, y, yaw, metric=True):
    return RelativePose(pose_from_xy_yaw(x, y, yaw), np.eye(6), 50, 0.5, metric)


AT_START = keyframe(pose_from_xy_yaw(0.0, 0.0, 0.0))


@pytest.mark.parametrize(("apart", "forbidden"), [(11.9, False), (12.1, True)])
def test_place_out_of_reach_of_drift_is_forbidden(apart, forbidden):
    there = keyframe(pose_from_xy_yaw(apart, 0.0, 1.0))  # 3 m + 5 % of 100 m + 4 m of view
    words = odometry_forbids(pair(there, AT_START), CONFIG)
    assert bool(words) == forbidden
    if forbidden:
        assert words == ("odometry puts it 12.1 m away; after 100 m driven, drift explains 12.0 m")


def test_measured_pose_is_compared_with_the_predicted():
    there = keyframe(pose_from_xy_yaw(9.0, 0.0, 0.0))
    assert odometry_contradicts(pair(there, AT_START), closure(1.5, 0.0, 0.0), CONFIG) == ""
    words = odometry_contradicts(pair(there, AT_START), closure(0.5, 0.0, 0.0), CONFIG)
    assert "8.5 m away" in words


def test_measured_turn_is_compared_with_the_predicted():
    there = keyframe(pose_from_xy_yaw(0.0, 0.0, 0.0))
    within, beyond = closure(0.0, 0.0, 0.6), closure(0.0, 0.0, 0.7)  # 0.35 + 0.003 * 100 m
    assert odometry_contradicts(pair(there, AT_START), within, CONFIG) == ""
    assert "turned 40 degrees" in odometry_contradicts(pair(there, AT_START), beyond, CONFIG)


def test_without_common_odometry_nothing_is_forbidden():
    far = pose_from_xy_yaw(500.0, 0.0, 0.0)
    for other in (keyframe(far, session=1), keyframe(None)):
        both = pair(other, AT_START)
        assert odometry_forbids(both, CONFIG) == ""
        assert odometry_contradicts(both, closure(0.0, 0.0, 0.0), CONFIG) == ""
        assert not is_checkable(both)
    assert is_checkable(pair(keyframe(far), AT_START))


def test_closure_without_scale_is_not_held_against_odometry():
    there = keyframe(pose_from_xy_yaw(9.0, 0.0, 0.0))
    weak = closure(0.0, 0.0, 0.0, metric=False)
    assert odometry_contradicts(pair(there, AT_START), weak, CONFIG) == ""


@pytest.mark.parametrize(
    ("apart", "sigma", "forbidden"), [(13.0, 0.0, False), (15.0, 0.0, True), (25.0, 2.0, False)]
)
def test_gps_forbids_beyond_its_own_error(apart, sigma, forbidden):
    covariance = np.eye(3) * sigma**2
    here = keyframe(fix=GpsFix(49.0, 8.0, 100.0, covariance))
    there = keyframe(fix=GpsFix(49.0 + apart / NORTH_PER_DEGREE, 8.0, 100.0, covariance))
    assert bool(gps_forbids(pair(here, there), CONFIG)) == forbidden
    assert is_checkable(pair(here, there))


def test_gps_at_one_end_forbids_nothing():
    here = keyframe(fix=GpsFix(49.0, 8.0, 100.0))
    assert gps_forbids(pair(here, keyframe()), CONFIG) == ""
    assert not is_checkable(pair(here, keyframe()))
