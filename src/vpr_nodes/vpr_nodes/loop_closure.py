"""loop_closure: place matches to verified or rejected closures with a relative pose.

Subscribes the camera, ``camera/camera_info``, ``keyframe``, ``matches`` and ``gnn_matches``; when
``depth_topic_used`` also ``camera/depth/image_raw``, and ``graph`` for the loops that it expects;
with ``pose_prior_used`` ``pose_prior`` and ``graph``. Publishes ``loop_closures``. Images, depths,
keyframes, matches and guesses are joined by exact stamp. Owns the ``features`` part of a map.
``~/verify_image`` measures where an image that is no keyframe was taken, for gnn_relocalization.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMsg
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import LoopClosure as LoopClosureMsg
from vpr_interfaces.msg import PlaceMatches as PlaceMatchesMsg
from vpr_interfaces.msg import PoseGraph as PoseGraphMsg
from vpr_interfaces.srv import VerifyImage

from vpr.config import LoopClosureConfig
from vpr.images.decoding import ImageError, decode_depth
from vpr.maps.folder import Part
from vpr.messages import (
    camera_of,
    covariance_of,
    image_of,
    keyframe_of,
    match_of,
    matches_of,
    pose_of,
    stamp_ns,
)
from vpr.records import CameraModel, ClosureState, Image, Keyframe, LoopClosure, PlaceMatches
from vpr.verification.features import LocalFeatures
from vpr.verification.loop_closer import LoopCloser
from vpr.verification.pose_prior import PosePrior
from vpr_nodes.conversions import closure_msg
from vpr_nodes.graph_messages import map_poses_of
from vpr_nodes.image_input import ExactStampJoin, ImageInput
from vpr_nodes.map_part import MapPart
from vpr_nodes.vpr_node import LATCHED, RELIABLE, REMEMBERED, SENSOR, VprNode, run

DEPTH_TOPIC = "camera/depth/image_raw"
UNUSABLE_DEPTH = "a depth image measures next to nothing, or is not of the image's field of view"
JOIN_CAPACITY = 50  # frames whose features wait for their keyframe


class LoopClosureNode(VprNode):
    """Verification as a node."""

    Config = LoopClosureConfig
    config: LoopClosureConfig

    def setup(self) -> None:
        self.closer = LoopCloser(self.config)
        self.judged: OrderedDict[int, set[int]] = OrderedDict()  # query -> references
        self.part = MapPart(self, "features", self.closer.save, self._load)
        if self.config.map:
            self.part.load(Path(self.config.map))
        self.create_service(VerifyImage, "~/verify_image", self._on_verify_image)
        self.camera: CameraModel | None = None
        self.images: ExactStampJoin[Image] = ExactStampJoin(JOIN_CAPACITY)
        self.depths: ExactStampJoin[NDArray[np.float32]] = ExactStampJoin(JOIN_CAPACITY)
        self.features: ExactStampJoin[LocalFeatures] = ExactStampJoin(JOIN_CAPACITY)
        self.waiting: deque[tuple[float, Keyframe | PlaceMatches]] = deque()
        self.prior = PosePrior(self.config.pose_prior_sigmas, self.config.max_translation)
        self.session: int | None = None
        self.last_keyframe = time.monotonic()
        self.frame_id = ""
        self.publisher = self.create_lifecycle_publisher(LoopClosureMsg, "loop_closures", RELIABLE)

    def start(self) -> None:
        self.listen(
            CameraInfo,
            "camera/camera_info",
            self._on_camera_info,
            SENSOR,
            without=f"field of view assumed {self.config.assumed_horizontal_fov:.0f} degrees",
        )
        ImageInput(self, self.config.image_transport, self._on_image)
        if self.config.depth_topic_used:
            self.listen(
                ImageMsg,
                "camera/depth/image_raw",
                self._on_depth,
                SENSOR,
                without="no metric depth",
            )
        self.listen(KeyframeMsg, "keyframe", self._on_keyframe, REMEMBERED, "nothing to verify")
        self.listen(PlaceMatchesMsg, "matches", self._on_matches, RELIABLE)
        self.listen(PlaceMatchesMsg, "gnn_matches", self._on_matches, RELIABLE)
        if self.config.pose_prior_used:
            self.listen(
                PoseWithCovarianceStamped,
                "pose_prior",
                self._on_pose_prior,
                RELIABLE,
                without="candidates are verified in the order of their likeness",
            )
        if self.config.pose_prior_used or self.expects_loops:
            self.listen(PoseGraphMsg, "graph", self._on_graph, LATCHED)
        self.every(self.config.verdict_timeout / 4, self._settle)

    def _load(self, part: Part) -> None:
        self.closer.load(part)
        self.judged.clear()  # keyframes are numbered on from those of the map

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.camera = camera_of(message)

    def _camera_for(self, image: Image) -> CameraModel:
        if self.camera is not None:
            return self.camera
        height, width = image.shape[:2]
        return CameraModel.from_horizontal_fov(width, height, self.config.assumed_horizontal_fov)

    def _on_image(self, stamp: int, frame_id: str, image: Image, _: Any) -> None:
        self.frame_id = frame_id
        if not self.config.depth_topic_used:
            self._extract(stamp, image, None)
        elif (depth := self.depths.take(stamp)) is not None:
            self._extract(stamp, image, depth)
        else:
            self.images.put(stamp, image)

    def _on_depth(self, message: ImageMsg) -> None:
        stamp = stamp_ns(message.header.stamp)
        depth = self._depth_of(message)
        if (image := self.images.take(stamp)) is not None:
            self._extract(stamp, image, depth)
        else:
            self.depths.put(stamp, depth)

    def _depth_of(self, message: ImageMsg) -> NDArray[np.float32]:
        return decode_depth(
            message.encoding,
            message.height,
            message.width,
            message.step,
            message.data,
            bool(message.is_bigendian),
            self.config.depth_scale,
        )

    def _extract(self, stamp: int, image: Image, depth: NDArray[np.float32] | None) -> None:
        features = self.closer.extract(image, depth, self._camera_for(image))
        wanted = depth is not None and self.config.overlay and not features.camera.assumed
        if wanted and features.cells is None:
            self.health.drop("depth_unusable", UNUSABLE_DEPTH)
        self.features.put(stamp, features)
        self._release()

    def _on_keyframe(self, message: KeyframeMsg) -> None:
        if message.id in self.closer:
            return  # told again, as after a deactivation
        self.last_keyframe = time.monotonic()
        self.waiting.append((self.last_keyframe, keyframe_of(message)))
        self._release()

    def _on_matches(self, message: PlaceMatchesMsg) -> None:
        self.waiting.append((time.monotonic(), matches_of(message)))
        self._release()

    def _on_pose_prior(self, message: PoseWithCovarianceStamped) -> None:
        covariance = covariance_of(message.pose)
        if covariance is None:
            raise ValueError("a pose_prior without covariance says nothing of how wrong it may be")
        self.prior.guess(stamp_ns(message.header.stamp), pose_of(message.pose.pose), covariance)

    @property
    def expects_loops(self) -> bool:
        """Whether the graph is asked which keyframes should see the same."""
        return self.config.depth_topic_used and self.config.expects_loops

    def _on_graph(self, message: PoseGraphMsg) -> None:
        poses = map_poses_of(message)
        if self.expects_loops:
            self.closer.map_is(poses)
        if self.config.pose_prior_used:
            self.prior.map_is(dict(zip(poses.ids.tolist(), poses.poses, strict=True)))

    def _release(self) -> None:
        """Work off keyframes and matches in order; a keyframe waits a while for its image."""
        while self.waiting:
            since, item = self.waiting[0]
            if isinstance(item, Keyframe):
                features = self.features.take(item.stamp_ns)
                if features is None and time.monotonic() - since < self.config.feature_wait:
                    return
                self._add(item, features)
            else:
                self._verify(item)
            self.waiting.popleft()

    def _add(self, keyframe: Keyframe, features: LocalFeatures | None) -> None:
        if self.session is not None and keyframe.session != self.session:
            self._publish(self.closer.flush())
        self.session = keyframe.session
        if features is None and (image := self.images.take(keyframe.stamp_ns)) is not None:
            self.health.drop("no_depth_at_image", "no depth image with the keyframe's stamp")
            features = self.closer.extract(image, None, self._camera_for(image))
        if features is None:
            self.health.drop("keyframe_without_image", "a keyframe's image never came")
        self.closer.add_keyframe(keyframe, features)
        if self.expects_loops:
            self._close_expected(keyframe.id)

    def _close_expected(self, keyframe_id: int) -> None:
        closures = self.timed(self.closer.expected_loops, keyframe_id)
        closed = [c.reference_id for c in closures if c.state is ClosureState.VERIFIED]
        self._judged(keyframe_id).update(closed)  # no need to match its corners
        self._publish(closures)

    def _verify(self, matches: PlaceMatches) -> None:
        matches = self._not_yet_judged(matches)
        closures = self.timed(self.closer.verify, self.prior.ordered(matches))
        if not matches.candidates:
            self.health.last_reason = matches.explanation
        self._publish(closures)

    def _not_yet_judged(self, matches: PlaceMatches) -> PlaceMatches:
        """Without the candidates that another node has proposed for the same keyframe."""
        judged = self._judged(matches.query_id)
        new = tuple(match for match in matches.candidates if match.reference_id not in judged)
        judged.update(match.reference_id for match in new)
        return replace(matches, candidates=new)

    def _judged(self, query_id: int) -> set[int]:
        """References that a query needs no more verdicts on."""
        judged = self.judged.setdefault(query_id, set())
        if len(self.judged) > JOIN_CAPACITY:
            self.judged.popitem(last=False)
        return judged

    def _on_verify_image(
        self, request: VerifyImage.Request, response: VerifyImage.Response
    ) -> VerifyImage.Response:
        try:
            image, depth = image_of(request.image), None
            if request.depth.data:
                depth = self._depth_of(request.depth)
                if not np.isfinite(depth).any():
                    response.message = "the depth image measures nothing: gone on without depth"
            given = request.camera_info
            camera = camera_of(given) if given.width else self._camera_for(image)
            features = self.closer.extract(image, depth, camera)
            candidates = tuple(map(match_of, request.candidates))
            stamp = stamp_ns(request.image.header.stamp)
            matches = PlaceMatches(0, 0, stamp, candidates, len(candidates), "")
            closures = self.timed(self.closer.compare, features, matches)
        except (ImageError, ValueError) as error:
            response.message = str(error)
            return response
        frame_id = request.image.header.frame_id
        response.closures = [closure_msg(closure, frame_id) for closure in closures]
        return response

    def _settle(self) -> None:
        """Give candidates that wait for agreement their verdict once the camera is silent."""
        self._release()
        if time.monotonic() - self.last_keyframe > self.config.verdict_timeout:
            self._publish(self.closer.flush())

    def _publish(self, closures: list[LoopClosure]) -> None:
        for closure in closures:
            self.publisher.publish(closure_msg(closure, self.frame_id))
            self.health.published[closure.state.name.lower()] += 1
            if closure.state == ClosureState.REJECTED:
                self.health.published[f"rejected {closure.rejected_by}"] += 1
            self.health.last_reason = closure.reason
            self.get_logger().debug(
                f"{closure.query_id} -> {closure.reference_id} {closure.state.name}: "
                f"{closure.reason}"
            )


def main() -> None:
    """Process entry point."""
    run(LoopClosureNode)
