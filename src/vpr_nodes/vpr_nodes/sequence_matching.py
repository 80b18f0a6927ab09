"""sequence_matching: descriptors (and odometry, fixes) to keyframes and place matches.

Subscribes ``descriptor``, ``odometry`` and ``fix``; publishes ``keyframe`` and ``matches``.
Odometry and fixes are interpolated to the image stamp; without them matching goes on and
/diagnostics says so. Owns the ``places`` part of a map. ``begin_session`` closes a session by hand;
``~/adopt_model`` brings the remembered places forward to a trained model.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import numpy as np
from nav_msgs.msg import Odometry
from sensor_msgs.msg import NavSatFix
from std_srvs.srv import Trigger
from vpr_interfaces.msg import Descriptor as DescriptorMsg
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import PlaceMatches as PlaceMatchesMsg
from vpr_interfaces.srv import AdoptModel, EditSession

from vpr.config import SequenceMatchingConfig
from vpr.geometry import PoseTrack, PoseUnavailable
from vpr.messages import covariance_of, fix_of, pose_of, stamp_ns
from vpr.models.descriptor_model import DescriptorModel
from vpr.places.memory import StateError
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
        if self.config.model:
            self.recognizer.adopt(DescriptorModel.load(Path(self.config.model)))
        self.create_service(AdoptModel, "~/adopt_model", self._adopt)
        if self.config.map:
            self.part.load(Path(self.config.map))
        self.create_service(Trigger, "begin_session", self._on_begin_session)
        self.create_service(EditSession, "~/forget_session", self._on_forget_session)
        self.session = self.recognizer.session
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

    def _adopt(
        self, request: AdoptModel.Request, response: AdoptModel.Response
    ) -> AdoptModel.Response:
        try:
            response.redescribed = self.recognizer.adopt(DescriptorModel.load(Path(request.path)))
        except ValueError as error:
            response.message = str(error)
        else:
            response.ok = True
        response.model = self.recognizer.model
        return response

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
        back = (self.newest_ns - stamp) / 1e9
        self.recognizer.begin_session(f"time jumped back {back:.1f} s")
        last = self.odometry.last_stamp_ns
        if last is not None and last > stamp + BACKWARD_NS:
            self.odometry.clear()
        self.fixes.clear()
        self.newest_ns = stamp

    def _note_session(self, session: int) -> None:
        if session != self.session:
            reason = self.recognizer.session_reason
            self.get_logger().warning(f"session {session} begins: {reason}")
            self.session = session

    def _on_begin_session(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """For a robot that was carried while its odometry saw nothing of it."""
        session = self.recognizer.begin_session("it was asked for")
        response.success, response.message = True, f"the next keyframe begins session {session}"
        return response

    def _on_forget_session(
        self, request: EditSession.Request, response: EditSession.Response
    ) -> EditSession.Response:
        try:
            self.recognizer.forget_session(int(request.session))
            response.ok = True
        except StateError as error:
            response.message = str(error)
        return response

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
        self._note_session(observation.keyframe.session)
        self.keyframe_publisher.publish(keyframe_msg(observation.keyframe))
        self.matches_publisher.publish(matches_msg(observation.matches, message.header.frame_id))
        self.health.published["keyframe"] += 1
        self.health.last_reason = observation.matches.explanation
        self.get_logger().debug(observation.matches.explanation)


def main() -> None:
    """Process entry point."""
    run(SequenceMatchingNode)
