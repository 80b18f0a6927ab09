"""All closures of a running map judged anew, together: which to take out, which to let back in.

Closures enter one by one, when little is known of them. Later ones may show that a wrong one is
inside, which then keeps the true ones out. The jury sees them all, refused ones too, and looks for
the set that explains most (``vpr.graph.retrial``).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import gtsam
import numpy as np
from numpy.typing import NDArray

from vpr.graph.case import Case, Ruling
from vpr.graph.edges import Edge, EdgeKind
from vpr.graph.g2o import G2oGraph, Measurement, continued
from vpr.graph.lie_group import LieGroup, lie_group
from vpr.graph.pairwise import consistent_closures
from vpr.graph.pieces import solved_piece
from vpr.graph.retrial import Belief, Retrial, gate_of
from vpr.graph.solution import factor_of
from vpr.records import ClosureState, Covariance

# Holds a session whose closures are all in doubt: anywhere, as far as the closures are concerned.
LOOSE: Covariance = np.diag(np.square([1e4] * 3 + [10.0] * 3))  # m, rad
MIN_SAVING = 1.0  # of cost, half a squared sigma: between equals, what is believed stays


def judge(case: Case) -> Ruling:
    """Judge all closures of a case; takes as long as some batch solutions."""
    group = lie_group(case.config.mode)
    graph = _graph_of(case, group)
    factors = [factor_of(graph, measurement) for measurement in graph.measurements]
    live = gtsam.Values()
    for keyframe_id, pose in zip(case.ids.tolist(), case.poses, strict=True):
        live.insert(keyframe_id, group.element(pose))
    verified = ClosureState.VERIFIED
    believed = frozenset(i for i in graph.closures if case.edges[i].state is verified)
    placed = replace(graph, initial=_placed(case, graph))
    count = len(graph.order)
    best = Retrial(placed, factors, ("pcm", "gnc")).judge(count, believed, live)
    if best.saving < MIN_SAVING:
        return Ruling({}, {}, case.ids, case.poses)
    return _ruling(case, graph, factors, believed, best)


def _graph_of(case: Case, group: LieGroup) -> G2oGraph:
    """The case as a graph whose odometry is trusted; sessions are tied, if loosely."""
    measurements = [_measurement(edge, group) for edge in case.edges]
    tie_of = {edge.to_id: number for number, edge in enumerate(case.edges) if edge.is_step}
    order = case.ids.tolist()
    first = order[0]
    poses = dict(zip(order, case.poses, strict=True))
    for keyframe_id in order[1:]:
        if keyframe_id not in tie_of:  # the first of a later session
            tie_of[keyframe_id] = len(measurements)
            step = np.linalg.inv(poses[first]) @ poses[keyframe_id]
            state, kind = ClosureState.VERIFIED, EdgeKind.CONSTANT_POSITION
            loose = Edge(first, keyframe_id, kind, state, step, LOOSE)
            measurements.append(_measurement(loose, group))
    tree = tuple(tie_of[keyframe_id] for keyframe_id in order[1:])
    return G2oGraph(
        group.dimension,
        {keyframe_id: group.element(pose) for keyframe_id, pose in poses.items()},
        tuple(measurements),
        tuple(order),
        tree,
        frozenset(tree),
    )


def _measurement(edge: Edge, group: LieGroup) -> Measurement:
    information = np.linalg.inv(group.tangent_covariance(edge.covariance, edge.measured))
    element = group.element(edge.measured)
    return Measurement(edge.from_id, edge.to_id, element, (information + information.T) / 2.0)


def _placed(case: Case, graph: G2oGraph) -> dict[int, Any]:
    """Poses by odometry, each session where the largest agreeing set of closures puts it.

    From where a wrong closure put it, a solver might not find the way back.
    """
    session_of = dict(zip(graph.order, case.sessions.tolist(), strict=True))
    poses = _by_odometry(graph, session_of)
    members: dict[int, list[int]] = defaultdict(list)
    for keyframe_id, session in session_of.items():
        members[session].append(keyframe_id)
    between = [
        graph.measurements[i]
        for i in sorted(consistent_closures(graph, graph.closures, gate_of(graph)))
        if session_of[graph.measurements[i].from_id] != session_of[graph.measurements[i].to_id]
    ]
    placed = {session_of[graph.order[0]]}
    progressed = True
    while progressed:
        progressed = False
        for m in between:
            inside = [session_of[end] in placed for end in (m.from_id, m.to_id)]
            if inside[0] == inside[1]:
                continue
            known, other = (m.from_id, m.to_id) if inside[0] else (m.to_id, m.from_id)
            moved = continued(m, other, poses[known]).compose(poses[other].inverse())
            for keyframe_id in members[session_of[other]]:
                poses[keyframe_id] = moved.compose(poses[keyframe_id])
            placed.add(session_of[other])
            progressed = True
    return poses


def _by_odometry(graph: G2oGraph, session_of: dict[int, int]) -> dict[int, Any]:
    """Each session from its first pose."""
    poses = {graph.order[0]: graph.initial[graph.order[0]]}
    for keyframe_id, number in zip(graph.order[1:], graph.tree, strict=True):
        m = graph.measurements[number]
        if session_of[m.from_id] == session_of[keyframe_id]:
            poses[keyframe_id] = continued(m, keyframe_id, poses[m.from_id])
        else:
            poses[keyframe_id] = graph.initial[keyframe_id]
    return poses


def _ruling(
    case: Case, graph: G2oGraph, factors: list[Any], believed: frozenset[int], best: Belief
) -> Ruling:
    gate, kept = f"{gate_of(graph):.1f}", len(best.kept)

    def chi2(number: int) -> float:
        return 2.0 * float(factors[number].error(best.values))

    retracted = {
        case.numbers[i]: f"retracted: chi2 {chi2(i):.1f} > {gate} against the {kept} closures that "
        "agree, once all were judged together"
        for i in sorted(believed - best.kept)
    }
    readmitted = {
        case.numbers[i]: f"readmitted: chi2 {chi2(i):.1f} <= {gate}, one of {kept} closures that "
        "agree, once all were judged together"
        for i in sorted(best.kept - believed)
    }
    group = lie_group(case.config.mode)
    ruling = Ruling(retracted, readmitted, case.ids, group.poses(best.values))
    return replace(ruling, poses=_settled(case, ruling))


def _settled(case: Case, ruling: Ruling) -> NDArray[np.float64]:
    """Poses as the graph itself will solve for them: with its robust noise, and no gate."""
    poses = dict(zip(case.ids.tolist(), ruling.poses, strict=True))
    edges = list(map(ruling.judged, case.numbers, case.edges))
    return solved_piece(case.config, lie_group(case.config.mode), poses, edges).poses()
