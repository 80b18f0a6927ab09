"""Optimize a pose graph: in batch or incrementally, believing every closure or judging them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vpr.graph.g2o import G2oGraph
from vpr.graph.gating import ClosureGate
from vpr.graph.growing import GrowingGraph
from vpr.graph.retrial import Retrial, gate_of
from vpr.graph.solution import (
    Solution,
    UnsolvableGraph,
    factor_of,
    initial_values,
    poses_of,
    solve_batch,
)

Robust = Literal["none", "gnc", "pcm"]
Progress = Callable[[int, int], None]  # vertices done, of how many

FIRST_RETRIAL = 16  # closures seen; then each time they have doubled, and at the end


@dataclass(frozen=True)
class Optimization:
    """What came of a graph.

    ``error`` is the factor-graph error of the odometry and the kept closures. ``steps`` are
    seconds: of each vertex incrementally, with the gate but without retrials; else of each
    iteration. ``retrials`` are seconds too.
    """

    poses: dict[int, Any]
    error: float
    steps: tuple[float, ...]
    retrials: tuple[float, ...]
    settling: float  # s, solving to convergence at the end
    kept: frozenset[int]
    retracted: frozenset[int]


def optimize(
    graph: G2oGraph, robust: Robust, incremental: bool, progress: Progress = lambda *_: None
) -> Optimization:
    """Optimize a graph from its initial poses (batch) or from its odometry (incremental).

    Closures are judged as the graph grows in both cases: seen all at once, with many false among
    them, there is no start that is near the truth.

    Args:
        robust: none believes every closure; gnc and pcm say how a believed set is proposed.

    Raises:
        UnsolvableGraph: a linear system, or the error, is beyond double precision.
    """
    try:
        return _optimized(graph, robust, incremental, progress)
    except np.linalg.LinAlgError as error:
        raise UnsolvableGraph(f"graph can't be solved: {error}") from error
    except RuntimeError as error:
        cause = str(error).strip().partition("\n")[0]
        if not cause.startswith("Indeterminate"):
            raise
        raise UnsolvableGraph(f"graph can't be solved: {cause}") from error


def _optimized(
    graph: G2oGraph, robust: Robust, incremental: bool, progress: Progress
) -> Optimization:
    if incremental:
        return _Growth(graph, robust).run(progress)
    factors = [factor_of(graph, m) for m in graph.measurements]
    initial = initial_values(graph, graph.order)
    if robust == "none":
        solution = solve_batch(graph, factors, initial)
        return _optimization(graph, solution, frozenset(graph.closures), 0.0, ())
    judged = _Growth(graph, robust).run(progress)
    believed = [factors[i] for i in sorted(judged.kept | graph.trusted)]
    for vertex, pose in judged.poses.items():
        initial.update(vertex, pose)
    solution = solve_batch(graph, believed, initial)
    return _optimization(graph, solution, judged.kept, judged.settling, judged.retrials)


def _optimization(
    graph: G2oGraph,
    solution: Solution,
    kept: frozenset[int],
    settling: float,
    retrials: tuple[float, ...],
) -> Optimization:
    return Optimization(
        dict(poses_of(graph, solution.values)),
        solution.error,
        solution.steps,
        retrials,
        settling,
        kept,
        frozenset(graph.closures) - kept,
    )


class _Growth:
    """A graph given vertex by vertex, its closures gated, and tried again as they double."""

    def __init__(self, graph: G2oGraph, robust: Robust) -> None:
        self._graph = graph
        self._growing = GrowingGraph(graph)
        self._factors = [factor_of(graph, m) for m in graph.measurements]
        self._retrial = None if robust == "none" else Retrial(graph, self._factors, (robust,))
        self._gate = ClosureGate(graph, self._growing, gate_of(graph))
        self._kept: set[int] = set()
        self._seen = 0
        self._retrials: list[float] = []

    def run(self, progress: Progress) -> Optimization:
        graph, steps, next_retrial = self._graph, [], FIRST_RETRIAL
        arrivals = self._arrivals()
        for place in range(1, len(graph.order)):
            started = time.perf_counter()
            self._step(place, arrivals[place])
            steps.append(time.perf_counter() - started)
            if self._retrial is not None and self._seen >= next_retrial:
                next_retrial = 2 * self._seen
                self._try_again(place + 1)
            progress(place, len(graph.order))
        if self._retrial is not None:
            self._try_again(len(graph.order))
        started = time.perf_counter()
        chosen = [self._factors[i] for i in sorted(self._kept | graph.trusted)]
        settled = solve_batch(graph, chosen, self._growing.values())
        settling = time.perf_counter() - started
        solution = Solution(settled.values, settled.error, tuple(steps))
        return _optimization(
            graph, solution, frozenset(self._kept), settling, tuple(self._retrials)
        )

    def _arrivals(self) -> list[list[int]]:
        """Measurements by the place in the order at which both ends are there."""
        place = {vertex: i for i, vertex in enumerate(self._graph.order)}
        arrivals: list[list[int]] = [[] for _ in self._graph.order]
        for i, m in enumerate(self._graph.measurements):
            arrivals[max(place[m.from_id], place[m.to_id])].append(i)
        return arrivals

    def _step(self, place: int, arrived: list[int]) -> None:
        graph, tie = self._graph, self._graph.tree[place - 1]
        trusted = [i for i in arrived if i in graph.trusted and i != tie]
        closures = [i for i in arrived if i not in graph.trusted]
        self._seen += len(closures)
        if self._retrial is None:
            self._growing.extend(graph.order[place], tie, trusted + closures)
            self._kept.update(closures)
            return
        self._growing.extend(graph.order[place], tie, trusted)
        self._gate.add((tie, *trusted))
        inside = [i for i in closures if self._gate.admits(graph.measurements[i])]
        if inside:
            self._growing.exchange(inside, [])
            self._gate.add(inside)
            self._kept.update(inside)

    def _try_again(self, vertices: int) -> None:
        """Judge all closures seen so far; take out what is belied, put in what is not."""
        assert self._retrial is not None
        started = time.perf_counter()
        belief = self._retrial.judge(vertices, frozenset(self._kept), self._growing.values())
        added, removed = belief.kept - self._kept, self._kept - belief.kept
        if added or removed:
            self._growing.correct(sorted(added), sorted(removed), belief.values)
            self._gate.renew(self._growing.measurements)
        self._kept = set(belief.kept)
        self._retrials.append(time.perf_counter() - started)
