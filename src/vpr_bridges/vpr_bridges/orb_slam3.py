"""ORB-SLAM3: its poses in as odometry, corrected poses and keyframes out.

ORB-SLAM3 has no interface for closures: it gives a trajectory, our pose graph owns map -> odom.
Subscribes ``orb_slam3/camera_pose`` (PoseStamped) or ``orb_slam3/body_odom`` (Odometry), and
``orb_slam3/keyframes`` (Path, stamps count); publishes ``odometry`` for our own nodes,
``orb_slam3/corrected_pose`` and ``orb_slam3/corrected_keyframes`` in the map frame.

When ORB-SLAM3 closes a loop of its own, or begins a new map after it was lost, its pose jumps.
Odometry must not (REP-105): a jump is kept out of it, and the pose graph judges for itself.
"""

from __future__ import annotations

from geometry_msgs.msg import PoseStamped, TransformStamped
from nav_msgs.msg import Odometry, Path
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import PoseGraph as PoseGraphMsg

from vpr.config import OrbSlam3BridgeConfig
from vpr.geometry import (
    PoseTrack,
    PoseUnavailable,
    inverse,
    pose_from_quaternion,
    relative,
    rotation_angle,
    translation_norm,
)
from vpr.messages import keyframe_of, pose_of, stamp_ns
from vpr.records import Pose
from vpr_bridges.bridge import run_bridge
from vpr_bridges.corrections import Corrections
from vpr_nodes.conversions import pose_msg, time_msg
from vpr_nodes.vpr_node import LATCHED, RELIABLE, REMEMBERED, SENSOR, VprNode

MAP_FRAME = "map"
HOST = "orb_slam3"
BACKWARD_NS = 1_000_000_000  # a stamp this far back is a new drive, less is jitter


class ContinuousOdometry:
    """Poses of a map that may jump, as odometry that does not."""

    def __init__(self, config: OrbSlam3BridgeConfig) -> None:
        self.config = config
        self._last: tuple[int, Pose, Pose] | None = None  # stamp, world_T_base, odom_T_base

    def advance(self, stamp_ns: int, world_T_base: Pose) -> tuple[Pose, str]:
        """odom_T_base, and what was kept out of it in words (mostly nothing).

        Raises:
            ValueError: the stamp does not ascend.
        """
        if self._last is None or stamp_ns < self._last[0] - BACKWARD_NS:
            self._last = (stamp_ns, world_T_base, world_T_base)
            return world_T_base, ""
        before_ns, before_world, before_odom = self._last
        if stamp_ns <= before_ns:
            raise ValueError(f"stamp {stamp_ns} ns is not after {before_ns} ns")
        step = relative(before_world, world_T_base)
        seconds = (stamp_ns - before_ns) / 1e9
        jump = ""
        if (
            translation_norm(step) > self.config.max_speed * seconds
            or rotation_angle(step) > self.config.max_turn_rate * seconds
        ):
            jump = (
                f"ORB-SLAM3's pose jumped {translation_norm(step):.2f} m, "
                f"{rotation_angle(step):.2f} rad in {seconds:.2f} s"
            )
        odom_T_base = before_odom if jump else before_odom @ step
        self._last = (stamp_ns, world_T_base, odom_T_base)
        return odom_T_base, jump


