"""The back end: keyframe odometry and loop closures in, a corrected trajectory out.

Keyframes and what ties them into one map are in ``vpr.graph.pieces``. Here closures are judged: one
enters when the graph does not contradict it and recent closures do not outvote it; a session is
tied to the map by closures that agree. A jury (``vpr.graph.jury``) may later take a closure out, or
let in one that was refused: ``case`` is what it judges, ``follow`` does what it says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2 as chi2_distribution

from vpr.config import PoseGraphConfig
from vpr.geometry import relative, rotation_angle, translation_norm
from vpr.graph.case import Case, Ruling, case_of
from vpr.graph.connectivity import connected_pieces
from vpr.graph.edges import Edge, EdgeKind, EdgeVerdict, GraphNode
from vpr.graph.fixes import FixError, Geodetic, fix_edge
from vpr.graph.lie_group import lie_group
from vpr.graph.measurements import ClosureError, Step, closure_edge
from vpr.graph.pieces import Node, Pieces
from vpr.graph.recent import RecentClosures, Support
from vpr.graph.state import GraphState
from vpr.graph.verdicts import Verdicts
from vpr.records import ClosureState, Covariance, GpsFix, Keyframe, LoopClosure, Pose


class PoseGraph:
    """Keyframes tied by odometry and verified closures, solved incrementally.

    ``counters`` counts what was taken and what was refused, by short key.
    """

    def __init__(self, config: PoseGraphConfig) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self._group = lie_group(config.mode)
        self._gate = float(chi2_distribution.ppf(config.gate_probability, self._group.dimension))
        self._pieces = Pieces(config, self._group, self.counters)
        self._edges: list[Edge] = []
        self._verdicts = Verdicts()
        self._recent = RecentClosures(self._group, config.recent_closures, self._gate)
        self._origin: Geodetic | None = None  # of the ENU frame: the first fix
        self._loose_fixes: list[Edge] = []  # of keyframes too close together to use them yet
        self._judged = 0  # edges when a case was last taken

    def add_keyframe(self, keyframe: Keyframe) -> None:
        """Add a keyframe behind the newest of its session.

        Without odometry, or where odometry jumps, only "not far from the last" is known of it.

        Raises:
            PoseGraphError: an id or a stamp that does not ascend, or odometry that is no pose.
        """
        node, step = self._pieces.add(keyframe)
        if step is not None:
            self._edges.append(step.edge)
            self._recent.follow(step)  # a closure has no time to gather odometry
        self.counters["keyframes"] += 1
        if self.config.gps and keyframe.fix is not None:
            self._take_fix(node, keyframe.fix)

    def add_closure(self, closure: LoopClosure, by_hand: bool = False) -> EdgeVerdict:
        """Add a verified closure that fits what the graph knows; refuse any other with a reason.

        Between two sessions that nothing ties yet, the verdict is CANDIDATE until
        ``joining_closures`` agree; one that is set ``by_hand`` ties them at once.
        """
        try:
            self._check_known(closure)
            expected = self._pieces.expected(closure.reference_id, closure.query_id)
            edge = closure_edge(self.config, self._group, closure, expected)
        except ClosureError as refused:
            return self._refused(str(refused), refused.key)
        self._verdicts.hear(closure)
        if expected is not None:
            return self._close_loop(edge)
        support = self._support(edge)
        if not by_hand and not self._may_join(edge, support):
            return self._await(edge, support)
        verdict = self._join(edge)
        for other in support.agreeing:
            if self._verdicts.waits(other):
                self._close_loop(other, awaited=True)
        return verdict

    def case(self) -> Case | None:
        """The map for a jury; None where no closure came since the last case."""
        new = self._edges[self._judged :]
        smoother = self._pieces.map
        if smoother is None or all(edge.kind is not EdgeKind.CLOSURE for edge in new):
            return None
        self._judged = len(self._edges)
        return case_of(self.config, self._pieces.members(smoother), smoother.poses(), self._edges)

    def follow(self, ruling: Ruling) -> bool:
        """Do what a jury says of a case of this graph; costs one elimination of the map.

        False where sessions were tied together in the meantime, or would fall apart: then nothing
        is done, and the next case holds what came since.
        """
        open_ = {n: why for n, why in ruling.readmitted.items() if not self._closed(self._edges[n])}
        ruling = replace(ruling, readmitted=open_)
        if not ruling.changes:
            return True
        edges = [ruling.judged(number, edge) for number, edge in enumerate(self._edges)]
        smoother = self._pieces.map
        poses = ruling.continued(edges)
        assert smoother is not None
        if poses.keys() != self._pieces.members(smoother).keys() or _falls_apart(poses, edges):
            self.counters["rulings_overtaken"] += 1
            return False
        self._edges = edges
        retracted = [edges[number] for number in ruling.retracted]
        readmitted = [edges[number] for number in ruling.readmitted]
        for edge in retracted:
            self._reverse(edge, "retracted")
            self._recent.forget(edge)
        for edge in readmitted:
            self._reverse(edge, "readmitted")
        self._pieces.replace_map(smoother.renewed(poses, retracted, readmitted))
        return True

    def take_reversals(self) -> list[LoopClosure]:
        """Closures whose verdict has changed since this was last asked, with their new one."""
        return self._verdicts.take_reversals()

    def settle(self) -> None:
        """Solve to convergence, as before a map is saved; takes as long as a batch solution."""
        for smoother in self._pieces.smoothers():
            smoother.settle()

    def anchored(self, session: int) -> bool:
        """Whether a session has its place in the map."""
        return self._pieces.anchored(session)

    def map_to_odom(self, session: int) -> Pose | None:
        """map_T_odom of a session; None while it has no place in the map, or without odometry.

        It steps when a closure is added, by what the verdict says; smoothing the step is left to
        whoever publishes it.
        """
        return self._pieces.map_to_odom(session)

    def trajectory(self) -> list[GraphNode]:
        """All keyframes that have a place in the map, ascending by id."""
        return [node for node in self.nodes() if node.anchored]

    def nodes(self) -> list[GraphNode]:
        """All keyframes, ascending by id."""
        pieces = self._pieces
        poses = {i: p for smoother in pieces.smoothers() for i, p in pieces.poses(smoother).items()}
        return [
            GraphNode(node.id, node.session, node.stamp_ns, poses[i], self.anchored(node.session))
            for i, node in sorted(pieces.nodes.items())
        ]

    def edges(self) -> list[Edge]:
        """All edges in the order they came; refused closures included."""
        return list(self._edges)

    def chi2(self) -> float:
        """Twice the error of all factors."""
        return sum(smoother.chi2() for smoother in self._pieces.smoothers())

    def latest_covariance(self, session: int) -> Covariance | None:
        """Marginal covariance of map_T_base of a session's newest keyframe; None if unanchored."""
        if not self.anchored(session):
            return None
        known = self._pieces.sessions[session]
        return known.smoother.covariance(known.nodes[-1].id)

    def state(self) -> GraphState:
        """All that is needed to go on in another process."""
        nodes, pieces = self.nodes(), self._pieces
        number = {smoother: i for i, smoother in enumerate(pieces.smoothers())}
        return GraphState(
            ids=np.array([node.id for node in nodes], np.int64),
            sessions=np.array([node.session for node in nodes], np.int64),
            stamps_ns=np.array([node.stamp_ns for node in nodes], np.int64),
            poses=np.array([node.pose for node in nodes]).reshape(-1, 4, 4),
            odometry=_stacked([self._odometry(node.id) for node in nodes]),
            pieces=np.array(
                [number[pieces.sessions[node.session].smoother] for node in nodes], np.int64
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
        graph._pieces.restore(state)
        graph._edges = list(state.edges)
        graph._origin = state.origin
        verified = [edge for edge in state.edges if _is_closed(edge)]
        for edge in verified:
            graph._verdicts.accept(edge)
        for edge in state.edges:
            if edge.is_step:
                graph._recent.follow(Step.of(graph._group, edge))
        graph.counters.update(keyframes=len(state.ids), closures=len(verified))
        return graph

    def _odometry(self, keyframe_id: int) -> Pose | None:
        odometry = self._pieces.nodes[keyframe_id].odometry
        return None if odometry is None else self._group.pose(odometry)

    def _take_fix(self, node: Node, fix: GpsFix) -> None:
        """Tie a keyframe to the globe, once its session has moved far enough to be placed on it."""
        session = self._pieces.sessions[node.session]
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

    def _check_known(self, closure: LoopClosure) -> None:
        if closure.state is not ClosureState.VERIFIED:
            raise ClosureError("not_verified", f"closure is {closure.state.name}, not VERIFIED")
        for keyframe_id in (closure.query_id, closure.reference_id):
            if keyframe_id not in self._pieces.nodes:
                message = f"keyframe {keyframe_id} is not in the graph"
                raise ClosureError("unknown_keyframe", message)
        if closure.query_id == closure.reference_id:
            raise ClosureError("same_keyframe", f"keyframe {closure.query_id} closed to itself")
        if self._verdicts.known(closure.query_id, closure.reference_id):
            message = f"keyframes {closure.reference_id} and {closure.query_id} are closed already"
            raise ClosureError("duplicate", message)

    def _refused(self, reason: str, key: str, chi2: float = float("nan")) -> EdgeVerdict:
        self.counters[f"refused_{key}"] += 1
        return EdgeVerdict(ClosureState.REJECTED, reason, key, chi2, self._gate)

    def _refused_edge(self, edge: Edge, reason: str, key: str) -> EdgeVerdict:
        self._edges.append(replace(edge, state=ClosureState.REJECTED, reason=reason))
        self._verdicts.refuse(edge)
        return self._refused(reason, key, edge.chi2)

    def _accept(self, edge: Edge) -> None:
        self._edges.append(edge)
        self._verdicts.accept(edge)
        self.counters["closures"] += 1

    def _support(self, edge: Edge) -> Support:
        nodes = self._pieces.nodes
        sessions = nodes[edge.from_id].session, nodes[edge.to_id].session
        support, forgotten = self._recent.consider(edge, sessions)
        for old in forgotten:
            if self._verdicts.waits(old):
                reason = "no other closure agreed where it would tie two sessions"
                self._edges.append(replace(old, state=ClosureState.REJECTED, reason=reason))
                self._reverse(self._edges[-1], "no_agreement")
        return support

    def _may_join(self, edge: Edge, support: Support) -> bool:
        """Whether closures of enough keyframes agree, and no more of them tell another story."""
        queries = {edge.to_id, *(other.to_id for other in support.agreeing)}
        return len(queries) >= self.config.joining_closures and not support.outvoted

    def _await(self, edge: Edge, support: Support) -> EdgeVerdict:
        self._verdicts.wait(edge)
        self.counters["closures_awaited"] += 1
        count, needed = len(support.agreeing) + 1, self.config.joining_closures
        reason = f"waits: {count} closures agree where it ties two sessions, {needed} needed"
        if support.outvoted:
            reason = f"waits: {support.rivals} recent closures tie the sessions elsewhere"
        return EdgeVerdict(ClosureState.CANDIDATE, reason, gate=self._gate)

    def _close_loop(self, edge: Edge, awaited: bool = False) -> EdgeVerdict:
        """Add a closure within a piece, unless the graph or recent closures say otherwise.

        One that the graph contradicts has no vote on later ones; the jury hears it again.
        """
        session = self._pieces.session_of(edge.to_id)
        smoother, newest = session.smoother, session.nodes[-1].id
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
        if self._is_wide(correction):
            smoother.relinearize()
            correction = relative(before, smoother.pose(newest))
        return EdgeVerdict(
            ClosureState.VERIFIED,
            f"chi2 {chi2:.1f} <= {self._gate:.1f}",
            chi2=chi2,
            gate=self._gate,
            correction_translation=translation_norm(correction),
            correction_rotation=rotation_angle(correction),
        )

    def _is_wide(self, correction: Pose) -> bool:
        """Whether what the map was linearised by no longer holds."""
        config = self.config
        return (
            translation_norm(correction) > config.relinearize_translation
            or rotation_angle(correction) > config.relinearize_rotation
        )

    def _join(self, edge: Edge) -> EdgeVerdict:
        base, joined = self._pieces.join(edge, self._edges)
        self._accept(edge)
        names, in_map = ", ".join(map(str, joined)), base is self._pieces.map
        where = "the map" if in_map else "another session that is not in the map yet"
        return EdgeVerdict(
            ClosureState.VERIFIED,
            f"ties session {names} to {where}",
            gate=self._gate,
            anchored_sessions=joined if in_map else (),
        )

    def _closed(self, edge: Edge) -> bool:
        """Whether the keyframes of a closure are closed by another."""
        return self._verdicts.known(edge.from_id, edge.to_id)

    def _reverse(self, edge: Edge, key: str) -> None:
        """Note that a closure's verdict has changed to that of its edge."""
        self._verdicts.reverse(edge, key, self._retold(edge))
        self.counters[key] += 1

    def _retold(self, edge: Edge) -> LoopClosure:
        """The closure of an edge that came from a map."""
        query, reference = self._pieces.nodes[edge.to_id], self._pieces.nodes[edge.from_id]
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


def _is_closed(edge: Edge) -> bool:
    return edge.kind is EdgeKind.CLOSURE and edge.state is ClosureState.VERIFIED


def _falls_apart(poses: dict[int, Pose], edges: list[Edge]) -> bool:
    """Whether verified edges no longer tie all keyframes together."""
    inside = [edge for edge in edges if edge.to_id in poses]
    return bool(connected_pieces(np.array(sorted(poses), np.int64), inside).any())


def _stacked(poses: list[Pose | None]) -> NDArray[np.float64]:
    """(N, 4, 4) with NaN where there is no pose."""
    unknown = np.full((4, 4), np.nan)
    return np.array([unknown if pose is None else pose for pose in poses]).reshape(-1, 4, 4)
