"""The back end: keyframe odometry and loop closures in, a corrected trajectory out.

Each session begins as an odometry chain of its own. The first session is the map. A later one is
solved apart from it until its first closure to a session that is in the map; then all its poses
are set from that closure before they are linearised, so nothing jumps through a bad start.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2 as chi2_distribution

from vpr.config import PoseGraphConfig
from vpr.geometry import inverse, relative, rotation_angle, translation_norm
from vpr.graph.edges import Edge, EdgeKind, EdgeVerdict, GraphNode, PoseGraphError, pose_problem
from vpr.graph.lie_group import lie_group
from vpr.graph.measurements import (
    ClosureError,
    closure_edge,
    constant_position_edge,
    odometry_edge,
)
from vpr.graph.smoother import Smoother
from vpr.graph.state import GraphState
from vpr.records import ClosureState, Covariance, Keyframe, LoopClosure, Pose


@dataclass(frozen=True)
class _Node:
    id: int
    session: int
    stamp_ns: int
    odometry: Pose | None  # odom_T_base


@dataclass
class _Session:
    smoother: Smoother
    nodes: list[_Node] = field(default_factory=list)
    located: _Node | None = None  # newest node that has odometry


class PoseGraph:
    """Keyframes tied by odometry and verified closures, solved incrementally.

    ``counters`` counts what was taken and what was refused, by short key.
    """

    def __init__(self, config: PoseGraphConfig) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self._group = lie_group(config.mode)
        self._gate = float(chi2_distribution.ppf(config.gate_probability, self._group.dimension))
        self._nodes: dict[int, _Node] = {}
        self._sessions: dict[int, _Session] = {}
        self._edges: list[Edge] = []
        self._closed_pairs: set[tuple[int, int]] = set()
        self._map: Smoother | None = None

    def add_keyframe(self, keyframe: Keyframe) -> None:
        """Add a keyframe behind the newest of its session.

        Without odometry, or where odometry jumps, only "not far from the last" is known of it.

        Raises:
            PoseGraphError: an id or a stamp that does not ascend, or odometry that is no pose.
        """
        odometry = self._checked_odometry(keyframe)
        node = _Node(keyframe.id, keyframe.session, keyframe.stamp_ns, odometry)
        session = self._sessions.get(node.session)
        if session is None:
            session = self._begin_session(node)
        else:
            edge = self._step(session, node)
            session.smoother.extend(edge)
            self._edges.append(edge)
        self._nodes[node.id] = node
        session.nodes.append(node)
        if odometry is not None:
            session.located = node
        self.counters["keyframes"] += 1

    def add_closure(self, closure: LoopClosure) -> EdgeVerdict:
        """Add a verified closure that fits what the graph knows; refuse any other with a reason."""
        try:
            self._check_known(closure)
            edge = closure_edge(self.config, self._group, closure)
        except ClosureError as refused:
            return self._refused(str(refused), refused.key)
        query = self._sessions[self._nodes[edge.to_id].session]
        reference = self._sessions[self._nodes[edge.from_id].session]
        if query.smoother is reference.smoother:
            return self._close_loop(edge, query)
        return self._join(edge, reference.smoother, query.smoother)

    def settle(self) -> None:
        """Solve to convergence, as before a map is saved; takes as long as a batch solution."""
        for smoother in self._smoothers():
            smoother.settle()

    def anchored(self, session: int) -> bool:
        """Whether a session has its place in the map."""
        known = self._sessions.get(session)
        return known is not None and known.smoother is self._map

    def map_to_odom(self, session: int) -> Pose | None:
        """map_T_odom of a session; None while it has no place in the map, or without odometry.

        It steps when a closure is added, by what the verdict says; smoothing the step is left to
        whoever publishes it.
        """
        known = self._sessions.get(session)
        if known is None or known.smoother is not self._map or known.located is None:
            return None
        node = known.located
        assert node.odometry is not None
        return known.smoother.pose(node.id) @ inverse(node.odometry)

    def trajectory(self) -> list[GraphNode]:
        """All keyframes that have a place in the map, ascending by id."""
        return [node for node in self.nodes() if node.anchored]

    def nodes(self) -> list[GraphNode]:
        """All keyframes, ascending by id."""
        poses = {i: pose for smoother in self._smoothers() for i, pose in self._poses_of(smoother)}
        return [
            GraphNode(node.id, node.session, node.stamp_ns, poses[i], self.anchored(node.session))
            for i, node in sorted(self._nodes.items())
        ]

    def edges(self) -> list[Edge]:
        """All edges in the order they came; refused closures included."""
        return list(self._edges)

    def chi2(self) -> float:
        """Twice the error of all factors."""
        return sum(smoother.chi2() for smoother in self._smoothers())

    def latest_covariance(self, session: int) -> Covariance | None:
        """Marginal covariance of map_T_base of a session's newest keyframe; None if unanchored."""
        if not self.anchored(session):
            return None
        known = self._sessions[session]
        return known.smoother.covariance(known.nodes[-1].id)

    def state(self) -> GraphState:
        """All that is needed to go on in another process."""
        nodes = self.nodes()
        smoothers = self._smoothers()
        return GraphState(
            ids=np.array([node.id for node in nodes], np.int64),
            sessions=np.array([node.session for node in nodes], np.int64),
            stamps_ns=np.array([node.stamp_ns for node in nodes], np.int64),
            poses=np.array([node.pose for node in nodes]).reshape(-1, 4, 4),
            odometry=_stacked([self._nodes[node.id].odometry for node in nodes]),
            pieces=np.array(
                [smoothers.index(self._sessions[node.session].smoother) for node in nodes], np.int64
            ),
            edges=tuple(self._edges),
        )

    @classmethod
    def restore(cls, config: PoseGraphConfig, state: GraphState) -> PoseGraph:
        """A graph that goes on where ``state`` was taken; the map is piece 0.

        Raises:
            PoseGraphError: a state that contradicts itself.
        """
        state.check()
        graph = cls(config)
        for row, keyframe_id in enumerate(state.ids.tolist()):
            odometry = state.odometry[row]
            graph._nodes[keyframe_id] = _Node(
                keyframe_id,
                int(state.sessions[row]),
                int(state.stamps_ns[row]),
                odometry if np.isfinite(odometry).all() else None,
            )
        for piece in np.unique(state.pieces).tolist():
            graph._restore_piece(state, np.flatnonzero(state.pieces == piece))
        graph._recount(state.edges)
        return graph

    def _checked_odometry(self, keyframe: Keyframe) -> Pose | None:
        name = f"keyframe {keyframe.id}"
        if self._nodes and keyframe.id <= next(reversed(self._nodes)):
            raise PoseGraphError(f"{name} comes after keyframe {next(reversed(self._nodes))}")
        session = self._sessions.get(keyframe.session)
        if session is not None and keyframe.stamp_ns <= session.nodes[-1].stamp_ns:
            raise PoseGraphError(
                f"{name}: stamp {keyframe.stamp_ns} ns is not after "
                f"{session.nodes[-1].stamp_ns} ns of session {keyframe.session}"
            )
        if keyframe.odometry is None:
            return None
        if problem := pose_problem(keyframe.odometry):
            raise PoseGraphError(f"{name}: odometry {problem}")
        return self._group.pose(self._group.element(keyframe.odometry))

    def _begin_session(self, node: _Node) -> _Session:
        smoother = Smoother(self.config, self._group)
        smoother.start(node.id, np.eye(4) if node.odometry is None else node.odometry)
        if self._map is None:
            self._map = smoother
        self._sessions[node.session] = _Session(smoother)
        return self._sessions[node.session]

    def _step(self, session: _Session, node: _Node) -> Edge:
        """Edge from the newest node with odometry; failing that, from the newest of all."""
        last, located = session.nodes[-1], session.located
        if node.odometry is None:
            self.counters["missing_odometry"] += 1
            return constant_position_edge(self.config, last.id, node.id, "no odometry")
        if located is None or located.odometry is None:
            return constant_position_edge(self.config, last.id, node.id, "first odometry")
        step = relative(located.odometry, node.odometry)
        seconds = (node.stamp_ns - located.stamp_ns) / 1e9
        if translation_norm(step) > self.config.odometry_max_speed * seconds:
            self.counters["odometry_jumps"] += 1
            reason = f"odometry jumped {translation_norm(step):.1f} m in {seconds:.2f} s"
            return constant_position_edge(self.config, last.id, node.id, reason)
        return odometry_edge(self.config, located.id, node.id, step)

    def _check_known(self, closure: LoopClosure) -> None:
        if closure.state is not ClosureState.VERIFIED:
            raise ClosureError("not_verified", f"closure is {closure.state.name}, not VERIFIED")
        for keyframe_id in (closure.query_id, closure.reference_id):
            if keyframe_id not in self._nodes:
                message = f"keyframe {keyframe_id} is not in the graph"
                raise ClosureError("unknown_keyframe", message)
        if closure.query_id == closure.reference_id:
            raise ClosureError("same_keyframe", f"keyframe {closure.query_id} closed to itself")
        if _pair(closure.query_id, closure.reference_id) in self._closed_pairs:
            message = f"keyframes {closure.reference_id} and {closure.query_id} are closed already"
            raise ClosureError("duplicate", message)

    def _refused(self, reason: str, key: str, chi2: float = float("nan")) -> EdgeVerdict:
        self.counters[f"refused_{key}"] += 1
        return EdgeVerdict(ClosureState.REJECTED, reason, key, chi2, self._gate)

    def _accept(self, edge: Edge) -> None:
        self._edges.append(edge)
        self._closed_pairs.add(_pair(edge.from_id, edge.to_id))
        self.counters["closures"] += 1

    def _close_loop(self, edge: Edge, query: _Session) -> EdgeVerdict:
        smoother, newest = query.smoother, query.nodes[-1].id
        chi2 = smoother.innovation(edge).chi2
        edge = replace(edge, chi2=chi2)
        if not chi2 <= self._gate:
            reason = f"chi2 {chi2:.1f} > {self._gate:.1f}: contradicts the graph"
            self._edges.append(replace(edge, state=ClosureState.REJECTED, reason=reason))
            return self._refused(reason, "inconsistent", chi2)
        before = smoother.pose(newest)
        smoother.close(edge)
        self._accept(edge)
        correction = relative(before, smoother.pose(newest))
        reason = f"chi2 {chi2:.1f} <= {self._gate:.1f}"
        return EdgeVerdict(
            ClosureState.VERIFIED,
            reason,
            chi2=chi2,
            gate=self._gate,
            correction_translation=translation_norm(correction),
            correction_rotation=rotation_angle(correction),
        )

    def _join(self, edge: Edge, reference: Smoother, query: Smoother) -> EdgeVerdict:
        """Tie two pieces together; the map, or else the older piece, keeps its frame."""
        if query is self._map:
            base, other = query, reference
            base_T_other = base.pose(edge.to_id) @ inverse(other.pose(edge.from_id) @ edge.measured)
        else:
            base, other = reference, query
            base_T_other = base.pose(edge.from_id) @ edge.measured @ inverse(other.pose(edge.to_id))
        moved = {i: base_T_other @ pose for i, pose in self._poses_of(other)}
        edges = [known for known in self._edges if known.to_id in moved]
        base.absorb(moved, [e for e in edges if e.state is ClosureState.VERIFIED] + [edge])
        joined = tuple(s for s, session in self._sessions.items() if session.smoother is other)
        for session in joined:
            self._sessions[session].smoother = base
        self._accept(edge)
        names = ", ".join(map(str, joined))
        where = "the map" if base is self._map else "another session that is not in the map yet"
        anchored = joined if base is self._map else ()
        reason = f"ties session {names} to {where}"
        return EdgeVerdict(
            ClosureState.VERIFIED, reason, gate=self._gate, anchored_sessions=anchored
        )

    def _smoothers(self) -> list[Smoother]:
        """The separate pieces, the map first."""
        return list(dict.fromkeys(session.smoother for session in self._sessions.values()))

    def _poses_of(self, smoother: Smoother) -> list[tuple[int, Pose]]:
        sessions = [s for s in self._sessions.values() if s.smoother is smoother]
        ids = sorted(node.id for session in sessions for node in session.nodes)
        return list(zip(ids, smoother.poses(), strict=True))

    def _restore_piece(self, state: GraphState, rows: NDArray[np.int64]) -> None:
        smoother = Smoother(self.config, self._group)
        if self._map is None:
            self._map = smoother
        nodes = [self._nodes[i] for i in state.ids[rows].tolist()]
        poses = {node.id: pose for node, pose in zip(nodes, state.poses[rows], strict=True)}
        smoother.start(nodes[0].id, poses.pop(nodes[0].id))
        members = {node.id for node in nodes}
        edges = [e for e in state.edges if e.to_id in members and e.state is ClosureState.VERIFIED]
        if poses:
            smoother.absorb(poses, edges)
        for node in nodes:
            session = self._sessions.setdefault(node.session, _Session(smoother))
            session.nodes.append(node)
            session.located = node if node.odometry is not None else session.located

    def _recount(self, edges: tuple[Edge, ...]) -> None:
        self._edges = list(edges)
        verified = [
            e for e in edges if e.kind is EdgeKind.CLOSURE and e.state is ClosureState.VERIFIED
        ]
        self._closed_pairs = {_pair(edge.from_id, edge.to_id) for edge in verified}
        self.counters.update(keyframes=len(self._nodes), closures=len(verified))


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _stacked(poses: list[Pose | None]) -> NDArray[np.float64]:
    """(N, 4, 4) with NaN where there is no pose."""
    unknown = np.full((4, 4), np.nan)
    return np.array([unknown if pose is None else pose for pose in poses]).reshape(-1, 4, 4)
