"""What a pose graph costs and reaches as it grows, beside gtsam's own batch and iSAM2."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gtsam
import numpy as np

from vpr.graph.g2o import G2oGraph, continued
from vpr.graph.growing import GrowingGraph, isam_parameters
from vpr.graph.solution import (
    element_at,
    factor_of,
    initial_values,
    prior_of,
    solve_batch,
)

MAX_REPEATS = 10
MANY = 8000  # measurements in all repeats of a graph, if there is more than one

Step = Callable[[int, int, list[int]], None]  # vertex, its tie, other measurements that came


def growth_row(name: str, graph: G2oGraph) -> dict[str, Any]:
    """One row: errors of batch and growth, and the times of a step.

    ``error_ratio`` is the error of the growing graph at its last vertex, without any settling, over
    that of gtsam's Levenberg-Marquardt, which starts from the poses of the file, or from the grown
    ones where that ends lower. ``step_ratio`` compares mean times a step, the pose of the newest
    vertex included, with one call of ``gtsam.ISAM2.update`` a vertex, its factors made beforehand.
    """
    factors = [factor_of(graph, m) for m in graph.measurements]
    runs = []
    for _ in range(max(1, min(MAX_REPEATS, MANY // len(factors)))):
        growing = GrowingGraph(graph)
        runs.append((_times(graph, _ours(growing)), _bare_times(graph)))
    ours, bare = np.min(runs, axis=0)
    everything = gtsam.NonlinearFactorGraph()
    for factor in (prior_of(graph), *factors):
        everything.add(factor)
    grown = growing.values()
    starts = (initial_values(graph, graph.order), grown)
    batch = min(solve_batch(graph, factors, start).error for start in starts)
    closing = np.array([bool(others) for _, others in arrivals(graph)])
    return {
        "graph": name,
        "vertices": len(graph.order),
        "closures": len(graph.closures),
        "batch_error": batch,
        "error_ratio": everything.error(grown) / batch,
        "odometry_p50_ms": _percentile(ours[~closing], 50),
        "closure_p95_ms": _percentile(ours[closing], 95),
        "bare_odometry_p50_ms": _percentile(bare[~closing], 50),
        "bare_closure_p95_ms": _percentile(bare[closing], 95),
        "mean_ms": float(ours.mean()),
        "step_ratio": float(ours.mean() / bare.mean()),
        "steps_ms": {"ours": ours.tolist(), "gtsam": bare.tolist()},
    }


def arrivals(graph: G2oGraph) -> list[tuple[int, list[int]]]:
    """For each vertex after the first: its tie, and what else is there once it is."""
    place = {vertex: i for i, vertex in enumerate(graph.order)}
    others: list[list[int]] = [[] for _ in graph.order]
    for i, m in enumerate(graph.measurements):
        others[max(place[m.from_id], place[m.to_id])].append(i)
    return [
        (tie, [i for i in arrived if i != tie])
        for tie, arrived in zip(graph.tree, others[1:], strict=True)
    ]


def _times(graph: G2oGraph, step: Step) -> Any:
    """Milliseconds of each vertex."""
    spent = []
    for vertex, (tie, others) in zip(graph.order[1:], arrivals(graph), strict=True):
        started = time.perf_counter()
        step(vertex, tie, others)
        spent.append(1e3 * (time.perf_counter() - started))
    return np.array(spent)


def _ours(growing: GrowingGraph) -> Step:
    def step(vertex: int, tie: int, others: list[int]) -> None:
        growing.extend(vertex, tie, others)
        growing.pose(vertex)

    return step


def _bare_times(graph: G2oGraph) -> Any:
    """By Cholesky factors, or all by QR where those give up."""
    try:
        return _times(graph, _bare(graph, "CHOLESKY"))
    except RuntimeError as error:
        if "Indeterminate" not in str(error):
            raise
    return _times(graph, _bare(graph, "QR"))


def _bare(graph: G2oGraph, factorization: str) -> Step:
    """One update of iSAM2 a vertex, and its pose."""
    isam = gtsam.ISAM2(isam_parameters(factorization))
    first = gtsam.NonlinearFactorGraph()
    first.add(prior_of(graph))
    isam.update(first, initial_values(graph, graph.order[:1]))
    estimate = isam.calculateEstimatePose2 if graph.dimension == 3 else isam.calculateEstimatePose3
    poses = {graph.order[0]: element_at(graph, isam.calculateEstimate(), graph.order[0])}
    previous = graph.order[0]

    def step(vertex: int, tie: int, others: list[int]) -> None:
        nonlocal previous
        m = graph.measurements[tie]
        known = m.from_id if vertex == m.to_id else m.to_id
        pose = poses[known] if known == previous else estimate(known)
        added, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        for number in (tie, *others):
            added.add(factor_of(graph, graph.measurements[number]))
        values.insert(vertex, continued(m, vertex, pose))
        isam.update(added, values)
        poses.clear()
        poses[vertex], previous = estimate(vertex), vertex

    return step


def _percentile(values: Any, share: int) -> float:
    return float(np.percentile(values, share)) if len(values) else 0.0
