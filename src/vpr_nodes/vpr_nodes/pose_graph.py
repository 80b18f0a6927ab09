"""pose_graph: keyframes and verified closures to a corrected trajectory and map -> odom.

Subscribes ``keyframe``, ``loop_closures`` and ``odometry`` (for the stamps of map -> odom);
publishes ``path``, ``graph``, ``markers``, ``map_to_odom`` and, where tf2_msgs is installed,
``/tf``. Owns map -> odom and the ``graph`` part of a map; saves and loads whole maps.
"""

from __future__ import annotations

import time
from collections import deque
from importlib import import_module
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PoseStamped, TransformStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMsg
from visualization_msgs.msg import MarkerArray
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import LoopClosure as LoopClosureMsg
from vpr_interfaces.msg import PoseGraph as PoseGraphMsg

from vpr.config import PoseGraphConfig
from vpr.geometry import quaternion_of
from vpr.graph.pose_graph import PoseGraph
from vpr.messages import closure_of, keyframe_of, stamp_ns
from vpr.records import ClosureState, LoopClosure, Pose
from vpr_nodes.conversions import pose_msg, time_msg
from vpr_nodes.graph_messages import EdgeMessages, graph_msg, marker_array
from vpr_nodes.map_service import MapService
from vpr_nodes.session_service import SessionService
from vpr_nodes.vpr_node import LATCHED, RELIABLE, REMEMBERED, SENSOR, VprNode, run

MAP_FRAME, ODOM_FRAME = "map", "odom"
KEYFRAME_PATIENCE = 5.0  # s a closure waits for the keyframes it ties


