"""Attention and classes laid over the image they were made of, for people to look at."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.records import Image

OPACITY = 0.55  # of the colours over the image


def attention_overlay(image: Image, attention: NDArray[np.uint8]) -> Image:
    """The image (H, W, 3) BGR with hot colours where attention (h, w) is most."""
    colours = cv2.applyColorMap(_at_size_of(image, attention), cv2.COLORMAP_INFERNO)
    return _blended(image, np.asarray(colours, np.uint8))


def class_overlay(image: Image, labels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image:
    """The image (H, W, 3) BGR with the colour (K, 3) RGB of each pixel's class (h, w)."""
    size = (image.shape[1], image.shape[0])
    nearest = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return _blended(image, np.asarray(colours[nearest][..., ::-1], np.uint8))


def masked_image(image: Image, attention: NDArray[np.uint8]) -> Image:
    """The image times the attention, pixel by pixel."""
    weights = _at_size_of(image, attention).astype(np.float32) / 255.0
    return np.asarray(np.rint(_colour(image) * weights[..., None]), np.uint8)


def _at_size_of(image: Image, attention: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.resize(attention, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _colour(image: Image) -> Image:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _blended(image: Image, colours: Image) -> Image:
    mixed = cv2.addWeighted(_colour(image), 1.0 - OPACITY, colours, OPACITY, 0.0)
    return np.asarray(mixed, np.uint8)
