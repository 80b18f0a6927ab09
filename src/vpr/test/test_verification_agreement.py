import numpy as np
import pytest

from vpr.config import LoopClosureConfig
from vpr.geometry import pose_from_xy_yaw, relative
from vpr.records import ClosureState, Keyframe, LoopClosure
from vpr.verification.agreement import Agreement, Sighting
from vpr.verification.plausibility import Pair
from vpr.verification.relative_pose import RelativePose

CONFIG = LoopClosureConfig.from_file(
    agreeing_closures=2,
    agreeing_closures_without_odometry=3,
    agreement_keyframes=5,
    agreement_translation=1.0,
    agreement_rotation=0.15,
)
LAP = 100  # keyframes, a metre apart


def sighting(query_id, reference_id, odometry=True, off=(0.0, 0.0, 0.0), metric=True):
    """A closure of a drive along x that started again at 0 after LAP metres.

    Args:
        off: error of the measured pose: x, y, yaw.
    """

    def keyframe(keyframe_id):
        pose = pose_from_xy_yaw(float(keyframe_id), 0.0, 0.0) if odometry else None
        return Keyframe(keyframe_id, 0, keyframe_id, np.zeros(0, np.float32), "", odometry=pose)

    query, reference = keyframe(query_id), keyframe(reference_id)
    place = pose_from_xy_yaw(float(query_id - LAP), 0.0, 0.0)
    measured = relative(pose_from_xy_yaw(float(reference_id), 0.0, 0.0), place)
    measured = measured @ pose_from_xy_yaw(*off) if metric else np.eye(4)
    closure = LoopClosure(
        query_id, 0, query_id, reference_id, 0, reference_id,
        ClosureState.CANDIDATE, "waiting", inliers=40, relative_pose=measured,
    )  # fmt: skip
    paths = (float(query_id), float(reference_id)) if odometry else (0.0, 0.0)
    pair = Pair(query, reference, *paths)
    return Sighting(closure, pair, RelativePose(measured, np.eye(6), 40, 0.5, metric))


def states(verdicts):
    return [(v.query_id, v.reference_id, v.state.name) for v in verdicts]


def test_the_first_waits_and_the_second_verifies_both():
    agreement = Agreement(CONFIG)
    assert states(agreement.consider(sighting(110, 10))) == [(110, 10, "CANDIDATE")]
    verdicts = agreement.consider(sighting(111, 12))
    assert states(verdicts) == [(110, 10, "VERIFIED"), (111, 12, "VERIFIED")]
    assert "2 closures in a row tell the same story" in verdicts[0].reason
    assert states(agreement.consider(sighting(112, 12))) == [(112, 12, "VERIFIED")]
    assert agreement.flush() == []


@pytest.mark.parametrize(
    ("off", "agrees"),
    [
        ((0.9, 0.0, 0.0), True),
        ((2.5, 0.0, 0.0), False),
        ((0.0, 0.0, 0.1), True),
        ((0.0, 0.0, 0.5), False),
    ],
)
def test_with_odometry_closures_must_put_the_drive_at_one_place(off, agrees):
    agreement = Agreement(CONFIG)
    agreement.consider(sighting(110, 10))
    state = "VERIFIED" if agrees else "CANDIDATE"
    assert states(agreement.consider(sighting(111, 11, off=off)))[-1] == (111, 11, state)


def test_two_candidates_of_one_query_are_one_witness():
    agreement = Agreement(CONFIG)
    agreement.consider(sighting(110, 10))
    assert states(agreement.consider(sighting(110, 11))) == [(110, 11, "CANDIDATE")]


def test_a_lonely_candidate_is_rejected_when_its_time_is_over():
    agreement = Agreement(CONFIG)
    agreement.consider(sighting(110, 10))
    assert agreement.expired(115) == []
    (verdict,) = agreement.expired(116)
    assert verdict.state == ClosureState.REJECTED
    assert verdict.rejected_by == "no_agreement"
    assert "no other closure within 5 keyframes" in verdict.reason
    assert agreement.flush() == []


def test_flush_ends_all_that_wait():
    agreement = Agreement(CONFIG)
    agreement.consider(sighting(110, 10))
    agreement.consider(sighting(112, 50, off=(30.0, 0.0, 0.0)))
    assert states(agreement.flush()) == [(110, 10, "REJECTED"), (112, 50, "REJECTED")]
    assert agreement.flush() == []


def test_what_contradicts_a_verified_closure_is_named():
    agreement = Agreement(CONFIG)
    agreement.consider(sighting(110, 10))
    agreement.consider(sighting(111, 11))
    alike = sighting(112, 60, off=(48.0, 0.0, 0.0))  # looks as if it stood right at 60
    assert "keyframe 111 was verified at keyframe 11" in agreement.contradiction(alike)
    assert agreement.contradiction(sighting(112, 12)) == ""
    assert agreement.contradiction(sighting(130, 60, off=(30.0, 0.0, 0.0))) == ""  # long ago


def test_without_odometry_three_must_advance_together():
    agreement = Agreement(CONFIG)
    for query, reference, state in ((110, 10, "CANDIDATE"), (111, 11, "CANDIDATE")):
        verdicts = agreement.consider(sighting(query, reference, odometry=False, metric=False))
        assert states(verdicts) == [(query, reference, state)]
    verdicts = agreement.consider(sighting(112, 12, odometry=False, metric=False))
    assert states(verdicts) == [(q, q - LAP, "VERIFIED") for q in (110, 111, 112)]


def test_without_odometry_a_jump_is_no_advance():
    agreement = Agreement(CONFIG)
    for query, reference in ((110, 10), (111, 40), (112, 70), (113, 30)):
        verdicts = agreement.consider(sighting(query, reference, odometry=False, metric=False))
        assert states(verdicts) == [(query, reference, "CANDIDATE")]


def test_a_camera_that_stands_before_a_look_alike_does_not_agree_with_itself():
    agreement = Agreement(CONFIG)
    for query in range(110, 115):
        verdicts = agreement.consider(sighting(query, 10, odometry=False, metric=False))
        assert states(verdicts) == [(query, 10, "CANDIDATE")]


def test_third_lap_may_close_with_either_lap_before():
    """Keyframes 110.. were verified at 10..: both are the same place for a later query."""
    agreement = Agreement(CONFIG)
    for query in range(110, 116):
        agreement.consider(sighting(query, query - 100, odometry=False, metric=False))
    agreement.flush()
    for query, reference in ((210, 110), (211, 11), (212, 112)):
        verdicts = agreement.consider(sighting(query, reference, odometry=False, metric=False))
    assert states(verdicts)[-1] == (212, 112, "VERIFIED")
    assert agreement.contradiction(sighting(213, 13, odometry=False, metric=False)) == ""


def test_one_that_most_of_those_around_it_belie_is_not_raised_by_the_few():
    config = CONFIG.model_copy(update={"agreement_keyframes": 8})
    agreement = Agreement(config)
    for query_id in range(100, 116):
        reference_id = query_id - LAP + (6 if query_id == 108 else 0)
        agreement.consider(sighting(query_id, reference_id, odometry=False))
    (verdict,) = agreement.expired(200)
    assert (verdict.query_id, verdict.state) == (108, ClosureState.REJECTED)
    assert verdict.rejected_by == "contradicts_closure"
    assert "somewhere else" in verdict.reason
