"""pose_graph: keyframes and verified closures to a corrected trajectory and map -> odom.

Subscribes ``keyframe``, ``loop_closures`` and ``odometry`` (for the stamps of map -> odom);
publishes ``path``, ``graph``, ``markers``, ``map_to_odom`` and, where tf2_msgs is installed,
``/tf``. Owns map -> odom and the ``graph`` part of a map; saves and loads whole maps.

What it makes of closures is published on ``loop_closures`` too: REJECTED where the graph refuses
one, or takes it out later; VERIFIED where it lets in one that it had refused. ``map_to_odom``
follows the graph no faster than allowed. A larger step is flagged: logged, counted, and announced
on ``map_to_odom_jump`` as the transform that takes poses in the map from where they were by the old
map -> odom to where they are by the new.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMsg
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import LoopClosure as LoopClosureMsg
from vpr_interfaces.msg import PoseGraph as PoseGraphMsg

from vpr.config import PoseGraphConfig
from vpr.geometry import inverse, quaternion_of, rotation_angle, translation_norm
from vpr.graph.correction import SmoothCorrection
from vpr.graph.edges import EdgeKind, EdgeVerdict
from vpr.graph.jury_process import JuryError, JuryProcess
from vpr.graph.pose_graph import PoseGraph
from vpr.messages import closure_of, keyframe_of, pose_of, stamp_ns
from vpr.records import ClosureState, LoopClosure, Pose
from vpr_nodes.conversions import closure_msg, pose_msg, time_msg
from vpr_nodes.graph_messages import EdgeMessages, graph_msg, marker_array, path_msg
from vpr_nodes.map_service import MapService
from vpr_nodes.session_service import SessionService
from vpr_nodes.vpr_node import LATCHED, RELIABLE, REMEMBERED, SENSOR, VprNode, run

MAP_FRAME, ODOM_FRAME = "map", "odom"
REST = 9.0  # times as long as publishing the whole map took until it is published again
KEYFRAME_PATIENCE = 5.0  # s a closure waits for the keyframes it ties
NOT_A_VERDICT = {"duplicate", "not_verified"}  # refusals that say nothing about the closure itself


class PoseGraphNode(VprNode):
    """The back end as a node."""

    Config = PoseGraphConfig
    config: PoseGraphConfig

    def setup(self) -> None:
        self.smooth = SmoothCorrection(self.config)
        self.jury = JuryProcess()
        self.adopt(PoseGraph(self.config), "")
        self.maps = MapService(self)
        self.sessions = SessionService(self)
        if self.config.map:
            self.maps.load_graph(Path(self.config.map))
        self.odom_frame, self.camera_frame = ODOM_FRAME, ""
        self.edge_messages = EdgeMessages()
        self.rest_until = 0.0  # of publishing, by the monotonic clock
        self.path_publisher = self.create_lifecycle_publisher(PathMsg, "path", LATCHED)
        self.graph_publisher = self.create_lifecycle_publisher(PoseGraphMsg, "graph", LATCHED)
        self.marker_publisher = self.create_lifecycle_publisher(MarkerArray, "markers", LATCHED)
        self.correction_publisher = self.create_lifecycle_publisher(
            TransformStamped, "map_to_odom", RELIABLE
        )
        self.jump_publisher = self.create_lifecycle_publisher(
            TransformStamped, "map_to_odom_jump", RELIABLE
        )
        self.closure_publisher = self.create_lifecycle_publisher(
            LoopClosureMsg, "loop_closures", RELIABLE
        )
        self.tf_publisher = self._tf_publisher()

    def adopt(self, graph: PoseGraph, model: str) -> None:
        """Go on with another graph, as one from a map; its sessions are closed."""
        self.graph, self.model = graph, model
        self.session: int | None = None
        self.correction: Pose | None = None
        self.odometry: Pose | None = None  # newest odom_T_base
        self.smooth.leave_session()
        self.known = {node.id: node.stamp_ns for node in graph.nodes()}
        self.judged: PoseGraph | None = None  # whose closures the jury has
        self.readmitted: set[tuple[int, int]] = set()  # published here, to be heard again
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
        if self.config.retrial_period > 0.0:
            self.every(self.config.retrial_period, self._consult_jury)

    def _on_keyframe(self, message: KeyframeMsg) -> None:
        if self.known.get(message.id) == stamp_ns(message.header.stamp):
            return  # told again, as after a deactivation
        keyframe = keyframe_of(message)
        self.timed(self.graph.add_keyframe, keyframe)
        if keyframe.session != self.session:
            self.session, self.correction = keyframe.session, None
            if not self.graph.anchored(keyframe.session):
                self.get_logger().info(
                    f"session {keyframe.session} waits for closures that tie it to the map"
                )
        self.known[keyframe.id] = keyframe.stamp_ns
        self.odometry = keyframe.odometry if keyframe.odometry is not None else self.odometry
        self.model = keyframe.model
        self.changed = True
        self._retry_closures()
        self._update_correction(keyframe.stamp_ns)

    def _on_closure(self, message: LoopClosureMsg) -> None:
        closure = closure_of(message)
        pair = closure.query_id, closure.reference_id
        if pair in self.readmitted:
            self.readmitted.discard(pair)
        elif closure.state == ClosureState.VERIFIED:
            self.camera_frame = message.header.frame_id
            self.waiting.append((time.monotonic(), closure))
            self._retry_closures()
            self._update_correction(closure.query_stamp_ns)

    def _retry_closures(self) -> None:
        """Add the closures whose keyframes are here: the topics come in no common order."""
        for _ in range(len(self.waiting)):
            since, closure = self.waiting.popleft()
            here = {closure.query_id, closure.reference_id} <= self.known.keys()
            if not here and time.monotonic() - since < KEYFRAME_PATIENCE:
                self.waiting.append((since, closure))
            else:
                self._add_closure(closure)

    def _add_closure(self, closure: LoopClosure) -> None:
        verdict = self.timed(self.graph.add_closure, closure)
        self.changed = True
        name = f"closure {closure.query_id} -> {closure.reference_id}"
        self.health.last_reason = f"{name}: {verdict.reason}"
        if verdict.state == ClosureState.REJECTED:
            self._refuse(closure, verdict)
        elif verdict.state == ClosureState.VERIFIED:
            self.health.published["closures_in_graph"] += 1
        for session in verdict.anchored_sessions:
            self.get_logger().info(f"session {session} found its place in the map")
        if verdict.correction_translation > self.config.correction_notice:
            self.get_logger().info(
                f"map -> odom corrected by {verdict.correction_translation:.2f} m, "
                f"{verdict.correction_rotation:.3f} rad ({name})"
            )
        self._publish_reversals()

    def _refuse(self, closure: LoopClosure, verdict: EdgeVerdict) -> None:
        name = f"closure {closure.query_id} -> {closure.reference_id}"
        self.health.drop(f"refused_{verdict.rejected_by}", f"{name}: {verdict.reason}")
        if verdict.rejected_by not in NOT_A_VERDICT:
            self._publish_closure(
                replace(
                    closure,
                    state=ClosureState.REJECTED,
                    reason=verdict.reason,
                    rejected_by=verdict.rejected_by,
                )
            )

    def _publish_closure(self, closure: LoopClosure) -> None:
        self.closure_publisher.publish(closure_msg(closure, self.camera_frame))
        self.health.published[f"closures {closure.state.name.lower()}"] += 1

    def _consult_jury(self) -> None:
        """Give the jury what came since it was last asked, or do what it said."""
        if not self.jury.busy:
            case = self.graph.case()
            if case is not None:
                self.judged = self.graph
                self.jury.give(case)
            return
        try:
            ruling = self.jury.take()
        except JuryError as error:
            self.health.drop("no_ruling", str(error))
            self.get_logger().warning(str(error))
            return
        if ruling is None or self.judged is not self.graph or not ruling.changes:
            return
        self.timed(self.graph.follow, ruling)
        self.changed = True
        self._publish_reversals()
        if self.session is not None:
            self.correction = self.graph.map_to_odom(self.session)

    def _publish_reversals(self) -> None:
        """Tell everybody which closures have another verdict now."""
        for closure in self.graph.take_reversals():
            if closure.state == ClosureState.VERIFIED:
                self.readmitted.add((closure.query_id, closure.reference_id))
            self._publish_closure(closure)
            name = f"closure {closure.query_id} -> {closure.reference_id}"
            self.health.last_reason = f"{name}: {closure.reason}"
            self.get_logger().info(self.health.last_reason)

    def _on_odometry(self, message: Odometry) -> None:
        self.odom_frame = message.header.frame_id or ODOM_FRAME
        self.odometry = pose_of(message.pose.pose)
        self._publish_correction(stamp_ns(message.header.stamp))

    def _update_correction(self, stamp: int) -> None:
        if self.session is not None:
            self.correction = self.graph.map_to_odom(self.session)
            self._publish_correction(stamp)

    def _publish_correction(self, stamp: int) -> None:
        if self.correction is None or self.odometry is None or self.session is None:
            return
        step = self.smooth.follow(self.session, self.correction, self.odometry, stamp)
        if step.jumped_from is not None:
            self._announce_jump(step.pose @ inverse(step.jumped_from), stamp)
        self.health.notes["map_to_odom_behind_m"] = f"{step.left_translation:.3f}"
        self.health.notes["map_to_odom_behind_rad"] = f"{step.left_rotation:.4f}"
        message = transform_msg(step.pose, stamp, MAP_FRAME, self.odom_frame)
        self.correction_publisher.publish(message)
        if self.tf_publisher is not None:
            self.tf_publisher.publish(self.tf_message(transforms=[message]))

    def _announce_jump(self, new_T_old: Pose, stamp: int) -> None:
        self.jump_publisher.publish(transform_msg(new_T_old, stamp, MAP_FRAME, MAP_FRAME))
        self.health.published["map_to_odom_jump"] += 1
        self.get_logger().warning(
            f"map -> odom jumps by {translation_norm(new_T_old):.2f} m, "
            f"{rotation_angle(new_T_old):.3f} rad: the robot is found somewhere else in the map"
        )

    def _publish_products(self) -> None:
        """The whole trajectory, whose cost grows with the map, in a small share of the time."""
        began = time.monotonic()
        if not self.changed or began < self.rest_until:
            return
        self.changed = False
        self.health.notes.update(self.graph.counters)
        nodes = self.graph.nodes()
        edges = [edge for edge in self.graph.edges() if edge.kind != EdgeKind.FIX]
        stamp = time_msg(max((node.stamp_ns for node in nodes), default=0))
        header = Header(stamp=stamp, frame_id=MAP_FRAME)
        poses = [pose_msg(node.pose) for node in nodes]
        self.path_publisher.publish(path_msg(nodes, poses, self.session, header))
        messages, chi2 = self.edge_messages(edges), self.graph.chi2()
        self.graph_publisher.publish(graph_msg(nodes, poses, messages, chi2, header))
        self.marker_publisher.publish(marker_array(nodes, edges, header))
        self.health.published["path"] += 1
        now = time.monotonic()
        self.rest_until = now + REST * (now - began)


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
