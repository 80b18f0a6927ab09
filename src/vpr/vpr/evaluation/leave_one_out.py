"""Does what is learnt on some real data sets help on another one? Leave one data set out.

The role of GPS is played by the correspondence of frames: both traverses of a set are laid out
along one line, so many metres a frame, and then learnt from as any two drives are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpr.config import FineTuningConfig, SequenceMatchingConfig
from vpr.evaluation.kept_rows import KeptRows, Row
from vpr.evaluation.places import (
    PlaceFigures,
    embed_files,
    image_files,
    match_descriptors,
    place_figures,
    read_ground_truth,
)
from vpr.learning.drives import REGION_SPACING, Drives
from vpr.learning.features import Features
from vpr.learning.networks import HeadLearner, make_head
from vpr.learning.trainer import Trainer
from vpr.models.head import DescriptorHead
from vpr.supervision.kernel import Viewpoints

TRAINED_SHARE = 0.75  # of each traverse; the rest chooses the epoch
Describe = Callable[[list[Path]], NDArray[np.float32]]


@dataclass(frozen=True)
class RealSet:
    """Two traverses of the same places.

    ``spacing`` are the metres that one frame counts as, such that frames that count as right are
    not taught apart; ``tolerance`` frames off are right, None reads ``ground_truth.csv``.
    """

    name: str
    reference: str
    query: str
    spacing: float
    tolerance: int | None


REAL_SETS = (
    RealSet("corridor", "ref", "query", 3.0, None),
    RealSet("gardens_point", "day_left", "day_right", 3.0, 2),
    RealSet("sped_thumbnails", "reference", "query", 1000.0, 0),
    RealSet("nordland", "summer", "winter", 9.0, 1),
)


@dataclass(frozen=True)
class Traverses:
    """Descriptors of both traverses of a set and which references are right for each query."""

    kind: RealSet
    reference: NDArray[np.float32]
    query: NDArray[np.float32]
    correct: list[frozenset[int]]

    def figures(self, head: DescriptorHead | None) -> PlaceFigures:
        """Single-image place recognition as the nodes do it, with a head or without."""
        reference, query = self.reference, self.query
        if head is not None:
            reference, query = head.apply_to(reference), head.apply_to(query)
        config = SequenceMatchingConfig.from_file(sequence_length=1)
        return place_figures(match_descriptors(reference, query, config), self.correct)


def leave_one_out_rows(
    data: Path,
    out: Path,
    config: FineTuningConfig,
    kinds: Sequence[RealSet] = REAL_SETS,
    describe: Describe = embed_files,
    kept: KeptRows | None = None,
) -> list[Row]:
    """One row a data set: figures of the plain descriptor and of one trained on all the others.

    Args:
        data: folder with the sets.
        out: folder for checkpoints and logs.
        describe: image files to descriptors; the shipped descriptor unless given.
        kept: rows of an earlier run of the same settings, and where those of this one are kept.
    """
    kept = kept or KeptRows()

    @cache
    def sets() -> dict[str, Traverses]:
        return {kind.name: read_traverses(data, kind, describe) for kind in kinds}

    def row(name: str) -> Row:
        return _row(name, sets(), out, config)

    names = [kind.name for kind in kinds]
    return [kept.row(f"{name} left out", partial(row, name)) for name in names]


def _row(name: str, sets: Mapping[str, Traverses], out: Path, config: FineTuningConfig) -> Row:
    others = {other: both for other, both in sets.items() if other != name}
    head = train_on(others, out / f"without_{name}.safetensors", config)
    before, after = sets[name].figures(None), sets[name].figures(head)
    return {
        "data set": name,
        "recall@1 before": before.recall_at_1,
        "recall@1 after": after.recall_at_1,
        "recall at 100 % before": before.recall_at_100_precision,
        "recall at 100 % after": after.recall_at_100_precision,
        "average precision before": before.average_precision,
        "average precision after": after.average_precision,
    }


def read_traverses(data: Path, kind: RealSet, describe: Describe) -> Traverses:
    """Describe both traverses of a set.

    Raises:
        EvaluationError: a folder is missing, or the ground truth is broken.
    """
    references = image_files(data / kind.name / kind.reference)
    queries = image_files(data / kind.name / kind.query)
    if kind.tolerance is None:
        truth = data / kind.name / "ground_truth.csv"
        correct = read_ground_truth(truth, len(queries), len(references))
    else:
        last = len(references) - 1
        reach = kind.tolerance
        correct = [
            frozenset(range(max(0, i - reach), min(last, i + reach) + 1))
            for i in range(len(queries))
        ]
    return Traverses(kind, describe(references), describe(queries), correct)


def train_on(sets: Mapping[str, Traverses], out: Path, config: FineTuningConfig) -> DescriptorHead:
    """A head trained on several sets; the last quarter of each traverse chooses the epoch."""
    features = _as_drives(list(sets.values()))
    drives = features.drives
    training = np.flatnonzero(drives.drive % 2 == 0)
    validation = np.flatnonzero(drives.drive % 2 == 1)
    head = make_head(features, config, training)
    learner = HeadLearner(head, features.values)
    trainer = Trainer(learner, features, training, validation, config, out)
    trainer.run(lambda _: None, lambda _: None)
    trainer.clean_up()
    return head


def _as_drives(sets: list[Traverses]) -> Features:
    """Each traverse as two drives, its first part (even number) and its rest (odd)."""
    values, positions, numbers = [], [], []
    for region, both in enumerate(sets):
        found = [float(np.mean(list(truth))) if truth else np.nan for truth in both.correct]
        along = [np.arange(len(both.reference), dtype=float), np.array(found)]
        for which, (descriptors, frame) in enumerate(
            zip((both.reference, both.query), along, strict=True)
        ):
            known = np.isfinite(frame)
            late = frame[known] > TRAINED_SHARE * len(both.reference)
            values.append(descriptors[known])
            east = frame[known] * both.kind.spacing + region * REGION_SPACING
            positions.append(np.stack([east, np.zeros(len(east))], axis=1))
            numbers.append(2 * (2 * region + which) + late.astype(np.int64))
    stacked = np.concatenate(positions)
    drives = Drives(
        images=tuple(Path(f"{row}") for row in range(len(stacked))),
        viewpoints=Viewpoints(stacked, np.zeros(len(stacked))),
        stamps_ns=np.arange(len(stacked)),
        drive=np.concatenate(numbers),
        names=tuple(f"{both.kind.name} {part}" for both in sets for part in range(4)),
    )
    return Features(drives, np.concatenate(values), ())
