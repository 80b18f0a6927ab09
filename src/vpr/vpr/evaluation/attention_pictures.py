"""Pictures of attention: image, mask and masked image side by side (Holder et al., Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.images.overlay import class_overlay, masked_image
from vpr.records import Image
from vpr.semantics.classes import CLASS_COLOURS

GAP = 4  # px between pictures


def attention_figure(
    images: Sequence[Image],
    masks: Sequence[NDArray[np.uint8]],
    labels: Sequence[NDArray[np.uint8]] = (),
) -> Image:
    """One row an image: the image, its classes where given, its mask, the image times the mask.

    Args:
        images: BGR, of one size.
        masks: (h, w) attention of each.
        labels: (h, w) train ids of each, or none at all.
    """
    rows = []
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        size = (image.shape[1], image.shape[0])
        grey = cv2.cvtColor(cv2.resize(mask, size), cv2.COLOR_GRAY2BGR)
        tiles = [image, np.asarray(grey, np.uint8), masked_image(image, mask)]
        if len(labels):
            tiles.insert(1, class_overlay(image, labels[index], CLASS_COLOURS))
        framed = [np.pad(tile, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for tile in tiles]
        rows.append(np.hstack(framed))
    return np.vstack(rows)


def write_picture(path: Path, picture: Image) -> None:
    """Write a PNG; an older one is replaced only by a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.stem + ".partial.png")
    cv2.imwrite(str(partial), picture)
    partial.replace(path)
