"""The back end: keyframe odometry and loop closures in, a corrected trajectory out.

Each session begins as an odometry chain of its own. The first session is the map. A later one is
solved apart from it until enough closures agree where it is in a session of the map; then all its
poses are set from these before they are linearised, so nothing jumps through a bad start.

A closure enters when the graph does not contradict it and recent closures do not outvote it. A
jury (``vpr.graph.jury``) may later take it out, or let in one that was refused: ``case`` is what it
judges, ``follow`` does what it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2 as chi2_distribution

from vpr.config import PoseGraphConfig
from vpr.geometry import inverse, relative, rotation_angle, translation_norm
from vpr.graph.edges import Edge, EdgeKind, EdgeVerdict, GraphNode, PoseGraphError, pose_problem
from vpr.graph.fixes import FixError, Geodetic, fix_edge
from vpr.graph.jury import Case, Ruling
from vpr.graph.lie_group import LieGroup, lie_group
from vpr.graph.measurements import (
    ClosureError,
    closure_edge,
    constant_position_edge,
    odometry_edge,
)
from vpr.graph.recent import RecentClosures, Support
from vpr.graph.smoother import Smoother
from vpr.graph.state import GraphState
from vpr.records import ClosureState, Covariance, GpsFix, Keyframe, LoopClosure, Pose


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
    fixed: _Node | None = None  # newest node whose GPS fix is used


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
        self._recent = RecentClosures(self._group, config.recent_closures, self._gate)
        self._followed = 0  # edges that the recent closures know of
        self._told: dict[tuple[int, int], LoopClosure] = {}  # as they came
        self._waiting: set[tuple[int, int]] = set()  # for others to join two sessions with
        self._reversals: list[LoopClosure] = []
        self._origin: Geodetic | None = None  # of the ENU frame: the first fix
        self._loose_fixes: list[Edge] = []  # of keyframes too close together to use them yet
        self._judged = 0  # edges when a case was last taken

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
        if self.config.gps and keyframe.fix is not None:
            self._take_fix(node, session, keyframe.fix)

    def add_closure(self, closure: LoopClosure, by_hand: bool = False) -> EdgeVerdict:
        """Add a verified closure that fits what the graph knows; refuse any other with a reason.

        Between two sessions that nothing ties yet, the verdict is CANDIDATE until
        ``joining_closures`` agree; one that is set ``by_hand`` ties them at once.
        """
        try:
            self._check_known(closure)
            edge = closure_edge(self.config, self._group, closure, self._expected(closure))
        except ClosureError as refused:
            return self._refused(str(refused), refused.key)
        self._told[_pair(edge.from_id, edge.to_id)] = closure
        query = self._sessions[self._nodes[edge.to_id].session]
        reference = self._sessions[self._nodes[edge.from_id].session]
        if query.smoother is reference.smoother:
            return self._close_loop(edge, query)
        support = self._support(edge)
        if not by_hand and not self._may_join(edge, support):
            return self._await(edge, support)
        verdict = self._join(edge, reference.smoother, query.smoother)
        for other in support.agreeing:
            if _pair(other.from_id, other.to_id) in self._waiting:
                self._close_loop(other, query, awaited=True)
        return verdict

    def case(self) -> Case | None:
        """The map for a jury; None where no closure came since the last case."""
        new = self._edges[self._judged :]
        if self._map is None or all(edge.kind is not EdgeKind.CLOSURE for edge in new):
            return None
        self._judged = len(self._edges)
        sessions = [s for s in self._sessions.values() if s.smoother is self._map]
        session_of = {node.id: node.session for session in sessions for node in session.nodes}
        inside = [
            i
            for i, e in enumerate(self._edges)
            if e.from_id in session_of and e.to_id in session_of and e.kind is not EdgeKind.FIX
        ]
        ids = sorted(session_of)
        return Case(
            self.config.mode,
            np.array(ids, np.int64),
            np.array([session_of[i] for i in ids], np.int64),
            self._map.poses(),
            tuple(self._edges[i] for i in inside),
            tuple(inside),
        )

    def follow(self, ruling: Ruling) -> bool:
        """Do what a jury says of a case of this graph; costs as much as a batch solution.

        False where sessions were tied together in the meantime, or would fall apart: then nothing
        is done, and the next case holds what came since.
        """
        if not ruling.changes:
            return True
        edges = list(self._edges)
        for state, reasons in (
            (ClosureState.REJECTED, ruling.retracted),
            (ClosureState.VERIFIED, ruling.readmitted),
        ):
            for number, reason in reasons.items():
                edges[number] = replace(edges[number], state=state, reason=reason)
        poses = self._continued(ruling)
        if poses is None or not _connected(poses.keys(), edges):
            self.counters["rulings_overtaken"] += 1
            return False
        self._edges = edges
        for number in ruling.retracted:
            self._reverse(edges[number], "retracted")
            self._recent.forget(edges[number])
        for number in ruling.readmitted:
            self._reverse(edges[number], "readmitted")
        self._rebuild_map(poses)
        return True

    def take_reversals(self) -> list[LoopClosure]:
        """Closures whose verdict has changed since this was last asked, with their new one."""
        reversals, self._reversals = self._reversals, []
        return reversals

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
            origin=self._origin,
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
        graph._origin = state.origin
        return graph

    def _checked_odometry(self, keyframe: Keyframe) -> Pose | None:
        name = f"keyframe {keyframe.id}"
        if keyframe.id in self._nodes:
            stamp = self._nodes[keyframe.id].stamp_ns
            raise PoseGraphError(f"{name} is here already, seen at {stamp} ns: ids must be unique")
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
        if keyframe.odometry_covariance is None or not keyframe.odometry_covariance.any():
            self.counters["odometry_without_covariance"] += 1  # steps have one of their own
        return self._group.pose(self._group.element(keyframe.odometry))

    def _take_fix(self, node: _Node, session: _Session, fix: GpsFix) -> None:
        """Tie a keyframe to the globe, once its session has moved far enough to be placed on it."""
        if session.fixed is not None:
            poses = session.smoother.pose(session.fixed.id), session.smoother.pose(node.id)
            if translation_norm(relative(*poses)) < self.config.gps_distance:
                return
        origin = self._origin or (fix.latitude, fix.longitude, fix.altitude)
        try:
            self._loose_fixes.append(fix_edge(self.config, node.id, fix, origin))
        except FixError as refused:
            self.counters[refused.key] += 1
            return
        self._origin, session.fixed = origin, node
        self.counters["fixes"] += 1
        own = [edge for edge in self._loose_fixes if edge.to_id in session.smoother]
        if added := session.smoother.add_fixes(own):
            self._edges += added
            self._loose_fixes = [e for e in self._loose_fixes if e.to_id not in session.smoother]

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
        pair = _pair(closure.query_id, closure.reference_id)
        if pair in self._closed_pairs or pair in self._waiting:
            message = f"keyframes {closure.reference_id} and {closure.query_id} are closed already"
            raise ClosureError("duplicate", message)

    def _refused(self, reason: str, key: str, chi2: float = float("nan")) -> EdgeVerdict:
        self.counters[f"refused_{key}"] += 1
        return EdgeVerdict(ClosureState.REJECTED, reason, key, chi2, self._gate)

    def _expected(self, closure: LoopClosure) -> Pose | None:
        """reference_T_query by the graph; None where nothing ties the two."""
        ends = closure.reference_id, closure.query_id
        smoothers = [self._sessions[self._nodes[end].session].smoother for end in ends]
        if smoothers[0] is not smoothers[1]:
            return None
        return relative(*(smoothers[0].pose(end) for end in ends))

    def _support(self, edge: Edge) -> Support:
        self._recent.follow(self._edges[self._followed :])
        self._followed = len(self._edges)
        sessions = self._nodes[edge.from_id].session, self._nodes[edge.to_id].session
        support, forgotten = self._recent.consider(edge, sessions)
        for old in forgotten:
            if _pair(old.from_id, old.to_id) in self._waiting:
                reason = "no other closure agreed where it would tie two sessions"
                self._edges.append(replace(old, state=ClosureState.REJECTED, reason=reason))
                self._reverse(self._edges[-1], "no_agreement")
        return support

    def _may_join(self, edge: Edge, support: Support) -> bool:
        """Whether closures of enough keyframes agree, and no more of them tell another story."""
        queries = {edge.to_id, *(other.to_id for other in support.agreeing)}
        return len(queries) >= self.config.joining_closures and not support.outvoted

    def _await(self, edge: Edge, support: Support) -> EdgeVerdict:
        self._waiting.add(_pair(edge.from_id, edge.to_id))
        self.counters["closures_awaited"] += 1
        count, needed = len(support.agreeing) + 1, self.config.joining_closures
        reason = f"waits: {count} closures agree where it ties two sessions, {needed} needed"
        if support.outvoted:
            reason = f"waits: {support.rivals} recent closures tie the sessions elsewhere"
        return EdgeVerdict(ClosureState.CANDIDATE, reason, gate=self._gate)

    def _refused_edge(self, edge: Edge, reason: str, key: str) -> EdgeVerdict:
        self._edges.append(replace(edge, state=ClosureState.REJECTED, reason=reason))
        return self._refused(reason, key, edge.chi2)

    def _accept(self, edge: Edge) -> None:
        self._edges.append(edge)
        self._closed_pairs.add(_pair(edge.from_id, edge.to_id))
        self.counters["closures"] += 1

    def _close_loop(self, edge: Edge, query: _Session, awaited: bool = False) -> EdgeVerdict:
        """Add a closure within a piece, unless the graph or recent closures say otherwise.

        One that the graph contradicts has no vote on later ones; the jury hears it again.
        """
        smoother, newest = query.smoother, query.nodes[-1].id
        self._waiting.discard(_pair(edge.from_id, edge.to_id))
        chi2 = smoother.innovation(edge).chi2
        edge = replace(edge, chi2=chi2)
        if not chi2 <= self._gate:
            reason = f"chi2 {chi2:.1f} > {self._gate:.1f}: contradicts the graph"
            return self._refused_edge(edge, reason, "inconsistent")
        if not awaited and (support := self._support(edge)).outvoted:
            reason = f"{support.rivals} recent closures agree with each other, and not with this"
            return self._refused_edge(edge, reason, "outvoted")
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
        verified = [e for e in edges if e.state is ClosureState.VERIFIED]
        base.absorb(moved, [e for e in verified if e.kind is not EdgeKind.FIX] + [edge])
        base.add_fixes([e for e in verified if e.kind is EdgeKind.FIX])
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

    def _reverse(self, edge: Edge, key: str) -> None:
        """Note that a closure's verdict has changed to that of its edge."""
        pair, verified = _pair(edge.from_id, edge.to_id), edge.state is ClosureState.VERIFIED
        self._waiting.discard(pair)
        (self._closed_pairs.add if verified else self._closed_pairs.discard)(pair)
        self.counters[key] += 1
        self._reversals.append(
            replace(
                self._told.get(pair) or self._retold(edge),
                state=edge.state,
                reason=edge.reason,
                rejected_by="" if verified else key,
            )
        )

    def _retold(self, edge: Edge) -> LoopClosure:
        """The closure of an edge that came from a map."""
        query, reference = self._nodes[edge.to_id], self._nodes[edge.from_id]
        return LoopClosure(
            query.id,
            query.session,
            query.stamp_ns,
            reference.id,
            reference.session,
            reference.stamp_ns,
            edge.state,
            edge.reason,
            relative_pose=edge.measured,
            covariance=edge.covariance,
        )

    def _continued(self, ruling: Ruling) -> dict[int, Pose] | None:
        """Poses of the map by a ruling and, behind its last keyframe, by odometry.

        None where the map has other sessions' keyframes that the ruling does not know.
        """
        poses = dict(zip(ruling.ids.tolist(), ruling.poses, strict=True))
        for session in self._sessions.values():
            if session.smoother is self._map and session.nodes[0].id not in poses:
                return None
        for edge in self._edges:
            if edge.is_step and edge.to_id not in poses and edge.from_id in poses:
                poses[edge.to_id] = poses[edge.from_id] @ edge.measured
        return poses

    def _rebuild_map(self, poses: dict[int, Pose]) -> None:
        rebuilt = _solved(self.config, self._group, poses, self._edges)
        for session in self._sessions.values():
            if session.smoother is self._map:
                session.smoother = rebuilt
        self._map = rebuilt

    def _smoothers(self) -> list[Smoother]:
        """The separate pieces, the map first."""
        return list(dict.fromkeys(session.smoother for session in self._sessions.values()))

    def _poses_of(self, smoother: Smoother) -> list[tuple[int, Pose]]:
        sessions = [s for s in self._sessions.values() if s.smoother is smoother]
        ids = sorted(node.id for session in sessions for node in session.nodes)
        return list(zip(ids, smoother.poses(), strict=True))

    def _restore_piece(self, state: GraphState, rows: NDArray[np.int64]) -> None:
        nodes = [self._nodes[i] for i in state.ids[rows].tolist()]
        poses = {node.id: pose for node, pose in zip(nodes, state.poses[rows], strict=True)}
        smoother = _solved(self.config, self._group, poses, state.edges)
        self._map = self._map or smoother
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


def _solved(
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


def _connected(ids: Iterable[int], edges: Iterable[Edge]) -> bool:
    """Whether verified edges tie all keyframes together."""
    place = {keyframe_id: i for i, keyframe_id in enumerate(ids)}
    good = [e for e in edges if e.state is ClosureState.VERIFIED and e.to_id in place]
    rows = [place[e.from_id] for e in good], [place[e.to_id] for e in good]
    links = coo_array((np.ones(len(good)), rows), shape=(len(place), len(place)))
    return int(connected_components(links, directed=False)[0]) == 1


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _stacked(poses: list[Pose | None]) -> NDArray[np.float64]:
    """(N, 4, 4) with NaN where there is no pose."""
    unknown = np.full((4, 4), np.nan)
    return np.array([unknown if pose is None else pose for pose in poses]).reshape(-1, 4, 4)
