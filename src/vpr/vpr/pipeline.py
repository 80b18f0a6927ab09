"""The whole chain in one process without ROS: a bag in, the run that the nodes would make out.

For tuning on a workstation and for tests: frames are taken one by one, nothing is dropped.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.bags.reader import BagReader, header_stamp_ns
from vpr.bags.topics import (
    CAMERA_INFO_TOPIC,
    DEPTH_TOPIC,
)
from vpr.config import (
    EmbeddingConfig,
    LoopClosureConfig,
    PoseGraphConfig,
    SequenceMatchingConfig,
)
from vpr.evaluation.recording import Run, image_topic, read_source
from vpr.geometry import PoseTrack, PoseUnavailable
from vpr.graph.edges import EdgeKind
from vpr.graph.jury import judge
from vpr.graph.pose_graph import PoseGraph
from vpr.images.decoding import ImageError, decode_depth
from vpr.messages import camera_of, image_of
from vpr.models.embedder import Embedder
from vpr.places.recognizer import PlaceRecognizer
from vpr.records import CameraModel, ClosureState, Keyframe, LoopClosure, Pose
from vpr.verification.expected_views import MapPoses
from vpr.verification.loop_closer import LoopCloser


class Pipeline:
    """Embedder, recognizer, loop closer and pose graph wired as the nodes are."""

    def __init__(self, params_file: Path | None = None, **loop_closure: Any) -> None:
        self.embedder = Embedder(EmbeddingConfig.from_file(params_file))
        self.recognizer = PlaceRecognizer(SequenceMatchingConfig.from_file(params_file))
        config = LoopClosureConfig.from_file(params_file, **loop_closure)
        self.closer = LoopCloser(config)
        self.graph = PoseGraph(PoseGraphConfig.from_file(params_file))
        self.run = Run()
        self._graph_due_ns = 0
        self._verdicts: dict[tuple[int, int], LoopClosure] = {}

    def observe(
        self,
        stamp_ns: int,
        image: NDArray[np.uint8],
        depth: NDArray[np.float32] | None,
        camera: CameraModel,
        odometry: Pose | None,
    ) -> list[LoopClosure]:
        """Take one frame through the chain; returns the verdicts it brought."""
        descriptor = self.embedder.embed([image])[0]
        observation = self.recognizer.observe(
            stamp_ns, descriptor, self.embedder.model, odometry=odometry
        )
        keyframe, matches = observation.keyframe, observation.matches
        if keyframe is None or matches is None:
            return []
        self.run.keyframes.append(keyframe)
        self.run.matches[keyframe.id] = matches
        self.graph.add_keyframe(keyframe)
        self.closer.add_keyframe(keyframe, self.closer.extract(image, depth, camera))
        tried = depth is not None and self.closer.config.expects_loops
        expected = self._expected_loops(keyframe) if tried else []
        closed = {c.reference_id for c in expected if c.state is ClosureState.VERIFIED}
        others = tuple(c for c in matches.candidates if c.reference_id not in closed)
        return expected + self._take(self.closer.verify(replace(matches, candidates=others)))

    def finish(self) -> Run:
        """Last verdicts and the corrected trajectory."""
        self._take(self.closer.flush())
        self._judge()
        self.run.closures.extend(self._verdicts.values())
        self.run.trajectory.update({node.id: node.pose for node in self.graph.nodes()})
        for edge in self.graph.edges():
            if edge.kind == EdgeKind.CLOSURE and edge.state == ClosureState.REJECTED:
                self.run.refused[edge.from_id, edge.to_id] = edge.reason
        return self.run

    def _expected_loops(self, keyframe: Keyframe) -> list[LoopClosure]:
        """Loops by the graph, which is looked at as seldom as it is published to the node."""
        if keyframe.stamp_ns >= self._graph_due_ns:
            self._graph_due_ns = keyframe.stamp_ns + round(1e9 * self.graph.config.publish_period)
            self.closer.map_is(_map_poses(self.graph))
        return self._take(self.closer.expected_loops(keyframe.id))

    def _take(self, closures: list[LoopClosure]) -> list[LoopClosure]:
        for closure in closures:
            self._verdicts[closure.query_id, closure.reference_id] = closure
            if closure.state == ClosureState.VERIFIED:
                self.graph.add_closure(closure)
        return closures

    def _judge(self) -> None:
        """Let the jury have the last word on all closures."""
        case = self.graph.case()
        if case is not None:
            self.graph.follow(judge(case))
        for closure in self.graph.take_reversals():
            self._verdicts[closure.query_id, closure.reference_id] = closure


def _map_poses(graph: PoseGraph) -> MapPoses:
    nodes = graph.trajectory()
    tied = {
        end
        for edge in graph.edges()
        if edge.kind is EdgeKind.CLOSURE and edge.state is ClosureState.VERIFIED
        for end in (edge.from_id, edge.to_id)
    }
    return MapPoses(
        np.array([node.id for node in nodes], np.int64),
        np.array([node.session for node in nodes], np.int64),
        np.array([node.stamp_ns for node in nodes], np.int64),
        np.array([node.pose for node in nodes]).reshape(-1, 4, 4),
        np.array(sorted(tied), np.int64),
    )


def run_bag(path: Path, params_file: Path | None = None) -> Run:
    """Run the chain over a bag; depth, intrinsics and odometry are used where it has them.

    Raises:
        BagError: missing, damaged, or without images.
    """
    source = read_source(path)
    pipeline = Pipeline(params_file)
    config = LoopClosureConfig.from_file(params_file)
    camera: CameraModel | None = None
    depths: dict[int, NDArray[np.float32]] = {}
    with BagReader(path) as bag:
        topic = image_topic(bag)
        for raw in bag.raw([topic, CAMERA_INFO_TOPIC, DEPTH_TOPIC]):
            message = bag.decode(raw)
            stamp = header_stamp_ns(message)
            if raw.topic == CAMERA_INFO_TOPIC:
                camera = camera_of(message)
            elif raw.topic == DEPTH_TOPIC:
                depths = {stamp: _depth_of(message, config.depth_scale)}
            else:
                try:
                    image = image_of(message)
                except ImageError:
                    continue
                height, width = image.shape[:2]
                model = camera or CameraModel.from_horizontal_fov(
                    width, height, config.assumed_horizontal_fov
                )
                pipeline.observe(
                    stamp, image, depths.get(stamp), model, _pose_at(source.odometry, stamp)
                )
    return pipeline.finish()


def _pose_at(track: PoseTrack, stamp: int) -> Pose | None:
    try:
        return track.at(stamp)
    except PoseUnavailable:
        return None


def _depth_of(message: Any, scale: float) -> NDArray[np.float32]:
    return decode_depth(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.data,
        bool(message.is_bigendian),
        scale,
    )
