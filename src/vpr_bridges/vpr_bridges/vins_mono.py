"""VINS-Mono: closures as match points, by which its estimator relocalizes.

Subscribes the camera, ``camera/camera_info``, ``keyframe``, ``loop_closures``, ``graph``, and of
VINS ``vins_estimator/{keyframe_pose,extrinsic}`` (Odometry) and ``vins_estimator/keyframe_point``
(PointCloud); publishes ``pose_graph/match_points`` (PointCloud), which its estimator reads:

- the stamp is exactly that of a frame in its window, which only its keyframe messages tell;
- points are (x, y, id): where the old keyframe saw a point that VINS tracks, ids ascending;
- channel 0 is the old keyframe's pose and, echoed back to whoever sent it, an index:
  Tx, Ty, Tz, Qw, Qx, Qy, Qz, index of the new keyframe.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Point32
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, ChannelFloat32, PointCloud
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import LoopClosure as LoopClosureMsg
from vpr_interfaces.msg import PoseGraph as PoseGraphMsg

from vpr.config import VinsMonoBridgeConfig
from vpr.geometry import inverse, quaternion_of, relative, rotation_angle, translation_norm
from vpr.messages import camera_of, closure_of, keyframe_of, pose_of, stamp_ns
from vpr.records import CameraModel, ClosureState, Image, LoopClosure, Pose
from vpr.verification.features import fitted_camera
from vpr.verification.tracked_points import (
    FoundPoints,
    OldPoints,
    TrackedPoints,
    find_again,
    old_points,
    tracked_points,
)
from vpr_bridges.bindings import HostKeyframe, KeyframeBindings, Unbound
from vpr_bridges.bridge import RETRY_PERIOD, run_bridge
from vpr_nodes.conversions import time_msg
from vpr_nodes.image_input import ExactStampJoin, ImageInput
from vpr_nodes.vpr_node import LATCHED, RELIABLE, REMEMBERED, SENSOR, VprNode

THEIRS = "vins_estimator"
IMAGES = 60  # frames; VINS tells of a keyframe a few frames after its image
POINT_CHANNEL = 5  # x_normalised, y_normalised, u, v, id


class VinsMonoBridgeNode(VprNode):
    """Match points for VINS-Mono as a node."""

    Config = VinsMonoBridgeConfig
    config: VinsMonoBridgeConfig

    def setup(self) -> None:
        self.bindings = KeyframeBindings(self.config)
        self.camera: CameraModel | None = None
        self.body_T_camera: Pose | None = None
        self.images: OrderedDict[int, Image] = OrderedDict()
        self.poses: ExactStampJoin[Pose] = ExactStampJoin(IMAGES)
        self.points: ExactStampJoin[PointCloud] = ExactStampJoin(IMAGES)
        self.window: deque[int] = deque(maxlen=self.config.window)  # stamps of VINS's keyframes
        self.tracked: dict[int, tuple[Pose, TrackedPoints]] = {}  # of those with an image
        self.old: dict[int, OldPoints] = {}
        self.old_poses: dict[int, Pose] = {}
        self.waiting: deque[tuple[float, LoopClosure]] = deque()
        self.publisher = self.create_lifecycle_publisher(
            PointCloud, "pose_graph/match_points", RELIABLE
        )

    def start(self) -> None:
        self.listen(CameraInfo, "camera/camera_info", self._on_camera_info, SENSOR, "nothing sent")
        ImageInput(self, self.config.image_transport, self._on_image)
        self.listen(KeyframeMsg, "keyframe", self._on_keyframe, REMEMBERED, "nothing remembered")
        self.listen(LoopClosureMsg, "loop_closures", self._on_closure, RELIABLE)
        self.listen(PoseGraphMsg, "graph", self._on_graph, LATCHED)
        self.listen(
            Odometry, f"{THEIRS}/keyframe_pose", self._on_pose, RELIABLE, "VINS has no keyframes"
        )
        self.listen(PointCloud, f"{THEIRS}/keyframe_point", self._on_points, RELIABLE)
        self.listen(Odometry, f"{THEIRS}/extrinsic", self._on_extrinsic, SENSOR, "nothing sent")
        self.every(RETRY_PERIOD, self._retry)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.camera = camera_of(message)

    def _on_extrinsic(self, message: Odometry) -> None:
        self.body_T_camera = pose_of(message.pose.pose)

    def _on_image(self, stamp: int, _frame: str, image: Image, _message: Any) -> None:
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        self.images[stamp] = np.asarray(grey, np.uint8)
        while len(self.images) > IMAGES:
            self.images.popitem(last=False)

    # Our keyframes: what their images show is remembered

    def _on_keyframe(self, message: KeyframeMsg) -> None:
        keyframe = keyframe_of(message)
        self.bindings.add_keyframe(keyframe)
        if keyframe.odometry is not None:
            self.old_poses.setdefault(keyframe.id, keyframe.odometry)
        grey = self.images.get(keyframe.stamp_ns)
        if grey is None or self.camera is None:
            missing = "image" if self.camera is not None else "CameraInfo"
            self.health.drop("no_image", f"keyframe {keyframe.id}: no {missing}")
            return
        camera = fitted_camera(self.camera, grey.shape[1], grey.shape[0])
        self.old[keyframe.id] = self.timed(old_points, grey, camera, self.config)

    def _on_graph(self, message: PoseGraphMsg) -> None:
        for node in message.nodes:
            if node.anchored:
                self.old_poses[int(node.id)] = pose_of(node.pose)

    # VINS's keyframes: the newest are in its window

    def _on_pose(self, message: Odometry) -> None:
        stamp = stamp_ns(message.header.stamp)
        if self.window and stamp <= self.window[-1]:
            self.window.clear()  # VINS began anew
        self.window.append(stamp)
        self.tracked = {
            known: self.tracked[known] for known in self.window if known in self.tracked
        }
        self.poses.put(stamp, pose_of(message.pose.pose))
        self._join(stamp)

    def _on_points(self, message: PointCloud) -> None:
        self.points.put(stamp_ns(message.header.stamp), message)
        self._join(stamp_ns(message.header.stamp))

    def _join(self, stamp: int) -> None:
        pose, cloud = self.poses.take(stamp), self.points.take(stamp)
        if pose is None or cloud is None:
            if pose is not None:
                self.poses.put(stamp, pose)
            if cloud is not None:
                self.points.put(stamp, cloud)
            return
        grey = self.images.get(stamp)
        if grey is None:
            self.health.drop("no_image", f"no image with the stamp of VINS's keyframe {stamp}")
            return
        self.tracked[stamp] = (pose, tracked_points(grey, *cloud_points(cloud)))
        self.bindings.add_host(HostKeyframe(stamp, stamp, pose))
        self._retry()

    # Closures

    def _on_closure(self, message: LoopClosureMsg) -> None:
        closure = closure_of(message)
        if closure.state == ClosureState.VERIFIED:
            self.waiting.append((time.monotonic(), closure))
            self._retry()

    def _retry(self) -> None:
        self.bindings.settle()
        for _ in range(len(self.waiting)):
            since, closure = self.waiting.popleft()
            late = time.monotonic() - since > self.config.patience
            if late:
                self.bindings.settle(at_once=True)
            try:
                self._relocalize(closure)
            except Unbound as unbound:
                if late or unbound.final:
                    name = f"closure {closure.query_id} -> {closure.reference_id}"
                    self.health.drop(unbound.reason, f"{name}: {unbound}")
                else:
                    self.waiting.append((since, closure))

    def _relocalize(self, closure: LoopClosure) -> None:
        stamp = self.bindings.binding(closure.query_id).host.stamp_ns
        if stamp not in self.window or stamp not in self.tracked:
            raise Unbound("out_of_window", "VINS's keyframe has left its window", final=True)
        old = self.old.get(closure.reference_id)
        old_pose = self.old_poses.get(closure.reference_id)
        if old is None or old_pose is None or self.body_T_camera is None:
            raise Unbound("unknown_keyframe", "no image, pose or extrinsic of the old one", True)
        pose, tracked = self.tracked[stamp]
        found = self.timed(find_again, tracked, old, self.config)
        if found is None:
            raise Unbound("too_few_matches", "too few tracked points found in the old one", True)
        self._check(closure, found, pose)
        self.publisher.publish(match_points(stamp, found, old_pose, closure.query_id))
        self.health.published["match_points"] += 1
        self.health.last_reason = f"{len(found.ids)} points of keyframe {closure.reference_id}"

    def _check(self, closure: LoopClosure, found: FoundPoints, new_pose: Pose) -> None:
        """The points must tell the pose that the verified closure has."""
        if closure.relative_pose is None or self.body_T_camera is None:
            return
        offset = self.bindings.binding(closure.query_id).offset
        old_T_new = closure.relative_pose @ offset
        seen = inverse(found.camera_pose @ inverse(self.body_T_camera)) @ new_pose
        difference = relative(old_T_new, seen)
        apart, turned = translation_norm(difference), rotation_angle(difference)
        sigma = 0.0
        if closure.covariance is not None:
            sigma = float(np.sqrt(np.linalg.eigvalsh(closure.covariance[:3, :3])[-1]))
        if apart > self.config.agreement_translation + 3.0 * sigma or (
            turned > self.config.agreement_rotation
        ):
            raise Unbound(
                "contradicts_closure",
                f"its points put the old keyframe {apart:.1f} m, {turned:.2f} rad elsewhere",
                final=True,
            )


def cloud_points(
    cloud: PointCloud,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    """Ids (N,), world points (N, 3) and pixels (N, 2) of VINS's keyframe_point.

    Raises:
        ValueError: not one channel of five values a point.
    """
    rows = [channel.values for channel in cloud.channels]
    if len(rows) != len(cloud.points) or any(len(row) != POINT_CHANNEL for row in rows):
        raise ValueError("keyframe_point has not one channel x, y, u, v, id for each point")
    values = np.array(rows, np.float64).reshape(-1, POINT_CHANNEL)
    world = np.array([(p.x, p.y, p.z) for p in cloud.points], np.float64).reshape(-1, 3)
    if not (np.isfinite(values).all() and np.isfinite(world).all()):
        raise ValueError("keyframe_point has a value that is not finite")
    return values[:, 4].round().astype(np.int64), world, values[:, 2:4].astype(np.float32)


def match_points(stamp: int, found: FoundPoints, old_pose: Pose, index: int) -> PointCloud:
    """The message that VINS-Mono's estimator reads."""
    cloud = PointCloud()
    cloud.header.stamp = time_msg(stamp)
    cloud.points = [
        Point32(x=float(x), y=float(y), z=float(identity))
        for (x, y), identity in zip(found.rays.tolist(), found.ids.tolist(), strict=True)
    ]
    x, y, z, w = quaternion_of(old_pose).tolist()
    values = [*old_pose[:3, 3].tolist(), w, x, y, z, float(index)]
    cloud.channels = [ChannelFloat32(name="t_q_index", values=values)]
    return cloud


def main() -> None:
    """Process entry point."""
    run_bridge(VinsMonoBridgeNode)
