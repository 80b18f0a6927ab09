"""All textures of a world in one flat array with their mip levels, as the renderer reads them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Texture = NDArray[np.uint8]  # (H, W, 3) BGR, or (H, W, 4) BGR and opacity

LEVELS = 8


@dataclass(frozen=True)
class TextureAtlas:
    """Mip-mapped textures, colours premultiplied by opacity.

    ``texels`` is (N, 4) uint8 BGRA; texture i at level l starts at row ``offsets[i, l]`` and is
    ``sizes[i, l]`` = (height, width) large, row-major.
    """

    texels: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


class AtlasBuilder:
    """Collects textures and hands out their numbers."""

    def __init__(self) -> None:
        self._levels: list[list[Texture]] = []
        self.metres: list[tuple[float, float]] = []

    def add(self, texture: Texture, pixels_per_metre: float) -> int:
        """Number of the added texture; its size in metres is kept in ``metres`` (width, height)."""
        height, width = texture.shape[:2]
        self.metres.append((width / pixels_per_metre, height / pixels_per_metre))
        self._levels.append(_mip_levels(_premultiplied(texture)))
        return len(self._levels) - 1

    def texels_of(self, texture: int) -> tuple[int, int]:
        """Width and height of a texture at its finest level."""
        height, width = self._levels[texture][0].shape[:2]
        return width, height

    def build(self) -> TextureAtlas:
        """Everything added so far, packed."""
        sizes = np.array([[level.shape[:2] for level in levels] for levels in self._levels])
        counts = sizes.prod(axis=2).ravel()
        offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]).reshape(sizes.shape[:2])
        texels = np.concatenate(
            [level.reshape(-1, 4) for levels in self._levels for level in levels]
        )
        return TextureAtlas(texels, offsets.astype(np.int64), sizes.astype(np.int64))


def _premultiplied(texture: Texture) -> Texture:
    if texture.shape[2] == 3:
        return cv2.cvtColor(texture, cv2.COLOR_BGR2BGRA).astype(np.uint8)
    result = texture.astype(np.uint16)
    result[..., :3] = (result[..., :3] * result[..., 3:] + 127) // 255
    return result.astype(np.uint8)


def _mip_levels(texture: Texture) -> list[Texture]:
    levels = [texture]
    for _ in range(LEVELS - 1):
        height, width = levels[-1].shape[:2]
        size = (max(1, width // 2), max(1, height // 2))
        levels.append(cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA).astype(np.uint8))
    return levels
