"""An image as ORB patches with their pixel coordinates (S3E-GNN III-A and Fig. 7)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.images.decoding import colour_of, grey_of
from vpr.records import Image

PATCH_SIZES = (16, 32, 64)  # px
DETECTED_PER_PATCH = 4  # keypoints detected for each that is drawn
MIN_KEYPOINTS = 4  # fewer do not tell one low-texture view from another


class PatchError(ValueError):
    """An image that no patches can be had from; ``reason`` is short, for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Patches:
    """What an encoder sees of one image.

    Attributes:
        pixels: (K, P, P, 3) uint8 BGR.
        centres: (K, 2) float32 x, y in px of the image.
        size: width and height of the image.
        completed: how many of the K were laid on keypoint-to-centre lines for want of keypoints.
    """

    pixels: NDArray[np.uint8]
    centres: NDArray[np.float32]
    size: tuple[int, int]
    completed: int


class PatchExtractor:
    """Cuts ``count`` patches of ``patch_size`` px around ORB keypoints, drawn with a fixed seed.

    Raises:
        ValueError: a patch size other than 16, 32 or 64, or no patches asked for.
    """

    def __init__(self, patch_size: int, count: int = 128, seed: int = 0) -> None:
        if patch_size not in PATCH_SIZES:
            raise ValueError(f"patch_size {patch_size} is not one of {PATCH_SIZES}")
        if count < 1:
            raise ValueError(f"{count} patches asked for; at least 1")
        self.patch_size, self.count, self.seed = patch_size, count, seed
        self._orb = cv2.ORB.create(nfeatures=DETECTED_PER_PATCH * count, fastThreshold=7)

    def __call__(self, image: Image) -> Patches:
        """Patches of an 8-bit image, the same for the same image.

        Raises:
            PatchError: an image smaller than a patch, blank, or with too few keypoints.
        """
        height, width = image.shape[:2]
        if min(height, width) < self.patch_size:
            raise PatchError(
                "image_too_small",
                f"{width}x{height} image is smaller than a patch of {self.patch_size} px",
            )
        grey = grey_of(image)
        if int(grey.max()) == int(grey.min()):
            raise PatchError("blank_image", "the image is blank: every pixel is the same")
        keypoints = self._orb.detect(grey, None)
        if len(keypoints) < MIN_KEYPOINTS:
            raise PatchError(
                "too_few_keypoints",
                f"{len(keypoints)} ORB keypoints, at least {MIN_KEYPOINTS} are needed",
            )
        found = np.array([keypoint.pt for keypoint in keypoints], np.float32)
        rng = np.random.default_rng(self.seed)
        chosen = found[rng.permutation(len(found))[: self.count]]
        missing = self.count - len(chosen)
        centre = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
        if missing:
            chosen = np.concatenate([chosen, completion(chosen, centre, missing, rng)])
        pixels, centres = _cut(colour_of(image), chosen, self.patch_size)
        return Patches(pixels, centres, (width, height), missing)


def completion(
    keypoints: NDArray[np.float32],
    centre: NDArray[np.float32],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """(count, 2) points drawn from the lines between keypoints (K, 2) and the centre (Fig. 7)."""
    ends = keypoints[rng.integers(len(keypoints), size=count)]
    share = rng.random((count, 1), dtype=np.float32)
    return np.asarray(ends + share * (centre - ends), np.float32)


def _cut(
    image: Image, centres: NDArray[np.float32], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Patches and their centres, moved inwards where they would leave the image."""
    height, width = image.shape[:2]
    limits = np.array([width - size, height - size])
    corners = np.clip(np.rint(centres).astype(np.int64) - size // 2, 0, limits)
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size, 3))[:, :, 0]
    pixels = windows[corners[:, 1], corners[:, 0]]
    return np.ascontiguousarray(pixels), (corners + size // 2).astype(np.float32)
