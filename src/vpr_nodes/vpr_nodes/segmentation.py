"""segmentation: camera image to attention map.

Subscribes ``camera/image_raw`` or ``camera/image_raw/compressed``; publishes ``attention``
(mono8, the image's stamp and frame, scaled down to ``attention_width``).
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from sensor_msgs.msg import Image as ImageMsg

from vpr.config import SegmentationConfig
from vpr.images.attention import make_attention
from vpr.records import Image
from vpr_nodes.conversions import time_msg
from vpr_nodes.image_input import ImageInput
from vpr_nodes.vpr_node import RELIABLE, VprNode, run


def mono8_msg(pixels: Image, stamp: int, frame_id: str) -> ImageMsg:
    """Image message of grey pixels (H, W) uint8."""
    height, width = pixels.shape
    message = ImageMsg(height=height, width=width, encoding="mono8", step=width)
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
        self.publisher = self.create_lifecycle_publisher(ImageMsg, "attention", RELIABLE)

    def start(self) -> None:
        ImageInput(self, self.config.image_transport, self._on_image)

    def _on_image(self, stamp: int, frame_id: str, image: Image, _: Any) -> None:
        attention = self.timed(self.attention, image)
        self.publisher.publish(mono8_msg(attention, stamp, frame_id))
        self.health.published["attention"] += 1


def main() -> None:
    """Process entry point."""
    run(SegmentationNode)
