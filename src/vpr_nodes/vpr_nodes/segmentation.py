"""segmentation: camera image (and depth) to attention map.

Subscribes ``camera/image_raw`` or ``camera/image_raw/compressed`` and, when ``depth_topic_used``,
``camera/depth/image_raw``, joined by exact stamp; publishes ``attention`` (mono8, the image's stamp
and frame, scaled down to ``attention_width``) and, when ``overlay``, ``attention_overlay`` (bgr8,
the image with the attention on it).
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image as ImageMsg

from vpr.config import SegmentationConfig
from vpr.images.attention import make_attention
from vpr.images.decoding import decode_depth
from vpr.images.overlay import attention_overlay
from vpr.messages import stamp_ns
from vpr.records import Image
from vpr_nodes.conversions import time_msg
from vpr_nodes.image_input import ExactStampJoin, ImageInput
from vpr_nodes.vpr_node import RELIABLE, SENSOR, VprNode, run

JOIN_CAPACITY = 10  # frames; older ones never got their counterpart


def image_msg(pixels: Image, stamp: int, frame_id: str) -> ImageMsg:
    """Image message of grey (H, W) or BGR (H, W, 3) uint8 pixels."""
    height, width = pixels.shape[:2]
    encoding, channels = ("mono8", 1) if pixels.ndim == 2 else ("bgr8", 3)
    message = ImageMsg(height=height, width=width, encoding=encoding, step=width * channels)
    message.header.stamp = time_msg(stamp)
    message.header.frame_id = frame_id
    message.data = array("B", np.ascontiguousarray(pixels).tobytes())
    return message


class SegmentationNode(VprNode):
    """Attention source as a node."""

    Config = SegmentationConfig
    config: SegmentationConfig

    def setup(self) -> None:
        self.attention = make_attention(self.config)
        self.images: ExactStampJoin[tuple[str, Image]] = ExactStampJoin(JOIN_CAPACITY)
        self.depths: ExactStampJoin[NDArray[np.float32]] = ExactStampJoin(JOIN_CAPACITY)
        self.publisher = self.create_lifecycle_publisher(ImageMsg, "attention", RELIABLE)
        if self.config.overlay:
            self.overlays = self.create_lifecycle_publisher(ImageMsg, "attention_overlay", RELIABLE)

    def start(self) -> None:
        ImageInput(self, self.config.image_transport, self._on_image)
        if self.config.depth_topic_used:
            self.listen(
                ImageMsg,
                "camera/depth/image_raw",
                self._on_depth,
                SENSOR,
                without="no attention: it waits for the depth image of the same stamp",
            )

    def _on_image(self, stamp: int, frame_id: str, image: Image, _: Any) -> None:
        if not self.config.depth_topic_used:
            self._attend(stamp, frame_id, image, None)
        elif (depth := self.depths.take(stamp)) is not None:
            self._attend(stamp, frame_id, image, depth)
        elif self.images.put(stamp, (frame_id, image)):
            self.health.drop("no_depth_at_image", "an image whose depth image never came")

    def _on_depth(self, message: ImageMsg) -> None:
        stamp = stamp_ns(message.header.stamp)
        depth = decode_depth(
            message.encoding,
            message.height,
            message.width,
            message.step,
            message.data,
            bool(message.is_bigendian),
            self.config.depth_scale,
        )
        if (waiting := self.images.take(stamp)) is not None:
            self._attend(stamp, *waiting, depth)
        else:
            self.depths.put(stamp, depth)

    def _attend(
        self, stamp: int, frame_id: str, image: Image, depth: NDArray[np.float32] | None
    ) -> None:
        attention = self.timed(self.attention, image, depth)
        self.publisher.publish(image_msg(attention, stamp, frame_id))
        self.health.published["attention"] += 1
        if self.config.overlay:
            overlay = attention_overlay(image, attention)
            self.overlays.publish(image_msg(overlay, stamp, frame_id))


def main() -> None:
    """Process entry point."""
    run(SegmentationNode)