class PoseGraphNode(VprNode):
    """The back end as a node."""

    Config = PoseGraphConfig
    config: PoseGraphConfig

    def setup(self) -> None:
        self.adopt(PoseGraph(self.config), "")
        self.maps = MapService(self)
        self.sessions = SessionService(self)
        if self.config.map:
            self.maps.load_graph(Path(self.config.map))
        self.odom_frame = ODOM_FRAME
        self.edge_messages = EdgeMessages()
        self.path_publisher = self.create_lifecycle_publisher(PathMsg, "path", LATCHED)
        self.graph_publisher = self.create_lifecycle_publisher(PoseGraphMsg, "graph", LATCHED)
        self.marker_publisher = self.create_lifecycle_publisher(MarkerArray, "markers", LATCHED)
        self.correction_publisher = self.create_lifecycle_publisher(
            TransformStamped, "map_to_odom", RELIABLE
        )
        self.tf_publisher = self._tf_publisher()

    def adopt(self, graph: PoseGraph, model: str) -> None:
        """Go on with another graph, as one from a map; its sessions are closed."""
        self.graph, self.model = graph, model
        self.session: int | None = None
        self.correction: Pose | None = None
        self.known = {node.id for node in graph.nodes()}
        self.waiting: deque[tuple[float, LoopClosure]] = deque()
        self.changed = bool(self.known)

    def replace_graph(self, graph: PoseGraph) -> None:
        """Go on with an edited form of the graph; the drive continues in its session."""
        self.graph, self.changed = graph, True
        self.correction = None if self.session is None else graph.map_to_odom(self.session)

    def _tf_publisher(self) -> Any:
        try:
            self.tf_message = import_module("tf2_msgs.msg").TFMessage
        except ImportError:
            self.get_logger().info("tf2_msgs is not installed: map -> odom only on map_to_odom")
            return None
        return self.create_lifecycle_publisher(self.tf_message, "/tf", RELIABLE)

    def start(self) -> None:
        self.listen(KeyframeMsg, "keyframe", self._on_keyframe, REMEMBERED, "the graph cannot grow")
        self.listen(LoopClosureMsg, "loop_closures", self._on_closure, RELIABLE)
        self.listen(
            Odometry, "odometry", self._on_odometry, SENSOR, without="map -> odom is not refreshed"
        )
        self.every(self.config.publish_period, self._publish_products)

    def _on_keyframe(self, message: KeyframeMsg) -> None:
        if message.id in self.known:
            return  # told again, as after a deactivation
        keyframe = keyframe_of(message)
        self.timed(self.graph.add_keyframe, keyframe)
        if keyframe.session != self.session:
            self.session, self.correction = keyframe.session, None
            if not self.graph.anchored(keyframe.session):
                self.get_logger().info(
                    f"session {keyframe.session} waits for its first closure to the map"
                )
        self.known.add(keyframe.id)
        self.model = keyframe.model
        self.changed = True
        self._retry_closures()
        self._update_correction(keyframe.stamp_ns)

    def _on_closure(self, message: LoopClosureMsg) -> None:
        closure = closure_of(message)
        if closure.state == ClosureState.VERIFIED:
            self.waiting.append((time.monotonic(), closure))
            self._retry_closures()
            self._update_correction(closure.query_stamp_ns)

    def _retry_closures(self) -> None:
        """Add the closures whose keyframes are here: the topics come in no common order."""
        for _ in range(len(self.waiting)):
            since, closure = self.waiting.popleft()
            here = {closure.query_id, closure.reference_id} <= self.known
            if not here and time.monotonic() - since < KEYFRAME_PATIENCE:
                self.waiting.append((since, closure))
            else:
                self._add_closure(closure)

    def _add_closure(self, closure: LoopClosure) -> None:
        verdict = self.timed(self.graph.add_closure, closure)
        self.changed = True
        name = f"closure {closure.query_id} -> {closure.reference_id}"
        self.health.last_reason = f"{name}: {verdict.reason}"
        if verdict.state != ClosureState.VERIFIED:
            self.health.drop(f"refused_{verdict.rejected_by}", f"{name}: {verdict.reason}")
            return
        self.health.published["closures_in_graph"] += 1
        for session in verdict.anchored_sessions:
            self.get_logger().info(f"session {session} found its place in the map")
        if verdict.correction_translation > self.config.correction_notice:
            self.get_logger().info(
                f"map -> odom corrected by {verdict.correction_translation:.2f} m, "
                f"{verdict.correction_rotation:.3f} rad ({name})"
            )

    def _on_odometry(self, message: Odometry) -> None:
        self.odom_frame = message.header.frame_id or ODOM_FRAME
        if self.correction is not None:
            self._publish_correction(stamp_ns(message.header.stamp))

    def _update_correction(self, stamp: int) -> None:
        if self.session is None:
            return
        self.correction = self.graph.map_to_odom(self.session)
        if self.correction is not None:
            self._publish_correction(stamp)

    def _publish_correction(self, stamp: int) -> None:
        message = transform_msg(self.correction, stamp, MAP_FRAME, self.odom_frame)
        self.correction_publisher.publish(message)
        if self.tf_publisher is not None:
            self.tf_publisher.publish(self.tf_message(transforms=[message]))

    def _publish_products(self) -> None:
        """The whole trajectory, every ``publish_period`` at most: its cost grows with the map."""
        if not self.changed:
            return
        self.changed = False
        nodes, edges = self.graph.nodes(), self.graph.edges()
        stamp = time_msg(max((node.stamp_ns for node in nodes), default=0))
        path = PathMsg()
        path.header.stamp, path.header.frame_id = stamp, MAP_FRAME
        for node in nodes:
            if node.anchored and (self.session is None or node.session == self.session):
                pose = PoseStamped(pose=pose_msg(node.pose))
                pose.header.stamp, pose.header.frame_id = time_msg(node.stamp_ns), MAP_FRAME
                path.poses.append(pose)
        self.path_publisher.publish(path)
        messages = self.edge_messages(edges)
        self.graph_publisher.publish(graph_msg(nodes, messages, self.graph.chi2(), path.header))
        self.marker_publisher.publish(marker_array(nodes, edges, path.header))
        self.health.published["path"] += 1


def transform_msg(pose: Pose, stamp: int, frame: str, child: str) -> TransformStamped:
    """TransformStamped of frame_T_child."""
    message = TransformStamped(child_frame_id=child)
    message.header.stamp, message.header.frame_id = time_msg(stamp), frame
    t, r = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = pose[:3, 3].tolist()
    r.x, r.y, r.z, r.w = quaternion_of(pose).tolist()
    return message


def main() -> None:
    """Process entry point."""
    run(PoseGraphNode)
