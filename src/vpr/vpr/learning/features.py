"""Descriptors of dataset images by the frozen trunk, computed once and kept beside the images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from vpr.images.decoding import ImageError, decode_compressed
from vpr.learning.drives import Drives
from vpr.learning.errors import TrainingError
from vpr.models.descriptor_model import DescriptorModelError, read_tensors, write_tensors
from vpr.models.embedder import Embedder
from vpr.records import Image

BATCH = 16  # images
SAVE_EVERY = 64  # batches; what an interrupted run loses at most
MAX_UNREADABLE = 0.5  # of the images; more is a broken data set, not a few broken images


@dataclass(frozen=True)
class Features:
    """(N, D) float32 features of the drives' rows that could be read."""

    drives: Drives
    values: NDArray[np.float32]
    unreadable: tuple[Path, ...]


class FeatureCache:
    """Features of one image folder by one model; an image that changed its size is done anew."""

    def __init__(self, folder: Path, model: str) -> None:
        self.file = folder / f"features_{model.rpartition('@')[2]}.safetensors"
        self._known: dict[str, NDArray[np.float32]] = {}
        try:
            tensors, metadata = read_tensors(self.file)
            names = json.loads(metadata["images"])
            self._known = dict(zip(names, tensors["features"].numpy(), strict=True))
        except (DescriptorModelError, KeyError, ValueError):
            self._known = {}  # absent or damaged: a cache may be lost

    def get(self, image: Path) -> NDArray[np.float32] | None:
        """Features of an image, if it was seen before."""
        return self._known.get(self._key(image))

    def put(self, image: Path, features: NDArray[np.float32]) -> None:
        """Remember the features of an image."""
        self._known[self._key(image)] = features

    def save(self) -> bool:
        """Write the file; False where the folder can't be written to, which is no error."""
        try:
            stacked = torch.from_numpy(np.stack(list(self._known.values())))
            write_tensors(self.file, {"features": stacked}, {"images": json.dumps([*self._known])})
        except DescriptorModelError:
            return False
        return True

    def _key(self, image: Path) -> str:
        try:
            return f"{image.name} {image.stat().st_size}"
        except OSError:
            return f"{image.name} missing"


def read_features(drives: Drives, embedder: Embedder, progress: bool = True) -> Features:
    """Features of all images; rows whose image can't be read are left out and named.

    Raises:
        TrainingError: more than half of a folder's images can't be read.
    """
    values = np.zeros((len(drives), embedder.dimension), np.float32)
    readable = np.ones(len(drives), bool)
    with Progress(disable=not progress) as bar:
        task = bar.add_task("features of the images", total=len(drives))
        folders = groupby(range(len(drives)), key=lambda row: drives.images[row].parent)
        for folder, of_folder in folders:
            rows = list(of_folder)
            cache = FeatureCache(folder.parent, embedder.model)
            for row in _compute(rows, drives.images, embedder, cache, values, readable):
                bar.update(task, completed=row + 1)
            lost = [drives.images[row].name for row in rows if not readable[row]]
            if len(lost) > MAX_UNREADABLE * len(rows):
                raise TrainingError(
                    f"{folder}: {len(lost)} of {len(rows)} images can't be read, as {lost[0]}"
                )
    unreadable = tuple(drives.images[row] for row in np.flatnonzero(~readable).tolist())
    kept = np.flatnonzero(readable)
    return Features(drives.subset(kept), values[kept], unreadable)


def _compute(
    rows: list[int],
    images: Sequence[Path],
    embedder: Embedder,
    cache: FeatureCache,
    values: NDArray[np.float32],
    readable: NDArray[np.bool_],
) -> list[int]:
    """Fill in the rows of one folder, from its cache where it has them."""
    missing = []
    for row in rows:
        known = cache.get(images[row])
        if known is None or known.shape != values.shape[1:]:
            missing.append(row)
        else:
            values[row] = known
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(missing), BATCH):
            some = missing[start : start + BATCH]
            decoded = dict(zip(some, pool.map(read_image, (images[r] for r in some)), strict=True))
            good = {row: image for row, image in decoded.items() if image is not None}
            readable[[row for row in some if row not in good]] = False
            described = embedder.embed(list(good.values())) if good else values[:0]
            for row, features in zip(good, described, strict=True):
                values[row] = features
                cache.put(images[row], features)
            if (start // BATCH) % SAVE_EVERY == SAVE_EVERY - 1:
                cache.save()
    if missing and readable[rows].any():
        cache.save()
    return rows


def read_image(path: Path) -> Image | None:
    """Pixels of an image file; None where it can't be read."""
    try:
        return decode_compressed(path.read_bytes())
    except (OSError, ImageError):
        return None
