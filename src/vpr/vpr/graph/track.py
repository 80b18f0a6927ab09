"""The keyframes of a piece, and which of them its solver has.

Only keyframes with more than odometry are the solver's; the odometry between two of them is
condensed into one measurement (``vpr.graph.odometry_runs``), and the poses in between follow from
the two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.graph.edges import EdgeKind
from vpr.graph.lie_group import LieGroup, Matrix
from vpr.graph.measurements import Step
from vpr.graph.odometry_runs import Runs
from vpr.records import Pose

Ends = tuple[int, int]  # keyframes at the ends of a stretch of odometry


@dataclass(frozen=True)
class Handover:
    """What a solver is to be told: keyframes it gets, and stretches it gets and loses."""

    keyframes: tuple[int, ...]
    added: tuple[Ends, ...]
    removed: tuple[Ends, ...]


class Track:
    """Keyframes as they come, in runs of unbroken odometry; places count them.

    The first of a run is the solver's from the beginning, any other once it is handed over. A step
    that is not odometry begins a new run: what is barely known does not bend by first order.
    """

    def __init__(self, group: LieGroup) -> None:
        self._group = group
        self._runs = Runs(type(group.element(np.eye(4))), group.dimension)
        self._matrices: list[Pose] = []  # of the runs' poses
        self._ids: list[int] = []
        self._places: dict[int, int] = {}
        self._solved: list[int] = []  # places of the solver's keyframes, ascending

    def copied(self) -> Track:
        """The same keyframes, to be gone on with apart from these."""
        other = Track(self._group)
        other._runs, other._matrices = self._runs.copied(), list(self._matrices)
        other._ids, other._places = list(self._ids), dict(self._places)
        other._solved = list(self._solved)
        return other

    def __contains__(self, keyframe_id: int) -> bool:
        return keyframe_id in self._places

    def append(self, keyframe_id: int, step: Step | None) -> bool:
        """Take in the next keyframe; whether it goes on the run of the last by its step."""
        goes_on = (
            step is not None
            and step.edge.kind is EdgeKind.ODOMETRY
            and step.edge.from_id == self._ids[-1]
        )
        if step is not None and goes_on:
            pose = self._runs.poses[-1].compose(step.element)
            change = pose.AdjointMap()
            self._runs.extend_run(pose, change @ step.covariance @ change.T)
        else:
            self._solved.append(len(self._ids))
            self._runs.begin_run()
        self._places[keyframe_id] = len(self._ids)
        self._ids.append(keyframe_id)
        self._matrices.append(self._group.pose(self._runs.poses[-1]))
        return goes_on

    def solved(self) -> list[int]:
        """The keyframes that the solver has."""
        return [self._ids[place] for place in self._solved]

    def is_solved(self, keyframe_id: int) -> bool:
        """Whether the solver has a keyframe."""
        place = self._places[keyframe_id]
        at = bisect_left(self._solved, place)
        return at < len(self._solved) and self._solved[at] == place

    def hand_over(self, keyframe_ids: Iterable[int]) -> Handover:
        """Let keyframes be the solver's; each parts the stretch that it is on."""
        asked = {i for i in keyframe_ids if not self.is_solved(i)}
        places = sorted(self._places[i] for i in asked)
        added: dict[Ends, None] = {}
        removed = []
        for place in places:
            at = bisect_left(self._solved, place)
            before, behind = self._solved[at - 1], self._solved[at : at + 1]
            added[before, place] = None
            if behind and self._runs.begin(behind[0]) == self._runs.begin(place):
                added[place, behind[0]] = None
                if (before, behind[0]) in added:
                    del added[before, behind[0]]
                else:
                    removed.append((before, behind[0]))
            self._solved.insert(at, place)
        return Handover(
            tuple(self._ids[place] for place in places),
            tuple((self._ids[a], self._ids[b]) for a, b in added),
            tuple((self._ids[a], self._ids[b]) for a, b in removed),
        )

    def stretch(self, ends: Ends) -> tuple[Any, Matrix]:
        """Measured element between two keyframes of one run, and its covariance (d, d)."""
        return self._runs.stretch(*(self._places[end] for end in ends))

    def around(self, keyframe_id: int) -> Ends:
        """The solver's keyframes before and behind one that is not; the first twice at a run's end.

        ``element`` needs their poses.
        """
        place = self._places[keyframe_id]
        at = bisect_left(self._solved, place)
        before, behind = self._solved[at - 1], self._solved[at : at + 1]
        if behind and self._runs.begin(behind[0]) <= before:
            return self._ids[before], self._ids[behind[0]]
        return self._ids[before], self._ids[before]

    def element(self, keyframe_id: int, ends: Ends, elements: tuple[Any, Any]) -> Any:
        """Best element of a keyframe from those of the two around it."""
        place, (one, other) = self._places[keyframe_id], (self._places[end] for end in ends)
        if one == other:
            return self._runs.continued(one, elements[0], place)
        moved, share = self._runs.shared(one, elements[0], other, elements[1])
        return self._runs.inside(one, moved, share, place)

    def poses(self, solved: Mapping[int, Any]) -> NDArray[np.float64]:
        """(N, 4, 4) best poses of all keyframes, ascending by id, from the solver's elements."""
        runs, group = self._runs, self._group
        elements = [solved[self._ids[place]] for place in self._solved]
        frames, shares = [], np.zeros((len(elements), group.dimension))
        for at, (one, other) in enumerate(pairwise([*self._solved, len(runs)])):
            if other < len(runs) and runs.begin(other) <= one:
                moved, shares[at] = runs.shared(one, elements[at], other, elements[at + 1])
            else:
                moved = elements[at].compose(runs.poses[one].inverse())
            frames.append(group.pose(moved))
        counts = np.diff([*self._solved, len(runs)])
        stretch = np.repeat(np.arange(len(elements)), counts)
        drifts = np.array(runs.drifts)
        gathered = drifts - drifts[self._solved][stretch]
        shifts = group.moves(np.einsum("nij,nj->ni", gathered, shares[stretch]))
        poses = np.array(frames)[stretch] @ shifts @ np.array(self._matrices)
        return np.asarray(poses[np.argsort(self._ids)])
