"""Attention: which pixels of an image deserve to be remembered.

The unsupervised source follows the appendix of "S3E-GNN: Sparse Spatial Scene Embedding with Graph
Neural Networks for Camera Relocalization": a 3x3 Laplacian-of-Gaussian boundary map, diffused over
its surroundings, and fused with inverse depth where depth is known. It needs no weights.
"""

from __future__ import annotations

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


class LaplacianOfGaussianAttention:
    """Boundaries of things, found without learning."""

    def __init__(self, config: SegmentationConfig) -> None:
        self._width = config.attention_width
        self._diffusion_sigma = config.diffusion_sigma
        self._floor = config.floor

    def __call__(self, image: Image, depth: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
        grey = self._shrunken_grey(image)
        denoised = cv2.GaussianBlur(grey, (3, 3), DENOISING_SIGMA)
        boundary = np.abs(cv2.filter2D(denoised, -1, LOG_KERNEL)).astype(np.float32)
        attention = self._diffused(boundary)
        if depth is not None:
            attention *= self._inverse_depth(depth, image.shape[:2], attention.shape)
        attention = self._scaled_to_unit(attention)
        attention = 255.0 * np.maximum(attention, np.float32(self._floor))
        return np.asarray(np.rint(attention), np.uint8)

    def _shrunken_grey(self, image: Image) -> NDArray[np.float32]:
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
            raise AttentionError(f"not an 8-bit image: {image.dtype} array of shape {image.shape}")
        if image.ndim == 3 and image.shape[2] != 3:
            raise AttentionError(f"an image has 1 or 3 channels, not {image.shape[2]}")
        rows, columns = image.shape[:2]
        size = (self._width, max(1, round(self._width * rows / columns)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        grey = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        return grey.astype(np.float32)

    def _diffused(self, boundary: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._diffusion_sigma == 0.0:
            return boundary
        return np.asarray(cv2.GaussianBlur(boundary, (0, 0), self._diffusion_sigma), np.float32)

    @staticmethod
    def _scaled_to_unit(attention: NDArray[np.float32]) -> NDArray[np.float32]:
        strongest = float(np.percentile(attention, BRIGHTEST_PERCENTILE))
        if strongest < 1e-3:  # an even grey: nowhere is better than elsewhere
            return np.ones_like(attention)
        return np.minimum(attention / strongest, 1.0)

    @staticmethod
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
    """The attention source that the configuration names."""
    sources: dict[str, type[LaplacianOfGaussianAttention]] = {
        "laplacian_of_gaussian": LaplacianOfGaussianAttention
    }
    return sources[config.source](config)
