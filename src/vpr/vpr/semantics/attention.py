"""Attention from semantics: masks of what stands still, boundaries between things, learnt maps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpr.config import SegmentationConfig
from vpr.images.attention import AttentionError, BoundaryAttention, map_size, to_bytes
from vpr.models.attention_head import AttentionHead
from vpr.models.attention_network import INPUT_SIZE, AttentionEncoderDecoder
from vpr.models.compiled import compiled_where_possible
from vpr.models.device import chosen_device
from vpr.models.weights import WeightsError, load_weights, read_state_dict
from vpr.records import Image
from vpr.semantics.classes import class_indices
from vpr.semantics.segmenter import (
    NetworkSegmenter,
    Segmentation,
    SegmentationError,
    Segmenter,
    check_image,
)

EMBEDDED_HEAD = Path(__file__).parent / "attention_head_simulated_towns.safetensors"


def segmented(segmenter: Segmenter, image: Image) -> Segmentation:
    """Segment for attention.

    Raises:
        AttentionError: an image that cannot be segmented.
    """
    try:
        return segmenter(image)
    except SegmentationError as error:
        raise AttentionError(str(error)) from error


def static_mask(segmentation: Segmentation, classes: NDArray[np.intp]) -> NDArray[np.float32]:
    """(h, w) in 0..1: the mean of the chosen classes' activations (paper, III-B).

    The mean is scaled by the number of classes: activations sum to 1 at a pixel, so that a pixel
    that is surely of one of the classes has 1 however many are chosen.
    """
    return segmentation.likelihood_of(classes)


class SemanticMaskAttention:
    """The mask of the classes that stand still."""

    def __init__(self, config: SegmentationConfig, segmenter: Segmenter | None = None) -> None:
        self.segmenter = segmenter or NetworkSegmenter(config)
        self._classes = class_indices(config.static_classes)
        self._width, self._floor = config.attention_width, config.floor

    def __call__(self, image: Image, depth: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
        return self.of(segmented(self.segmenter, image), image)

    def of(self, segmentation: Segmentation, image: Image) -> NDArray[np.uint8]:
        """The mask of an image already segmented."""
        mask = static_mask(segmentation, self._classes)
        size = map_size(image, self._width)
        resized = cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR)
        return to_bytes(np.asarray(resized, np.float32), self._floor)


class SemanticBoundaryAttention(BoundaryAttention):
    """Boundaries between things of different class, diffused, nearer ones stronger."""

    def __init__(self, config: SegmentationConfig, segmenter: Segmenter | None = None) -> None:
        super().__init__(config)
        self.segmenter = segmenter or NetworkSegmenter(config)

    def _boundary(self, image: Image, size: tuple[int, int]) -> NDArray[np.float32]:
        labels = segmented(self.segmenter, image).labels
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        boundary = np.zeros(labels.shape, np.float32)
        boundary[:, 1:] += labels[:, 1:] != labels[:, :-1]
        boundary[1:] += labels[1:] != labels[:-1]
        return boundary


class LearnedAttention:
    """A trained head over the activations."""

    def __init__(self, config: SegmentationConfig, segmenter: Segmenter | None = None) -> None:
        self.segmenter = segmenter or NetworkSegmenter(config)
        embedded = config.attention_weights == "embedded"
        path = EMBEDDED_HEAD if embedded else Path(config.attention_weights).expanduser()
        self._head = AttentionHead()
        load_weights(self._head, read_state_dict(path), path.name)
        self._head.eval()
        self._width, self._floor = config.attention_width, config.floor

    def __call__(self, image: Image, depth: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
        likelihoods = segmented(self.segmenter, image).likelihoods[None]
        with torch.inference_mode():
            attention = self._head(likelihoods.cpu())[0, 0].numpy()
        size = map_size(image, self._width)
        attention = cv2.resize(attention, size, interpolation=cv2.INTER_LINEAR)
        return to_bytes(np.asarray(attention, np.float32), self._floor)


class EncoderDecoderAttention:
    """The appendix's encoder-decoder, trained to see at once what its pipeline computes."""

    def __init__(self, config: SegmentationConfig) -> None:
        if config.attention_weights == "embedded":
            raise WeightsError(
                "no weights for encoder_decoder are embedded: train some with "
                "'vpr train attention-network' and give the file as attention_weights"
            )
        if config.threads > 0:
            torch.set_num_threads(config.threads)
        self._device = chosen_device(config.device)
        self._mixed = config.mixed_precision and self._device.type == "cuda"
        path = Path(config.attention_weights).expanduser()
        network = AttentionEncoderDecoder()
        load_weights(network, read_state_dict(path), path.name)
        self._network = network.eval().to(self._device)
        blank = torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE)
        self._compiled = compiled_where_possible(
            network, blank, config.threads, config.runtime, self._device
        )
        self._width, self._floor = config.attention_width, config.floor

    def __call__(self, image: Image, depth: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
        try:
            check_image(image)
        except SegmentationError as error:
            raise AttentionError(str(error)) from error
        square = cv2.resize(image, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)
        to_rgb = cv2.COLOR_GRAY2RGB if square.ndim == 2 else cv2.COLOR_BGR2RGB
        rgb = torch.from_numpy(cv2.cvtColor(square, to_rgb)[None]).to(self._device)
        logits = self._logits(rgb.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        attention = torch.sigmoid(logits.float())[0, 0].cpu().numpy()
        size = map_size(image, self._width)
        attention = cv2.resize(attention, size, interpolation=cv2.INTER_LINEAR)
        return to_bytes(np.asarray(attention, np.float32), self._floor)

    def _logits(self, batch: Tensor) -> Tensor:
        if self._compiled is not None:
            return self._compiled(batch.numpy())[0]
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=self._mixed):
            logits: Tensor = self._network(batch)
        return logits
