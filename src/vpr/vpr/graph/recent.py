"""The closures seen last: whether a new one tells their story.

Two closures and the odometry between their ends make a loop that has to come back to its
beginning (``vpr.graph.pairwise``). A new closure is outvoted where the largest set of recent ones
that agree throughout is larger than the largest that it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.graph.edges import Edge
from vpr.graph.lie_group import LieGroup, Matrix
from vpr.graph.measurements import Step
from vpr.graph.pairwise import Corrections, grown_clique, loop_chi2


@dataclass(frozen=True)
class Support:
    """What recent closures say about a new one.

    Attributes:
        agreeing: the recent ones it agrees with, which agree with each other.
        rivals: size of the largest set of recent ones that agree with each other, without it.
    """

    agreeing: tuple[Edge, ...]
    rivals: int

    @property
    def outvoted(self) -> bool:
        """Whether more recent closures tell another story."""
        return self.rivals > len(self.agreeing) + 1


@dataclass(frozen=True)
class _Candidate:
    """A closure as a correction of where odometry puts its two ends."""

    edge: Edge
    matrix: Matrix  # (k, k), homogeneous
    adjoint: Matrix  # (d, d)
    own: Matrix  # (d, d) covariance of the closure itself
    from_drift: Matrix  # (d, d) covariance of odometry from the beginning of its drive
    to_drift: Matrix


@dataclass
class _Window:
    """Recent closures from one session to one other, or to itself, and which of them agree."""

    candidates: list[_Candidate] = field(default_factory=list)
    agreeing: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))


class RecentClosures:
    """Up to ``capacity`` closures of each pair of sessions, the oldest forgotten first.

    Args:
        gate: squared Mahalanobis distance within which a loop comes back.
    """

    def __init__(self, group: LieGroup, capacity: int, gate: float) -> None:
        self._group = group
        self._capacity = capacity
        self._gate = gate
        self._poses: dict[int, Any] = {}  # by odometry alone, each session from the origin
        self._drifts: dict[int, Matrix] = {}
        self._windows: dict[tuple[int, int], _Window] = {}

    def follow(self, step: Step) -> None:
        """Take in the next step of odometry."""
        start, drift = self._at(step.edge.from_id)
        pose = start.compose(step.element)
        change = pose.AdjointMap()
        self._poses[step.edge.to_id] = pose
        self._drifts[step.edge.to_id] = drift + change @ step.covariance @ change.T

    def consider(self, edge: Edge, sessions: tuple[int, int]) -> tuple[Support, Sequence[Edge]]:
        """Compare a closure with the recent ones and remember it.

        Args:
            sessions: of its two ends.

        Returns:
            what they say, and the closures that were forgotten for it.
        """
        window = self._windows.setdefault(sessions, _Window())
        candidates = [self._candidate(edge), *reversed(window.candidates)]  # newest first
        agreeing = np.zeros((len(candidates),) * 2, bool)
        agreeing[1:, 1:] = window.agreeing[::-1, ::-1]
        if len(candidates) > 1:
            agreeing[0, 1:] = (
                loop_chi2(_stacked(candidates), 0, self._group.dimension) <= self._gate
            )
        agreeing[1:, 0] = agreeing[0, 1:]
        own = [candidates[i].edge for i in grown_clique(agreeing, 0)[1:]]
        rivals = largest_agreement(agreeing[1:, 1:])
        kept = slice(0, self._capacity)
        window.agreeing = agreeing[kept, kept][::-1, ::-1]
        window.candidates = candidates[kept][::-1]
        forgotten = [candidate.edge for candidate in candidates[self._capacity :]]
        return Support(tuple(own), rivals), forgotten

    def forget(self, edge: Edge) -> None:
        """Let a closure that turned out wrong have no vote any more."""
        for window in self._windows.values():
            stay = [
                i
                for i, known in enumerate(window.candidates)
                if (known.edge.from_id, known.edge.to_id) != (edge.from_id, edge.to_id)
            ]
            window.candidates = [window.candidates[i] for i in stay]
            window.agreeing = window.agreeing[np.ix_(stay, stay)]

    def _at(self, keyframe_id: int) -> tuple[Any, Matrix]:
        if keyframe_id not in self._poses:  # the first of its session
            self._poses[keyframe_id] = self._group.element(np.eye(4))
            self._drifts[keyframe_id] = np.zeros((self._group.dimension,) * 2)
        return self._poses[keyframe_id], self._drifts[keyframe_id]

    def _candidate(self, edge: Edge) -> _Candidate:
        start, from_drift = self._at(edge.from_id)
        end, to_drift = self._at(edge.to_id)
        reached = start.compose(self._group.element(edge.measured))
        correction, change = reached.compose(end.inverse()), reached.AdjointMap()
        covariance = self._group.tangent_covariance(edge.covariance, edge.measured)
        return _Candidate(
            edge,
            correction.matrix(),
            correction.AdjointMap(),
            change @ covariance @ change.T,
            from_drift,
            to_drift,
        )


def largest_agreement(agreeing: NDArray[np.bool_]) -> int:
    """Size of the largest set that agrees throughout, by the search of ``grown_clique``.

    From all members at once: for a window of recent closures that is a few small products, where
    one search after the other would be most of what a closure costs.
    """
    if agreeing.sum() == len(agreeing) * (len(agreeing) - 1):  # as usual
        return len(agreeing)
    sizes = np.ones(len(agreeing), np.int64)
    candidates, weights = agreeing.copy(), agreeing.astype(np.float64)
    while candidates.any():
        sizes += candidates.any(axis=1)
        degrees = np.where(candidates, candidates @ weights, -1.0)
        candidates &= agreeing[degrees.argmax(axis=1)]
    return int(sizes.max(initial=0))


def _stacked(candidates: Sequence[_Candidate]) -> Corrections:
    return Corrections(
        np.array([c.matrix for c in candidates]),
        np.array([c.adjoint for c in candidates]),
        np.array([c.own for c in candidates]),
        np.array([c.from_drift for c in candidates]),
        np.array([c.to_drift for c in candidates]),
    )
