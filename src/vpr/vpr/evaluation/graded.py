"""Table I of Holder et al.: masked against unmasked images under freezing schemes, with controls.

"Exploring the Addition of Attention Mechanisms guided by Semantic Segmentation in Place
Recognition": recall@k and mAP@k of a network trained with graded similarity, with and without the
mask. The paper has no controls; here the last scheme is also trained with masks shuffled between
images and with one constant mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vpr.config import SegmentationConfig
from vpr.evaluation.kept_rows import KeptRows, Row
from vpr.evaluation.recall import mean_average_precision_at, recall_at
from vpr.learning.graded_training import (
    GradedPlaces,
    GradedTrainingConfig,
    describe_images,
    train_places,
)
from vpr.learning.semantic_images import CachedImages, ImagesInMemory, SemanticImages
from vpr.models.place_network import Integration
from vpr.semantics.classes import class_indices
from vpr.semantics.mask_cache import cache_masks
from vpr.semantics.segmenter import NetworkSegmenter, Segmenter
from vpr.simulation.sessions import TwoSessions, drive_twice
from vpr.supervision.overlap import field_of_view_overlap
from vpr.supervision.street_level_sequences import Traverse, read_traverse

RANKS = (1, 5, 10, 20)
SCHEMES = ("0-2", "2-2", "0-4", "All")
STREET_REACH = 50.0  # m, and the angle below: Leyva-Vallina et al., section 3
STREET_FIELD_OF_VIEW = np.radians(90.0)
STREET_SAME_PLACE = 25.0  # m; Mapillary Street-Level Sequences' own evaluation
TRAINED_SIZE = (160, 120)  # px


@dataclass(frozen=True)
class JudgedPlaces:
    """Images to recognise, and the right references of each query."""

    queries: SemanticImages
    references: SemanticImages
    correct: list[frozenset[int]]


ROW_NAMES = {Integration.NONE: "Normal", Integration.MULTIPLIED: "Masked"}  # the paper's
P = TypeVar("P", GradedPlaces, JudgedPlaces)
CONTROLS: dict[str, Callable[[SemanticImages], SemanticImages]] = {
    "shuffled mask": lambda images: images.shuffled(np.random.default_rng(0)),
    "constant mask": lambda images: images.constant(),
}


def simulated_places(
    training_seeds: Sequence[int],
    judged_seeds: Sequence[int],
    config: SegmentationConfig,
    by_depth: bool = False,
) -> tuple[list[GradedPlaces], list[JudgedPlaces]]:
    """Two sessions of towns to learn in and of others to be judged in.

    Args:
        by_depth: similarity from what is in view by depth instead of by sectors on the ground.
    """
    segmenter = NetworkSegmenter(config)
    classes = class_indices(config.static_classes)
    trained, judged = [], []
    for seed in training_seeds:
        town = drive_twice(seed)
        images = _segmented(town, segmenter, classes)
        trained.append(GradedPlaces(*images, town.overlap(by_depth)))
    for seed in judged_seeds:
        town = drive_twice(seed)
        judged.append(JudgedPlaces(*_segmented(town, segmenter, classes), town.correct))
    return trained, judged


def street_level_places(
    root: Path,
    cache: Path,
    training_cities: Sequence[str],
    judged_cities: Sequence[str],
    config: SegmentationConfig,
    activations: bool = False,
) -> tuple[list[GradedPlaces], list[JudgedPlaces]]:
    """Cities of Mapillary Street-Level Sequences, masks cached on disk.

    Args:
        activations: cache the 19 activations as well, for the integrations that want them.

    Raises:
        StreetLevelSequencesError, MaskCacheError: what is missing or wrong, and where.
    """
    trained, judged = [], []
    for city in training_cities:
        queries, references = _sides(root, city)
        similarity = field_of_view_overlap(
            queries.viewpoints, references.viewpoints, STREET_FIELD_OF_VIEW, STREET_REACH
        )
        images = _cached(queries, references, cache / city, config, activations)
        trained.append(GradedPlaces(images[0], images[1], similarity))
    for city in judged_cities:
        queries, references = _sides(root, city)
        apart = queries.viewpoints.positions[:, None] - references.viewpoints.positions[None]
        near = np.hypot(apart[..., 0], apart[..., 1]) <= STREET_SAME_PLACE
        correct = [frozenset(np.flatnonzero(row).tolist()) for row in near]
        images = _cached(queries, references, cache / city, config, activations)
        judged.append(JudgedPlaces(images[0], images[1], correct))
    return trained, judged


def graded_rows(
    trained: Sequence[GradedPlaces],
    judged: Sequence[JudgedPlaces],
    config: GradedTrainingConfig,
    integrations: Sequence[Integration] = (Integration.NONE, Integration.MULTIPLIED),
    schemes: Sequence[str] = SCHEMES,
    kept: KeptRows | None = None,
) -> list[Row]:
    """One row a network, as the paper's table has them, and the controls of each integration.

    Controls are trained under the last of the schemes.

    Args:
        kept: rows of an earlier run of the same settings, and where those of this one are kept.

    Raises:
        GradedPairsError, FreezingError: data or schemes that cannot be trained with.
    """
    kept = kept or KeptRows()
    trials = _trials(config, integrations, schemes)
    return [kept.row(trial.name, partial(trial.row, trained, judged)) for trial in trials]


@dataclass(frozen=True)
class _Trial:
    """One network of the table: how it is trained, and on which masks."""

    name: str
    config: GradedTrainingConfig
    control: Callable[[SemanticImages], SemanticImages] | None = None

    def row(self, trained: Sequence[GradedPlaces], judged: Sequence[JudgedPlaces]) -> Row:
        """Train it and judge it."""
        if self.control is not None:
            trained = [_controlled(places, self.control) for places in trained]
            judged = [_controlled(places, self.control) for places in judged]
        return {"method": self.name} | _figures(trained, judged, self.config)


def _trials(
    config: GradedTrainingConfig, integrations: Sequence[Integration], schemes: Sequence[str]
) -> list[_Trial]:
    trials, controls = [], []
    for integration in integrations:
        for scheme in schemes:
            name = f"{ROW_NAMES.get(integration, integration.value)}-{scheme}"
            chosen = config.model_copy(update={"scheme": scheme, "integration": integration})
            trials.append(_Trial(name, chosen))
        if integration != Integration.NONE:
            controls += [
                _Trial(f"{name}, {label}", chosen, control) for label, control in CONTROLS.items()
            ]
    return trials + controls


def _controlled(places: P, control: Callable[[SemanticImages], SemanticImages]) -> P:
    return replace(places, queries=control(places.queries), references=control(places.references))


def _figures(
    trained: Sequence[GradedPlaces], judged: Sequence[JudgedPlaces], config: GradedTrainingConfig
) -> Row:
    network = train_places(trained, config)
    found: dict[str, list[float]] = {}
    for places in judged:
        queries = describe_images(network, places.queries)
        references = describe_images(network, places.references)
        ranked = np.argsort(-(queries @ references.T), axis=1, kind="stable")[:, : max(RANKS)]
        ranking = ranked.tolist()
        for k in RANKS:
            found.setdefault(f"recall@{k}", []).append(recall_at(k, ranking, places.correct))
        for k in RANKS:
            score = mean_average_precision_at(k, ranking, places.correct)
            found.setdefault(f"map@{k}", []).append(score)
    row: Row = {name: float(np.mean(values)) for name, values in found.items()}
    return row | {"deviation of recall@1": float(np.std(found["recall@1"]))}


def _segmented(
    town: TwoSessions, segmenter: Segmenter, classes: NDArray[np.intp]
) -> tuple[ImagesInMemory, ImagesInMemory]:
    queries = ImagesInMemory.segmented(town.queries, segmenter, classes, TRAINED_SIZE)
    references = ImagesInMemory.segmented(town.references, segmenter, classes, TRAINED_SIZE)
    return queries, references


def _sides(root: Path, city: str) -> tuple[Traverse, Traverse]:
    return read_traverse(root, [city], "query"), read_traverse(root, [city], "database")


def _cached(
    queries: Traverse,
    references: Traverse,
    folder: Path,
    config: SegmentationConfig,
    activations: bool,
) -> tuple[CachedImages, CachedImages]:
    cache = cache_masks(folder, [*queries.files, *references.files], config, activations)
    return (
        CachedImages.of(queries.files, cache, TRAINED_SIZE),
        CachedImages.of(references.files, cache, TRAINED_SIZE),
    )
