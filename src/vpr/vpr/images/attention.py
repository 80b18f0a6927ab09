"""Attention: which pixels of an image deserve to be remembered.

The boundary sources follow the appendix of "S3E-GNN: Sparse Spatial Scene Embedding with Graph
Neural Networks for Camera Relocalization": a boundary map, diffused over its surroundings, and
fused with inverse depth where depth is known. The unsupervised one finds boundaries by a 3x3
Laplacian of Gaussian and needs no weights; those from semantics are in ``vpr.semantics.attention``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.config import SegmentationConfig
from vpr.records import Image

LOG_KERNEL = np.array([[1, 1, 1], [1, -8, 1], [1, 1, 1]], dtype=np.float32)
DENOISING_SIGMA = 1.0  # px; the Gaussian of the Laplacian of Gaussian
BRIGHTEST_PERCENTILE = 99.0  # this boundary strength counts as full attention: robust to glints


class AttentionError(ValueError):
    """An image or depth map that no attention can be computed from; says what is wrong with it."""


class AttentionSource(Protocol):
    """Anything that weighs the pixels of an image."""

    def __call__(self, image: Image, depth: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
        """Attention (h, w) uint8, 255 where most is; the image's aspect at the configured width.

        Args:
            image: (H, W, 3) BGR or (H, W) grey uint8.
            depth: (H, W) metres, registered to the image; 0 or not finite where unknown.

        Raises:
            AttentionError: an image or depth of the wrong type or shape.
        """
        ...


class BoundaryAttention(ABC):
    """Boundaries of things, diffused over their surroundings, and fused with inverse depth."""

    def __init__(self, config: SegmentationConfig) -> None:
        self._width = config.attention_width
        self._diffusion_sigma = config.diffusion_sigma
        self._floor = config.floor

    def __call__(self, image: Image, depth: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
        attention = self._diffused(self._boundary(image, map_size(image, self._width)))
        if depth is not None:
            attention = attention * _inverse_depth(depth, image.shape[:2], attention.shape)
        return to_bytes(_scaled_to_unit(attention), self._floor)

    @abstractmethod
    def _boundary(self, image: Image, size: tuple[int, int]) -> NDArray[np.float32]:
        """Strength of the boundaries, not negative, at a size of (columns, rows)."""

    def _diffused(self, boundary: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._diffusion_sigma == 0.0:
            return boundary
        return np.asarray(cv2.GaussianBlur(boundary, (0, 0), self._diffusion_sigma), np.float32)


class LaplacianOfGaussianAttention(BoundaryAttention):
    """Boundaries of things, found without learning."""

    def _boundary(self, image: Image, size: tuple[int, int]) -> NDArray[np.float32]:
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        grey = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        denoised = cv2.GaussianBlur(grey.astype(np.float32), (3, 3), DENOISING_SIGMA)
        return np.abs(cv2.filter2D(denoised, -1, LOG_KERNEL)).astype(np.float32)


def map_size(image: Image, width: int) -> tuple[int, int]:
    """Columns and rows of an attention map: the image's aspect at a width.

    Raises:
        AttentionError: not an 8-bit image of 1 or 3 channels.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise AttentionError(f"not an 8-bit image: {image.dtype} array of shape {image.shape}")
    if image.ndim == 3 and image.shape[2] != 3:
        raise AttentionError(f"an image has 1 or 3 channels, not {image.shape[2]}")
    rows, columns = image.shape[:2]
    return width, max(1, round(width * rows / columns))


def to_bytes(attention: NDArray[np.float32], floor: float) -> NDArray[np.uint8]:
    """Attention in 0..1, raised to ``floor``, as a grey image."""
    raised = np.clip(attention, np.float32(floor), np.float32(1.0))
    return np.asarray(np.rint(255.0 * raised), np.uint8)


def _scaled_to_unit(attention: NDArray[np.float32]) -> NDArray[np.float32]:
    strongest = float(np.percentile(attention, BRIGHTEST_PERCENTILE))
    if strongest < 1e-3:  # an even grey: nowhere is better than elsewhere
        return np.ones_like(attention)
    return np.minimum(attention / strongest, 1.0)


def _inverse_depth(
    depth: NDArray[np.float32], image_shape: tuple[int, ...], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Nearness 0..1 at the attention's size; unknown depth gets the median of the known."""
    if depth.shape != tuple(image_shape):
        raise AttentionError(f"depth {depth.shape} is not registered to image {image_shape}")
    size = (shape[1], shape[0])
    small = cv2.resize(depth.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    known = np.isfinite(small) & (small > 0.0)
    if not known.any():
        return np.ones(shape, np.float32)
    nearness = np.empty(shape, np.float32)
    nearness[known] = small[known].min() / small[known]
    nearness[~known] = np.median(nearness[known])
    return nearness


def make_attention(config: SegmentationConfig) -> AttentionSource:
    """The attention source that the configuration names.

    Raises:
        SegmentationError, WeightsError: a network that cannot be had.
    """
    if config.source == "laplacian_of_gaussian":
        return LaplacianOfGaussianAttention(config)
    from vpr.semantics import attention as semantic  # PyTorch is only loaded where it is used

    sources: dict[str, Callable[[SegmentationConfig], AttentionSource]] = {
        "semantic_mask": semantic.SemanticMaskAttention,
        "semantic_boundaries": semantic.SemanticBoundaryAttention,
        "learned": semantic.LearnedAttention,
        "encoder_decoder": semantic.EncoderDecoderAttention,
    }
    return sources[config.source](config)
