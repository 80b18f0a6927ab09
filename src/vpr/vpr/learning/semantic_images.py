"""Images with their masks and activations, handed to training batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpr.images.decoding import ImageError
from vpr.records import Image
from vpr.semantics.attention import static_mask
from vpr.semantics.mask_cache import MaskCache
from vpr.semantics.segmenter import Segmenter


def others(rng: np.random.Generator, count: int) -> NDArray[np.intp]:
    """For each of ``count`` images another one, each taken once: a random cycle."""
    cycle = rng.permutation(count)
    order = np.empty(count, np.intp)
    order[cycle] = np.roll(cycle, 1)
    return order


class SemanticBatch(NamedTuple):
    """What ``PlaceNetwork`` takes, (B, ?, H, W): RGB in 0..255, mask and activations in 0..1."""

    rgb: Tensor
    mask: Tensor
    activations: Tensor


class SemanticImages(Protocol):
    """A collection of images of one size."""

    def __len__(self) -> int:
        """How many."""
        ...

    def batch(self, rows: Sequence[int]) -> SemanticBatch:
        """The images of these rows."""
        ...

    def shuffled(self, rng: np.random.Generator) -> SemanticImages:
        """A control: each image with the semantics of another one."""
        ...

    def constant(self) -> SemanticImages:
        """A control: every image with the mean semantics of all."""
        ...


@dataclass(frozen=True)
class ImagesInMemory:
    """Small collections: rgb (N, H, W, 3), mask (N, H, W) and activations (N, 19, H, W)."""

    rgb: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    activations: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.rgb)

    def batch(self, rows: Sequence[int]) -> SemanticBatch:
        chosen = np.asarray(rows)
        return SemanticBatch(
            torch.from_numpy(self.rgb[chosen]).permute(0, 3, 1, 2).float(),
            torch.from_numpy(self.mask[chosen][:, None]).float() / 255.0,
            torch.from_numpy(self.activations[chosen]).float() / 255.0,
        )

    @classmethod
    def segmented(
        cls,
        images: Sequence[Image],
        segmenter: Segmenter,
        classes: NDArray[np.intp],
        size: tuple[int, int],
    ) -> ImagesInMemory:
        """Segment BGR images and keep all at ``size`` (width, height)."""
        rgb, masks, activations = [], [], []
        for image in images:
            found = segmenter(image).resized(*size)
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            rgb.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
            masks.append(np.rint(255.0 * static_mask(found, classes)).astype(np.uint8))
            activations.append(np.rint(255.0 * found.activations).astype(np.uint8))
        return cls(np.stack(rgb), np.stack(masks), np.stack(activations))

    def shuffled(self, rng: np.random.Generator) -> ImagesInMemory:
        order = others(rng, len(self))
        return replace(self, mask=self.mask[order], activations=self.activations[order])

    def constant(self) -> ImagesInMemory:
        mask = np.rint(self.mask.mean(axis=0)).astype(np.uint8)
        activations = np.rint(self.activations.mean(axis=0)).astype(np.uint8)
        return replace(
            self,
            mask=np.broadcast_to(mask, self.mask.shape),
            activations=np.broadcast_to(activations, self.activations.shape),
        )


@dataclass(frozen=True)
class CachedImages:
    """Large collections: images read from files, semantics from a cache, when a batch asks.

    ``semantics`` names the image whose mask and activations each one gets (its own, but for a
    control); ``mean`` (1 or 20, H, W), a mask and maybe activations, stands in for all where it is
    given. From a cache of masks only the activations are empty, (0, H, W).
    """

    files: tuple[Path, ...]
    cache: MaskCache
    size: tuple[int, int]  # width, height
    semantics: tuple[str, ...]
    mean: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, files: tuple[Path, ...], cache: MaskCache, size: tuple[int, int]) -> CachedImages:
        """Each image with its own semantics."""
        return cls(files, cache, size, tuple(path.stem for path in files))

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, rows: Sequence[int]) -> SemanticBatch:
        rgb = np.stack([self._image(self.files[row]) for row in rows])
        planes = np.stack([self._planes(row) for row in rows])
        return ImagesInMemory(rgb, planes[:, 0], planes[:, 1:]).batch(range(len(rows)))

    def shuffled(self, rng: np.random.Generator) -> CachedImages:
        order = others(rng, len(self))
        return replace(self, semantics=tuple(self.semantics[row] for row in order))

    def constant(self) -> CachedImages:
        total = np.zeros((), np.float64)
        for row in range(len(self)):
            total = total + self._planes(row)
        return replace(self, mean=np.rint(total / max(len(self), 1)).astype(np.uint8))

    def _image(self, path: Path) -> NDArray[np.uint8]:
        decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if decoded is None:
            raise ImageError("undecodable_image", f"cannot decode image {path}")
        small = cv2.resize(decoded, self.size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)

    def _planes(self, row: int) -> NDArray[np.uint8]:
        """Mask and activations (1 or 20, H, W)."""
        if self.mean is not None:
            return self.mean
        name = self.semantics[row]
        size = self.cache.manifest.images.get(name, (0, 0))
        planes = [self.cache.mask(name, size)]
        if self.cache.manifest.activations:
            planes.extend(self.cache.activations(name, size))
        return np.stack([np.asarray(cv2.resize(plane, self.size), np.uint8) for plane in planes])
