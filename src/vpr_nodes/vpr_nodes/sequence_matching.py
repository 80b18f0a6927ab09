"""sequence_matching: descriptors (and odometry, fixes) to keyframes and place matches.

Subscribes ``descriptor``, ``odometry`` and ``fix``; publishes ``keyframe`` and ``matches``.
Odometry and fixes are interpolated to the image stamp; without them matching goes on and
/diagnostics says so. Owns the ``places`` part of a map.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import numpy as np
from nav_msgs.msg import Odometry
from sensor_msgs.msg import NavSatFix
from vpr_interfaces.msg import Descriptor as DescriptorMsg
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import PlaceMatches as PlaceMatchesMsg

from vpr.config import SequenceMatchingConfig
from vpr.geometry import PoseTrack, PoseUnavailable
from vpr.messages import covariance_of, fix_of, pose_of, stamp_ns
from vpr.places.recognizer import PlaceRecognizer
from vpr.records import Covariance, GpsFix
from vpr.supervision.fixes import FixTrack
from vpr_nodes.conversions import keyframe_msg, matches_msg
from vpr_nodes.map_part import MapPart
from vpr_nodes.vpr_node import RELIABLE, REMEMBERED, SENSOR, VprNode, run

BACKWARD_NS = 1_000_000_000  # a stamp this far back is a new drive, less is jitter
STALE = 1.0  # s; odometry silent for longer is not waited for


class SequenceMatchingNode(VprNode):
    """Place recognition as a node."""

    Config = SequenceMatchingConfig
    config: SequenceMatchingConfig

    def setup(self) -> None:
        self.recognizer = PlaceRecognizer(self.config)
        self.part = MapPart(self, "places", self.recognizer.save, self.recognizer.load)
        if self.config.map:
            self.part.load(Path(self.config.map))
        self.odometry = PoseTrack(int(self.config.odometry_max_gap * 1e9))
        self.odometry_covariance: Covariance | None = None
        self.fixes = FixTrack(int(self.config.fix_max_gap * 1e9))
        self.heard_odometry = -np.inf
        self.waiting: deque[tuple[float, DescriptorMsg]] = deque()
        self.newest_ns = 0
        self.keyframe_publisher = self.create_lifecycle_publisher(
            KeyframeMsg, "keyframe", REMEMBERED
        )
        self.matches_publisher = self.create_lifecycle_publisher(
            PlaceMatchesMsg, "matches", RELIABLE
        )

    def start(self) -> None:
        self.listen(
            DescriptorMsg, "descriptor", self._on_descriptor, RELIABLE, "nothing to recognise"
        )
        self.listen(
            Odometry,
            "odometry",
            self._on_odometry,
            SENSOR,
            without="every frame is a keyframe, closures have no odometry check and no scale",
        )
        self.listen(NavSatFix, "fix", self._on_fix, SENSOR)
        self.every(self.config.odometry_wait / 4 + 0.005, self._release)

    def _on_odometry(self, message: Odometry) -> None:
        stamp = stamp_ns(message.header.stamp)
        pose = pose_of(message.pose.pose)
        last = self.odometry.last_stamp_ns
        if last is not None and stamp < last - BACKWARD_NS:
            self.odometry.clear()
        self.odometry.append(stamp, pose)
        self.odometry_covariance = covariance_of(message.pose)
        self.heard_odometry = time.monotonic()
        self._release()

    def _on_fix(self, message: NavSatFix) -> None:
        if message.status.status >= 0:
            self.fixes.append(stamp_ns(message.header.stamp), fix_of(message))

    def _on_descriptor(self, message: DescriptorMsg) -> None:
        stamp = stamp_ns(message.header.stamp)
        if stamp < self.newest_ns - BACKWARD_NS:
            self._begin_again(stamp)
        self.newest_ns = max(self.newest_ns, stamp)
        self.waiting.append((time.monotonic(), message))
        self._release()

    def _begin_again(self, stamp: int) -> None:
        """Time jumped back, as when a bag loops: finish the session and forget its sensors."""
        while self.waiting:
            self._observe(self.waiting.popleft()[1])
        self.get_logger().warning(
            f"time jumped back {(self.newest_ns - stamp) / 1e9:.1f} s: a new session begins"
        )
        self.recognizer.begin_session()
        last = self.odometry.last_stamp_ns
        if last is not None and last > stamp + BACKWARD_NS:
            self.odometry.clear()
        self.fixes.clear()
        self.newest_ns = stamp

    def _release(self) -> None:
        """Observe the waiting descriptors whose odometry is there, or was waited for enough."""
        now = time.monotonic()
        alive = now - self.heard_odometry < STALE
        patience = self.config.odometry_wait if alive or not len(self.odometry) else 0.0
        while self.waiting:
            since, message = self.waiting[0]
            last = self.odometry.last_stamp_ns
            reached = last is not None and last >= stamp_ns(message.header.stamp)
            if not reached and now - since < patience:
                return
            self.waiting.popleft()
            self.timed(self._observe, message)

    def _fix_at(self, stamp: int) -> GpsFix | None:
        try:
            return self.fixes.at(stamp)
        except PoseUnavailable:
            return None

    def _observe(self, message: DescriptorMsg) -> None:
        stamp = stamp_ns(message.header.stamp)
        try:
            odometry = self.odometry.at(stamp)
        except PoseUnavailable as reason:
            odometry = None
            self.health.drop("no_odometry_at_image", str(reason))
        observation = self.recognizer.observe(
            stamp_ns=stamp,
            descriptor=np.frombuffer(message.data, np.float32),
            model=message.model,
            odometry=odometry,
            odometry_covariance=self.odometry_covariance if odometry is not None else None,
            fix=self._fix_at(stamp),
            frame_id=message.header.frame_id,
        )
        if observation.keyframe is None or observation.matches is None:
            self.health.last_reason = observation.skipped
            return
        self.keyframe_publisher.publish(keyframe_msg(observation.keyframe))
        self.matches_publisher.publish(matches_msg(observation.matches, message.header.frame_id))
        self.health.published["keyframe"] += 1
        self.health.last_reason = observation.matches.explanation
        self.get_logger().debug(observation.matches.explanation)


def main() -> None:
    """Process entry point."""
    run(SequenceMatchingNode)
