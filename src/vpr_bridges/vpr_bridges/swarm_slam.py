"""Swarm-SLAM: closures within one robot's own trajectory to its back end.

Subscribes ``keyframe``, ``loop_closures``, ``odometry`` and Swarm-SLAM's ``cslam/keyframe_odom``
(its keyframes); publishes ``cslam/intra_robot_loop_closure``. Its back end asserts that both
keyframes are known to it, so a closure is sent only between keyframes it has published.
"""

from __future__ import annotations

from typing import Any

from vpr.config import SwarmSlamBridgeConfig
from vpr.messages import stamp_ns
from vpr.records import LoopClosure
from vpr_bridges.bindings import HostClosure, HostKeyframe
from vpr_bridges.bridge import BindingBridge, host_messages, run_bridge
from vpr_bridges.rtabmap import transform_msg
from vpr_nodes.vpr_node import RELIABLE

PACKAGE = "cslam_common_interfaces"


class SwarmSlamBridgeNode(BindingBridge):
    """Loop closures for Swarm-SLAM as a node; runs in the robot's namespace, as Swarm-SLAM does."""

    Config = SwarmSlamBridgeConfig
    config: SwarmSlamBridgeConfig

    def setup(self) -> None:
        super().setup()
        messages = host_messages(PACKAGE)
        self.keyframe_type: Any = messages.KeyframeOdom
        self.closure_type: Any = messages.IntraRobotLoopClosure
        self.publisher = self.create_lifecycle_publisher(
            self.closure_type, "cslam/intra_robot_loop_closure", RELIABLE
        )

    def start(self) -> None:
        super().start()
        self.listen(
            self.keyframe_type,
            "cslam/keyframe_odom",
            self._on_host_keyframe,
            RELIABLE,
            without="Swarm-SLAM has no keyframes",
        )

    def send(self, closure: HostClosure, ours: LoopClosure) -> None:
        message = self.closure_type(
            keyframe0_id=closure.reference.id,
            keyframe1_id=closure.query.id,
            success=True,
            transform=transform_msg(closure.relative_pose),  # pose of 1 in 0
        )
        self.publisher.publish(message)
        self.health.published["intra_robot_loop_closure"] += 1
        self.health.last_reason = ours.reason

    def _on_host_keyframe(self, message: Any) -> None:
        stamp = stamp_ns(message.odom.header.stamp)
        self.bindings.add_host(HostKeyframe(int(message.id), stamp))
        self.retry()


def main() -> None:
    """Process entry point."""
    run_bridge(SwarmSlamBridgeNode, PACKAGE)
