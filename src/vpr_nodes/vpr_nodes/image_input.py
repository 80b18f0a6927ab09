"""The camera as every node takes it in: raw or compressed, decoded, refused by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg

from vpr.messages import image_of, stamp_ns
from vpr_nodes.vpr_node import SENSOR, VprNode

RAW_TOPIC = "camera/image_raw"
COMPRESSED_TOPIC = "camera/image_raw/compressed"
T = TypeVar("T")


class ImageInput:
    """Feeds ``callback(stamp_ns, frame_id, image, message)`` from the camera topic in use.

    With transport ``auto`` both topics are heard and the first to speak is kept, so that a
    camera that publishes both is not decoded twice.

    Args:
        keep_encoded: hand on the bytes of a compressed image as they are instead of its pixels.
    """

    def __init__(
        self,
        node: VprNode,
        transport: str,
        callback: Callable[[int, str, Any, Any], None],
        keep_encoded: bool = False,
    ) -> None:
        self._keep_encoded = keep_encoded
        self._node = node
        self._callback = callback
        self._topic = {"raw": RAW_TOPIC, "compressed": COMPRESSED_TOPIC}.get(transport)
        without = "no images, nothing to do"
        if self._topic in (None, RAW_TOPIC):
            node.listen(ImageMsg, RAW_TOPIC, self._raw, SENSOR, without if self._topic else "")
        if self._topic in (None, COMPRESSED_TOPIC):
            node.listen(
                CompressedImage,
                COMPRESSED_TOPIC,
                self._compressed,
                SENSOR,
                without if self._topic else "",
            )
        if self._topic is None:
            node.health.expect(f"{RAW_TOPIC}[/compressed]", without)

    def _raw(self, message: ImageMsg) -> None:
        self._take(RAW_TOPIC, message)

    def _compressed(self, message: CompressedImage) -> None:
        self._take(COMPRESSED_TOPIC, message)

    def _take(self, topic: str, message: Any) -> None:
        if self._topic is None:
            self._topic = topic
            self._node.get_logger().info(f"images from {self._node.resolve_topic_name(topic)}")
        if topic != self._topic:
            return
        self._node.health.arrived(f"{RAW_TOPIC}[/compressed]")
        keep = self._keep_encoded and topic == COMPRESSED_TOPIC
        image = bytes(message.data) if keep else image_of(message)
        self._callback(stamp_ns(message.header.stamp), message.header.frame_id, image, message)


class ExactStampJoin(Generic[T]):
    """Keeps the latest items by stamp until their counterpart with the very same stamp asks.

    Args:
        capacity: items kept; the oldest beyond it are forgotten.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: OrderedDict[int, T] = OrderedDict()

    def put(self, stamp: int, item: T) -> int:
        """Keep an item; returns how many older ones are forgotten for it."""
        self._items[stamp] = item
        forgotten = len(self._items) - self._capacity
        for _ in range(forgotten):
            self._items.popitem(last=False)
        return max(forgotten, 0)

    def take(self, stamp: int) -> T | None:
        """The item of a stamp, once; None when it never came or is forgotten."""
        return self._items.pop(stamp, None)
