"""gnn_relocalization (optional): where the camera is, by a graph of scene embeddings (S3E-GNN).

Subscribes the camera, ``keyframe``, ``graph`` (the keyframes' places, and the closures that are
loops of the reference graph), ``loop_closures``, ``camera/depth/image_raw`` (when
``depth_topic_used``) and ``pose_prior`` (when ``pose_prior_used``). Publishes ``gnn_matches``,
which loop_closure verifies, and ``relocalization_pose`` (base_link in the map) for each of them
that it verified. Owns the ``scenes`` part of a map.

The service ``relocalize`` answers where an image, or the live camera, is in the map. loop_closure,
which keeps the local features, measures the pose.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMsg
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import LoopClosure as LoopClosureMsg
from vpr_interfaces.msg import PlaceMatches as PlaceMatchesMsg
from vpr_interfaces.msg import PoseGraph as PoseGraphMsg
from vpr_interfaces.msg import PoseGraphEdge, PoseGraphNode
from vpr_interfaces.srv import Relocalize, VerifyImage

from vpr.config import RelocalizationConfig
from vpr.images.decoding import ImageError
from vpr.maps.folder import Part
from vpr.messages import closure_of, covariance_of, image_of, keyframe_of, pose_of, stamp_ns
from vpr.records import ClosureState, Image, Keyframe, LoopClosure, PlaceMatches
from vpr.relocalization.located import NotLocated, Relocalization, in_map, located
from vpr.relocalization.relocalizer import Relocalizer
from vpr.relocalization.storage import PART
from vpr_nodes.conversions import match_msg, matches_msg, pose_with_covariance_msg, time_msg
from vpr_nodes.image_input import ExactStampJoin, ImageInput
from vpr_nodes.map_part import MapPart
from vpr_nodes.segmentation import image_msg
from vpr_nodes.vpr_node import LATCHED, RELIABLE, REMEMBERED, SENSOR, STEADY, VprNode, run

MAP_FRAME = "map"
VERIFIER = "loop_closure"
JOIN_CAPACITY = 50  # frames that wait for their keyframe, and keyframes for their image
QUERIES_KEPT = 200  # whose verdicts may still come, or came before our proposal


@dataclass(frozen=True)
class Frame:
    """An image that is to be found in the map."""

    message: ImageMsg
    image: Image
    depth: ImageMsg
    camera_info: CameraInfo

    @property
    def stamp_ns(self) -> int:
        """Of the image."""
        return stamp_ns(self.message.header.stamp)


class GnnRelocalizationNode(VprNode):
    """Relocalization as a node."""

    Config = RelocalizationConfig
    config: RelocalizationConfig

    def setup(self) -> None:
        self.relocalizer = Relocalizer(self.config)
        self.proposed: OrderedDict[int, set[int]] = OrderedDict()  # query -> references
        self.verified: OrderedDict[int, list[LoopClosure]] = OrderedDict()  # by query
        self.part = MapPart(self, PART, self.relocalizer.save, self._load, self._begin_anew)
        if self.config.map:
            self.part.load(Path(self.config.map))
        self.images: ExactStampJoin[Image] = ExactStampJoin(JOIN_CAPACITY)
        self.keyframes: ExactStampJoin[Keyframe] = ExactStampJoin(JOIN_CAPACITY)
        self.depths: ExactStampJoin[ImageMsg] = ExactStampJoin(JOIN_CAPACITY)
        self.newest: tuple[int, str, Image] | None = None
        self.places: dict[int, PoseGraphNode] = {}  # keyframes with a place in the map
        self.matches = self.create_lifecycle_publisher(PlaceMatchesMsg, "gnn_matches", RELIABLE)
        self.poses = self.create_lifecycle_publisher(
            PoseWithCovarianceStamped, "relocalization_pose", RELIABLE
        )
        group = ReentrantCallbackGroup()  # a service that waits for another's answer
        self.verifier = self.create_client(
            VerifyImage, f"{VERIFIER}/verify_image", callback_group=group
        )
        self.create_service(Relocalize, "relocalize", self._on_relocalize, callback_group=group)

    def start(self) -> None:
        ImageInput(self, self.config.image_transport, self._on_image)
        self.listen(KeyframeMsg, "keyframe", self._on_keyframe, REMEMBERED, "nothing is remembered")
        self.listen(
            PoseGraphMsg, "graph", self._on_graph, LATCHED, without="no place in the map is known"
        )
        self.listen(LoopClosureMsg, "loop_closures", self._on_closure, RELIABLE)
        if self.config.depth_topic_used:
            self.listen(
                ImageMsg, "camera/depth/image_raw", self._on_depth, SENSOR, without="no depth"
            )
        if self.config.pose_prior_used:
            self.listen(PoseWithCovarianceStamped, "pose_prior", self._on_pose_prior, RELIABLE)

    def _load(self, part: Part) -> None:
        self.relocalizer.load(part)
        self._forget_queries()

    def _begin_anew(self, remark: str) -> None:
        self.relocalizer.forget(remark)
        self._forget_queries()

    def _forget_queries(self) -> None:
        """Keyframes are numbered on from those of the map."""
        self.proposed.clear()
        self.verified.clear()

    # Keyframes to matches

    def _on_image(self, stamp: int, frame_id: str, image: Image, _: Any) -> None:
        self.newest = stamp, frame_id, image
        if (keyframe := self.keyframes.take(stamp)) is not None:
            self._observe(keyframe, image)
        else:
            self.images.put(stamp, image)

    def _on_depth(self, message: ImageMsg) -> None:
        self.depths.put(stamp_ns(message.header.stamp), message)

    def _on_keyframe(self, message: KeyframeMsg) -> None:
        if message.id in self.relocalizer:
            return  # told again, as after a deactivation
        keyframe = keyframe_of(message)
        if (image := self.images.take(keyframe.stamp_ns)) is not None:
            self._observe(keyframe, image)
        elif self.keyframes.put(keyframe.stamp_ns, keyframe):
            self.health.drop("keyframe_without_image", "a keyframe's image never came")

    def _observe(self, keyframe: Keyframe, image: Image) -> None:
        matches = self.timed(self.relocalizer.observe, keyframe, image)
        self.health.notes["keyframes_in_graph"] = len(self.relocalizer)
        self.health.last_reason = matches.explanation
        if not matches.candidates:
            return
        self.matches.publish(matches_msg(matches, keyframe.frame_id))
        self.health.published["gnn_matches"] += 1
        self.proposed[keyframe.id] = {match.reference_id for match in matches.candidates}
        if len(self.proposed) > QUERIES_KEPT:
            self.proposed.popitem(last=False)
        for closure in self.verified.get(keyframe.id, ()):
            self._tell(closure)  # sequence_matching proposed the same, and was first

    def _on_graph(self, message: PoseGraphMsg) -> None:
        self.places = {node.id: node for node in message.nodes if node.anchored}
        loops = [(e.from_id, e.to_id) for e in message.edges if e.kind == PoseGraphEdge.CLOSURE]
        present = [node.id for node in message.nodes]
        self.relocalizer.map_is(present, self.places, loops)
        if self.config.pose_prior_used:
            self.relocalizer.prior.map_is({i: pose_of(n.pose) for i, n in self.places.items()})

    def _on_pose_prior(self, message: PoseWithCovarianceStamped) -> None:
        covariance = covariance_of(message.pose)
        if covariance is None:
            raise ValueError("a pose_prior without covariance says nothing of how wrong it may be")
        stamp = stamp_ns(message.header.stamp)
        self.relocalizer.prior.guess(stamp, pose_of(message.pose.pose), covariance)

    def _on_closure(self, message: LoopClosureMsg) -> None:
        closure = closure_of(message)
        if closure.state != ClosureState.VERIFIED:
            return
        self.verified.setdefault(closure.query_id, []).append(closure)
        if len(self.verified) > QUERIES_KEPT:
            self.verified.popitem(last=False)
        self._tell(closure)

    def _tell(self, closure: LoopClosure) -> None:
        """Publish the pose by a verified closure, if we proposed it."""
        if closure.reference_id not in self.proposed.get(closure.query_id, ()):
            return
        place = self.places.get(closure.reference_id)
        if place is None:
            self.health.last_reason = f"keyframe {closure.reference_id} has no place in the map yet"
            return
        found = in_map(closure, pose_of(place.pose))
        self.poses.publish(_pose_msg(found, closure.query_stamp_ns))
        self.health.published["relocalization_pose"] += 1

    # The service

    async def _on_relocalize(
        self, request: Relocalize.Request, response: Relocalize.Response
    ) -> Relocalize.Response:
        try:
            frame = self._live_frame() if request.live_camera else _given_frame(request)
            matches = self._located_by_look(frame, request.live_camera)
            response.searched = matches.searched
            closures, remark = await self._verdicts(frame, matches)
            places = {
                closure.reference_id: pose_of(self.places[closure.reference_id].pose)
                for closure in closures
                if closure.reference_id in self.places
            }
            found = located(closures, places, self.config)
        except (ImageError, ValueError) as error:
            response.reason = str(error)
            self.health.last_reason = f"not relocalized: {error}"
            self.health.published["relocalize refused"] += 1
            return response
        response.ok, response.reason = True, "; ".join(filter(None, (found.reason, remark)))
        response.pose = _pose_msg(found, frame.stamp_ns)
        response.probability = found.probability
        response.keyframe_id, response.session = found.keyframe_id, found.session
        response.inliers = found.inliers
        self.health.last_reason = response.reason
        self.health.published["relocalize answered"] += 1
        return response

    def _live_frame(self) -> Frame:
        if self.newest is None:
            raise NotLocated("the live camera was asked for, but no image has come from it yet")
        stamp, frame_id, image = self.newest
        depth = self.depths.take(stamp)
        if depth is None and self.config.depth_topic_used:
            self.health.drop("no_depth_at_image", "no depth image with the newest image's stamp")
        elif depth is not None:
            self.depths.put(stamp, depth)  # for whoever asks again before the next image
        message = image_msg(image, stamp, frame_id)
        return Frame(message, image, depth or ImageMsg(), CameraInfo())

    def _located_by_look(self, frame: Frame, live: bool) -> PlaceMatches:
        if not self.places:
            raise NotLocated("pose_graph has told of no keyframe with a place in the map")
        matches = self.timed(self.relocalizer.locate, frame.image, frame.stamp_ns, live)
        if not matches.candidates:
            raise NotLocated(matches.explanation)
        return matches

    async def _verdicts(self, frame: Frame, matches: PlaceMatches) -> tuple[list[LoopClosure], str]:
        """What loop_closure makes of the candidates, and what it remarks on the image."""
        if not self.verifier.service_is_ready():
            raise NotLocated(f"{VERIFIER} is not running: it measures the pose")
        request = VerifyImage.Request(
            image=frame.message,
            depth=frame.depth,
            camera_info=frame.camera_info,
            candidates=[match_msg(match) for match in matches.candidates],
        )
        future = self.verifier.call_async(request)
        patience = self.config.verification_timeout
        timer = self.create_timer(patience, future.cancel, clock=STEADY)
        answer = await future
        self.destroy_timer(timer)
        if answer is None:
            raise NotLocated(f"{VERIFIER} did not answer within {patience:.0f} s")
        if not answer.closures:
            raise NotLocated(answer.message)
        return [closure_of(closure) for closure in answer.closures], answer.message


def _given_frame(request: Relocalize.Request) -> Frame:
    """The image of a request.

    Raises:
        NotLocated: none was given. ImageError: it does not decode.
    """
    if not request.image.data:
        raise NotLocated("no image was given: send one, or ask for the live_camera")
    return Frame(request.image, image_of(request.image), request.depth, request.camera_info)


def _pose_msg(found: Relocalization, stamp: int) -> PoseWithCovarianceStamped:
    message = PoseWithCovarianceStamped()
    message.header.stamp, message.header.frame_id = time_msg(stamp), MAP_FRAME
    message.pose = pose_with_covariance_msg(found.pose, found.covariance)
    return message


def main() -> None:
    """Process entry point."""
    run(GnnRelocalizationNode)
