"""RTAB-Map: closures to its ``add_link`` service, and a look into its graph whether they stayed.

Subscribes ``keyframe``, ``loop_closures``, ``odometry``, and of RTAB-Map ``rtabmap/info`` (its
keyframes: ``ref_id`` at the stamp) and ``rtabmap/mapGraph``. Calls ``rtabmap/add_link`` and, for
the read-back, ``rtabmap/publish_map``: add_link's answer is empty, RTAB-Map refuses in silence.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Transform
from rclpy.qos import QoSProfile, QoSReliabilityPolicy

from vpr.config import RtabmapBridgeConfig
from vpr.geometry import quaternion_of
from vpr.messages import stamp_ns
from vpr.records import LoopClosure, Pose
from vpr.uncertain_pose import body_axes, inverted
from vpr_bridges.bindings import HostClosure, HostKeyframe
from vpr_bridges.bridge import BindingBridge, host_messages, run_bridge

PACKAGE = "rtabmap_msgs"
LINK_TYPES = {"global": 1, "user": 4}  # rtabmap::Link::kGlobalClosure, kUserClosure
READ_BACK_PERIOD = 0.2  # s
FROM_HOST = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.BEST_EFFORT)


@dataclass
class _Sent:
    """A link that is not yet seen in the graph."""

    since: float
    name: str


class RtabmapBridgeNode(BindingBridge):
    """Loop closures for RTAB-Map as a node."""

    Config = RtabmapBridgeConfig
    config: RtabmapBridgeConfig

    def setup(self) -> None:
        super().setup()
        messages, services = host_messages(PACKAGE), host_messages(PACKAGE, "srv")
        self.link_type: Any = messages.Link
        self.info_type, self.graph_type = messages.Info, messages.MapGraph
        self.add_link, self.publish_map = services.AddLink, services.PublishMap
        self.add_link_client = self.create_client(self.add_link, "rtabmap/add_link")
        self.publish_map_client = self.create_client(self.publish_map, "rtabmap/publish_map")
        self.sent: dict[tuple[int, int], _Sent] = {}
        self.stamps: dict[int, int] = {}  # of nodes that may yet come into the graph

    def start(self) -> None:
        super().start()
        self.listen(
            self.info_type, "rtabmap/info", self._on_info, FROM_HOST, "RTAB-Map has no keyframes"
        )
        self.listen(self.graph_type, "rtabmap/mapGraph", self._on_graph, FROM_HOST)
        self.every(READ_BACK_PERIOD, self._read_back)

    def send(self, closure: HostClosure, ours: LoopClosure) -> None:
        if not self.add_link_client.service_is_ready():
            self.health.drop("no_service", "RTAB-Map's add_link service is not there")
            return
        ends = (closure.query.id, closure.reference.id)
        if ends in self.sent:
            return
        # as RTAB-Map's own: from the new keyframe to the old one
        pose, covariance = inverted(closure.relative_pose, closure.covariance)
        information = np.linalg.inv(body_axes(pose, covariance))
        link = self.link_type(
            from_id=ends[0],
            to_id=ends[1],
            type=LINK_TYPES[self.config.link_type],
            transform=transform_msg(pose),
            information=information.ravel().tolist(),
        )
        self.sent[ends] = _Sent(time.monotonic(), f"link {ends[0]} -> {ends[1]}")
        answer = self.add_link_client.call_async(self.add_link.Request(link=link))
        answer.add_done_callback(lambda _: self.guard(self._ask_for_graph))
        self.health.published["add_link"] += 1
        self.health.last_reason = f"{self.sent[ends].name}: {ours.reason}"

    def _on_info(self, message: Any) -> None:
        if message.ref_id > 0:
            self.stamps.setdefault(int(message.ref_id), stamp_ns(message.header.stamp))

    def _ask_for_graph(self) -> None:
        """The graph as RTAB-Map has it now, rather than with its next keyframe."""
        if self.publish_map_client.service_is_ready():
            request = self.publish_map.Request(global_map=True, optimized=True, graph_only=True)
            self.publish_map_client.call_async(request)

    def _on_graph(self, message: Any) -> None:
        self._adopt_nodes({int(node) for node in message.poses_id})
        kept = {frozenset((link.from_id, link.to_id)) for link in message.links}
        for ends in [ends for ends in self.sent if frozenset(ends) in kept]:
            name = self.sent.pop(ends).name
            self.health.published["links_in_graph"] += 1
            self.health.last_reason = f"{name} is in RTAB-Map's graph"
            self.get_logger().info(f"{name} is in RTAB-Map's graph")

    def _adopt_nodes(self, nodes: set[int]) -> None:
        """Nodes that are in the graph are keyframes; those passed over at a standstill are not."""
        newest = max(nodes, default=0)
        for node in sorted(self.stamps):
            if node > newest:
                break
            stamp = self.stamps.pop(node)
            if node in nodes:
                self.bindings.add_host(HostKeyframe(node, stamp))
        self.retry()

    def _read_back(self) -> None:
        now = time.monotonic()
        for ends, sent in list(self.sent.items()):
            if now - sent.since > self.config.read_back_timeout:
                del self.sent[ends]
                message = f"{sent.name} is not in RTAB-Map's graph: it refused it, see its log"
                self.health.drop("refused_by_host", message)
                self.get_logger().warning(message)
        if self.sent:
            self._ask_for_graph()


def transform_msg(pose: Pose) -> Transform:
    """Transform of a 4x4 pose."""
    message = Transform()
    t, r = message.translation, message.rotation
    t.x, t.y, t.z = pose[:3, 3].tolist()
    r.x, r.y, r.z, r.w = quaternion_of(pose).tolist()
    return message


def main() -> None:
    """Process entry point."""
    run_bridge(RtabmapBridgeNode, PACKAGE)
