"""Sessions of a saved graph: told apart, taken out, untied and tied anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vpr.config import PoseGraphConfig
from vpr.geometry import inverse
from vpr.graph.connectivity import connected_pieces, edge_rows
from vpr.graph.edges import Edge, EdgeKind, PoseGraphError, covariance_problem, pose_problem
from vpr.graph.fixes import moved_origin
from vpr.graph.state import GraphState
from vpr.records import ClosureState, Covariance, Pose


@dataclass(frozen=True)
class SessionSummary:
    """One uninterrupted drive in a map.

    Attributes:
        metres: from keyframe to keyframe.
        anchored: whether it has its place in the map.
        ties: verified closures to each other session.
    """

    session: int
    keyframes: int
    first_ns: int
    last_ns: int
    metres: float
    anchored: bool
    ties: dict[int, int]


def summaries(state: GraphState) -> list[SessionSummary]:
    """All sessions of a graph, ascending."""
    ties: dict[int, Counter[int]] = {int(s): Counter() for s in np.unique(state.sessions)}
    session_of = dict(zip(state.ids.tolist(), state.sessions.tolist(), strict=True))
    for edge in state.edges:
        a, b = session_of[edge.from_id], session_of[edge.to_id]
        if a != b and edge.state is ClosureState.VERIFIED:
            ties[a][b] += 1
            ties[b][a] += 1
    result = []
    for session, others in ties.items():
        rows = state.sessions == session
        positions, stamps = state.poses[rows, :3, 3], state.stamps_ns[rows]
        metres = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
        anchored = bool((state.pieces[rows] == 0).all())
        span = int(stamps.min()), int(stamps.max())
        result.append(
            SessionSummary(session, int(rows.sum()), *span, metres, anchored, dict(others))
        )
    return result


def without_session(state: GraphState, session: int) -> GraphState:
    """The graph without a session's keyframes and all their edges.

    What only this session tied to the map waits for its next closure.

    Raises:
        PoseGraphError: there is no such session.
    """
    gone = _rows_of(state, session)
    lost = set(state.ids[gone].tolist())
    edges = tuple(e for e in state.edges if e.from_id not in lost and e.to_id not in lost)
    kept = replace(
        state,
        ids=state.ids[~gone],
        sessions=state.sessions[~gone],
        stamps_ns=state.stamps_ns[~gone],
        pieces=state.pieces[~gone],
        poses=state.poses[~gone],
        odometry=state.odometry[~gone],
        edges=edges,
    )
    return _connected(kept, np.ones(len(kept.ids), bool))


def untied(state: GraphState, session: int, reason: str) -> GraphState:
    """The graph with the closures refused that tie a session to the map; it waits for its next one.

    Sessions that hang on this one alone go with it.

    Raises:
        PoseGraphError: there is no such session.
    """
    own = _rows_of(state, session)
    inner = [
        edge
        for edge, (a, b) in zip(state.edges, edge_rows(state.ids, state.edges), strict=True)
        if not own[a] and not own[b]
    ]
    labels = connected_pieces(state.ids, inner)
    stays = labels == labels[_root(state, ~own)]

    def refused(edge: Edge, rows: NDArray[np.int64]) -> Edge:
        ties = own[rows].any() and stays[rows].any()
        if not ties or edge.state is not ClosureState.VERIFIED:
            return edge
        return replace(edge, state=ClosureState.REJECTED, reason=reason)

    edges = tuple(map(refused, state.edges, edge_rows(state.ids, state.edges)))
    return _connected(replace(state, edges=edges), ~own)


def tied(state: GraphState, session: int, pose: Pose, covariance: Covariance) -> GraphState:
    """The graph with an unanchored session placed by hand.

    Args:
        pose: map_T_base of the session's first keyframe.
        covariance: of that pose, geometry_msgs order.

    Raises:
        PoseGraphError: no such session, already anchored, nothing to tie it to, or a pose or
            covariance that can't be used.
    """
    if problem := pose_problem(pose) or covariance_problem(covariance):
        raise PoseGraphError(problem)
    own = _rows_of(state, session)
    anchored = np.flatnonzero(state.pieces == 0)
    first = int(np.flatnonzero(own)[0])
    piece = state.pieces[first]
    if piece == 0:
        raise PoseGraphError(f"session {session} is the map, or tied to it already")
    moved = pose @ inverse(state.poses[first])
    poses = np.where((state.pieces == piece)[:, None, None], moved @ state.poses, state.poses)
    distances = np.linalg.norm(poses[anchored, :3, 3] - pose[:3, 3], axis=1)
    nearest = int(anchored[distances.argmin()])
    edge = Edge(
        from_id=int(state.ids[nearest]),
        to_id=int(state.ids[first]),
        kind=EdgeKind.CLOSURE,
        state=ClosureState.VERIFIED,
        measured=inverse(poses[nearest]) @ pose,
        covariance=covariance,
        reason="placed by hand",
    )
    return _connected(replace(state, poses=poses, edges=(*state.edges, edge)), ~own)


def placement_covariance(config: PoseGraphConfig) -> Covariance:
    """How well a pose given by hand is known: as a closure that only says "the same place"."""
    sigmas = [config.weak_translation_sigma] * 3 + [config.weak_rotation_sigma] * 3
    return np.diag(np.square(sigmas))


def joined(first: GraphState, second: GraphState) -> GraphState:
    """Both graphs in one, the second's sessions not yet tied to the first's.

    Ids and sessions of the second are those of ``offsets`` higher than they were.
    """
    id_offset, session_offset = offsets(first)

    def renumbered(edge: Edge) -> Edge:
        if edge.kind is EdgeKind.FIX and first.origin and second.origin:
            edge = moved_origin(edge, second.origin, first.origin)
        return replace(edge, from_id=edge.from_id + id_offset, to_id=edge.to_id + id_offset)

    def both(name: str, offset: int = 0) -> NDArray[np.int64]:
        return np.concatenate([getattr(first, name), getattr(second, name) + offset])

    return replace(
        first,
        ids=both("ids", id_offset),
        sessions=both("sessions", session_offset),
        stamps_ns=both("stamps_ns"),
        pieces=both("pieces", int(first.pieces.max(initial=-1)) + 1),
        poses=np.concatenate([first.poses, second.poses]),
        odometry=np.concatenate([first.odometry, second.odometry]),
        edges=first.edges + tuple(map(renumbered, second.edges)),
        origin=first.origin or second.origin,
    )


def offsets(first: GraphState) -> tuple[int, int]:
    """What is added to keyframe ids and to sessions of a graph that comes behind this one."""
    return int(first.ids.max(initial=-1)) + 1, int(first.sessions.max(initial=-1)) + 1


def _rows_of(state: GraphState, session: int) -> NDArray[np.bool_]:
    rows = np.asarray(state.sessions == session)
    if not rows.any():
        known = ", ".join(str(s) for s in np.unique(state.sessions).tolist()) or "none"
        raise PoseGraphError(f"the map has no session {session} (it has: {known})")
    return rows


def _connected(state: GraphState, preferred: NDArray[np.bool_]) -> GraphState:
    """Pieces numbered anew by what is still tied together; the map is where ``_root`` is."""
    if len(state.ids) == 0:
        return state
    labels = connected_pieces(state.ids, state.edges)
    root = labels[_root(state, preferred)]
    order = [root, *(label for label in dict.fromkeys(labels.tolist()) if label != root)]
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return replace(state, pieces=number[labels])


def _root(state: GraphState, preferred: NDArray[np.bool_]) -> int:
    """Row of the oldest keyframe in the map, a preferred one where there is any."""
    return int(np.argmin((state.pieces != 0) * 2 + ~preferred))
