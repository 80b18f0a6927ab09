"""gps_image_sync: images, fixes and odometry to a dataset folder of labelled keyframes.

Subscribes the camera, ``fix``, ``odometry`` and ``imu/data``; writes ``dataset`` (nothing while
it is empty). What is missing, and what was left out and why, is said on /diagnostics.
"""

from __future__ import annotations

from nav_msgs.msg import Odometry
from sensor_msgs.msg import Imu, NavSatFix

from vpr.config import GpsImageSyncConfig
from vpr.geometry import pose_from_quaternion
from vpr.messages import fix_of, pose_of, stamp_ns
from vpr.records import Image
from vpr.supervision.synchronizer import GpsImageSynchronizer
from vpr_nodes.image_input import ImageInput
from vpr_nodes.vpr_node import SENSOR, VprNode, run

POLL_PERIOD = 0.5  # s


class GpsImageSyncNode(VprNode):
    """Labels for free, as a node."""

    Config = GpsImageSyncConfig
    config: GpsImageSyncConfig

    def setup(self) -> None:
        self.synchronizer = GpsImageSynchronizer(self.config)

    def start(self) -> None:
        if not self.config.dataset:
            self.health.last_reason = "gps_image_sync.dataset is empty: nothing is written"
            return
        ImageInput(self, self.config.image_transport, self._on_image, keep_encoded=True)
        self.listen(NavSatFix, "fix", self._on_fix, SENSOR, without="no keyframe can be labelled")
        self.listen(
            Odometry, "odometry", self._on_odometry, SENSOR, without="heading from fixes alone"
        )
        self.listen(Imu, "imu/data", self._on_imu, SENSOR)
        self.every(POLL_PERIOD, self._poll)

    def _on_image(self, stamp: int, _frame_id: str, image: Image | bytes, _message: object) -> None:
        self.timed(self.synchronizer.add_image, stamp, image)

    def _on_fix(self, message: NavSatFix) -> None:
        valid = message.status.status >= 0
        self.synchronizer.add_fix(stamp_ns(message.header.stamp), fix_of(message), valid)

    def _on_odometry(self, message: Odometry) -> None:
        self.synchronizer.add_odometry(stamp_ns(message.header.stamp), pose_of(message.pose.pose))

    def _on_imu(self, message: Imu) -> None:
        q = message.orientation
        orientation = pose_from_quaternion((0.0, 0.0, 0.0), (q.x, q.y, q.z, q.w))
        self.synchronizer.add_imu(stamp_ns(message.header.stamp), orientation)

    def _poll(self) -> None:
        self.health.published["labelled keyframes"] += len(self.synchronizer.poll())
        self.health.last_reason = self.synchronizer.missing()
        for counts in (self.synchronizer.rejected_fixes, self.synchronizer.rejected_images):
            for reason, count in counts.items():
                self.health.drops[reason] = count

    def finish(self) -> None:
        """Label what still waits."""
        if hasattr(self, "synchronizer"):
            self.synchronizer.finish()


def main() -> None:
    """Process entry point."""
    run(GpsImageSyncNode)
