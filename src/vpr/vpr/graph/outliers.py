"""False closures laid into a pose graph, to see what a back end makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gtsam
import numpy as np

from vpr.graph.g2o import G2oGraph, Measurement, continued

MIN_SEPARATION = 20  # places in the order between the ends of a false closure
MIN_CHI2 = 1000.0  # of a false closure at the initial poses: one that is nearly true is not false
MAX_DRAWS = 10_000


def with_false_closures(
    graph: G2oGraph, share: float, seed: int, group: int = 1
) -> tuple[G2oGraph, frozenset[int]]:
    """The graph with false closures behind its own, and their numbers.

    Each claims, with the numbers of a true closure drawn at random, that two vertices drawn at
    random see the same place. In a group, such a claim is repeated for the vertices that follow,
    as odometry would have it: its members agree with each other.

    Args:
        share: false ones among all closures afterwards, 0 <= share < 1.
        group: closures a group.

    Raises:
        ValueError: a share outside its range, or a graph too small, without closures, or so
            uncertain that nothing contradicts it.
    """
    if not 0.0 <= share < 1.0:
        raise ValueError(f"share of false closures {share} is not in [0, 1)")
    true = graph.closures
    count = round(len(true) * share / (1.0 - share))
    if share > 0.0 and (not true or len(graph.order) < 2 * (MIN_SEPARATION + group)):
        raise ValueError("graph is too small, or has no closures to model false ones on")
    rng = np.random.default_rng(seed)
    poses = _along_odometry(graph)
    false: list[Measurement] = []
    while len(false) < count:
        pattern = graph.measurements[true[rng.integers(len(true))]]
        false += _group(graph, poses, pattern, rng, min(group, count - len(false)))
    numbers = range(len(graph.measurements), len(graph.measurements) + count)
    return replace(graph, measurements=(*graph.measurements, *false)), frozenset(numbers)


def _group(
    graph: G2oGraph,
    poses: list[Any],
    pattern: Measurement,
    rng: np.random.Generator,
    size: int,
) -> list[Measurement]:
    one, other = _false_pair(graph, pattern, rng, len(graph.order) - size + 1)
    members = []
    for k in range(size):
        back = poses[one + k].between(poses[one])
        forth = poses[other].between(poses[other + k])
        measured = back.compose(pattern.measured).compose(forth)
        ends = graph.order[one + k], graph.order[other + k]
        members.append(Measurement(*ends, measured, pattern.information))
    return members


def _false_pair(
    graph: G2oGraph, pattern: Measurement, rng: np.random.Generator, places: int
) -> tuple[int, int]:
    """Two places in the order, far apart, between which the claim is far from true."""
    for _ in range(MAX_DRAWS):
        one, other = rng.integers(0, places, 2).tolist()
        if abs(one - other) < MIN_SEPARATION:
            continue
        ends = graph.initial[graph.order[one]], graph.initial[graph.order[other]]
        residual = pattern.measured.localCoordinates(ends[0].between(ends[1]))
        if residual @ pattern.information @ residual >= MIN_CHI2:
            return one, other
    raise ValueError("no pair of vertices was found that a false closure could contradict")


def _along_odometry(graph: G2oGraph) -> list[Any]:
    """Poses by the tree alone, in the graph's order."""
    poses = {graph.order[0]: gtsam.Pose2() if graph.dimension == 3 else gtsam.Pose3()}
    for vertex, number in zip(graph.order[1:], graph.tree, strict=True):
        m = graph.measurements[number]
        known = m.from_id if vertex == m.to_id else m.to_id
        poses[vertex] = continued(m, vertex, poses[known])
    return [poses[vertex] for vertex in graph.order]
