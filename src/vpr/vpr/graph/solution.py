"""Solve a whole pose graph by gtsam, all at once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gtsam

from vpr.graph.edges import PoseGraphError
from vpr.graph.g2o import G2oGraph, Measurement

PRIOR_VARIANCE = 1e-6  # m^2 and rad^2: the first vertex is where the frame is, by definition


class UnsolvableGraph(PoseGraphError):
    """Measurements that no poses can be found for, though each of them is sound."""


@dataclass(frozen=True)
class Solution:
    """Poses, and the factor-graph error (half the sum of squared whitened residuals) they leave.

    ``steps`` are seconds: of each iteration in batch, of each vertex incrementally.
    """

    values: gtsam.Values
    error: float
    steps: tuple[float, ...]


def element_at(graph: G2oGraph, values: gtsam.Values, vertex: int) -> Any:
    """gtsam.Pose2 or gtsam.Pose3 of a vertex."""
    return values.atPose2(vertex) if graph.dimension == 3 else values.atPose3(vertex)


def factor_of(graph: G2oGraph, measurement: Measurement) -> Any:
    """A measurement as a Gaussian between factor."""
    between = gtsam.BetweenFactorPose2 if graph.dimension == 3 else gtsam.BetweenFactorPose3
    noise = gtsam.noiseModel.Gaussian.Information(measurement.information)
    return between(measurement.from_id, measurement.to_id, measurement.measured, noise)


def prior_of(graph: G2oGraph) -> Any:
    """Factor that holds the first vertex where it begins."""
    prior = gtsam.PriorFactorPose2 if graph.dimension == 3 else gtsam.PriorFactorPose3
    noise = gtsam.noiseModel.Isotropic.Variance(graph.dimension, PRIOR_VARIANCE)
    return prior(graph.order[0], graph.initial[graph.order[0]], noise)


def initial_values(graph: G2oGraph, vertices: Iterable[int]) -> gtsam.Values:
    """Where the graph begins."""
    values = gtsam.Values()
    for vertex in vertices:
        values.insert(vertex, graph.initial[vertex])
    return values


def chosen(graph: G2oGraph, values: gtsam.Values, vertices: Iterable[int]) -> gtsam.Values:
    """The poses of some vertices."""
    result = gtsam.Values()
    for vertex in vertices:
        result.insert(vertex, element_at(graph, values, vertex))
    return result


def solve_batch(
    graph: G2oGraph, factors: Iterable[Any], initial: gtsam.Values, relative_tolerance: float = 1e-5
) -> Solution:
    """Levenberg-Marquardt over the factors and the prior, from given poses.

    Raises:
        UnsolvableGraph: the error is not finite.
    """
    nonlinear = gtsam.NonlinearFactorGraph()
    nonlinear.add(prior_of(graph))
    for factor in factors:
        nonlinear.add(factor)
    optimizer = gtsam.LevenbergMarquardtOptimizer(nonlinear, initial)
    limit = gtsam.LevenbergMarquardtParams().getMaxIterations()
    error = optimizer.error()
    steps: list[float] = []
    while len(steps) < limit:
        started = time.perf_counter()
        optimizer.iterate()
        steps.append(time.perf_counter() - started)
        previous, error = error, optimizer.error()
        if previous - error <= relative_tolerance * previous:
            break
    if not math.isfinite(optimizer.error()):
        raise UnsolvableGraph("graph can't be solved: its error is not finite")
    return Solution(optimizer.values(), optimizer.error(), tuple(steps))


def poses_of(graph: G2oGraph, values: gtsam.Values) -> Mapping[int, Any]:
    """Elements of all vertices by id."""
    return {vertex: element_at(graph, values, vertex) for vertex in graph.order}
