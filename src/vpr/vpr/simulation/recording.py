"""A simulated drive as a rosbag2 recording."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from vpr.bags.messages import SensorMessages
from vpr.bags.topics import (
    CAMERA_INFO_TOPIC,
    COMPRESSED_TOPIC,
    DEPTH_TOPIC,
    FIX_TOPIC,
    IMAGE_TOPIC,
    LABELS_TOPIC,
    ODOMETRY_TOPIC,
    TRUTH_TOPIC,
)
from vpr.bags.writer import BagWriter
from vpr.records import Image
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import Drive, plan_drive
from vpr.simulation.sensors import dead_reckon, receive_gps, true_velocity
from vpr.simulation.traffic import leader_gap
from vpr.simulation.world import World, build_world, photograph

FARTHEST_DEPTH = 65.535  # m; the most 16UC1 millimetres can hold
BATCH = 32  # images in flight, which bounds memory

TimedMessage = tuple[int, str, Any]  # timestamp ns, topic, message


@dataclass(frozen=True)
class RecordedDrive:
    """What a recording holds."""

    path: Path
    images: int
    seconds: float
    metres: float


@dataclass(frozen=True)
class Shot:
    """One camera frame with its truth; ``depth`` in metres, infinite in the sky."""

    index: int  # sample of the drive
    stamp_ns: int
    image: Image
    depth: NDArray[np.float32]
    labels: NDArray[np.uint8]


def own_spot(seed: int) -> float:
    """A longitude of a seed's own, so that the fixes of two towns are not those of one."""
    return -180.0 + (seed * 0.75) % 360.0  # 54 km apart at the default latitude


def take_shot(world: World, drive: Drive, index: int, config: SimulationConfig) -> Shot:
    """Photograph sample ``index`` of a drive; the same arguments give the same pixels."""
    time, lap = drive.seconds(index), int(drive.lap[index])
    ahead = drive.route.pose_at(float(drive.distance[index]) + leader_gap(time))
    view = world.view(drive.poses[index], time, lap, ahead)
    rng = np.random.default_rng([world.seed, 107, index])
    image = photograph(view, world.lighting(lap), rng, config.image_noise)
    return Shot(index, int(drive.stamps_ns[index]), image, view.depth, view.labels)


def record_drive(
    path: Path,
    seed: int,
    config: SimulationConfig | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> RecordedDrive:
    """Build the world of a seed, drive through it and write all sensors to a bag.

    Raises:
        BagError: ``path`` exists already (unless ``overwrite``) or cannot be written.
    """
    config = config or SimulationConfig()
    with BagWriter(path, overwrite=overwrite) as bag:
        world = build_world(seed, config.camera(), config.camera_height)
        drive = plan_drive(seed, world.plan, config)
        messages = SensorMessages(bag.typestore)
        _add_topics(bag, config)
        streams = (
            _camera(world, drive, config, messages, progress),
            _odometry(seed, drive, config, messages),
            _fixes(seed, drive, config, messages),
        )
        for timestamp_ns, topic, message in merge(*streams, key=itemgetter(0)):
            bag.write(topic, timestamp_ns, message)
    last = len(drive.stamps_ns) - 1
    return RecordedDrive(
        Path(path), len(drive.image_indices), drive.seconds(last), float(drive.distance[last])
    )


def _add_topics(bag: BagWriter, config: SimulationConfig) -> None:
    image = "sensor_msgs/msg/Image"
    if config.image_format == "compressed":
        bag.add_topic(COMPRESSED_TOPIC, "sensor_msgs/msg/CompressedImage")
    else:
        bag.add_topic(IMAGE_TOPIC, image)
    if config.depth:
        bag.add_topic(DEPTH_TOPIC, image)
    if config.labels:
        bag.add_topic(LABELS_TOPIC, image)
    bag.add_topic(CAMERA_INFO_TOPIC, "sensor_msgs/msg/CameraInfo")
    bag.add_topic(ODOMETRY_TOPIC, "nav_msgs/msg/Odometry")
    bag.add_topic(TRUTH_TOPIC, "nav_msgs/msg/Odometry")
    bag.add_topic(FIX_TOPIC, "sensor_msgs/msg/NavSatFix")


def _camera(
    world: World,
    drive: Drive,
    config: SimulationConfig,
    messages: SensorMessages,
    progress: bool,
) -> Iterator[TimedMessage]:
    """Images and what belongs to them, rendered on all cores (the renderer frees the GIL)."""

    def shoot(index: int) -> list[TimedMessage]:
        return _of_shot(take_shot(world, drive, index, config), config, messages)

    indices = drive.image_indices.tolist()
    workers = os.cpu_count() or 1
    with Progress(disable=not progress) as bar, ThreadPoolExecutor(workers) as pool:
        task = bar.add_task(f"rendering world {world.seed}", total=len(indices))
        for start in range(0, len(indices), BATCH):
            for timed in pool.map(shoot, indices[start : start + BATCH]):
                yield from timed
                bar.advance(task)


def _of_shot(shot: Shot, config: SimulationConfig, messages: SensorMessages) -> list[TimedMessage]:
    stamp, image = shot.stamp_ns, shot.image
    if config.image_format == "compressed":
        picture = messages.compressed_image(stamp, image, config.jpeg_quality)
        timed = [(stamp, COMPRESSED_TOPIC, picture)]
    else:
        timed = [(stamp, IMAGE_TOPIC, messages.image(stamp, image, "bgr8"))]
    timed.append((stamp, CAMERA_INFO_TOPIC, messages.camera_info(stamp, config.camera())))
    if config.depth:
        known = np.isfinite(shot.depth) & (shot.depth < FARTHEST_DEPTH)
        millimetres = np.round(np.where(known, shot.depth, 0.0) * 1000.0).astype(np.uint16)
        timed.append((stamp, DEPTH_TOPIC, messages.image(stamp, millimetres, "16UC1")))
    if config.labels:
        timed.append((stamp, LABELS_TOPIC, messages.image(stamp, shot.labels, "mono8")))
    return timed


def _odometry(
    seed: int, drive: Drive, config: SimulationConfig, messages: SensorMessages
) -> Iterator[TimedMessage]:
    """Dead reckoning, and beside it the truth wherever there is an image."""
    reckoned = dead_reckon(seed, drive, config)
    exact = np.zeros(3)
    true_twist = true_velocity(drive)
    for i, stamp in enumerate(drive.stamps_ns.tolist()):
        odometry = messages.odometry(
            stamp, "odom", reckoned.poses[i], reckoned.variance[i],
            reckoned.twist[i], reckoned.twist_variance[i],
        )  # fmt: skip
        yield stamp, ODOMETRY_TOPIC, odometry
        if i % drive.image_stride:
            continue
        truth = messages.odometry(stamp, "map", drive.poses[i], exact, true_twist[i], exact)
        yield stamp, TRUTH_TOPIC, truth


def _fixes(
    seed: int, drive: Drive, config: SimulationConfig, messages: SensorMessages
) -> Iterator[TimedMessage]:
    gps = receive_gps(seed, drive, config)
    for i, stamp in enumerate(gps.stamps_ns.tolist()):
        fixed = bool(gps.fixed[i])
        yield stamp, FIX_TOPIC, messages.fix(stamp, gps.geodetic[i], gps.variance[i], fixed)
