"""Recordings on disk into dataset folders: the code of the gps_image_sync node, offline.

Bags, KITTI raw, KITTI odometry and St Lucia all become one stream of ``SensorEvent``s, so that
whatever the source, the same synchroniser labels it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.progress import Progress
from rosbags.serde import SerdeError

from vpr.bags.reader import BagReader, header_stamp_ns
from vpr.config import GpsImageSyncConfig
from vpr.geometry import pose_from_quaternion
from vpr.images.decoding import ImageError
from vpr.messages import fix_of, image_of, pose_of
from vpr.records import GpsFix, Image, Pose
from vpr.supervision.dataset import DatasetError
from vpr.supervision.synchronizer import GpsImageSynchronizer

KINDS = {
    "sensor_msgs/msg/Image": "image",
    "sensor_msgs/msg/CompressedImage": "image",
    "sensor_msgs/msg/NavSatFix": "fix",
    "nav_msgs/msg/Odometry": "odometry",
    "sensor_msgs/msg/Imu": "imu",
}
ENDINGS = {  # of the topics read when none is named, the first that is there of each kind
    "image": ("camera/image_raw/compressed", "camera/image_raw"),
    "fix": ("fix",),
    "odometry": ("odometry",),
    "imu": ("imu/data", "imu"),
}


@dataclass(frozen=True)
class SensorEvent:
    """One measurement of a recording: exactly one of the values is set."""

    stamp_ns: int
    image: Image | bytes | None = None
    fix: GpsFix | None = None
    fix_valid: bool = True
    odometry: Pose | None = None
    orientation: Pose | None = None


@dataclass(frozen=True)
class Labelled:
    """What labelling one recording gave."""

    keyframes: int
    rejected_fixes: Counter[str]
    rejected_images: Counter[str]


def label_recording(
    name: str,
    events: Iterable[SensorEvent],
    config: GpsImageSyncConfig,
    total: int | None = None,
    progress: bool = True,
) -> Labelled:
    """Run a recording through the synchroniser into ``config.dataset``.

    An interrupted run is repeated with the same arguments: it adds what is missing, and the
    folder ends as an uninterrupted run would have left it.

    Raises:
        DatasetError: the folder can't be continued, holds this recording already, or not one
            keyframe could be labelled; the reason is said.
    """
    if not config.dataset:
        raise DatasetError("no dataset folder to write to")
    synchronizer = GpsImageSynchronizer(config, source=name)
    with Progress(disable=not progress) as bar:
        task = bar.add_task(f"labelling {name}", total=total)
        for event in events:
            _feed(synchronizer, event)
            synchronizer.poll()
            bar.advance(task)
    reason = synchronizer.missing()
    synchronizer.finish()
    if synchronizer.keyframes == 0:
        images = ", ".join(f"{key} {n}" for key, n in synchronizer.rejected_images.items())
        raise DatasetError(
            f"{name}: no keyframe could be labelled: {reason or 'see the images left out'} "
            f"(images left out: {images or 'none'})"
        )
    return Labelled(
        synchronizer.keyframes, synchronizer.rejected_fixes, synchronizer.rejected_images
    )


def bag_events(bag: BagReader, topics: dict[str, str] | None = None) -> Iterator[SensorEvent]:
    """The measurements of a bag in recorded order; a damaged message is passed over.

    Args:
        topics: kind ("image", "fix", "odometry", "imu") -> topic, where the usual one is not it.

    Raises:
        BagError: a named topic is absent, or the bag is damaged.
        DatasetError: the bag has no images.
    """
    chosen = _topics(bag, topics or {})
    kinds = {topic: kind for kind, topic in chosen.items()}
    for raw in bag.raw(list(kinds)):
        try:
            event = _event(kinds[raw.topic], bag.decode(raw))
        except (SerdeError, ImageError, ValueError):
            bag.undecodable[raw.topic] += 1
            continue
        yield event


def _topics(bag: BagReader, named: dict[str, str]) -> dict[str, str]:
    for topic in named.values():
        bag.require(topic)
    chosen = dict(named)
    for kind, endings in ENDINGS.items():
        for ending in endings:
            found = [
                topic
                for topic, type_name in sorted(bag.topics.items())
                if f"/{topic.lstrip('/')}".endswith(f"/{ending}") and KINDS.get(type_name) == kind
            ]
            if kind not in chosen and found:
                chosen[kind] = found[0]
    if "image" not in chosen:
        raise DatasetError(f"{bag.path} has no camera topic; name it with --image")
    return chosen


def _event(kind: str, message: Any) -> SensorEvent:
    stamp = header_stamp_ns(message)
    if kind == "image":
        encoded = hasattr(message, "format")
        return SensorEvent(stamp, image=bytes(message.data) if encoded else image_of(message))
    if kind == "fix":
        return SensorEvent(stamp, fix=fix_of(message), fix_valid=message.status.status >= 0)
    if kind == "odometry":
        return SensorEvent(stamp, odometry=pose_of(message.pose.pose))
    q = message.orientation
    return SensorEvent(stamp, orientation=pose_from_quaternion(np.zeros(3), (q.x, q.y, q.z, q.w)))


def _feed(synchronizer: GpsImageSynchronizer, event: SensorEvent) -> None:
    if event.image is not None:
        synchronizer.add_image(event.stamp_ns, event.image)
    elif event.fix is not None:
        synchronizer.add_fix(event.stamp_ns, event.fix, event.fix_valid)
    elif event.odometry is not None:
        synchronizer.add_odometry(event.stamp_ns, event.odometry)
    elif event.orientation is not None:
        synchronizer.add_imu(event.stamp_ns, event.orientation)
