"""embedding: camera image (and attention) to place descriptor.

Subscribes the camera and, unless ``attention`` is ``none``, ``attention``, joined by exact
stamp; publishes ``descriptor``. ``~/adopt_model`` goes on with a trained model.
"""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import Image as ImageMsg
from vpr_interfaces.msg import Descriptor as DescriptorMsg
from vpr_interfaces.srv import AdoptModel

from vpr.config import EmbeddingConfig
from vpr.messages import image_of, stamp_ns
from vpr.models.embedder import Embedder, EmbeddingError
from vpr.records import Image
from vpr_nodes.conversions import descriptor_msg, time_msg
from vpr_nodes.image_input import ExactStampJoin, ImageInput
from vpr_nodes.vpr_node import RELIABLE, SENSOR, VprNode, run

JOIN_CAPACITY = 10  # frames; older ones never got their counterpart


class EmbeddingNode(VprNode):
    """Descriptor network as a node."""

    Config = EmbeddingConfig
    config: EmbeddingConfig

    def setup(self) -> None:
        self.embedder = self._made(self.config)
        self.images: ExactStampJoin[tuple[str, Image]] = ExactStampJoin(JOIN_CAPACITY)
        self.attentions: ExactStampJoin[Image] = ExactStampJoin(JOIN_CAPACITY)
        self.publisher = self.create_lifecycle_publisher(DescriptorMsg, "descriptor", RELIABLE)
        self.get_logger().info(
            f"model {self.embedder.model}, {self.embedder.dimension} dimensions, "
            f"for images resized to {self.config.image_width}x{self.config.image_height}"
        )

        self.create_service(AdoptModel, "~/adopt_model", self._adopt)

    def _made(self, config: EmbeddingConfig) -> Embedder:
        """An embedder whose descriptors the other nodes can compare.

        Raises:
            EmbeddingError: its model was trained without normalisation.
        """
        embedder = Embedder(config)
        if not embedder.normalised:
            raise EmbeddingError(
                f"{config.model} was trained with normalised: false: its distances have a scale "
                "of their own, nodes compare unit vectors; train it with normalised: true"
            )
        return embedder

    def _adopt(
        self, request: AdoptModel.Request, response: AdoptModel.Response
    ) -> AdoptModel.Response:
        try:
            embedder = self._made(self.config.model_copy(update={"model": request.path}))
        except ValueError as error:
            response.message = str(error)
        else:
            self.embedder, response.ok = embedder, True
        response.model = self.embedder.model
        return response

    def start(self) -> None:
        ImageInput(self, self.config.image_transport, self._on_image)
        if self.config.attention != "none":
            self.listen(
                ImageMsg,
                "attention",
                self._on_attention,
                SENSOR,
                without="no descriptor: it waits for the attention of the segmentation node",
            )

    def _on_image(self, stamp: int, frame_id: str, image: Image, _: Any) -> None:
        if self.config.attention == "none":
            self._embed(stamp, frame_id, image, None)
        elif (attention := self.attentions.take(stamp)) is not None:
            self._embed(stamp, frame_id, image, attention)
        elif self.images.put(stamp, (frame_id, image)):
            self.health.drop("no_attention_at_image", "an image whose attention never came")

    def _on_attention(self, message: ImageMsg) -> None:
        stamp = stamp_ns(message.header.stamp)
        attention = image_of(message)
        if (waiting := self.images.take(stamp)) is not None:
            self._embed(stamp, *waiting, attention)
        elif self.attentions.put(stamp, attention):
            self.health.drop("no_image_at_attention", "an attention map whose image never came")

    def _embed(self, stamp: int, frame_id: str, image: Image, attention: Image | None) -> None:
        attentions = None if attention is None else [attention]
        descriptor = self.timed(self.embedder.embed, [image], attentions)[0]
        message = descriptor_msg(descriptor, self.embedder.model)
        message.header.stamp = time_msg(stamp)
        message.header.frame_id = frame_id
        self.publisher.publish(message)
        self.health.published["descriptor"] += 1


def main() -> None:
    """Process entry point."""
    run(EmbeddingNode)
