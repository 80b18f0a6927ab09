"""Stretches of odometry that nothing else touches, each as one measurement.

A drive has thousands of vertices and closures at few of them. The vertices between those add
nothing but work: given the two ends of a stretch, the measurements inside are condensed into one
without loss, to first order of how far the ends are from where odometry puts them (Grisetti et al.,
IROS 2012), and the poses inside follow from the ends, the difference shared out by covariance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gtsam
import numpy as np

from vpr.graph.g2o import G2oGraph, Matrix, Measurement, continued
from vpr.graph.odometry_runs import Runs
from vpr.graph.solution import element_at


class OdometryRuns(Runs):
    """The vertices of a graph's order as they are appended, in runs of unbroken odometry.

    A vertex that hangs on another than the one before it begins a new run. Places are indices into
    the order.
    """

    def __init__(self, graph: G2oGraph) -> None:
        super().__init__(gtsam.Pose2 if graph.dimension == 3 else gtsam.Pose3, graph.dimension)
        self.graph = graph
        self._covariances: dict[bytes, Matrix] = {}  # few differ: inverted once each
        self.begin_run()

    def append(self) -> None:
        """Take in the next vertex of the order."""
        place = len(self)
        vertex = self.graph.order[place]
        m = self.graph.measurements[self.graph.tree[place - 1]]
        if self.graph.order[place - 1] not in (m.from_id, m.to_id):
            self.begin_run()
            return
        pose = continued(m, vertex, self.poses[-1])
        change = (pose if vertex == m.to_id else self.poses[-1]).AdjointMap()
        self.extend_run(pose, change @ self._covariance(m) @ change.T)

    def condensed(self, one: int, other: int) -> Measurement:
        """The stretch between two places of one run, ``one`` < ``other``, as a measurement."""
        if other == one + 1:
            return self.graph.measurements[self.graph.tree[one]]
        measured, covariance = self.stretch(one, other)
        information = np.linalg.inv(covariance)
        ends = self.graph.order[one], self.graph.order[other]
        return Measurement(*ends, measured, (information + information.T) / 2.0)

    def bridged(
        self, one: int, pose: Any, other: int, other_pose: Any, places: Sequence[int]
    ) -> list[Any]:
        """Best poses of places between two whose poses are given."""
        moved, share = self.shared(one, pose, other, other_pose)
        return [self.inside(one, moved, share, place) for place in places]

    def _covariance(self, measurement: Measurement) -> Matrix:
        key = measurement.information.tobytes()
        if key not in self._covariances:
            self._covariances[key] = np.linalg.inv(measurement.information)
        return self._covariances[key]


def expanded(runs: OdometryRuns, active: Sequence[int], values: gtsam.Values) -> gtsam.Values:
    """Poses of all places of the runs from those of the active ones.

    Args:
        active: places, ascending, the beginning of each run among them.
    """
    graph, result = runs.graph, gtsam.Values(values)
    elements = [element_at(graph, values, graph.order[place]) for place in active]
    for at, (one, pose) in enumerate(zip(active, elements, strict=True)):
        other = active[at + 1] if at + 1 < len(active) else len(runs)
        inner = range(one + 1, other)
        if not inner:
            continue
        if other < len(runs) and runs.begin(other) <= one:
            poses = runs.bridged(one, pose, other, elements[at + 1], inner)
        else:
            poses = [runs.continued(one, pose, place) for place in inner]
        for place, inside in zip(inner, poses, strict=True):
            result.insert(graph.order[place], inside)
    return result


@dataclass(frozen=True)
class CondensedGraph:
    """A graph, or the beginning of one, without the vertices that have odometry only.

    ``numbers`` gives for each measurement of ``graph`` its number in the whole graph, None for a
    stretch. ``active`` are the places, in the whole graph, of the vertices that are left.
    """

    graph: G2oGraph
    numbers: tuple[int | None, ...]
    active: tuple[int, ...]
    runs: OdometryRuns

    def chosen(self, measurements: Iterable[int]) -> frozenset[int]:
        """Numbers here of measurements of the whole graph, all of which are here."""
        place = {number: i for i, number in enumerate(self.numbers)}
        return frozenset(place[number] for number in measurements)

    def expanded(self, values: gtsam.Values) -> gtsam.Values:
        """Poses of all vertices from those that are left."""
        return expanded(self.runs, self.active, values)


def condensed_graph(graph: G2oGraph, vertices: int, closures: Iterable[int]) -> CondensedGraph:
    """The first ``vertices`` of the order, with the closures given among them."""
    place = {vertex: i for i, vertex in enumerate(graph.order[:vertices])}
    runs = OdometryRuns(graph)
    for _ in range(1, vertices):
        runs.append()
    running = {graph.tree[i - 1] for i in range(1, vertices) if runs.begin(i) < i}
    single = sorted(graph.trusted.difference(running).union(closures))
    single = [i for i in single if _ends(graph, i) <= place.keys()]
    active = sorted(
        {place[end] for i in single for end in _ends(graph, i)}
        | {runs.begin(i) for i in range(vertices)}
    )
    at = {number: i for i, number in enumerate(single)}
    measurements = [graph.measurements[number] for number in single]
    numbers: list[int | None] = list(single)
    tree = []
    for one, other in pairwise(active):
        if runs.begin(other) == other:
            tree.append(at[graph.tree[other - 1]])
            continue
        tree.append(len(measurements))
        measurements.append(runs.condensed(one, other))
        numbers.append(None)
    order = tuple(graph.order[i] for i in active)
    trusted = [i for i, number in enumerate(numbers) if number is None or number in graph.trusted]
    small = G2oGraph(
        graph.dimension,
        {vertex: graph.initial[vertex] for vertex in order},
        tuple(measurements),
        order,
        tuple(tree),
        frozenset(trusted),
    )
    return CondensedGraph(small, tuple(numbers), tuple(active), runs)


def _ends(graph: G2oGraph, number: int) -> set[int]:
    measurement = graph.measurements[number]
    return {measurement.from_id, measurement.to_id}
