"""The pose graph as messages: for programs (PoseGraph), for RViz and Foxglove (Path, markers)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from geometry_msgs.msg import Point, PoseStamped
from geometry_msgs.msg import Pose as PoseMsg
from nav_msgs.msg import Path
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray
from vpr_interfaces.msg import PoseGraph, PoseGraphEdge, PoseGraphNode

from vpr.geometry import poses_from_quaternions
from vpr.graph.edges import Edge, EdgeKind, GraphNode
from vpr.messages import stamp_ns
from vpr.records import ClosureState, Pose
from vpr.verification.expected_views import MapPoses
from vpr_nodes.conversions import pose_with_covariance_msg, time_msg

ODOMETRY_COLOUR = ColorRGBA(r=0.45, g=0.55, b=0.65, a=1.0)
CLOSURE_COLOUR = ColorRGBA(r=0.1, g=0.75, b=0.35, a=1.0)
REFUSED_COLOUR = ColorRGBA(r=0.9, g=0.25, b=0.2, a=0.8)
LINE_WIDTH = 0.08  # m


def _kind(edge: Edge) -> int:
    if edge.state == ClosureState.REJECTED:
        return int(PoseGraphEdge.REJECTED_CLOSURE)
    closure = edge.kind == EdgeKind.CLOSURE
    return int(PoseGraphEdge.CLOSURE if closure else PoseGraphEdge.ODOMETRY)


class EdgeMessages:
    """Messages of edges, made once each: a graph is published again and again."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Edge, PoseGraphEdge]] = {}  # the edge is kept: ids are reused

    def __call__(self, edges: Sequence[Edge]) -> list[PoseGraphEdge]:
        """Messages in the order of the edges; those of edges no longer given are forgotten."""
        made = {id(edge): self._made.get(id(edge)) or (edge, _edge_msg(edge)) for edge in edges}
        self._made = made
        return [message for _, message in made.values()]


def path_msg(
    nodes: Sequence[GraphNode], poses: Sequence[PoseMsg], session: int | None, header: Header
) -> Path:
    """The anchored nodes of a session, or of all, with their poses' messages."""
    path = Path(header=header)
    for node, pose in zip(nodes, poses, strict=True):
        if node.anchored and (session is None or node.session == session):
            stamped = PoseStamped(pose=pose)
            stamped.header.stamp = time_msg(node.stamp_ns)
            stamped.header.frame_id = header.frame_id
            path.poses.append(stamped)
    return path


def graph_msg(
    nodes: Sequence[GraphNode],
    poses: Sequence[PoseMsg],
    edges: list[PoseGraphEdge],
    chi2: float,
    header: Header,
) -> PoseGraph:
    """The whole graph as a message; ``poses`` are the messages of the nodes' poses."""
    return PoseGraph(
        header=header,
        chi2=float(chi2),
        nodes=[
            PoseGraphNode(
                id=node.id,
                session=node.session,
                stamp=time_msg(node.stamp_ns),
                pose=pose,
                anchored=node.anchored,
            )
            for node, pose in zip(nodes, poses, strict=True)
        ],
        edges=edges,
    )


def map_poses_of(message: PoseGraph) -> MapPoses:
    """Where the graph has the keyframes with a place in the map, and which closures tie.

    Raises:
        ValueError: a pose that is not finite or not a rotation.
    """
    nodes = [node for node in message.nodes if node.anchored]
    places = [(p.x, p.y, p.z) for p in (node.pose.position for node in nodes)]
    turns = [(q.x, q.y, q.z, q.w) for q in (node.pose.orientation for node in nodes)]
    closures = [edge for edge in message.edges if edge.kind == PoseGraphEdge.CLOSURE]
    return MapPoses(
        ids=np.array([node.id for node in nodes], np.int64),
        sessions=np.array([node.session for node in nodes], np.int64),
        stamps_ns=np.array([stamp_ns(node.stamp) for node in nodes], np.int64),
        poses=poses_from_quaternions(places, turns),
        tied=np.unique(np.array([(e.from_id, e.to_id) for e in closures], np.int64)),
    )


def _edge_msg(edge: Edge) -> PoseGraphEdge:
    return PoseGraphEdge(
        from_id=edge.from_id,
        to_id=edge.to_id,
        kind=_kind(edge),
        reason=edge.reason,
        relative_pose=pose_with_covariance_msg(edge.measured, edge.covariance),
    )


def _lines(
    name: str, identity: int, edges: Iterable[Edge], poses: dict[int, Pose], colour: ColorRGBA
) -> Marker:
    marker = Marker(ns=name, id=identity, type=Marker.LINE_LIST, action=Marker.ADD, color=colour)
    marker.pose.orientation.w = 1.0
    marker.scale.x = LINE_WIDTH
    for edge in edges:
        if edge.from_id in poses and edge.to_id in poses:
            for end in (edge.from_id, edge.to_id):
                x, y, z = poses[end][:3, 3].tolist()
                marker.points.append(Point(x=x, y=y, z=z))
    return marker


def marker_array(nodes: Sequence[GraphNode], edges: Sequence[Edge], header: Header) -> MarkerArray:
    """Odometry, closures and refused closures as three line lists in the map frame."""
    poses = {node.id: node.pose for node in nodes if node.anchored}
    groups = (
        ("odometry", int(PoseGraphEdge.ODOMETRY), ODOMETRY_COLOUR),
        ("closures", int(PoseGraphEdge.CLOSURE), CLOSURE_COLOUR),
        ("refused", int(PoseGraphEdge.REJECTED_CLOSURE), REFUSED_COLOUR),
    )
    markers = []
    for identity, (name, kind, colour) in enumerate(groups):
        chosen = (edge for edge in edges if _kind(edge) == kind)
        marker = _lines(name, identity, chosen, poses, colour)
        marker.header = header
        if not marker.points:
            marker.action = Marker.DELETE
        markers.append(marker)
    return MarkerArray(markers=markers)
