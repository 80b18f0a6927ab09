"""Which closures of a graph to believe, judged all together.

A believed set is good when its cost is low: half the squared whitened residuals of the odometry and
of each believed closure, and for each other one the same, but at most half the gate. Closures that
say the same of the same stretch are one group, and what is left out of a group costs little however
large it is: a place that looks like another does so in image after image.

Sets are proposed by graduated non-convexity (Yang et al., RA-L 2020), which begins without regard
to what is believed so far, by the largest pairwise consistent set (Mangelsdorf et al., ICRA 2018),
by where odometry alone goes, and by the set believed so far. From the best of them, groups are left
out as long as that pays: a graph that bends to a wrong closure no longer shows which one it was.

Odometry that is better than it claims bends cheaply. What is left of the residuals shows by how
much (the variance of unit weight, Baarda 1968); groups are then weighed against that, as far as the
residuals prove it, and with the poses so found each closure against what it claims.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gtsam
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.stats import chi2 as chi2_distribution

from vpr.graph.condensing import CondensedGraph, condensed_graph
from vpr.graph.g2o import G2oGraph
from vpr.graph.leverage import Leverage
from vpr.graph.pairwise import consistent_closures, corrections_of, paired_chi2
from vpr.graph.solution import chosen, factor_of, initial_values, prior_of, solve_batch

Proposal = Literal["gnc", "pcm"]

GATE_PROBABILITY = 0.99999  # a true closure is this likely to lie inside the gate
ITERATIONS_A_STAGE = 3  # of Levenberg-Marquardt; to convergence takes 2-4 times as long for no gain
VOTES = 3  # closures, whose price a group has beyond the error that true ones would have anyway
NEAR = 3  # vertices at most between closures of a group, at both ends
SUSPECTS = 64  # groups whose leaving out is weighed at a time
TRIALS = 8  # of them, left out one by one where all together does not pay
MAX_DOUBTED = 150  # refused closures that GNC sees: n false ones fill a matrix, for a cost of n^3
MAX_GRADUATED = 1000  # closures that GNC sees; a larger belief was tried often while it grew
MIN_VARIANCE = 0.01  # of unit weight: sigmas are not taken for more than ten times too large
MAX_REFINEMENTS = 10  # rounds of solving and believing anew; three are usual


@dataclass(frozen=True)
class Belief:
    """Closures held true, the poses that follow from them, and what they cost.

    ``saving`` is how much less that is than what was believed before, in half squared sigmas of the
    noise that the graph shows.
    """

    kept: frozenset[int]
    values: gtsam.Values
    cost: float
    saving: float = math.inf


def gate_of(graph: G2oGraph) -> float:
    """Squared Mahalanobis distance beyond which a closure is refused."""
    return float(chi2_distribution.ppf(GATE_PROBABILITY, graph.dimension))


class Retrial:
    """Judges closures of one graph, or of the part of it that is known so far.

    The graph is condensed to the ends of the closures before, so that the length of the drive
    counts for little.
    """

    def __init__(
        self, graph: G2oGraph, factors: Sequence[Any], proposals: Sequence[Proposal]
    ) -> None:
        self._graph = graph
        self._factors = factors
        self._proposals = proposals

    def judge(self, vertices: int, believed: frozenset[int], start: gtsam.Values | None) -> Belief:
        """Best belief about the closures among the first ``vertices`` of the order.

        ``start`` are the poses of the believed set; None when nothing is believed yet.
        """
        condensed = condensed_graph(self._graph, vertices, self._graph.closures)
        case = _Case(condensed, self._factors)
        odometry = initial_values(condensed.graph, condensed.graph.order)
        before = condensed.chosen(believed)
        propose: dict[Proposal, Callable[[], frozenset[int]]] = {
            "pcm": case.consistent,
            "gnc": partial(case.graduated, odometry, before),
        }
        proposed = [case.cheapest(odometry), *(propose[name]() for name in self._proposals)]
        beliefs = [case.refined(kept, odometry) for kept in proposed]
        if start is not None:
            start = chosen(condensed.graph, start, condensed.graph.order)
            beliefs.append(case.refined(before, start))
        best = case.tightened(case.pruned(min(beliefs, key=lambda belief: belief.cost)))
        saving = math.inf if start is None else case.saving(before, start, best)
        kept = frozenset(n for i in best.kept if (n := condensed.numbers[i]) is not None)
        return Belief(kept, condensed.expanded(best.values), best.cost, saving)


class _Case:
    """A condensed graph; closures and beliefs by its own numbers."""

    def __init__(self, condensed: CondensedGraph, factors: Sequence[Any]) -> None:
        self._graph = graph = condensed.graph
        self._factors = [
            factor_of(graph, m) if number is None else factors[number]
            for m, number in zip(graph.measurements, condensed.numbers, strict=True)
        ]
        self._trusted = sorted(graph.trusted)
        self._closures = graph.closures
        self._gate = gate_of(graph)
        self._shown = 1.0  # variance of unit weight, as the residuals show it
        self._variance = 1.0  # the one that beliefs are weighed against at the moment
        self._group_of, self._groups = self._grouped(condensed)
        self._sizes = np.array([len(group) for group in self._groups], np.int64)

    def _grouped(
        self, condensed: CondensedGraph
    ) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
        """Group of each closure, and rows of each group: those that say the same of the same
        stretch."""
        place = dict(zip(self._graph.order, condensed.active, strict=True))
        measurements = [self._graph.measurements[i] for i in self._closures]
        ends = np.array([(place[m.from_id], place[m.to_id]) for m in measurements]).reshape(-1, 2)
        if not len(ends):
            return np.zeros(0, np.int64), []
        pairs = KDTree(ends).query_pairs(NEAR, p=np.inf, output_type="ndarray")
        corrections = corrections_of(self._graph, self._closures)
        chi2 = paired_chi2(corrections, pairs[:, 0], pairs[:, 1], self._graph.dimension)
        same = pairs[chi2 <= self._graph.dimension]
        shape = (len(ends), len(ends))
        linked = csr_array((np.ones(len(same), bool), (same[:, 0], same[:, 1])), shape=shape)
        _, labels = connected_components(linked, directed=False)
        order = np.argsort(labels, kind="stable")
        return labels, np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)

    def saving(self, before: frozenset[int], start: gtsam.Values, belief: Belief) -> float:
        """How much less a belief costs than what was believed before, in half squared sigmas."""
        self._variance = self._shown
        cost = self._cost(belief.kept, belief.values)
        return (self.solved(before, start).cost - cost) / self._shown

    def tightened(self, belief: Belief) -> Belief:
        """The belief where the noise is what the graph shows, if that is less than claimed."""
        while (shown := self._shown_variance(belief)) < self._shown:
            self._shown = self._variance = shown
            tighter = self.pruned(self.refined(belief.kept, belief.values))
            if tighter.kept == belief.kept:
                break
            belief = tighter
        if self._shown == 1.0:
            return belief
        self._variance = 1.0
        return self.refined(self.cheapest(belief.values), belief.values)

    def _shown_variance(self, belief: Belief) -> float:
        """Variance of unit weight, as high as the residuals allow with ``GATE_PROBABILITY``."""
        inside = [*self._trusted, *belief.kept]
        redundancy = self._graph.dimension * (len(inside) - len(self._graph.order) + 1)
        if redundancy == 0:
            return 1.0
        chi2 = 2.0 * sum(self._factors[i].error(belief.values) for i in inside)
        least = chi2_distribution.ppf(1.0 - GATE_PROBABILITY, redundancy)
        return float(max(chi2 / least, MIN_VARIANCE))

    def pruned(self, belief: Belief) -> Belief:
        """Leave out groups as long as the cost is lower without them."""
        while True:
            suspects = self._suspects(belief)
            together = frozenset().union(*suspects)
            for group in (together, *suspects[:TRIALS]) if suspects else ():
                other = self.refined(belief.kept - group, belief.values)
                if other.cost < belief.cost:
                    belief = other
                    break
            else:
                return belief

    def _suspects(self, belief: Belief) -> list[frozenset[int]]:
        """Kept groups that to first order cost more than to leave them out, worst first."""
        if not belief.kept:
            return []
        numbers = [*self._trusted, *sorted(belief.kept)]
        row = {number: i for i, number in enumerate(numbers)}
        leverage = Leverage(self._graph, [self._factors[i] for i in numbers], belief.values)
        savings = []
        for group, price in self._pulling(belief, leverage, row):
            saved, errors = leverage.without(row[i] for i in group)
            saving = saved - min(np.minimum(errors, self._limit(self._variance)).sum(), price)
            if saving > 0.0:
                savings.append((saving, frozenset(group)))
        savings.sort(key=lambda entry: -entry[0])
        return [group for _, group in savings]

    def _pulling(
        self, belief: Belief, leverage: Leverage, row: Mapping[int, int]
    ) -> list[tuple[list[int], float]]:
        """Kept groups that pull hardest for what it costs at most to leave them out, with the price
        of each."""
        groups, prices = [], []
        for rows, price in zip(self._groups, self._price(self._sizes, self._variance), strict=True):
            kept = [self._closures[i] for i in rows if self._closures[i] in belief.kept]
            if kept:
                groups.append(kept)
                prices.append(float(price))
        sizes = np.array([len(group) for group in groups])
        costs = np.minimum(prices, sizes * self._limit(self._variance))
        pulls = leverage.savings([row[i] for i in group] for group in groups) / costs
        return [(groups[i], prices[i]) for i in np.argsort(-pulls, kind="stable")[:SUSPECTS]]

    def refined(self, kept: frozenset[int], start: gtsam.Values) -> Belief:
        """Solve, believe what then costs least, and so on while the cost falls."""
        best = self.solved(kept, start)
        for _ in range(MAX_REFINEMENTS):
            cheapest = self.cheapest(best.values)
            if cheapest == best.kept:
                break
            other = self.solved(cheapest, best.values)
            if other.cost >= best.cost:
                break
            best = other
        return best

    def solved(self, kept: frozenset[int], start: gtsam.Values) -> Belief:
        """A belief with the poses that follow from it."""
        factors = [self._factors[i] for i in [*self._trusted, *sorted(kept)]]
        values = solve_batch(self._graph, factors, start).values
        return Belief(kept, values, self._cost(kept, values))

    def _cost(self, kept: frozenset[int], values: gtsam.Values) -> float:
        """Believed closures in full, the others of a group at most the price of the group."""
        cost = sum(self._factors[i].error(values) for i in self._trusted)
        errors, variance = self._errors(values), self._variance
        inside = np.array([i in kept for i in self._closures], bool)
        left = np.where(inside, 0.0, np.minimum(errors, self._limit(variance)))
        cost += errors[inside].sum()
        cost += np.minimum(self._by_group(left), self._price(self._sizes, variance)).sum()
        return float(cost)

    def _by_group(self, errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums over the closures of each group."""
        return np.bincount(self._group_of, errors, len(self._groups)).astype(np.float64)

    def cheapest(self, values: gtsam.Values) -> frozenset[int]:
        """The closures to believe where the poses are given: those inside the gate, unless their
        group costs more than to leave it out."""
        errors, limit = self._errors(values), self._limit(self._variance)
        costs = self._by_group(np.minimum(errors, limit))
        pays = (costs < self._price(self._sizes, self._variance))[self._group_of]
        return frozenset(self._closures[row] for row in np.flatnonzero(pays & (errors <= limit)))

    def _errors(self, values: gtsam.Values) -> NDArray[np.float64]:
        return np.array([self._factors[i].error(values) for i in self._closures])

    def _limit(self, variance: float) -> float:
        """Most that leaving a closure out costs."""
        return variance * self._gate / 2

    def _price(self, sizes: NDArray[np.int64], variance: float) -> NDArray[np.float64]:
        """Most that leaving groups out costs, by how many closures each has."""
        return variance * (sizes * self._graph.dimension + VOTES * self._gate) / 2

    def graduated(self, start: gtsam.Values, believed: frozenset[int]) -> frozenset[int]:
        """Closures that graduated non-convexity ends with; what is believed, where it would take
        minutes."""
        closures = self._candidates(believed)
        if not 0 < len(closures) <= MAX_GRADUATED:
            return believed
        nonlinear = gtsam.NonlinearFactorGraph()
        nonlinear.add(prior_of(self._graph))
        for i in [*self._trusted, *closures]:
            nonlinear.add(self._factors[i])
        known = 1 + len(self._trusted)
        inner = gtsam.LevenbergMarquardtParams()
        inner.setMaxIterations(ITERATIONS_A_STAGE)
        parameters = gtsam.GncLMParams(inner)
        parameters.setKnownInliers(list(range(known)))
        optimizer = gtsam.GncLMOptimizer(nonlinear, start, parameters)
        optimizer.setInlierCostThresholds(self._gate / 2)
        optimizer.optimize()
        weights = np.asarray(optimizer.getWeights())[known:]
        return frozenset(i for i, w in zip(closures, weights, strict=True) if w > 0.5)

    def _candidates(self, believed: frozenset[int]) -> list[int]:
        """All closures, unless too many are in doubt; then one of each group in doubt, of the
        largest groups."""
        doubted = [i for i in self._closures if i not in believed]
        if len(doubted) > MAX_DOUBTED:
            groups = [[self._closures[row] for row in rows] for rows in self._groups]
            groups = [group for group in groups if believed.isdisjoint(group)]
            groups.sort(key=len, reverse=True)
            doubted = [group[len(group) // 2] for group in groups[:MAX_DOUBTED]]
        return sorted(believed.union(doubted))

    def consistent(self) -> frozenset[int]:
        """The largest pairwise consistent set."""
        return consistent_closures(self._graph, self._closures, self._gate)
