"""Does attention help? Two sessions in unseen simulated towns, with and without it, and controls.

The second session has another light and other cars and people. Two controls keep the answer
honest: masks shuffled between the images, which weigh as much and know nothing, and one constant
mask, the mean of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from vpr.config import EmbeddingConfig, SegmentationConfig, SequenceMatchingConfig
from vpr.evaluation.kept_rows import KeptRows, Row
from vpr.evaluation.places import (
    EvaluationError,
    PlaceFigures,
    image_files,
    match_descriptors,
    place_figures,
    read_ground_truth,
    read_image,
)
from vpr.images.attention import AttentionSource, make_attention
from vpr.learning.semantic_images import others
from vpr.models.embedder import Embedder
from vpr.records import Image
from vpr.simulation.sessions import drive_twice

CONTROL_SEED = 0
WAYS = ("pooling", "multiplied")

Masks = list[NDArray[np.uint8]]
MaskVariant = Callable[[Masks], Masks]


def shuffled(masks: Masks) -> Masks:
    """Each image gets the mask of another one."""
    order = others(np.random.default_rng(CONTROL_SEED), len(masks))
    return [masks[index] for index in order]


def constant(masks: Masks) -> Masks:
    """Every image gets the mean mask."""
    mean = np.rint(np.mean(masks, axis=0)).astype(np.uint8)
    return [mean] * len(masks)


def as_they_are(masks: Masks) -> Masks:
    """The masks themselves."""
    return masks


CONTROLS: dict[str, MaskVariant] = {"": as_they_are, ", shuffled": shuffled, ", constant": constant}


def multiplied(images: Sequence[Image], masks: Masks) -> list[Image]:
    """Images times masks, pixel by pixel (Holder et al., III-C)."""
    faded = []
    for image, mask in zip(images, masks, strict=True):
        size = (image.shape[1], image.shape[0])
        weights = cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255.0
        weighted = image * (weights if image.ndim == 2 else weights[..., None])
        faded.append(np.asarray(np.rint(weighted), np.uint8))
    return faded


class AttentionTrial:
    """The descriptor network, evenly pooled and weighted, and the attention sources on trial.

    Args:
        sources: names of attention sources, as ``segmentation.source``.
        params_file: laid over the shipped configuration.
        ways: how attention is used, of ``WAYS``; what is multiplied has to be embedded anew.

    Raises:
        EvaluationError: a way that is none of them.
    """

    def __init__(
        self,
        sources: Sequence[str],
        params_file: Path | None = None,
        ways: Sequence[str] = WAYS,
    ) -> None:
        if unknown := set(ways) - set(WAYS):
            raise EvaluationError(f"no way '{min(unknown)}' to use attention: {', '.join(WAYS)}")
        self._ways = ways
        self._embedder = Embedder(EmbeddingConfig.from_file(params_file, attention="pooling"))
        self._sources: dict[str, AttentionSource] = {
            name: make_attention(SegmentationConfig.from_file(params_file, source=name))
            for name in sources
        }
        self._matching = SequenceMatchingConfig.from_file(params_file, sequence_length=1)

    def judge(
        self,
        references: Sequence[Image],
        queries: Sequence[Image],
        correct: list[frozenset[int]],
    ) -> dict[str, PlaceFigures]:
        """Figures without attention, and of each source's integrations and controls."""
        maps = self._seen(references), self._seen(queries)
        plain = self._pooled(maps[0]), self._pooled(maps[1])
        figures = {"none": self._figures(*plain, correct)}
        for name, source in self._sources.items():
            masks = [source(image) for image in references], [source(image) for image in queries]
            for control, variant in CONTROLS.items():
                varied = variant(masks[0]), variant(masks[1])
                if "pooling" in self._ways:
                    figures[f"{name} in the pooling{control}"] = self._figures(
                        self._pooled(maps[0], references, varied[0]),
                        self._pooled(maps[1], queries, varied[1]),
                        correct,
                    )
                if "multiplied" in self._ways:
                    figures[f"image times {name}{control}"] = self._figures(
                        self._pooled(self._seen(multiplied(references, varied[0]))),
                        self._pooled(self._seen(multiplied(queries, varied[1]))),
                        correct,
                    )
        return figures

    def _seen(self, images: Sequence[Image]) -> list[dict[str, Tensor]]:
        """Feature maps of each image; they are the same however they are pooled."""
        return [self._embedder.feature_maps([image]) for image in images]

    def _pooled(
        self,
        maps: list[dict[str, Tensor]],
        images: Sequence[Image] = (),
        masks: Masks | None = None,
    ) -> NDArray[np.float32]:
        described = []
        for index, of_image in enumerate(maps):
            weights = None
            if masks is not None:
                weights = self._embedder.attention_weights([masks[index]], [images[index]])
            described.append(self._embedder.described(of_image, weights))
        return np.concatenate(described)

    def _figures(
        self,
        references: NDArray[np.float32],
        queries: NDArray[np.float32],
        correct: list[frozenset[int]],
    ) -> PlaceFigures:
        return place_figures(match_descriptors(references, queries, self._matching), correct)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over towns."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.deviation:.3f}"


def attention_rows(
    seeds: Sequence[int],
    sources: Sequence[str],
    params_file: Path | None = None,
    ways: Sequence[str] = WAYS,
    kept: KeptRows | None = None,
) -> list[Row]:
    """One row a method: recall@1 and recall at 100 % precision over towns, mean and spread.

    Args:
        kept: towns of an earlier run of the same settings, and where those of this one are kept.
    """
    kept = kept or KeptRows()
    trial = AttentionTrial(sources, params_file, ways)

    def judged(seed: int) -> Row:
        town = drive_twice(seed)
        found = trial.judge(town.references, town.queries, town.correct)
        return {method: figures.to_json() for method, figures in found.items()}

    towns = [
        kept.row(f"town {seed}", partial(judged, seed))
        for seed in track(seeds, description="towns", transient=True)
    ]
    return [_row(method, towns) for method in towns[0]]


def folder_rows(
    reference: Path,
    query: Path,
    right: int | Path,
    sources: Sequence[str],
    params_file: Path | None = None,
    ways: Sequence[str] = WAYS,
) -> list[Row]:
    """The same over two image folders of one route.

    Args:
        right: how many images off still count, where equal indices are equal places, or a CSV
            with the right references of each query, as ``read_ground_truth`` takes it.

    Raises:
        EvaluationError: no images, one that cannot be decoded, a CSV that is not right, or a way
            that is none.
    """
    references = [read_image(path) for path in image_files(reference)]
    queries = [read_image(path) for path in image_files(query)]
    if isinstance(right, Path):
        correct = read_ground_truth(right, len(queries), len(references))
    else:
        around = [range(index - right, index + right + 1) for index in range(len(queries))]
        correct = [frozenset(set(near) & set(range(len(references)))) for near in around]
    judged = AttentionTrial(sources, params_file, ways).judge(references, queries, correct)
    return [
        {
            "method": method,
            "recall@1": figures.recall_at_1,
            "recall_at_100_precision": figures.recall_at_100_precision,
            "average_precision": figures.average_precision,
        }
        for method, figures in judged.items()
    ]


def _row(method: str, towns: Sequence[Row]) -> Row:
    row: Row = {"method": method}
    for name in ("recall@1", "recall_at_100_precision"):
        values = np.array([town[method][name] for town in towns])
        gains = values - np.array([town["none"][name] for town in towns])
        row[name] = str(Spread(float(values.mean()), float(values.std())))
        row[f"{name}, gain"] = str(Spread(float(gains.mean()), float(gains.std())))
    return row
