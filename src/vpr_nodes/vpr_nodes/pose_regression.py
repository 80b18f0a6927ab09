"""pose_regression (optional): camera image to pose, motion and classes by a trained VLocNet++.

Subscribes the camera and ``camera/camera_info``; publishes ``pose_prior``
(PoseWithCovarianceStamped of base_link in the map, a guess that narrows where loop_closure looks),
``visual_odometry`` (Odometry) and ``semantics`` (mono8, a class a pixel). An image unlike the
training world, or of another camera, gets no pose, and /diagnostics says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMsg

from vpr.config import PoseRegressionConfig
from vpr.messages import camera_of
from vpr.pose_regression.regressor import PoseRegressor, Regression
from vpr.records import CameraModel, Image
from vpr_nodes.conversions import pose_with_covariance_msg, time_msg
from vpr_nodes.image_input import ImageInput
from vpr_nodes.segmentation import image_msg
from vpr_nodes.vpr_node import RELIABLE, SENSOR, VprNode, run

MAP_FRAME, ODOMETRY_FRAME, BASE_FRAME = "map", "visual_odom", "base_link"


class PoseRegressionNode(VprNode):
    """VLocNet++ as a node."""

    Config = PoseRegressionConfig
    config: PoseRegressionConfig

    def setup(self) -> None:
        if not self.config.pose_model:
            raise ValueError(
                "pose_regression.pose_model names no file: make one by vpr train vlocnet"
            )
        self.regressor = PoseRegressor(self.config)
        self.camera: CameraModel | None = None
        self.travelled, self.travelled_covariance = np.eye(4), np.zeros((6, 6))
        self.last_stamp = 0
        self.poses = self.create_lifecycle_publisher(
            PoseWithCovarianceStamped, "pose_prior", RELIABLE
        )
        self.odometry = self.create_lifecycle_publisher(Odometry, "visual_odometry", RELIABLE)
        self.semantics = self.create_lifecycle_publisher(ImageMsg, "semantics", RELIABLE)
        certainty = self.regressor.model.certainty
        self.get_logger().info(f"{self.config.pose_model}: {certainty.summary}")

    def start(self) -> None:
        self.listen(
            CameraInfo,
            "camera/camera_info",
            self._on_camera_info,
            SENSOR,
            without="taken on trust that the camera is that of the training",
        )
        ImageInput(self, self.config.image_transport, self._on_image)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.camera = camera_of(message)

    def _on_image(self, stamp: int, frame_id: str, image: Image, _: Any) -> None:
        found = self.timed(self.regressor.observe, stamp, image, self.camera)
        if found.remark:
            self.health.last_reason = found.remark
            self.get_logger().info(found.remark, throttle_duration_sec=2.0)
        if not found.familiar:
            self.health.drop("unlike_training_world", found.remark)
        if found.pose is not None:
            self._publish_pose(stamp, found)
        if found.motion is not None:
            self._publish_odometry(stamp, found)
        if found.labels is not None:
            self.semantics.publish(image_msg(found.labels, stamp, frame_id))
        self.last_stamp = stamp

    def _publish_pose(self, stamp: int, found: Regression) -> None:
        message = PoseWithCovarianceStamped()
        message.header.stamp, message.header.frame_id = time_msg(stamp), MAP_FRAME
        message.pose = pose_with_covariance_msg(found.pose, found.covariance)
        self.poses.publish(message)
        self.health.published["pose_prior"] += 1

    def _publish_odometry(self, stamp: int, found: Regression) -> None:
        """The way since the node began; a step that was not seen is not in it."""
        self.travelled = self.travelled @ found.motion
        self.travelled_covariance = self.travelled_covariance + found.motion_covariance
        seconds = (stamp - self.last_stamp) * 1e-9
        message = Odometry(child_frame_id=BASE_FRAME)
        message.header.stamp, message.header.frame_id = time_msg(stamp), ODOMETRY_FRAME
        message.pose = pose_with_covariance_msg(self.travelled, self.travelled_covariance)
        linear, angular = message.twist.twist.linear, message.twist.twist.angular
        turned = Rotation.from_matrix(found.motion[:3, :3]).as_rotvec()
        linear.x, linear.y, linear.z = (found.motion[:3, 3] / seconds).tolist()
        angular.x, angular.y, angular.z = (turned / seconds).tolist()
        message.twist.covariance = (found.motion_covariance / seconds**2).reshape(36).tolist()
        self.odometry.publish(message)
        self.health.published["visual_odometry"] += 1


def main() -> None:
    """Process entry point."""
    run(PoseRegressionNode)
