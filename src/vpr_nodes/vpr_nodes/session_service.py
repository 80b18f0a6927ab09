"""Sessions of the running map: ``list_sessions``, ``delete_session`` and ``reanchor_session``.

Served by the pose_graph node. What is edited reaches the disk with the next ``save_map``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from vpr_interfaces.msg import Session
from vpr_interfaces.srv import EditSession, ListSessions

from vpr.graph.edges import PoseGraphError
from vpr.graph.pose_graph import PoseGraph
from vpr.graph.sessions import SessionSummary, summaries, untied, without_session
from vpr.messages import closure_of
from vpr.records import ClosureState, LoopClosure
from vpr_nodes.answers import answer_of
from vpr_nodes.conversions import time_msg

if TYPE_CHECKING:
    from vpr_nodes.pose_graph import PoseGraphNode

PLACES_OWNER = "sequence_matching"
RETRACTED = "retracted: the session is to be anchored anew"


class SessionService:
    """The three services of a pose_graph node."""

    def __init__(self, node: PoseGraphNode) -> None:
        self._node = node
        group = ReentrantCallbackGroup()  # a service that waits for another's answer
        self._forget = node.create_client(
            EditSession, f"{PLACES_OWNER}/forget_session", callback_group=group
        )
        node.create_service(ListSessions, "list_sessions", self._list)
        node.create_service(EditSession, "delete_session", self._delete, callback_group=group)
        node.create_service(EditSession, "reanchor_session", self._reanchor)

    def _list(self, _: ListSessions.Request, response: ListSessions.Response) -> Any:
        response.sessions = [_session_msg(s) for s in summaries(self._node.graph.state())]
        return response

    async def _delete(self, request: EditSession.Request, response: EditSession.Response) -> Any:
        session, node = int(request.session), self._node
        try:
            if session == node.session:
                raise PoseGraphError(f"session {session} is being driven: begin another one first")
            without_session(node.graph.state(), session)  # refuses what the graph does not have
            await self._forget_places(session)
            state = without_session(node.graph.state(), session)  # it may have grown meanwhile
            node.replace_graph(PoseGraph.restore(node.config, state))
        except ValueError as error:
            return _refused(node, response, f"session {session} not deleted: {error}")
        node.maps.begin_anew()  # rows are gone: what is on disk cannot merely be added to
        return _done(node, response, f"session {session} deleted")

    async def _forget_places(self, session: int) -> None:
        answer = await answer_of(self._node, self._forget, EditSession.Request(session=session))
        if answer is None:
            raise PoseGraphError(
                f"the {PLACES_OWNER} node is not running: it would go on matching the session"
            )
        if not answer.ok:
            raise PoseGraphError(answer.message)

    def _reanchor(self, request: EditSession.Request, response: EditSession.Response) -> Any:
        session, node = int(request.session), self._node
        try:
            state = untied(node.graph.state(), session, RETRACTED)
            graph = PoseGraph.restore(node.config, state)
            for closure in map(closure_of, request.closures):
                _anchor(graph, closure)
        except ValueError as error:
            return _refused(node, response, f"session {session} not re-anchored: {error}")
        node.replace_graph(graph)
        where = "is in its place" if graph.anchored(session) else "waits for its first closure"
        return _done(node, response, f"session {session} let go of the map and {where}")


def _anchor(graph: PoseGraph, closure: LoopClosure) -> None:
    verdict = graph.add_closure(closure, by_hand=True)
    if verdict.state is not ClosureState.VERIFIED:
        ends = f"{closure.query_id} -> {closure.reference_id}"
        raise PoseGraphError(f"closure {ends} is refused: {verdict.reason}")


def _done(node: PoseGraphNode, response: EditSession.Response, message: str) -> Any:
    response.ok, response.message = True, message
    node.get_logger().info(message)
    return response


def _refused(node: PoseGraphNode, response: EditSession.Response, message: str) -> Any:
    response.ok, response.message = False, message
    node.get_logger().error(message)
    return response


def _session_msg(summary: SessionSummary) -> Session:
    return Session(
        id=summary.session,
        keyframes=summary.keyframes,
        begin=time_msg(summary.first_ns),
        end=time_msg(summary.last_ns),
        anchored=summary.anchored,
        closures=sum(summary.ties.values()),
    )
