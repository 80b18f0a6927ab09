"""VINS-Fusion: a drop-in for its loop_fusion node.

Subscribes what loop_fusion does: ``vins_estimator/{odometry,keyframe_pose,extrinsic}`` (Odometry)
and ``vins_estimator/{keyframe_point,margin_cloud}`` (PointCloud); the image goes to our own nodes.
Publishes what it does: ``loop_fusion/odometry_rect``, ``pose_graph_path``, ``path_1`` ... for each
session, ``base_path``, ``pose_graph``, ``camera_pose_visual``, ``point_cloud_loop_rect`` and
``margin_cloud_loop_rect``, all in the world frame. The correction is our pose graph's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Point32, PoseStamped, TransformStamped
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import PointCloud
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import PoseGraph as PoseGraphMsg

from vpr.config import VinsFusionBridgeConfig
from vpr.geometry import pose_from_quaternion
from vpr.messages import keyframe_of, pose_of, stamp_ns
from vpr.records import Pose
from vpr_bridges.bridge import run_bridge
from vpr_bridges.corrections import Corrections
from vpr_nodes.conversions import pose_msg, time_msg
from vpr_nodes.vpr_node import LATCHED, RELIABLE, REMEMBERED, SENSOR, VprNode

OURS, THEIRS = "loop_fusion", "vins_estimator"
MAX_PATHS = 9  # loop_fusion's path_1 .. path_9
FRUSTUM = 0.3  # m; size of the camera that is drawn


class VinsFusionBridgeNode(VprNode):
    """loop_fusion's place in VINS-Fusion as a node."""

    Config = VinsFusionBridgeConfig
    config: VinsFusionBridgeConfig

    def setup(self) -> None:
        self.corrections = Corrections()
        self.drift = np.eye(4)  # world_T_odom
        self.body_T_camera: Pose | None = None
        self.session: int | None = None
        self.keyframes: list[tuple[int, Pose]] = []
        self.graph: PoseGraphMsg | None = None
        self.changed = False
        self.rectified = self._publisher(Odometry, "odometry_rect")
        self.points = self._publisher(PointCloud, "point_cloud_loop_rect")
        self.margin = self._publisher(PointCloud, "margin_cloud_loop_rect")
        self.camera = self._publisher(MarkerArray, "camera_pose_visual")
        self.edges = self._publisher(MarkerArray, "pose_graph")
        self.path = self._publisher(Path, "pose_graph_path")
        self.base_path = self._publisher(Path, "base_path")
        self.paths = [self._publisher(Path, f"path_{i + 1}") for i in range(MAX_PATHS)]

    def _publisher(self, message_type: type, name: str) -> Any:
        return self.create_lifecycle_publisher(message_type, f"{OURS}/{name}", RELIABLE)

    def start(self) -> None:
        self.listen(Odometry, f"{THEIRS}/odometry", self._on_odometry, SENSOR, "nothing to rectify")
        self.listen(Odometry, f"{THEIRS}/keyframe_pose", self._on_keyframe_pose, SENSOR)
        self.listen(Odometry, f"{THEIRS}/extrinsic", self._on_extrinsic, SENSOR)
        self.listen(PointCloud, f"{THEIRS}/keyframe_point", self._on_points, SENSOR)
        self.listen(PointCloud, f"{THEIRS}/margin_cloud", self._on_margin, SENSOR)
        self.listen(KeyframeMsg, "keyframe", self._on_keyframe, REMEMBERED)
        self.listen(PoseGraphMsg, "graph", self._on_graph, LATCHED, "no paths")
        self.listen(
            TransformStamped, "map_to_odom", self._on_correction, RELIABLE, "no correction yet"
        )
        self.listen(MarkerArray, "markers", self._on_markers, LATCHED)
        self.every(self.config.publish_period, self._publish_paths)

    def _on_correction(self, message: TransformStamped) -> None:
        t, q = message.transform.translation, message.transform.rotation
        self.drift = pose_from_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))

    def _on_odometry(self, message: Odometry) -> None:
        pose = self.drift @ pose_of(message.pose.pose)
        rectified = Odometry(header=self._header(message.header))
        rectified.pose.pose = pose_msg(pose)
        self.rectified.publish(rectified)
        self.health.published["odometry_rect"] += 1
        if self.body_T_camera is not None:
            marker = frustum_marker(pose @ self.body_T_camera)
            marker.header = rectified.header
            self.camera.publish(MarkerArray(markers=[marker]))

    def _on_extrinsic(self, message: Odometry) -> None:
        first = self.body_T_camera is None
        self.body_T_camera = pose_of(message.pose.pose)
        if first:
            p, q = message.pose.pose.position, message.pose.pose.orientation
            values = ", ".join(f"{v:.4f}" for v in (p.x, p.y, p.z, q.x, q.y, q.z, q.w))
            self.get_logger().info(f"loop_closure.camera_in_base should be [{values}]")

    def _on_points(self, message: PointCloud) -> None:
        self.points.publish(self._corrected_cloud(message))

    def _on_margin(self, message: PointCloud) -> None:
        self.margin.publish(self._corrected_cloud(message))

    def _corrected_cloud(self, message: PointCloud) -> PointCloud:
        """Corrected points without channels, as loop_fusion has them."""
        points = np.array([(p.x, p.y, p.z) for p in message.points]).reshape(-1, 3)
        moved = (points @ self.drift[:3, :3].T + self.drift[:3, 3]).tolist()
        cloud = PointCloud(header=self._header(message.header))
        cloud.points = [Point32(x=x, y=y, z=z) for x, y, z in moved]
        return cloud

    def _on_keyframe(self, message: KeyframeMsg) -> None:
        keyframe = keyframe_of(message)
        if keyframe.session != self.session:
            if self.session is not None:
                self.keyframes.clear()
            self.session = keyframe.session
        self.corrections.add_keyframe(keyframe)

    def _on_keyframe_pose(self, message: Odometry) -> None:
        self.keyframes.append((stamp_ns(message.header.stamp), pose_of(message.pose.pose)))
        self.changed = True

    def _on_graph(self, message: PoseGraphMsg) -> None:
        self.graph = message
        self.corrections.set_graph(
            {int(node.id): pose_of(node.pose) for node in message.nodes if node.anchored}
        )
        self.changed = True

    def _on_markers(self, message: MarkerArray) -> None:
        for marker in message.markers:
            marker.header.frame_id = self.config.world_frame
        self.edges.publish(message)

    def _publish_paths(self) -> None:
        """The running session at VINS's own keyframes, the older ones at those of the graph."""
        if not self.changed or self.session is None:
            return
        self.changed = False
        running = [
            (stamp, pose)
            for stamp, odometry in self.keyframes
            if (pose := self.corrections.corrected(stamp, odometry)) is not None
        ]
        path = self._path(running)
        self.path.publish(path)
        if self.session < MAX_PATHS:
            self.paths[self.session].publish(path)
        older: dict[int, list[tuple[int, Pose]]] = {}
        for node in self.graph.nodes if self.graph is not None else ():
            if node.anchored and node.session != self.session:
                entry = (stamp_ns(node.stamp), pose_of(node.pose))
                older.setdefault(int(node.session), []).append(entry)
        for session, poses in older.items():
            if session < MAX_PATHS:
                self.paths[session].publish(self._path(poses))
        self.base_path.publish(self._path(entry for poses in older.values() for entry in poses))
        self.health.published["pose_graph_path"] += 1

    def _path(self, poses: Iterable[tuple[int, Pose]]) -> Path:
        path = Path()
        path.header.frame_id = self.config.world_frame
        for stamp, pose in poses:
            stamped = PoseStamped(pose=pose_msg(pose))
            stamped.header.stamp = time_msg(stamp)
            stamped.header.frame_id = self.config.world_frame
            path.poses.append(stamped)
            path.header.stamp = stamped.header.stamp
        return path

    def _header(self, header: Header) -> Header:
        return Header(stamp=header.stamp, frame_id=self.config.world_frame)


def frustum_marker(world_T_camera: Pose) -> Marker:
    """A camera as lines: its image's outline and the four edges to its centre."""
    x, y, z = FRUSTUM, 0.75 * FRUSTUM, FRUSTUM
    corners = np.array([(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)])
    centre = np.zeros((1, 3))
    lines = []
    for i in range(4):
        lines += [corners[i], corners[(i + 1) % 4], centre[0], corners[i]]
    moved = np.array(lines) @ world_T_camera[:3, :3].T + world_T_camera[:3, 3]
    marker = Marker(ns="camera", type=Marker.LINE_LIST, action=Marker.ADD)
    marker.scale.x, marker.color.r, marker.color.a = 0.02, 1.0, 1.0
    marker.pose.orientation.w = 1.0
    marker.points = [Point(x=p[0], y=p[1], z=p[2]) for p in moved.tolist()]
    return marker


def main() -> None:
    """Process entry point."""
    run_bridge(VinsFusionBridgeNode)
