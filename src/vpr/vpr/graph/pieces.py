"""Keyframes by session, and the connected pieces that the sessions form.

Each session begins as an odometry chain of its own. The first session is the map. A later one is
solved apart from it until it is joined: then all its poses are set anew before they are
linearised, so nothing jumps through a bad start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vpr.config import PoseGraphConfig
from vpr.geometry import inverse, relative, translation_norm
from vpr.graph.edges import Edge, EdgeKind, PoseGraphError, pose_problem
from vpr.graph.lie_group import LieGroup
from vpr.graph.measurements import Step, constant_position_step, odometry_step
from vpr.graph.smoother import Smoother
from vpr.graph.state import GraphState
from vpr.records import ClosureState, Keyframe, Pose


@dataclass(frozen=True)
class Node:
    """A keyframe as the graph holds it."""

    id: int
    session: int
    stamp_ns: int
    odometry: Any | None  # odom_T_base, an element of the graph's group


@dataclass
class Session:
    """An uninterrupted drive, and the piece that it is in."""

    smoother: Smoother
    nodes: list[Node] = field(default_factory=list)
    located: Node | None = None  # newest node that has odometry
    fixed: Node | None = None  # newest node whose GPS fix is used


class Pieces:
    """The keyframes of a graph; ``counters`` counts what was wrong with their odometry."""

    def __init__(self, config: PoseGraphConfig, group: LieGroup, counters: Counter[str]) -> None:
        self.nodes: dict[int, Node] = {}
        self.sessions: dict[int, Session] = {}
        self.map: Smoother | None = None
        self._config = config
        self._group = group
        self._counters = counters

    def add(self, keyframe: Keyframe) -> tuple[Node, Step | None]:
        """Add a keyframe behind the newest of its session; the step to it, if it is not the first.

        Raises:
            PoseGraphError: an id or a stamp that does not ascend, or odometry that is no pose.
        """
        odometry = self._checked_odometry(keyframe)
        node = Node(keyframe.id, keyframe.session, keyframe.stamp_ns, odometry)
        session, step = self.sessions.get(node.session), None
        if session is None:
            session = self._begin_session(node)
        else:
            step = self._step(session, node)
            session.smoother.extend(step)
        self.nodes[node.id] = node
        session.nodes.append(node)
        if odometry is not None:
            session.located = node
        return node, step

    def session_of(self, keyframe_id: int) -> Session:
        """The session of a keyframe."""
        return self.sessions[self.nodes[keyframe_id].session]

    def anchored(self, session: int) -> bool:
        """Whether a session has its place in the map."""
        known = self.sessions.get(session)
        return known is not None and known.smoother is self.map

    def smoothers(self) -> list[Smoother]:
        """The separate pieces, the map first."""
        return list(dict.fromkeys(session.smoother for session in self.sessions.values()))

    def members(self, smoother: Smoother) -> dict[int, int]:
        """Session of each keyframe of a piece, ascending by keyframe."""
        sessions = [s for s in self.sessions.values() if s.smoother is smoother]
        nodes = sorted((node.id, node.session) for s in sessions for node in s.nodes)
        return dict(nodes)

    def poses(self, smoother: Smoother) -> dict[int, Pose]:
        """Poses of a piece, ascending by keyframe."""
        return dict(zip(self.members(smoother), smoother.poses(), strict=True))

    def expected(self, from_id: int, to_id: int) -> Pose | None:
        """from_T_to of two keyframes; None where nothing ties them."""
        smoothers = [self.session_of(end).smoother for end in (from_id, to_id)]
        if smoothers[0] is not smoothers[1]:
            return None
        return relative(*(smoothers[0].pose(end) for end in (from_id, to_id)))

    def map_to_odom(self, session: int) -> Pose | None:
        """map_T_odom of a session; None where it has no place in the map, or no odometry."""
        known = self.sessions.get(session)
        if known is None or known.smoother is not self.map or known.located is None:
            return None
        node = known.located
        assert node.odometry is not None
        return self._group.pose(known.smoother.element(node.id).compose(node.odometry.inverse()))

    def join(self, edge: Edge, edges: Iterable[Edge]) -> tuple[Smoother, tuple[int, ...]]:
        """Tie the two pieces at the ends of an edge together; the map, or else the piece at the
        beginning of the edge, keeps its frame.

        Args:
            edges: all that are in the graph already.

        Returns:
            the piece that both are now, and the sessions that have moved to it.
        """
        base, other = (self.session_of(end).smoother for end in (edge.from_id, edge.to_id))
        base_T_other = base.pose(edge.from_id) @ edge.measured @ inverse(other.pose(edge.to_id))
        if other is self.map:
            base, other, base_T_other = other, base, inverse(base_T_other)
        moved = {i: base_T_other @ pose for i, pose in self.poses(other).items()}
        inside = [e for e in edges if e.to_id in moved and e.state is ClosureState.VERIFIED]
        base.absorb(moved, [e for e in inside if e.kind is not EdgeKind.FIX] + [edge])
        base.add_fixes([e for e in inside if e.kind is EdgeKind.FIX])
        joined = tuple(s for s, session in self.sessions.items() if session.smoother is other)
        for session in joined:
            self.sessions[session].smoother = base
        return base, joined

    def replace_map(self, smoother: Smoother) -> None:
        """Let the map be solved by another smoother, which has all its keyframes."""
        for session in self.sessions.values():
            if session.smoother is self.map:
                session.smoother = smoother
        self.map = smoother

    def restore(self, state: GraphState) -> None:
        """Take in the keyframes of a saved graph; to be called when there are none."""
        for row, keyframe_id in enumerate(state.ids.tolist()):
            odometry = state.odometry[row]
            self.nodes[keyframe_id] = Node(
                keyframe_id,
                int(state.sessions[row]),
                int(state.stamps_ns[row]),
                self._group.element(odometry) if np.isfinite(odometry).all() else None,
            )
        for piece in np.unique(state.pieces).tolist():
            rows = np.flatnonzero(state.pieces == piece)
            ids = state.ids[rows].tolist()
            poses = dict(zip(ids, state.poses[rows], strict=True))
            smoother = solved_piece(self._config, self._group, poses, state.edges)
            self.map = self.map or smoother
            for node in map(self.nodes.__getitem__, ids):
                session = self.sessions.setdefault(node.session, Session(smoother))
                session.nodes.append(node)
                session.located = node if node.odometry is not None else session.located

    def _checked_odometry(self, keyframe: Keyframe) -> Any | None:
        name = f"keyframe {keyframe.id}"
        if keyframe.id in self.nodes:
            stamp = self.nodes[keyframe.id].stamp_ns
            raise PoseGraphError(f"{name} is here already, seen at {stamp} ns: ids must be unique")
        if self.nodes and keyframe.id <= next(reversed(self.nodes)):
            raise PoseGraphError(f"{name} comes after keyframe {next(reversed(self.nodes))}")
        session = self.sessions.get(keyframe.session)
        if session is not None and keyframe.stamp_ns <= session.nodes[-1].stamp_ns:
            raise PoseGraphError(
                f"{name}: stamp {keyframe.stamp_ns} ns is not after "
                f"{session.nodes[-1].stamp_ns} ns of session {keyframe.session}"
            )
        if keyframe.odometry is None:
            return None
        if problem := pose_problem(keyframe.odometry):
            raise PoseGraphError(f"{name}: odometry {problem}")
        if keyframe.odometry_covariance is None or not keyframe.odometry_covariance.any():
            self._counters["odometry_without_covariance"] += 1  # steps have one of their own
        return self._group.element(keyframe.odometry)

    def _begin_session(self, node: Node) -> Session:
        smoother = Smoother(self._config, self._group)
        unknown = node.odometry is None
        smoother.start(node.id, np.eye(4) if unknown else self._group.pose(node.odometry))
        if self.map is None:
            self.map = smoother
        self.sessions[node.session] = Session(smoother)
        return self.sessions[node.session]

    def _step(self, session: Session, node: Node) -> Step:
        """Step from the newest node with odometry; failing that, from the newest of all."""
        last, located = session.nodes[-1], session.located
        if node.odometry is None:
            self._counters["missing_odometry"] += 1
            return self._unknown_step(last, node, "no odometry")
        if located is None or located.odometry is None:
            return self._unknown_step(last, node, "first odometry")
        moved = located.odometry.between(node.odometry)
        step = odometry_step(self._config, self._group, located.id, node.id, moved)
        seconds = (node.stamp_ns - located.stamp_ns) / 1e9
        distance = translation_norm(step.edge.measured)
        if distance > self._config.odometry_max_speed * seconds:
            self._counters["odometry_jumps"] += 1
            reason = f"odometry jumped {distance:.1f} m in {seconds:.2f} s"
            return self._unknown_step(last, node, reason)
        return step

    def _unknown_step(self, last: Node, node: Node, reason: str) -> Step:
        return constant_position_step(self._config, self._group, last.id, node.id, reason)


def solved_piece(
    config: PoseGraphConfig, group: LieGroup, poses: dict[int, Pose], edges: Iterable[Edge]
) -> Smoother:
    """A connected piece from poses close to right, ascending by id, and all edges among them."""
    smoother, (first, *others) = Smoother(config, group), poses
    smoother.start(first, poses[first])
    if others:
        verified = ClosureState.VERIFIED
        inside = [e for e in edges if e.to_id in poses and e.state is verified]
        known = [e for e in inside if e.kind is not EdgeKind.FIX]
        smoother.absorb({i: poses[i] for i in others}, known)
        smoother.add_fixes([e for e in inside if e.kind is EdgeKind.FIX])
    return smoother
