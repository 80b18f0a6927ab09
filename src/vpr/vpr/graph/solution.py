"""Solve a whole pose graph by gtsam: all at once, or vertex by vertex as it would grow live."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gtsam
import numpy as np

from vpr.graph.g2o import G2oGraph, Matrix, Measurement, continued

PRIOR_VARIANCE = 1e-6  # m^2 and rad^2: the first vertex is where the frame is, by definition
RELINEARIZE = 0.05  # m and rad; at 0.1, a drive of 3500 poses ends 5 % above the batch error
RELINEARIZE_EVERY = 10  # updates


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


def solve_batch(
    graph: G2oGraph, factors: Iterable[Any], initial: gtsam.Values, relative_tolerance: float = 1e-5
) -> Solution:
    """Levenberg-Marquardt over the factors and the prior, from given poses."""
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
    return Solution(optimizer.values(), optimizer.error(), tuple(steps))


class GrowingGraph:
    """A pose graph that iSAM2 solves as it grows; single measurements can be taken out again.

    Cholesky factors are several times faster than QR but give up on badly scaled information; then
    all is handed to QR once, and the graph goes on.
    """

    def __init__(self, graph: G2oGraph) -> None:
        self._graph = graph
        self._isam = gtsam.ISAM2(_parameters("CHOLESKY"))
        self._factors: dict[int, Any] = {}
        self._slots: dict[int, int] = {}  # measurement -> its slot in iSAM2
        first = gtsam.NonlinearFactorGraph()
        first.add(prior_of(graph))
        self._isam.update(first, initial_values(graph, graph.order[:1]))

    @property
    def measurements(self) -> list[int]:
        """Numbers of the measurements inside."""
        return list(self._factors)

    def extend(self, vertex: int, tie: int, others: Iterable[int]) -> None:
        """Add a vertex where its tie puts it, and more measurements with it."""
        measurement = self._graph.measurements[tie]
        known = measurement.from_id if vertex == measurement.to_id else measurement.to_id
        values = gtsam.Values()
        values.insert(vertex, continued(measurement, vertex, self.pose(known)))
        self._update([tie, *others], values, [])

    def exchange(self, added: Iterable[int], removed: Iterable[int]) -> None:
        """Add measurements between vertices that are inside, and take others out."""
        slots = []
        for number in removed:
            del self._factors[number]
            slots.append(self._slots.pop(number))
        self._update(list(added), gtsam.Values(), slots)

    def pose(self, vertex: int) -> Any:
        """Best pose of one vertex."""
        if self._graph.dimension == 3:
            return self._isam.calculateEstimatePose2(vertex)
        return self._isam.calculateEstimatePose3(vertex)

    def values(self) -> gtsam.Values:
        """Best poses of all."""
        return self._isam.calculateEstimate()

    def chi2(self, measurement: Measurement) -> float:
        """Squared Mahalanobis distance of a measurement from what the graph expects of it."""
        keys, groups = gtsam.KeyList(), gtsam.KeyGroupMap()
        for key in (measurement.from_id, measurement.to_id):
            keys.push_back(key)
            groups.insert2(key, 1)
        nothing = gtsam.NonlinearFactorGraph()
        # both ends to the root of the Bayes tree: makes the joint marginal cheap
        self._isam.update(nothing, gtsam.Values(), [], groups, None, keys, False)
        joint = self._isam.jointMarginalCovariance([measurement.from_id, measurement.to_id])
        expected = self.pose(measurement.from_id).between(self.pose(measurement.to_id))
        jacobian = np.hstack([-expected.inverse().AdjointMap(), np.eye(self._graph.dimension)])
        covariance: Matrix = jacobian @ joint.fullMatrix() @ jacobian.T
        covariance += np.linalg.inv(measurement.information)
        residual = measurement.measured.localCoordinates(expected)
        return float(residual @ np.linalg.solve(covariance, residual))

    def _update(self, added: list[int], values: gtsam.Values, removed: list[int]) -> None:
        factors = gtsam.NonlinearFactorGraph()
        for number in added:
            self._factors[number] = factor_of(self._graph, self._graph.measurements[number])
            factors.add(self._factors[number])
        before = self._isam.calculateEstimate() if removed else None
        try:
            slots = self._isam.update(factors, values, removed).getNewFactorsIndices()
        except RuntimeError as error:
            if "Indeterminate" not in str(error):
                raise
            self._hand_to_qr(values, before)
        else:
            self._slots.update(zip(added, slots, strict=True))

    def _hand_to_qr(self, values: gtsam.Values, before: gtsam.Values | None) -> None:
        everything = before or self._isam.getLinearizationPoint()
        if values.size() and not everything.exists(values.keys()[0]):
            everything.insert(values)
        factors = gtsam.NonlinearFactorGraph()
        factors.add(prior_of(self._graph))
        for factor in self._factors.values():
            factors.add(factor)
        settled = gtsam.LevenbergMarquardtOptimizer(factors, everything).optimize()
        self._isam = gtsam.ISAM2(_parameters("QR"))
        slots = self._isam.update(factors, settled).getNewFactorsIndices()
        self._slots = dict(zip(self._factors, slots[1:], strict=True))


def _parameters(factorization: str) -> gtsam.ISAM2Params:
    parameters = gtsam.ISAM2Params()
    parameters.setFactorization(factorization)
    parameters.setRelinearizeThreshold(RELINEARIZE)
    parameters.relinearizeSkip = RELINEARIZE_EVERY
    return parameters


def poses_of(graph: G2oGraph, values: gtsam.Values) -> Mapping[int, Any]:
    """Elements of all vertices by id."""
    return {vertex: element_at(graph, values, vertex) for vertex in graph.order}
