"""Whether a closure is near enough to what the growing graph expects, at the least effort.

The joint marginal of two distant vertices costs a good part of a batch solution. Mostly bounds of
it are enough: the relative pose is never less certain than along any single path of measurements
inside, and never more certain than if it were known.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any

import gtsam
import numpy as np

from vpr.graph.g2o import G2oGraph, Matrix, Measurement
from vpr.graph.growing import GrowingGraph

MAX_HOPS = 100  # of a path: longer ones are slow to add up, and bound little


class ClosureGate:
    """Squared Mahalanobis distances of closures against a limit, to first order."""

    def __init__(self, graph: G2oGraph, growing: GrowingGraph, limit: float) -> None:
        self._graph = graph
        self._growing = growing
        self._limit = limit
        self._neighbours: dict[int, dict[int, int]] = defaultdict(dict)  # and the measurement
        self._covariances: dict[bytes, Matrix] = {}  # few differ: inverted once each

    def add(self, measurements: Iterable[int]) -> None:
        """Take measurements that are inside the graph into account."""
        for number in measurements:
            m = self._graph.measurements[number]
            self._neighbours[m.from_id][m.to_id] = self._neighbours[m.to_id][m.from_id] = number

    def renew(self, measurements: Iterable[int]) -> None:
        """Take these into account and no others."""
        self._neighbours.clear()
        self.add(measurements)

    def admits(self, measurement: Measurement) -> bool:
        """Whether a closure lies inside the limit."""
        one, other = (self._growing.pose(v) for v in (measurement.from_id, measurement.to_id))
        residual = measurement.measured.localCoordinates(one.between(other))
        if residual @ measurement.information @ residual <= self._limit:
            return True
        path = self._path(measurement.from_id, measurement.to_id)
        if path:
            covariance = self._along(path, measurement.to_id) + self._covariance(measurement)
            if residual @ np.linalg.solve(covariance, residual) > self._limit:
                return False
        return self._growing.chi2(measurement) <= self._limit

    def _path(self, one: int, other: int) -> list[int]:
        """Measurements on a way of fewest hops, from its end; empty without one that is short."""
        back: dict[int, int] = {one: one}
        queue = deque([(one, 0)])
        while queue and other not in back:
            vertex, hops = queue.popleft()
            if hops == MAX_HOPS:
                break
            for neighbour in self._neighbours[vertex]:
                if neighbour not in back:
                    back[neighbour] = vertex
                    queue.append((neighbour, hops + 1))
        return list(self._walked(back, other)) if other in back else []

    def _walked(self, back: dict[int, int], vertex: int) -> Iterator[int]:
        while back[vertex] != vertex:
            yield self._neighbours[vertex][back[vertex]]
            vertex = back[vertex]

    def _along(self, path: list[int], last: int) -> Matrix:
        """Covariance of the last vertex against the first, in its own tangent space."""
        measurements = [self._graph.measurements[number] for number in path]
        poses: dict[int, Any] = {
            last: gtsam.Pose2() if self._graph.dimension == 3 else gtsam.Pose3()
        }
        vertex, covariance = last, np.zeros_like(measurements[0].information)
        for m in measurements:
            step = m.measured if vertex == m.from_id else m.measured.inverse()
            before, vertex = vertex, m.to_id if vertex == m.from_id else m.from_id
            poses[vertex] = poses[before].compose(step)
            change = poses[m.to_id].AdjointMap()
            covariance += change @ self._covariance(m) @ change.T
        return covariance

    def _covariance(self, measurement: Measurement) -> Matrix:
        key = measurement.information.tobytes()
        if key not in self._covariances:
            self._covariances[key] = np.linalg.inv(measurement.information)
        return self._covariances[key]
