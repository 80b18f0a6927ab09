"""pose_graph_tools: odometry and closures as the pose graph that Kimera-style back ends take in.

Subscribes ``keyframe``, ``loop_closures``, ``odometry`` and, with ``keys: host``, the front end's
``pose_graph_incremental``; publishes ``pose_graph``, a few nodes and edges at a time.

With ``keys: own`` we are the front end: each keyframe is a node with an ODOM edge from the one
before, its key counts from 0, and each session is a robot of its own, because Kimera takes every
robot's keys to be linked by odometry. With ``keys: host`` only closures are published, between
the front end's nodes. Refused closures go as REJECTED_LOOPCLOSE.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from std_msgs.msg import Header
from vpr_interfaces.msg import Keyframe as KeyframeMsg

from vpr.config import PoseGraphToolsBridgeConfig
from vpr.geometry import relative
from vpr.messages import keyframe_of, stamp_ns
from vpr.records import Covariance, Keyframe, LoopClosure, Pose
from vpr.uncertain_pose import body_axes
from vpr_bridges.bindings import HostClosure, HostKeyframe
from vpr_bridges.bridge import RETRY_PERIOD, BindingBridge, host_messages, run_bridge
from vpr_nodes.conversions import pose_msg, time_msg
from vpr_nodes.vpr_node import RELIABLE

PACKAGE = "pose_graph_tools_msgs"
KEY_BITS = 48  # of a host keyframe's id here; the robot's number is above them
BACKLOG = 100_000  # messages kept until a back end listens
ROTATION_FIRST = [3, 4, 5, 0, 1, 2]  # GTSAM's order, which Kimera fills the covariance with


class PoseGraphToolsBridgeNode(BindingBridge):
    """Our pose graph in pose_graph_tools' messages as a node."""

    Config = PoseGraphToolsBridgeConfig
    config: PoseGraphToolsBridgeConfig

    def setup(self) -> None:
        super().setup()
        messages = host_messages(PACKAGE)
        self.graph_type: Any = messages.PoseGraph
        self.node_type, self.edge_type = messages.PoseGraphNode, messages.PoseGraphEdge
        self.publisher = self.create_lifecycle_publisher(self.graph_type, "pose_graph", RELIABLE)
        self.backlog: deque[Any] = deque(maxlen=BACKLOG)
        self.last: Keyframe | None = None
        self.robot, self.key = self.config.robot_id - 1, -1
        self.frame = "odom"

    def start(self) -> None:
        super().start()
        self.every(RETRY_PERIOD, self._work_off)
        if self.config.keys == "host":
            self.listen(
                self.graph_type,
                "pose_graph_incremental",
                self._on_host_graph,
                RELIABLE,
                without="the front end has no keyframes",
            )

    def send(self, closure: HostClosure, ours: LoopClosure) -> None:
        self._publish_closure(closure, self.edge_type.LOOPCLOSE)
        self.health.published["loopclose"] += 1
        self.health.last_reason = ours.reason

    def send_rejected(self, closure: HostClosure, ours: LoopClosure) -> None:
        self._publish_closure(closure, self.edge_type.REJECTED_LOOPCLOSE)
        self.health.published["rejected_loopclose"] += 1

    def _publish_closure(self, closure: HostClosure, kind: int) -> None:
        ends = (closure.reference, closure.query)
        edge = self._edge(kind, *ends, closure.relative_pose, closure.covariance)
        self._publish(self.graph_type(header=edge.header, edges=[edge]))

    def _publish(self, message: Any) -> None:
        """In order and from the first node on: a back end that lacks one refuses all after it."""
        self.backlog.append(message)
        self._work_off()

    def _work_off(self) -> None:
        while self.backlog and self.publisher.get_subscription_count() > 0:
            self.publisher.publish(self.backlog.popleft())

    def _on_keyframe(self, message: KeyframeMsg) -> None:
        if self.config.keys == "own":
            self._publish_keyframe(keyframe_of(message))
        super()._on_keyframe(message)

    def _publish_keyframe(self, keyframe: Keyframe) -> None:
        """A node, and the edge of odometry to it; a step without odometry begins a robot anew."""
        if keyframe.odometry is None:
            self.health.drop("no_odometry", f"keyframe {keyframe.id} has no odometry")
            return
        before, self.last = self.last, keyframe
        edges = []
        if before is None or before.session != keyframe.session:
            self.robot, self.key = self.robot + 1, 0
        else:
            self.key += 1
        host = HostKeyframe(self._identity(self.robot, self.key), keyframe.stamp_ns)
        if self.key > 0 and before is not None and before.odometry is not None:
            step = relative(before.odometry, keyframe.odometry)
            sigmas = [self.config.odometry_translation_sigma] * 3
            sigmas += [self.config.odometry_rotation_sigma] * 3
            earlier = HostKeyframe(host.id - 1, before.stamp_ns)
            covariance = np.diag(np.square(sigmas))
            edges.append(self._edge(self.edge_type.ODOM, earlier, host, step, covariance))
        node = self.node_type(
            header=self._header(keyframe.stamp_ns),
            robot_id=self.robot,
            key=self.key,
            pose=pose_msg(keyframe.odometry),
        )
        self._publish(self.graph_type(header=node.header, nodes=[node], edges=edges))
        self.bindings.add_host(host)

    def _on_host_graph(self, message: Any) -> None:
        for node in message.nodes:
            identity = self._identity(node.robot_id, node.key)
            self.bindings.add_host(HostKeyframe(identity, stamp_ns(node.header.stamp)))
        self.retry()

    def _identity(self, robot: int, key: int) -> int:
        return (robot << KEY_BITS) + key

    def _header(self, stamp: int) -> Header:
        return Header(stamp=time_msg(stamp), frame_id=self.frame)

    def _edge(
        self,
        kind: int,
        start: HostKeyframe,
        end: HostKeyframe,
        pose: Pose,
        covariance: Covariance,
    ) -> Any:
        mask = (1 << KEY_BITS) - 1
        ordered = body_axes(pose, covariance)[np.ix_(ROTATION_FIRST, ROTATION_FIRST)]
        return self.edge_type(
            header=self._header(end.stamp_ns),
            key_from=start.id & mask,
            key_to=end.id & mask,
            robot_from=start.id >> KEY_BITS,
            robot_to=end.id >> KEY_BITS,
            type=kind,
            pose=pose_msg(pose),
            covariance=ordered.ravel().tolist(),
        )


def main() -> None:
    """Process entry point."""
    run_bridge(PoseGraphToolsBridgeNode, PACKAGE)
