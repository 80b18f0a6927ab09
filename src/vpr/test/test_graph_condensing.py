"""Odometry condensed between closures: exact where it says so, and no jury fooled by a bend."""

from dataclasses import replace

import gtsam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.graph.condensing import OdometryRuns, condensed_graph
from vpr.graph.g2o import Measurement, assembled
from vpr.graph.growing import GrowingGraph
from vpr.graph.optimization import optimize
from vpr.graph.outliers import with_false_closures
from vpr.graph.solution import element_at, factor_of, initial_values, prior_of, solve_batch

PLANE = (0.1, 0.1, 0.03)
SPACE = (0.02, 0.02, 0.02, 0.1, 0.1, 0.1)


def drive(dimension, count=120, a_lap=40, every=7, seed=0, noise=0.5, scale=1.0):
    """Laps of a circle with closures now and then; ``scale`` x the sigmas are claimed."""
    rng = np.random.default_rng(seed)
    sigmas = np.array(PLANE if dimension == 3 else SPACE)
    angle = 2 * np.pi / a_lap
    if dimension == 3:
        step, truth = gtsam.Pose2(1.0, 0.0, angle), [gtsam.Pose2()]
    else:
        step = gtsam.Pose3(gtsam.Rot3.Ypr(angle, 0.05, 0.0), np.array([1.0, 0.0, 0.0]))
        truth = [gtsam.Pose3()]
    for _ in range(count - 1):
        truth.append(truth[-1].compose(step))
    pairs = [(i, i + 1) for i in range(count - 1)]
    pairs += [(i - a_lap, i) for i in range(a_lap, count, every)]
    information = np.diag(1.0 / np.square(scale * sigmas))
    measurements = []
    for one, two in pairs:
        error = noise * rng.normal(size=dimension) * sigmas
        measured = truth[one].between(truth[two]).retract(error)
        measurements.append(Measurement(one, two, measured, information))
    return assembled(dimension, measurements, {})


def total_error(graph, values):
    factors = gtsam.NonlinearFactorGraph()
    factors.add(prior_of(graph))
    for m in graph.measurements:
        factors.add(factor_of(graph, m))
    return factors.error(values)


def grown(graph, vertices=None):
    growing = GrowingGraph(graph)
    place = {vertex: i for i, vertex in enumerate(graph.order)}
    for i, (vertex, tie) in enumerate(zip(graph.order[1:vertices], graph.tree, strict=False), 1):
        ends = [{place[m.from_id], place[m.to_id]} for m in graph.measurements]
        others = [n for n, e in enumerate(ends) if max(e) == i and n != tie]
        growing.extend(vertex, tie, others)
    return growing


@pytest.mark.parametrize("dimension", [3, 6])
def test_a_stretch_has_the_covariance_of_its_steps(dimension):
    graph = drive(dimension)
    runs = OdometryRuns(graph)
    for _ in range(30):
        runs.append()
    covariance = np.zeros((dimension, dimension))
    for number in range(4, 21):
        m = graph.measurements[number]
        back = m.measured.inverse().AdjointMap()
        covariance = back @ covariance @ back.T + np.linalg.inv(m.information)
    stretch = runs.condensed(4, 21)
    assert (stretch.from_id, stretch.to_id) == (4, 21)
    np.testing.assert_allclose(np.linalg.inv(stretch.information), covariance, atol=1e-9)


@pytest.mark.parametrize("dimension", [3, 6])
def test_condensed_and_expanded_is_as_good_as_the_whole(dimension):
    graph = drive(dimension)
    small = condensed_graph(graph, len(graph.order), graph.closures)
    assert len(small.graph.order) < len(graph.order) / 2
    factors = [factor_of(small.graph, m) for m in small.graph.measurements]
    solved = solve_batch(small.graph, factors, initial_values(small.graph, small.graph.order))
    whole = optimize(graph, "none", incremental=False)
    assert total_error(graph, small.expanded(solved.values)) <= 1.005 * whole.error
    assert solved.error == pytest.approx(whole.error, rel=0.005)


@pytest.mark.parametrize("dimension", [3, 6])
def test_growth_without_settling_ends_at_the_batch_error(dimension):
    graph = drive(dimension)
    batch = optimize(graph, "none", incremental=False).error
    assert total_error(graph, grown(graph).values()) <= 1.01 * batch


@settings(max_examples=20, deadline=None)
@given(vertices=st.integers(2, 120), dimension=st.sampled_from([3, 6]))
def test_poses_one_by_one_are_those_of_all(vertices, dimension):
    graph = drive(dimension)
    growing = grown(graph, vertices)
    values = growing.values()
    assert values.size() == vertices
    for vertex in graph.order[:vertices]:
        assert growing.pose(vertex).equals(element_at(graph, values, vertex), 1e-6)


def test_odometry_alone_is_composed_exactly():
    graph = drive(6)
    growing = grown(graph, 30)
    pose = gtsam.Pose3()
    for number in range(29):
        pose = pose.compose(graph.measurements[number].measured)
    assert growing.pose(29).equals(pose, 1e-9)


def test_a_measurement_taken_out_leaves_no_trace():
    graph = drive(3, noise=0.05)
    closures = graph.closures
    growing = grown(graph)
    growing.exchange([], closures)
    assert not set(closures) & set(growing.measurements)
    odometry = initial_values(graph, graph.order)
    for vertex in graph.order:
        assert growing.pose(vertex).equals(odometry.atPose2(vertex), 0.01)


def test_goes_on_from_given_poses():
    graph = drive(3)
    wrong, _ = with_false_closures(graph, 0.5, seed=1)
    growing = grown(wrong)
    clean = optimize(graph, "none", incremental=False)
    poses = gtsam.Values()
    for vertex, pose in clean.poses.items():
        poses.insert(vertex, pose)
    growing.correct([], sorted(set(wrong.closures) - set(graph.closures)), poses)
    assert total_error(graph, growing.values()) <= 1.01 * clean.error


def test_a_graph_that_branches_is_grown_too():
    """A star: every arm hangs on vertex 0, so each begins a new run."""
    step, information = gtsam.Pose2(1.0, 0.0, 0.1), np.eye(3) * 100.0
    pairs = [(0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (3, 8)]
    graph = assembled(3, [Measurement(a, b, step, information) for a, b in pairs], {})
    batch = optimize(graph, "none", incremental=False)
    result = optimize(graph, "none", incremental=True)
    assert result.error == pytest.approx(batch.error, rel=1e-6)
    values = grown(graph).values()
    assert total_error(graph, values) <= 1.01 * batch.error


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_jury_of_modest_odometry_is_not_bent_by_a_group(seed):
    """Claimed sigmas are far above the real ones: a false group strains less than its ten gates."""
    clean = drive(3, count=300, a_lap=100, every=3, noise=0.2, scale=3.0)
    clean = replace(clean, initial=optimize(clean, "none", incremental=False).poses)
    graph, false = with_false_closures(clean, 0.14, seed=seed, group=10)
    result = optimize(graph, "gnc", incremental=True)
    assert not result.kept & false
    assert len(result.kept) >= 0.9 * len(clean.closures)
