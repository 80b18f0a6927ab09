"""Which closures of a graph to believe, judged all together.

A believed set is good when its truncated cost is low: half the squared whitened residuals of the
odometry and of each closure, a closure costing at most half the gate. Sets are proposed by
graduated non-convexity (Yang et al., RA-L 2020), which begins without regard to what is believed
so far, by the largest pairwise consistent set (Mangelsdorf et al., ICRA 2018), and by the set
believed so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gtsam
import numpy as np
from scipy.stats import chi2 as chi2_distribution

from vpr.graph.g2o import G2oGraph
from vpr.graph.pairwise import consistent_closures
from vpr.graph.solution import initial_values, prior_of, solve_batch

GATE_PROBABILITY = 0.99999  # a true closure is this likely to lie inside the gate
MAX_REFINEMENTS = 10  # rounds of solving and believing anew; three are usual


@dataclass(frozen=True)
class Belief:
    """Closures held true, the poses that follow from them, and what they cost."""

    kept: frozenset[int]
    values: gtsam.Values
    cost: float


def gate_of(graph: G2oGraph) -> float:
    """Squared Mahalanobis distance beyond which a closure is refused."""
    return float(chi2_distribution.ppf(GATE_PROBABILITY, graph.dimension))


class Retrial:
    """Judges closures of one graph, or of the part of it that is known so far."""

    def __init__(self, graph: G2oGraph, factors: Sequence[Any], proposal: str) -> None:
        self._graph = graph
        self._factors = factors
        self._proposal = proposal  # gnc | pcm
        self._gate = gate_of(graph)

    def judge(self, vertices: int, believed: frozenset[int], start: gtsam.Values | None) -> Belief:
        """Best belief about the closures among the first ``vertices`` of the order.

        ``start`` are the poses of the believed set; None when nothing is believed yet.
        """
        members = set(self._graph.order[:vertices])
        inside = [
            i
            for i, m in enumerate(self._graph.measurements)
            if m.from_id in members and m.to_id in members
        ]
        trusted = [i for i in inside if i in self._graph.trusted]
        closures = [i for i in inside if i not in self._graph.trusted]
        odometry = initial_values(self._graph, self._graph.order[:vertices])
        propose = self._consistent if self._proposal == "pcm" else self._graduated
        proposals = [(propose(trusted, closures, odometry), odometry)]
        if start is not None:
            proposals.append((believed, start))
        beliefs = [self._refined(kept, trusted, closures, at) for kept, at in proposals]
        return min(beliefs, key=lambda belief: belief.cost)

    def _refined(
        self, kept: frozenset[int], trusted: list[int], closures: list[int], start: gtsam.Values
    ) -> Belief:
        """Solve, believe what then lies inside the gate, and so on while the cost falls."""
        best: Belief | None = None
        for _ in range(MAX_REFINEMENTS):
            chosen = [self._factors[i] for i in trusted] + [self._factors[i] for i in sorted(kept)]
            solution = solve_batch(self._graph, chosen, start)
            start = solution.values
            errors = {i: self._factors[i].error(start) for i in closures}
            cost = sum(self._factors[i].error(start) for i in trusted)
            cost += sum(min(error, self._gate / 2) for error in errors.values())
            inside = frozenset(i for i, error in errors.items() if error <= self._gate / 2)
            if best is not None and cost >= best.cost:
                break
            best = Belief(inside, start, cost)
            if inside == kept:
                break
            kept = inside
        assert best is not None
        return best

    def _graduated(
        self, trusted: list[int], closures: list[int], start: gtsam.Values
    ) -> frozenset[int]:
        if not closures:
            return frozenset()
        nonlinear = gtsam.NonlinearFactorGraph()
        nonlinear.add(prior_of(self._graph))
        for i in [*trusted, *closures]:
            nonlinear.add(self._factors[i])
        parameters = gtsam.GncLMParams(gtsam.LevenbergMarquardtParams())
        parameters.setKnownInliers(list(range(1 + len(trusted))))
        optimizer = gtsam.GncLMOptimizer(nonlinear, start, parameters)
        optimizer.setInlierCostThresholds(self._gate / 2)
        optimizer.optimize()
        weights = np.asarray(optimizer.getWeights())[1 + len(trusted) :]
        return frozenset(i for i, weight in zip(closures, weights, strict=True) if weight > 0.5)

    def _consistent(
        self, _trusted: list[int], closures: list[int], _start: gtsam.Values
    ) -> frozenset[int]:
        return consistent_closures(self._graph, closures, self._gate)
