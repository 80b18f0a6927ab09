"""ROS messages of cameras, odometry and GPS as rosbags dataclasses, without a ROS installation."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from vpr.geometry import quaternion_of
from vpr.records import CameraModel, Image, Pose

NO_FIX, FIX = -1, 0  # sensor_msgs/NavSatStatus
GPS_SERVICE = 1
KNOWN_DIAGONAL = 2


class SensorMessages:
    """Builds messages; frames are odom, map, base_link, camera_optical and gps."""

    def __init__(self, typestore: Typestore) -> None:
        self._store = typestore

    def _make(self, type_name: str, **fields: Any) -> Any:
        return self._store.types[type_name](**fields)

    def _header(self, stamp_ns: int, frame: str) -> Any:
        seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
        stamp = self._make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)

    def compressed_image(self, stamp_ns: int, image: Image, quality: int) -> Any:
        """sensor_msgs/CompressedImage, JPEG."""
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return self._make(
            "sensor_msgs/msg/CompressedImage",
            header=self._header(stamp_ns, "camera_optical"),
            format="bgr8; jpeg compressed bgr8",
            data=data,
        )

    def image(self, stamp_ns: int, image: NDArray[Any], encoding: str) -> Any:
        """sensor_msgs/Image of a (H, W) or (H, W, channels) array, little-endian."""
        rows, columns = image.shape[:2]
        data = np.ascontiguousarray(image).view(np.uint8).ravel()
        return self._make(
            "sensor_msgs/msg/Image",
            header=self._header(stamp_ns, "camera_optical"),
            height=rows,
            width=columns,
            encoding=encoding,
            is_bigendian=0,
            step=len(data) // rows,
            data=data,
        )

    def camera_info(self, stamp_ns: int, camera: CameraModel) -> Any:
        """sensor_msgs/CameraInfo of an undistorted pinhole."""
        projection = np.column_stack([camera.matrix, np.zeros(3)])
        region = self._make(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        )
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            header=self._header(stamp_ns, "camera_optical"),
            height=camera.height,
            width=camera.width,
            distortion_model="plumb_bob",
            d=camera.distortion,
            k=camera.matrix.ravel(),
            r=np.eye(3).ravel(),
            p=projection.ravel(),
            binning_x=0,
            binning_y=0,
            roi=region,
        )

    def odometry(
        self,
        stamp_ns: int,
        frame: str,
        pose: Pose,
        variance: NDArray[np.float64],
        twist: NDArray[np.float64],
        twist_variance: NDArray[np.float64],
    ) -> Any:
        """nav_msgs/Odometry of base_link in ``frame``; planar values are x, y, yaw.

        What a planar vehicle cannot do (z, roll, pitch) gets a small variance, not zero, so that
        the covariance can be inverted.
        """
        x, y, z = (float(value) for value in pose[:3, 3])
        qx, qy, qz, qw = (float(value) for value in quaternion_of(pose))
        vector = "geometry_msgs/msg/Vector3"
        pose_message = self._make(
            "geometry_msgs/msg/Pose",
            position=self._make("geometry_msgs/msg/Point", x=x, y=y, z=z),
            orientation=self._make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        )
        twist_message = self._make(
            "geometry_msgs/msg/Twist",
            linear=self._make(vector, x=float(twist[0]), y=float(twist[1]), z=0.0),
            angular=self._make(vector, x=0.0, y=0.0, z=float(twist[2])),
        )
        return self._make(
            "nav_msgs/msg/Odometry",
            header=self._header(stamp_ns, frame),
            child_frame_id="base_link",
            pose=self._make(
                "geometry_msgs/msg/PoseWithCovariance",
                pose=pose_message,
                covariance=_planar_covariance(variance),
            ),
            twist=self._make(
                "geometry_msgs/msg/TwistWithCovariance",
                twist=twist_message,
                covariance=_planar_covariance(twist_variance),
            ),
        )

    def fix(
        self,
        stamp_ns: int,
        geodetic: NDArray[np.float64],
        variance: NDArray[np.float64],
        fixed: bool,
    ) -> Any:
        """sensor_msgs/NavSatFix; without a fix the position is NaN and the status says so."""
        latitude, longitude, altitude = (float(v) if fixed else float("nan") for v in geodetic)
        return self._make(
            "sensor_msgs/msg/NavSatFix",
            header=self._header(stamp_ns, "gps"),
            status=self._make(
                "sensor_msgs/msg/NavSatStatus",
                status=FIX if fixed else NO_FIX,
                service=GPS_SERVICE,
            ),
            latitude=latitude,
            longitude=longitude,
            altitude=altitude,
            position_covariance=np.diag(variance).ravel() if fixed else np.zeros(9),
            position_covariance_type=KNOWN_DIAGONAL if fixed else 0,
        )


def _planar_covariance(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """(36,) covariance, order x y z roll pitch yaw, of a variance of x, y and yaw."""
    small = 1e-6
    x, y, yaw = np.maximum(variance, small)
    return np.diag([x, y, small, small, small, yaw]).ravel()