class OrbSlam3BridgeNode(VprNode):
    """ORB-SLAM3's trajectory in and out as a node."""

    Config = OrbSlam3BridgeConfig
    config: OrbSlam3BridgeConfig

    def setup(self) -> None:
        values = self.config.camera_in_base
        self.base_T_camera = pose_from_quaternion(values[:3], values[3:])
        self.odometry = ContinuousOdometry(self.config)
        self.track = PoseTrack(int(self.config.odometry_max_gap * 1e9))
        self.corrections = Corrections()
        self.map_T_odom: Pose | None = None
        self.keyframes: dict[int, Pose] = {}  # odom_T_base by stamp
        self.judged: set[int] = set()  # stamps of keyframes, those without odometry among them
        self.odometry_publisher = self.create_lifecycle_publisher(Odometry, "odometry", RELIABLE)
        self.pose_publisher = self.create_lifecycle_publisher(
            PoseStamped, f"{HOST}/corrected_pose", RELIABLE
        )
        self.keyframe_publisher = self.create_lifecycle_publisher(
            Path, f"{HOST}/corrected_keyframes", LATCHED
        )

    def start(self) -> None:
        if self.config.source == "camera_pose":
            self.listen(
                PoseStamped, f"{HOST}/camera_pose", self._on_camera_pose, SENSOR, "no odometry"
            )
        else:
            self.listen(Odometry, f"{HOST}/body_odom", self._on_body_odom, SENSOR, "no odometry")
        self.listen(Path, f"{HOST}/keyframes", self._on_keyframes, SENSOR)
        self.listen(KeyframeMsg, "keyframe", self._on_keyframe, REMEMBERED)
        self.listen(PoseGraphMsg, "graph", self._on_graph, LATCHED)
        self.listen(
            TransformStamped, "map_to_odom", self._on_correction, RELIABLE, "no correction yet"
        )

    def _on_camera_pose(self, message: PoseStamped) -> None:
        # its world is the first camera's optical frame: ours the base_link at that moment
        world_T_camera = self._scaled(pose_of(message.pose))
        pose = self.base_T_camera @ world_T_camera @ inverse(self.base_T_camera)
        self._advance(message.header.stamp, pose)

    def _on_body_odom(self, message: Odometry) -> None:
        self._advance(message.header.stamp, self._scaled(pose_of(message.pose.pose)))

    def _scaled(self, pose: Pose) -> Pose:
        pose[:3, 3] *= self.config.scale
        return pose

    def _advance(self, stamp: object, world_T_base: Pose) -> None:
        nanoseconds = stamp_ns(stamp)
        odom_T_base, jump = self.odometry.advance(nanoseconds, world_T_base)
        if jump:
            self.health.published["jumps_kept_out"] += 1
            self.health.last_reason = jump
            self.get_logger().warning(f"{jump}: kept out of odometry")
        last = self.track.last_stamp_ns
        if last is not None and nanoseconds <= last:
            self.track.clear()
            self.keyframes.clear()
            self.judged.clear()
        self.track.append(nanoseconds, odom_T_base)
        message = Odometry(child_frame_id=self.config.base_frame)
        message.header.stamp, message.header.frame_id = stamp, self.config.odom_frame
        message.pose.pose = pose_msg(odom_T_base)
        self.odometry_publisher.publish(message)
        self.health.published["odometry"] += 1
        if self.map_T_odom is not None:
            corrected = PoseStamped(pose=pose_msg(self.map_T_odom @ odom_T_base))
            corrected.header.stamp, corrected.header.frame_id = stamp, MAP_FRAME
            self.pose_publisher.publish(corrected)

    def _on_correction(self, message: TransformStamped) -> None:
        t, q = message.transform.translation, message.transform.rotation
        self.map_T_odom = pose_from_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))

    def _on_keyframe(self, message: KeyframeMsg) -> None:
        self.corrections.add_keyframe(keyframe_of(message))

    def _on_graph(self, message: PoseGraphMsg) -> None:
        self.corrections.set_graph(
            {int(node.id): pose_of(node.pose) for node in message.nodes if node.anchored}
        )
        self._publish_keyframes()

    def _on_keyframes(self, message: Path) -> None:
        """Remember where odometry was at each keyframe; its own poses move with its own map.

        The path comes whole each time; a keyframe beyond the newest odometry is looked at again.
        """
        for pose in message.poses:
            stamp = stamp_ns(pose.header.stamp)
            newest = self.track.last_stamp_ns
            if stamp in self.judged or newest is None or stamp > newest:
                continue
            self.judged.add(stamp)
            try:
                self.keyframes[stamp] = self.track.at(stamp)
            except PoseUnavailable as reason:
                self.health.drop("no_odometry_at_keyframe", str(reason))
        self._publish_keyframes()

    def _publish_keyframes(self) -> None:
        path = Path()
        path.header.frame_id = MAP_FRAME
        for stamp, odom_T_base in sorted(self.keyframes.items(), key=lambda item: item[0]):
            corrected = self.corrections.corrected(stamp, odom_T_base)
            if corrected is None:
                continue
            pose = PoseStamped(pose=pose_msg(corrected))
            pose.header.stamp, pose.header.frame_id = time_msg(stamp), MAP_FRAME
            path.poses.append(pose)
            path.header.stamp = pose.header.stamp
        if path.poses:
            self.keyframe_publisher.publish(path)
            self.health.published["corrected_keyframes"] += 1


def main() -> None:
    """Process entry point."""
    run_bridge(OrbSlam3BridgeNode)
