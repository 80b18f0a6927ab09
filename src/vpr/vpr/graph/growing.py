"""A pose graph given vertex by vertex, solved by iSAM2 as it grows (Kaess et al., IJRR 2012)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import gtsam
import numpy as np

from vpr.graph.condensing import OdometryRuns, expanded
from vpr.graph.g2o import G2oGraph, Matrix, Measurement, continued
from vpr.graph.solution import (
    UnsolvableGraph,
    chosen,
    element_at,
    factor_of,
    initial_values,
    prior_of,
)

RELINEARIZE = 0.05  # m and rad
RELINEARIZE_EVERY = 3  # updates; with 10, a drive of 3500 poses ends 8 % above the batch error

_Key = tuple[bool, int]  # of a factor: (True, a measurement), (False, place where a stretch ends)


class GrowingGraph:
    """A pose graph that iSAM2 solves as it grows; single measurements can be taken out again.

    Only vertices with more than odometry are iSAM2's; the stretches between them are condensed. A
    vertex of a stretch is handed over when a measurement comes to it, which parts the stretch.

    Cholesky factors are several times faster than QR but give up on badly scaled information; then
    all is handed to QR once, and the graph goes on.

    Whatever adds to it raises UnsolvableGraph where QR gives up too.
    """

    def __init__(self, graph: G2oGraph) -> None:
        self._graph = graph
        self._place = {vertex: place for place, vertex in enumerate(graph.order)}
        self._runs = OdometryRuns(graph)
        self._active = [0]  # places of the vertices that iSAM2 has, ascending
        self._factors: dict[_Key, Any] = {}
        self._ties: list[int] = []
        self._isam: gtsam.ISAM2
        self._slots: dict[_Key, int]  # in iSAM2
        self._factorization: str
        self._begin_anew(initial_values(graph, graph.order[:1]), "CHOLESKY")

    @property
    def measurements(self) -> list[int]:
        """Numbers of the measurements inside."""
        return self._ties + [number for single, number in self._factors if single]

    def extend(self, vertex: int, tie: int, others: Iterable[int]) -> None:
        """Add the next vertex of the order where its tie puts it, and more measurements with it."""
        place = len(self._runs)
        self._runs.append()
        more = list(others)
        if self._runs.begin(place) == place:
            self._begin_run(vertex, tie)
        else:
            self._ties.append(tie)
        if more:
            self.exchange(more, [])

    def exchange(self, added: Iterable[int], removed: Iterable[int]) -> None:
        """Add measurements between vertices that are inside, and take others out."""
        self._update(self._exchange(added, removed))

    def correct(self, added: Iterable[int], removed: Iterable[int], poses: gtsam.Values) -> None:
        """As ``exchange``, and go on from given poses of all vertices.

        After closures that were wrong, iSAM2 may be where it can't come back from by small steps.
        """
        change = self._exchange(added, removed)
        for key in change.removed:
            del self._factors[key]
        self._factors.update(change.added)
        vertices = [self._graph.order[place] for place in self._active]
        self._begin_anew(chosen(self._graph, poses, vertices), self._factorization)

    def _exchange(self, added: Iterable[int], removed: Iterable[int]) -> _Change:
        numbers = list(added)
        measurements = [self._graph.measurements[number] for number in numbers]
        change = self._activation(end for m in measurements for end in (m.from_id, m.to_id))
        for number, measurement in zip(numbers, measurements, strict=True):
            change.added[True, number] = factor_of(self._graph, measurement)
        change.removed.extend((True, number) for number in removed)
        return change

    def pose(self, vertex: int) -> Any:
        """Best pose of one vertex."""
        place = self._place[vertex]
        if self._is_active(place):
            return self._estimate(place)
        at = bisect_left(self._active, place)
        before = self._active[at - 1]
        if at == len(self._active) or self._runs.begin(self._active[at]) > before:
            return self._runs.continued(before, self._estimate(before), place)
        after = self._active[at]
        ends = self._estimate(before), self._estimate(after)
        return self._runs.bridged(before, ends[0], after, ends[1], [place])[0]

    def values(self) -> gtsam.Values:
        """Best poses of all."""
        return expanded(self._runs, self._active, self._isam.calculateEstimate())

    def chi2(self, measurement: Measurement) -> float:
        """Squared Mahalanobis distance of a measurement from what the graph expects of it."""
        change = self._activation((measurement.from_id, measurement.to_id))
        # both ends to the root of the Bayes tree: makes the joint marginal cheap
        self._update(change, root=(measurement.from_id, measurement.to_id))
        joint = self._isam.jointMarginalCovariance([measurement.from_id, measurement.to_id])
        expected = self.pose(measurement.from_id).between(self.pose(measurement.to_id))
        jacobian = np.hstack([-expected.inverse().AdjointMap(), np.eye(self._graph.dimension)])
        covariance: Matrix = jacobian @ joint.fullMatrix() @ jacobian.T
        covariance += np.linalg.inv(measurement.information)
        residual = measurement.measured.localCoordinates(expected)
        return float(residual @ np.linalg.solve(covariance, residual))

    def _is_active(self, place: int) -> bool:
        at = bisect_left(self._active, place)
        return at < len(self._active) and self._active[at] == place

    def _estimate(self, place: int) -> Any:
        vertex = self._graph.order[place]
        if self._graph.dimension == 3:
            return self._isam.calculateEstimatePose2(vertex)
        return self._isam.calculateEstimatePose3(vertex)

    def _begin_run(self, vertex: int, tie: int) -> None:
        measurement = self._graph.measurements[tie]
        known = measurement.from_id if vertex == measurement.to_id else measurement.to_id
        pose = self.pose(known)
        change = self._activation([known])
        change.values.insert(vertex, continued(measurement, vertex, pose))
        change.added[True, tie] = factor_of(self._graph, measurement)
        self._active.append(self._place[vertex])
        self._update(change)

    def _activation(self, vertices: Iterable[int]) -> _Change:
        """What hands vertices over to iSAM2: their poses, and the stretches that they part."""
        change, active = _Change(), self._active
        places = sorted(
            place for place in {self._place[v] for v in vertices} if not self._is_active(place)
        )
        for place in places:
            change.values.insert(self._graph.order[place], self.pose(self._graph.order[place]))
        for place in places:
            insort(active, place)
        for place in places:
            at = bisect_left(active, place)
            for end in range(at, min(at + 2, len(active))):
                self._renew_stretch(change, active[end - 1], active[end])
        return change

    def _renew_stretch(self, change: _Change, one: int, other: int) -> None:
        if self._runs.begin(other) > one or (False, other) in change.added:
            return
        if (False, other) in self._factors:
            change.removed.append((False, other))
        change.added[False, other] = factor_of(self._graph, self._runs.condensed(one, other))

    def _update(self, change: _Change, root: Iterable[int] = ()) -> None:
        slots = []
        for key in change.removed:
            del self._factors[key]
            slots.append(self._slots.pop(key))
        self._factors.update(change.added)
        factors = gtsam.NonlinearFactorGraph()
        for factor in change.added.values():
            factors.add(factor)
        before = self._isam.calculateEstimate() if slots else None
        try:
            result = self._isam.update(factors, change.values, slots, *_constraints(root))
        except RuntimeError as error:
            if "Indeterminate" not in str(error):
                raise
            self._hand_to_qr(change.values, before)
        else:
            added = result.getNewFactorsIndices()
            self._slots.update(zip(change.added, added, strict=True))

    def _hand_to_qr(self, values: gtsam.Values, before: gtsam.Values | None) -> None:
        everything = before or self._isam.getLinearizationPoint()
        for vertex in values.keys():  # noqa: SIM118 - not a mapping
            if not everything.exists(vertex):
                everything.insert(vertex, element_at(self._graph, values, vertex))
        settled = gtsam.LevenbergMarquardtOptimizer(self._everything(), everything).optimize()
        self._begin_anew(settled, "QR")

    def _begin_anew(self, values: gtsam.Values, factorization: str) -> None:
        self._factorization = factorization
        self._isam = gtsam.ISAM2(isam_parameters(factorization))
        try:
            slots = self._isam.update(self._everything(), values).getNewFactorsIndices()
        except RuntimeError as error:
            cause = str(error).strip().partition("\n")[0]
            raise UnsolvableGraph(f"graph can't be solved: {cause}") from error
        self._slots = dict(zip(self._factors, slots[1:], strict=True))

    def _everything(self) -> gtsam.NonlinearFactorGraph:
        factors = gtsam.NonlinearFactorGraph()
        factors.add(prior_of(self._graph))
        for factor in self._factors.values():
            factors.add(factor)
        return factors


@dataclass
class _Change:
    """What one update of iSAM2 brings."""

    values: gtsam.Values = field(default_factory=gtsam.Values)
    added: dict[_Key, Any] = field(default_factory=dict)
    removed: list[_Key] = field(default_factory=list)


def _constraints(root: Iterable[int]) -> tuple[Any, ...]:
    """Arguments of an update that brings vertices to the root of the Bayes tree."""
    keys, groups = gtsam.KeyList(), gtsam.KeyGroupMap()
    for key in root:
        keys.push_back(key)
        groups.insert2(key, 1)
    return (groups, None, keys, False) if keys.size() else ()


def isam_parameters(factorization: str) -> gtsam.ISAM2Params:
    """As the growing graph has them; ``factorization`` is CHOLESKY or QR."""
    parameters = gtsam.ISAM2Params()
    parameters.setFactorization(factorization)
    parameters.setRelinearizeThreshold(RELINEARIZE)
    parameters.relinearizeSkip = RELINEARIZE_EVERY
    return parameters
