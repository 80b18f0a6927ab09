"""Odometry condensed in the live graph, beside the whole graph solved in batch."""

from itertools import pairwise

import gtsam
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_graph_pose_graph import circle, closure, drifting, keyframe, make_graph, poses_of
from test_graph_pose_graph import noise as measurement_noise

from vpr.config import PoseGraphConfig
from vpr.geometry import pose_from_xy_yaw, relative
from vpr.graph.edges import Edge, EdgeKind
from vpr.graph.lie_group import lie_group
from vpr.graph.measurements import Step
from vpr.graph.pairwise import largest_clique
from vpr.graph.recent import largest_agreement
from vpr.graph.smoother import PRIOR_SIGMA, Smoother
from vpr.graph.track import Track
from vpr.records import ClosureState

STEP = np.diag([0.05**2] * 3 + [0.01**2] * 3)
CLOSURE = np.diag([0.1**2] * 3 + [0.02**2] * 3)


def noise(rng, covariance, planar):
    tangent = rng.normal(size=6) * np.sqrt(np.diag(covariance))
    if planar:
        tangent[2:5] = 0.0
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_rotvec(tangent[3:]).as_matrix(), tangent[:3]
    return pose


def edge(one, two, truth, covariance, rng, planar, kind=EdgeKind.ODOMETRY):
    measured = relative(truth[one], truth[two]) @ noise(rng, covariance, planar)
    return Edge(one, two, kind, ClosureState.VERIFIED, measured, covariance)


def step(one, two, truth, rng, kind=EdgeKind.ODOMETRY):
    return Step.of(lie_group("se3"), edge(one, two, truth, STEP, rng, False, kind))


def laps(count=150, a_lap=50):
    angles = np.arange(count) * 2 * np.pi / a_lap
    return [pose_from_xy_yaw(15 * np.sin(a), 15 * (1 - np.cos(a)), a) for a in angles]


def driven(mode, every=7, seed=0):
    """A smoother after three laps, and all edges it was given."""
    rng, truth, planar = np.random.default_rng(seed), laps(), mode == "se2"
    fine = {"relinearize_translation": 0.05, "relinearize_rotation": 0.01}
    smoother = Smoother(PoseGraphConfig.from_file(mode=mode, **fine), lie_group(mode))
    smoother.start(0, truth[0])
    edges = []
    for i, (one, two) in enumerate(pairwise(range(len(truth))), 1):
        edges.append(edge(one, two, truth, STEP, rng, planar))
        smoother.extend(Step.of(lie_group(mode), edges[-1]))
        if i >= 50 and i % every == 0:
            edges.append(edge(i - 50, i, truth, CLOSURE, rng, planar, EdgeKind.CLOSURE))
            smoother.close(edges[-1])
    return smoother, edges


def batch(smoother, mode, poses, edges):
    """Errors of poses and of the batch solution, over all factors, none condensed."""
    group, factors, values = lie_group(mode), gtsam.NonlinearFactorGraph(), gtsam.Values()
    prior = gtsam.noiseModel.Isotropic.Sigma(group.dimension, PRIOR_SIGMA)
    factors.add(group.prior(gtsam.symbol("x", 0), group.element(np.eye(4)), prior))
    for each in edges:
        factors.add(smoother._factor(each))
    for i, pose in enumerate(poses):
        values.insert(gtsam.symbol("x", i), group.element(pose))
    solved = gtsam.LevenbergMarquardtOptimizer(factors, values).optimize()
    return factors.error(values), factors.error(solved)


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_condensed_odometry_ends_within_a_hundredth_of_the_batch_error(mode):
    smoother, edges = driven(mode)
    smoother.settle()
    error, best = batch(smoother, mode, smoother.poses(), edges)
    assert error <= 1.01 * best
    assert len(smoother._track.solved()) < 40  # of 150


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_each_closure_leaves_the_graph_within_a_hundredth_of_the_batch_error(mode):
    truth, rng, planar = circle(laps=2, radius=30.0), np.random.default_rng(0), mode == "se2"
    graph, ratios = make_graph(mode=mode), []
    for i, pose in enumerate(drifting(truth, 1, planar)):
        graph.add_keyframe(keyframe(i, pose))
        if i > 60 and i % 7 == 0:
            z = relative(truth[i - 60], truth[i]) @ measurement_noise(rng, 0.1, 0.02, planar)
            assert graph.add_closure(closure(i, i - 60, z)).state == ClosureState.VERIFIED
            error, best = batch(graph._pieces.map, mode, poses_of(graph), graph.edges())
            ratios.append(error / best)
    assert max(ratios) <= 1.01


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_poses_one_by_one_are_those_of_all(mode):
    smoother, _ = driven(mode)
    singly = [smoother.pose(i) for i in range(150)]
    np.testing.assert_allclose(smoother.poses(), singly, atol=1e-9)


@pytest.mark.parametrize("mode", ["se3", "se2"])
def test_moves_are_the_exponential_map(mode):
    group = lie_group(mode)
    rng = np.random.default_rng(0)
    tangents = np.array([rng.normal(size=group.dimension) * s for s in (0, 1e-6, 1e-4, 0.1, 1.0)])
    element = type(group.element(np.eye(4)))
    expected = [group.pose(element.Expmap(tangent)) for tangent in tangents]
    np.testing.assert_allclose(group.moves(tangents), expected, atol=1e-10)


def test_a_stretch_is_parted_where_a_keyframe_is_handed_over():
    track, truth, rng = Track(lie_group("se3")), laps(20), np.random.default_rng(0)
    track.append(0, None)
    for one, two in pairwise(range(10)):
        assert track.append(two, step(one, two, truth, rng))
    assert track.solved() == [0]
    first = track.hand_over([8])
    assert (first.keyframes, first.added, first.removed) == ((8,), ((0, 8),), ())
    second = track.hand_over([8, 5, 3])
    assert second.keyframes == (3, 5)
    assert (set(second.added), second.removed) == ({(0, 3), (3, 5), (5, 8)}, ((0, 8),))
    assert track.around(4) == (3, 5)
    assert track.around(9) == (8, 8)


def test_a_smoother_that_was_renewed_stays_as_it_is():
    smoother, edges = driven("se3")
    before, solved = smoother.poses(), smoother._track.solved()
    removed = [each for each in edges if each.kind is EdgeKind.CLOSURE][-1:]
    added = edge(32, 82, laps(), CLOSURE, np.random.default_rng(1), False, EdgeKind.CLOSURE)
    other = smoother.renewed(dict(enumerate(before)), removed, [added])
    assert {32, 82} <= set(other._track.solved()) - set(solved)
    other.extend(step(149, 150, laps(151), np.random.default_rng(1)))
    assert (len(other.poses()), len(smoother.poses())) == (151, 150)
    np.testing.assert_array_equal(smoother.poses(), before)


def test_what_is_barely_known_is_not_condensed():
    track, truth, rng = Track(lie_group("se3")), laps(5), np.random.default_rng(0)
    track.append(0, None)
    unknown = step(0, 1, truth, rng, EdgeKind.CONSTANT_POSITION)
    assert not track.append(1, unknown)
    assert not track.append(2, step(0, 2, truth, rng))  # past the one before it
    assert track.append(3, step(2, 3, truth, rng))
    assert track.solved() == [0, 1, 2]
    assert track.hand_over([3]).added == ((2, 3),)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95, 1.0])
def test_the_largest_agreement_is_the_size_of_the_largest_clique(share):
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 12, 20):
        upper = np.triu(rng.random((count, count)) < share, 1)
        agreeing = upper | upper.T
        assert largest_agreement(agreeing) == len(largest_clique(agreeing))
