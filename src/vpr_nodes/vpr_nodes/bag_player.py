"""bag_player: a recording onto its topics, with /clock, where ``ros2 bag play`` is not installed.

Recorded bytes go to the publishers as they are. The process ends with the bag.
"""

from __future__ import annotations

import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock

from vpr.bags.reader import BagError, BagReader, RawMessage
from vpr.config import BagPlayerConfig
from vpr_nodes.conversions import time_msg
from vpr_nodes.vpr_node import RELIABLE, VprNode, run

ODOMETRY_TYPE = "nav_msgs/msg/Odometry"
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CLOCK_PERIOD = 0.04  # s between /clock messages; every one wakes every node
NOT_PLAYED = ("/clock", "/rosout", "/parameter_events")


def message_class(type_name: str) -> type | None:
    """Python class of ``package/msg/Name``; None where the package is not installed."""
    package, _, name = type_name.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


class BagPlayerNode(VprNode):
    """Plays a bag in real time or at ``rate`` times that."""

    Config = BagPlayerConfig
    config: BagPlayerConfig

    def setup(self) -> None:
        if not self.config.bag:
            raise ValueError("bag_player.bag is empty: name the bag to play")
        with BagReader(Path(self.config.bag)) as bag:
            topics = {topic: kind for topic, kind in bag.topics.items() if topic not in NOT_PLAYED}
            if not any(kind in IMAGE_TYPES for kind in topics.values()):
                listed = ", ".join(f"{topic} ({kind})" for topic, kind in topics.items())
                raise BagError(f"{bag.path} has no image topic; it has {listed or 'nothing'}")
        self.clock_publisher = self.create_publisher(Clock, "/clock", QoSProfile(depth=10))
        self.outputs: dict[str, Any] = {}
        for topic, kind in topics.items():
            if (message_type := message_class(kind)) is None:
                self.get_logger().warning(f"{topic} not played: {kind} is not installed here")
                continue
            relative = topic.lstrip("/")  # so that a namespace holds a whole robot
            self.outputs[topic] = self.create_lifecycle_publisher(message_type, relative, RELIABLE)
        self.image_topics = [topic for topic in self.outputs if topics[topic] in IMAGE_TYPES]
        self.odometry_topics = [topic for topic in self.outputs if topics[topic] == ODOMETRY_TYPE]
        self.finished = threading.Event()
        self.stopping = threading.Event()

    def start(self) -> None:
        self.thread = threading.Thread(target=self._play_to_the_end, daemon=True)
        self.thread.start()

    def finish(self) -> None:
        """Stop playing."""
        if hasattr(self, "stopping"):
            self.stopping.set()

    def _play_to_the_end(self) -> None:
        try:
            self._wait_for_listeners()
            while True:
                self._play_once()
                if not self.config.loop or self.stopping.is_set():
                    break
        except BagError as error:
            self.start_error = str(error)
            self.get_logger().fatal(str(error))
        except Exception:
            if self.context.ok():  # else Ctrl-C: there is nothing left to publish with
                raise
        self.finished.set()

    def _wait_for_listeners(self) -> None:
        deadline = time.monotonic() + self.config.listener_timeout
        wanted = (
            (self.image_topics, self.config.listeners),
            (self.odometry_topics, self.config.odometry_listeners),
        )
        while time.monotonic() < deadline and not self.stopping.is_set():
            if all(self._heard(topics) >= count for topics, count in wanted if topics):
                break
            time.sleep(0.05)
        time.sleep(self.config.start_delay)

    def _heard(self, topics: list[str]) -> int:
        return max(int(self.outputs[topic].get_subscription_count()) for topic in topics)

    def _play_once(self) -> None:
        started: float | None = None
        first_ns, next_tick = 0, 0.0
        with BagReader(Path(self.config.bag)) as bag:
            for message in bag.raw(self.outputs):
                if started is None:
                    started, first_ns = time.monotonic(), message.timestamp_ns
                due = started + (message.timestamp_ns - first_ns) / 1e9 / self.config.rate
                while (wait := due - time.monotonic()) > 0 and not self.stopping.is_set():
                    time.sleep(min(wait, CLOCK_PERIOD))
                    if time.monotonic() >= next_tick:
                        next_tick = time.monotonic() + CLOCK_PERIOD
                        elapsed = (time.monotonic() - started) * self.config.rate
                        self._tick(min(first_ns + int(elapsed * 1e9), message.timestamp_ns))
                if self.stopping.is_set():
                    return
                self._send(message)

    def _send(self, message: RawMessage) -> None:
        self.outputs[message.topic].publish(message.data)
        self.health.published[message.topic.lstrip("/")] += 1

    def _tick(self, nanoseconds: int) -> None:
        self.clock_publisher.publish(Clock(clock=time_msg(nanoseconds)))


def main() -> None:
    """Process entry point: ends with the bag."""
    run(BagPlayerNode, until=lambda node: node.finished.is_set())
