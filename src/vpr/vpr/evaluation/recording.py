"""What a run left behind: the nodes' recorded topics beside the bag that was played.

Topic names are matched by their ends, so a recording made in a namespace reads the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vpr.bags.reader import BagReader, header_stamp_ns
from vpr.geometry import PoseTrack
from vpr.images.decoding import ImageError
from vpr.messages import closure_of, image_of, keyframe_of, matches_of, pose_of
from vpr.records import (
    Image,
    Keyframe,
    LoopClosure,
    PlaceMatches,
    Pose,
)

IMAGE_TOPICS = ("camera/image_raw/compressed", "camera/image_raw")
TRUTH_TOPIC = "ground_truth"
TRACK_GAP_NS = 1_000_000_000


@dataclass(frozen=True)
class Run:
    """Everything that one run published, in the library's own records.

    ``arrivals`` holds, by topic and image stamp, when the recorder got the first message about
    that image (wall clock, ns); ``processing_ms`` the p50 and p95 that each node said of its own
    work; ``trajectory`` the last published map_T_base of every keyframe.
    """

    keyframes: list[Keyframe] = field(default_factory=list)
    matches: dict[int, PlaceMatches] = field(default_factory=dict)
    closures: list[LoopClosure] = field(default_factory=list)  # the last verdict on each pair
    trajectory: dict[int, Pose] = field(default_factory=dict)
    refused: dict[tuple[int, int], str] = field(default_factory=dict)  # by the pose graph
    arrivals: dict[str, dict[int, int]] = field(default_factory=dict)
    processing_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    undecodable: Counter[str] = field(default_factory=Counter)  # damaged messages by topic


@dataclass(frozen=True)
class Source:
    """The played bag: which images it holds, its odometry and, if there is one, the truth."""

    path: Path
    image_stamps_ns: list[int]
    odometry: PoseTrack
    truth: PoseTrack | None


def _messages(bag: BagReader, ending: str) -> Iterator[tuple[int, Any]]:
    for topic in bag.topics:
        if topic.lstrip("/") == ending or topic.endswith(f"/{ending}"):
            yield from bag.messages(topic)


def read_run(path: Path) -> Run:
    """Read the recording of a run.

    Raises:
        BagError: missing or damaged.
    """
    run = Run()
    closures: dict[tuple[int, int], LoopClosure] = {}
    with BagReader(path) as bag:
        for topic in (*IMAGE_TOPICS, "attention", "descriptor"):
            _note_arrivals(run, topic, bag)
        for arrival, message in _messages(bag, "keyframe"):
            run.keyframes.append(keyframe_of(message))
            _first(run, "keyframe", header_stamp_ns(message), arrival)
        for arrival, message in _messages(bag, "matches"):
            run.matches[int(message.query_id)] = matches_of(message)
            _first(run, "matches", header_stamp_ns(message), arrival)
        for arrival, message in _messages(bag, "loop_closures"):
            closure = closure_of(message)
            closures[closure.query_id, closure.reference_id] = closure
            _first(run, "loop_closures", closure.query_stamp_ns, arrival)
        _read_graph(run, bag)
        _read_diagnostics(run, bag)
        run.undecodable.update(bag.undecodable)
    run.closures.extend(closures.values())
    return run


def _note_arrivals(run: Run, topic: str, bag: BagReader) -> None:
    for arrival, message in _messages(bag, topic):
        _first(run, topic, header_stamp_ns(message), arrival)


def _first(run: Run, topic: str, stamp: int, arrival: int) -> None:
    run.arrivals.setdefault(topic, {}).setdefault(stamp, arrival)


def _read_graph(run: Run, bag: BagReader) -> None:
    published = deque(_messages(bag, "graph"), maxlen=1)
    if not published:
        return
    graph = published[0][1]
    for node in graph.nodes:
        if node.anchored:
            run.trajectory[int(node.id)] = pose_of(node.pose)
    for edge in graph.edges:
        if edge.kind == edge.REJECTED_CLOSURE:
            run.refused[int(edge.from_id), int(edge.to_id)] = edge.reason


def _read_diagnostics(run: Run, bag: BagReader) -> None:
    for _, array in _messages(bag, "diagnostics"):
        for status in array.status:
            values = {value.key: value.value for value in status.values}
            if "processing_ms_p50" in values:
                name = status.name.rsplit("/", 1)[-1]
                run.processing_ms[name] = {
                    "p50": float(values["processing_ms_p50"]),
                    "p95": float(values["processing_ms_p95"]),
                }


def read_source(path: Path) -> Source:
    """Read what was played: image stamps, odometry and truth.

    Raises:
        BagError: missing, damaged, or without images.
    """
    with BagReader(path) as bag:
        topic = image_topic(bag)
        stamps = [header_stamp_ns(message) for _, message in bag.messages(topic)]
        odometry = _track(bag, "odometry")
        truth = _track(bag, TRUTH_TOPIC)
    return Source(Path(path), stamps, odometry, truth if len(truth) else None)


def image_topic(bag: BagReader) -> str:
    """The camera topic of a bag.

    Raises:
        BagError: it has none; names the topics it has.
    """
    for ending in IMAGE_TOPICS:
        for topic in bag.topics:
            if topic.lstrip("/") == ending or topic.endswith(f"/{ending}"):
                return topic
    bag.require(f"/{IMAGE_TOPICS[0]}")
    raise AssertionError("unreachable: require() refuses")


def read_images(path: Path, stamps_ns: set[int]) -> dict[int, Image]:
    """The images of some stamps; one that does not decode is left out.

    Raises:
        BagError: missing, damaged, or without images.
    """
    images: dict[int, Image] = {}
    with BagReader(path) as bag:
        for _, message in bag.messages(image_topic(bag)):
            stamp = header_stamp_ns(message)
            if stamp in stamps_ns:
                try:
                    images[stamp] = image_of(message)
                except ImageError:
                    continue
    return images


def _track(bag: BagReader, ending: str) -> PoseTrack:
    track = PoseTrack(TRACK_GAP_NS, capacity=10_000_000)
    for _, message in _messages(bag, ending):
        try:
            track.append(header_stamp_ns(message), pose_of(message.pose.pose))
        except ValueError:  # not finite, or a stamp that does not ascend: the nodes drop it too
            continue
    return track
