"""Accuracy of the configured segmenter in simulated towns that nothing was learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from vpr.config import SegmentationConfig
from vpr.evaluation.attention_pictures import attention_figure, write_picture
from vpr.records import Image
from vpr.semantics.accuracy import Confusion
from vpr.semantics.attention import SemanticMaskAttention
from vpr.semantics.labelled_views import render_views
from vpr.semantics.segmenter import NetworkSegmenter

VIEWS_PER_TOWN = 24
PICTURED = 4  # views in the picture


def segmentation_rows(
    seeds: Sequence[int], params_file: Path | None = None, picture: Path | None = None
) -> list[dict[str, object]]:
    """One row a class that the towns have, and their mean; labels compared at the image's size."""
    config = SegmentationConfig.from_file(params_file)
    segmenter = NetworkSegmenter(config)
    views = render_views(seeds, VIEWS_PER_TOWN)
    confusion = Confusion.empty()
    for index in track(range(len(views)), description="segmenting", transient=True):
        confusion.add(views.labels[index], full_size_labels(segmenter, views.images[index]))
    if picture is not None:
        chosen = np.linspace(0, len(views) - 1, PICTURED).astype(int)
        images = [views.images[index] for index in chosen]
        # the mask itself: what the floor would leave is not hidden in the picture
        mask = SemanticMaskAttention(config.model_copy(update={"floor": 0.0}), segmenter)
        labels = [full_size_labels(segmenter, image) for image in images]
        write_picture(picture, attention_figure(images, [mask(i) for i in images], labels))
    rows: list[dict[str, object]] = [
        {"class": name, "IoU": value} for name, value in confusion.intersection_over_union().items()
    ]
    return [*rows, {"class": "mean", "IoU": confusion.mean_intersection_over_union()}]


def full_size_labels(segmenter: NetworkSegmenter, image: Image) -> NDArray[np.uint8]:
    """(H, W) train ids of an image (H, W, 3)."""
    return segmenter(image).resized(image.shape[1], image.shape[0]).labels
