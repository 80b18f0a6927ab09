"""bag_recorder: topics to a rosbag2 MCAP recording, where ``ros2 bag record`` is not installed.

Messages are stored as they arrive, serialised, with the wall time of their arrival, so that the
latency of every stage can be read off the recording. A topic is recorded from the moment its
first publisher is discovered. The recording appears when the node is stopped.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from vpr.bags.writer import BagWriter, offered_qos
from vpr.config import BagRecorderConfig
from vpr_nodes.bag_player import message_class
from vpr_nodes.vpr_node import VprNode, run

DISCOVERY_PERIOD = 0.1  # s
DEPTH = 1000  # messages; a burst must not be lost to a slow disk


def interface_definitions(package: str) -> dict[str, str]:
    """The .msg texts of an installed interface package by full type name."""
    from ament_index_python.packages import get_package_share_directory

    folder = Path(get_package_share_directory(package)) / "msg"
    return {f"{package}/msg/{file.stem}": file.read_text() for file in sorted(folder.glob("*.msg"))}


class BagRecorderNode(VprNode):
    """Records topics until it is stopped."""

    Config = BagRecorderConfig
    config: BagRecorderConfig

    def setup(self) -> None:
        if not self.config.bag:
            raise ValueError("bag_recorder.bag is empty: name the folder to write")
        self.writer = BagWriter(
            Path(self.config.bag), definitions=interface_definitions("vpr_interfaces")
        )
        self.writer.__enter__()
        self.wanted = {self.resolve_topic_name(topic) for topic in self.config.topics}

    def start(self) -> None:
        self.every(DISCOVERY_PERIOD, self._discover)

    def _discover(self) -> None:
        if not self.wanted:
            return
        for topic, type_names in self.get_topic_names_and_types():
            if topic in self.wanted and self.get_publishers_info_by_topic(topic):
                self.wanted.discard(topic)
                self._record(topic, type_names[0])

    def _record(self, topic: str, type_name: str) -> None:
        message_type = message_class(type_name)
        if message_type is None:
            self.get_logger().warning(f"{topic} not recorded: {type_name} is not installed here")
            return
        offered = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
        reliable = all(qos.reliability == QoSReliabilityPolicy.RELIABLE for qos in offered)
        latched = all(qos.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
        self.writer.add_topic(topic, type_name, offered_qos(transient_local=latched))
        qos = QoSProfile(
            depth=DEPTH,
            reliability=QoSReliabilityPolicy.RELIABLE
            if reliable
            else QoSReliabilityPolicy.BEST_EFFORT,
            durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
            if latched
            else QoSDurabilityPolicy.VOLATILE,
        )

        def store(data: Any) -> None:
            self.writer.write_raw(topic, time.time_ns(), data)
            self.health.arrived(topic)

        self._inputs.append(self.create_subscription(message_type, topic, store, qos, raw=True))

    def finish(self) -> None:
        """Close the recording."""
        if hasattr(self, "writer"):
            self.writer.__exit__(None, None, None)


def main() -> None:
    """Process entry point: records until stopped."""
    run(BagRecorderNode)
