"""Masks and activations of a folder of images, kept on disk as 8-bit grey images.

"Exploring the Addition of Attention Mechanisms guided by Semantic Segmentation in Place
Recognition", section III-A: segmenting inside the training loop costs too much, so the activations
are generated once, scaled to 0..255 and cached. The manifest says what they were made with; a cache
of another segmenter or class list is refused, not mixed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from vpr.config import SegmentationConfig
from vpr.semantics.attention import static_mask
from vpr.semantics.classes import CLASS_NAMES, class_indices
from vpr.semantics.segmenter import NetworkSegmenter, Segmentation

MANIFEST = "manifest.json"
VERSION = 1
MASK = "mask"


class MaskCacheError(ValueError):
    """A cache that is missing, of other settings, or without an image; says which."""


@dataclass(frozen=True)
class MaskManifest:
    """What the images of a cache were made with, and which images they are of."""

    version: int
    segmenter: str
    weights: str
    network_width: int
    classes: tuple[str, ...]  # of the mask
    activations: bool  # whether the 19 activations are kept as well
    images: dict[str, tuple[int, int]]  # name to width and height in pixels

    def settings(self) -> tuple[object, ...]:
        """All that two caches must agree in to be one."""
        return (
            self.version, self.segmenter, self.weights, self.network_width,
            self.classes, self.activations,
        )  # fmt: skip


class MaskCache:
    """The folder of one set of images: ``mask/NAME.png`` and ``CLASS/NAME.png``."""

    def __init__(self, folder: Path, manifest: MaskManifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> MaskCache:
        """Read a cache's manifest.

        Raises:
            MaskCacheError: no manifest, a broken one, or one of another version.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_text())
            images = {str(name): (int(w), int(h)) for name, (w, h) in values["images"].items()}
            values |= {"images": images, "classes": tuple(values["classes"])}
            manifest = MaskManifest(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise MaskCacheError(f"cannot read {path}: {error}") from error
        if manifest.version != VERSION:
            raise MaskCacheError(f"{path} is of version {manifest.version}, not {VERSION}")
        return cls(folder, manifest)

    def mask(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The mask (H, W) of an image of a ``size`` of (width, height), at that size.

        Raises:
            MaskCacheError: the cache has none, or the image's size is not the one it was made of.
        """
        return self._read(MASK, name, size)

    def activations(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(19, H, W) activations of an image, 255 where a class is certain.

        Raises:
            MaskCacheError: as ``mask``, or the cache was made without activations.
        """
        if not self.manifest.activations:
            raise MaskCacheError(f"{self.folder} holds masks only: make it with activations")
        return np.stack([self._read(_folder_of(kind), name, size) for kind in CLASS_NAMES])

    def _read(self, kind: str, name: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        made_of = self.manifest.images.get(name)
        if made_of is None:
            raise MaskCacheError(f"{self.folder} has nothing of image '{name}'")
        if made_of != size:
            raise MaskCacheError(
                f"image '{name}' is {size[0]}x{size[1]}, its mask was made of "
                f"{made_of[0]}x{made_of[1]}"
            )
        path = self.folder / kind / f"{name}.png"
        plane = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if plane is None:
            raise MaskCacheError(f"cannot decode {path}")
        return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def cache_masks(
    folder: Path, files: Sequence[Path], config: SegmentationConfig, activations: bool = False
) -> MaskCache:
    """Segment images that the cache has not; the manifest is written last, whole.

    Args:
        activations: keep the 19 activations besides the masks; a cache that has them goes on so.

    Raises:
        MaskCacheError: the folder holds a cache of other settings, or an image cannot be decoded.
        SegmentationError, WeightsError: a segmenter that cannot be had.
    """
    manifest = MaskManifest(
        VERSION, config.segmenter, config.segmenter_weights, config.network_width,
        tuple(config.static_classes), activations, {},
    )  # fmt: skip
    if (folder / MANIFEST).exists():
        known = MaskCache.open(folder).manifest
        manifest = replace(manifest, activations=activations or known.activations)
        if known.settings() != manifest.settings():
            raise MaskCacheError(f"{folder} was made with {known.settings()[1:]}: use another")
        manifest = known
    missing = [path for path in files if path.stem not in manifest.images]
    segmenter = NetworkSegmenter(config) if missing else None
    classes = class_indices(config.static_classes)
    for path in track(missing, description="segmenting", transient=True):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise MaskCacheError(f"cannot decode image {path}")
        assert segmenter is not None
        found = segmenter(np.asarray(image, np.uint8))
        _write(folder, path.stem, found, classes, manifest.activations)
        manifest.images[path.stem] = (image.shape[1], image.shape[0])
    _write_manifest(folder, manifest)
    return MaskCache(folder, manifest)


def _write(
    folder: Path, name: str, found: Segmentation, classes: NDArray[np.intp], activations: bool
) -> None:
    planes = {MASK: static_mask(found, classes)}
    if activations:
        names = [_folder_of(name) for name in CLASS_NAMES]
        planes |= dict(zip(names, found.activations, strict=True))
    for kind, plane in planes.items():
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{name}.partial.png")
        cv2.imwrite(str(partial), np.rint(255.0 * plane).astype(np.uint8))
        partial.replace(path)


def _write_manifest(folder: Path, manifest: MaskManifest) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    partial.replace(folder / MANIFEST)


def _folder_of(class_name: str) -> str:
    return class_name.replace(" ", "_")
