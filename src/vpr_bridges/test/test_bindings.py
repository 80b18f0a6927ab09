"""Closures carried over to a host's keyframes: the pose stays true, the wait is finite."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vpr.config import RtabmapBridgeConfig
from vpr.geometry import inverse, pose_from_quaternion, relative
from vpr.records import ClosureState, Keyframe, LoopClosure
from vpr_bridges.bindings import HostKeyframe, KeyframeBindings, Unbound

SECOND = 10**9


def curve(seconds):
    """A pose on a smooth way through space."""
    turn = Rotation.from_euler("xyz", [0.05 * np.sin(seconds), 0.1, 0.2 * seconds])
    return pose_from_quaternion((seconds, np.sin(seconds), 0.1 * seconds), turn.as_quat())


def keyframe(identity, seconds, odometry=True):
    pose = curve(seconds) if odometry else None
    return Keyframe(identity, 0, round(seconds * SECOND), np.zeros(0, np.float32), "", pose)


def closure(query, query_seconds, reference, reference_seconds):
    pose = relative(curve(reference_seconds), curve(query_seconds))
    covariance = np.diag([0.01] * 3 + [0.001] * 3)
    state = ClosureState.VERIFIED
    return LoopClosure(
        query, 0, 0, reference, 0, 0, state, "", relative_pose=pose, covariance=covariance
    )


def bindings(**overrides):
    return KeyframeBindings(RtabmapBridgeConfig.from_file(**overrides))


def driven(first, second, hosts, **overrides):
    """Bindings after keyframes at two times, host keyframes at others, and odometry at 20 Hz."""
    bound = bindings(**overrides)
    for step in range(400):
        bound.add_odometry(step * SECOND // 20, curve(step / 20))
    for identity, seconds in enumerate(hosts, start=1):
        bound.add_host(HostKeyframe(identity, round(seconds * SECOND)))
    bound.add_keyframe(keyframe(0, first))
    bound.add_keyframe(keyframe(9, second))
    bound.settle()
    return bound


@settings(deadline=None, max_examples=30)
@given(st.floats(0.5, 4.0), st.floats(10.0, 15.0), st.floats(-0.45, 0.45), st.floats(-0.45, 0.45))
def test_the_closure_between_the_hosts_keyframes_is_true_too(first, second, early, late):
    hosts = [first + early, second + late, 19.0]
    carried = driven(first, second, hosts).carried_over(closure(9, second, 0, first))
    assert (carried.reference.id, carried.query.id) == (1, 2)
    truth = relative(curve(hosts[0]), curve(hosts[1]))
    # odometry is interpolated over a twentieth of a second
    np.testing.assert_allclose(carried.relative_pose, truth, atol=2e-3)
    assert np.linalg.eigvalsh(carried.covariance)[0] > 0.0


def test_the_way_between_adds_to_the_covariance():
    near = driven(2.0, 12.0, [2.0, 12.0, 19.0]).carried_over(closure(9, 12.0, 0, 2.0))
    far = driven(2.0, 12.0, [2.4, 12.4, 19.0]).carried_over(closure(9, 12.0, 0, 2.0))
    np.testing.assert_allclose(near.covariance, np.diag([0.01] * 3 + [0.001] * 3))
    assert np.trace(far.covariance) > np.trace(near.covariance)


def test_a_keyframe_waits_for_the_hosts_next_one_but_not_for_ever():
    bound = driven(2.0, 12.0, [2.1])
    with pytest.raises(Unbound) as waiting:
        bound.carried_over(closure(9, 12.0, 0, 2.0))
    assert not waiting.value.final
    bound.settle(at_once=True)
    with pytest.raises(Unbound, match=r"keyframe 9: no keyframe of the host within 1\.5 s") as over:
        bound.carried_over(closure(9, 12.0, 0, 2.0))
    assert over.value.final


@pytest.mark.parametrize(
    ("hosts", "said"),
    [([2.0, 9.0, 19.0], "no keyframe of the host within"), ([2.0, 19.0], "no keyframe")],
)
def test_a_host_that_was_elsewhere_gets_nothing(hosts, said):
    with pytest.raises(Unbound, match=said) as unbound:
        driven(2.0, 12.0, hosts).carried_over(closure(9, 12.0, 0, 2.0))
    assert unbound.value.final


def test_both_ends_at_one_keyframe_of_the_host_is_no_closure():
    with pytest.raises(Unbound, match="both ends are the host's keyframe 1"):
        driven(2.0, 2.2, [2.1, 19.0]).carried_over(closure(9, 2.2, 0, 2.0))


def test_without_odometry_only_equal_stamps_bind():
    bound = bindings()
    bound.add_host(HostKeyframe(1, 2 * SECOND))
    bound.add_host(HostKeyframe(2, 12 * SECOND))
    for identity, seconds in ((0, 2.0), (9, 11.9)):
        bound.add_keyframe(keyframe(identity, seconds, odometry=False))
    bound.settle()
    assert bound.binding(0).host.id == 1
    with pytest.raises(Unbound, match="no odometry between"):
        bound.binding(9)


def test_a_host_that_begins_again_is_bound_anew():
    bound = driven(2.0, 12.0, [2.0, 12.0, 19.0])
    bound.add_host(HostKeyframe(50, 2 * SECOND))
    bound.add_host(HostKeyframe(51, 3 * SECOND))
    bound.add_keyframe(keyframe(20, 2.0))
    bound.settle()
    assert bound.binding(0).host.id == 1
    assert bound.binding(20).host.id == 50


def test_inverse_of_offset_is_the_hosts_view():
    bound = driven(2.0, 12.0, [2.3, 12.0, 19.0])
    np.testing.assert_allclose(bound.binding(0).offset, inverse(curve(2.0)) @ curve(2.3), atol=2e-3)
