"""What every stand-in host shares: a process of its own that reports what it saw as JSON."""

from __future__ import annotations

import json

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import String

from vpr.geometry import pose_from_quaternion
from vpr.records import Pose

SECOND = 10**9


class StandInHost(Node):
    """A host SLAM that checks what it is given as the real one would."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._reports = self.create_publisher(String, "stand_in/report", 1000)

    def report(self, **fields: object) -> None:
        """Tell the test, which listens on stand_in/report."""
        self._reports.publish(String(data=json.dumps(fields)))


def nanoseconds(stamp) -> int:
    """Integer nanoseconds of a stamp."""
    return stamp.sec * SECOND + stamp.nanosec


def set_stamp(header, stamp: int) -> None:
    """Fill a header's stamp."""
    header.stamp.sec, header.stamp.nanosec = stamp // SECOND, stamp % SECOND


def pose_of_transform(transform) -> Pose:
    """4x4 pose of a Transform message."""
    t, q = transform.translation, transform.rotation
    return pose_from_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


def run(host_class: type[StandInHost]) -> None:
    """Spin until stopped."""
    try:
        rclpy.init()
        rclpy.spin(host_class())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
