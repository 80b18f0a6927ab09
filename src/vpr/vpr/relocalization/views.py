"""RGB-D sequences as training sees them: what each view shows, and what each pair shares.

Both take longer to compute than to read back, so a folder may keep them from run to run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpr.models.descriptor_model import read_tensors, write_tensors
from vpr.relocalization.encoders import EncoderInput
from vpr.relocalization.model import S3eModel
from vpr.relocalization.patches import PatchExtractor
from vpr.relocalization.reprojection import mutual, similarity_matrix
from vpr.relocalization.rgbd import RgbdSequence

GAMMA, GAINS = (0.6, 1.6), (0.8, 1.25)  # of a sequence drawn in another light and colours

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Views:
    """One sequence as training sees it.

    Attributes:
        drawings: what an encoder sees of it, once or several times.
        similarity: (N, N) mutual IoU of its views.
        laps: (N,) which run each view belongs to.
    """

    drawings: tuple[EncoderInput, ...]
    similarity: NDArray[np.float32]
    laps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.laps)


def prepare(
    model: S3eModel, sequence: RgbdSequence, drawings: int = 1, cache: Path | None = None
) -> Views:
    """Cut the patches of a sequence and label its pairs.

    Args:
        drawings: sets of patches; the first is what a model sees when it runs, the others are of
            other keypoints and in another light, every second one mirrored.
        cache: folder that keeps labels and patches from run to run.

    Raises:
        RgbdError, PatchError: views without depth, or without patches.
        DescriptorModelError: a file of the cache is damaged or cannot be written.
    """
    labels = _kept(
        cache,
        f"{sequence.name}-iou-{_digest(sequence.camera.matrix, sequence.depths, sequence.poses)}",
        lambda: {"iou": torch.from_numpy(similarity_matrix(sequence, sequence))},
    )["iou"]
    given = tuple(_drawing(model, sequence, number, cache) for number in range(drawings))
    return Views(given, mutual(labels.numpy()), sequence.laps)


def _drawing(
    model: S3eModel, sequence: RgbdSequence, number: int, cache: Path | None
) -> EncoderInput:
    own = model.patches
    cut = PatchExtractor(own.patch_size, own.count, own.seed + number)

    def seen() -> Tensors:
        images = redrawn(sequence.images, number) if number else sequence.images
        given = EncoderInput.joined([model.given([image], cut) for image in images])
        return {"values": given.values.half(), "places": given.places, "cells": given.cells}

    kind = f"{model.sees}-{own.patch_size}-{own.count}-{number}"
    kept = _kept(cache, f"{sequence.name}-{kind}-{_digest(sequence.images)}", seen)
    return EncoderInput(kept["values"], kept["places"], kept["cells"])


def redrawn(images: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """A sequence (N, H, W, 3) in another light and colours, mirrored where the number is odd."""
    rng = np.random.default_rng(number)
    levels = np.linspace(0.0, 1.0, 256) ** rng.uniform(*GAMMA)
    curves = np.clip(255.0 * rng.uniform(*GAINS, (3, 1)) * levels, 0, 255).astype(np.uint8)
    seen = images[:, :, ::-1] if number % 2 else images
    return np.stack([curve[seen[..., channel]] for channel, curve in enumerate(curves)], axis=-1)


def _kept(cache: Path | None, name: str, made: Callable[[], Tensors]) -> Tensors:
    """Tensors as a file of the cache has them, made and written where it does not."""
    if cache is None:
        return made()
    file = cache / f"{name}.safetensors"
    if not file.is_file():
        write_tensors(file, {key: value.contiguous() for key, value in made().items()}, {})
    return read_tensors(file)[0]


def _digest(*arrays: NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
