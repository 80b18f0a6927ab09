"""What a graph and its jury tell each other: the map as it stands, and what was made of it.

Both are plain arrays and edges, to be handed to another process and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vpr.config import PoseGraphConfig
from vpr.graph.edges import Edge, EdgeKind
from vpr.records import ClosureState, Pose


@dataclass(frozen=True)
class Case:
    """The map as it stands: what a jury needs, and nothing that changes while it thinks.

    ``numbers`` are those of ``edges`` in the graph the case was taken from.
    """

    config: PoseGraphConfig
    ids: NDArray[np.int64]  # (N,) keyframes, ascending
    sessions: NDArray[np.int64]  # (N,)
    poses: NDArray[np.float64]  # (N, 4, 4) map_T_base
    edges: tuple[Edge, ...]  # steps and closures with both ends in the map
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Ruling:
    """What a jury made of a case; edges by their number in the graph, with the reason.

    ``poses`` (N, 4, 4) are those of ``ids`` if the ruling is followed, solved to convergence.
    """

    retracted: dict[int, str]
    readmitted: dict[int, str]
    ids: NDArray[np.int64]
    poses: NDArray[np.float64]

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.retracted or self.readmitted)

    def judged(self, number: int, edge: Edge) -> Edge:
        """An edge of the graph with its new verdict, if it has one."""
        if number in self.retracted:
            return replace(edge, state=ClosureState.REJECTED, reason=self.retracted[number])
        if number in self.readmitted:
            return replace(edge, state=ClosureState.VERIFIED, reason=self.readmitted[number])
        return edge

    def continued(self, edges: Iterable[Edge]) -> dict[int, Pose]:
        """Poses by the ruling and, behind its last keyframe, by odometry."""
        poses = dict(zip(self.ids.tolist(), self.poses, strict=True))
        for edge in edges:
            if edge.is_step and edge.to_id not in poses and edge.from_id in poses:
                poses[edge.to_id] = poses[edge.from_id] @ edge.measured
        return poses


def case_of(
    config: PoseGraphConfig,
    session_of: dict[int, int],
    poses: NDArray[np.float64],
    edges: Sequence[Edge],
) -> Case:
    """A case of the keyframes of a map, by ascending id, and the edges among them.

    GPS fixes are left out: the frame they begin in is no keyframe.
    """
    inside = [
        i
        for i, e in enumerate(edges)
        if e.from_id in session_of and e.to_id in session_of and e.kind is not EdgeKind.FIX
    ]
    return Case(
        config,
        np.array(list(session_of), np.int64),
        np.array(list(session_of.values()), np.int64),
        poses,
        tuple(edges[i] for i in inside),
        tuple(inside),
    )
