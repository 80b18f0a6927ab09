"""Nordland, winter found in summer: learned on one stretch of the line, tried on the next.

The four rows of loss and mining, the whole family, and recall against the length of sequences. The
train stands in stations for up to nine minutes, in fifty frames that show the same: which of them
is meant nothing can tell. They are taken out of both seasons, each by its own images; the frozen
descriptor is also tried with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceTrainingConfig
from vpr.evaluation.places import read_image
from vpr.evaluation.sequences import (
    Comparison,
    SequenceRow,
    draw_recall_by_length,
    evaluate_family,
    evaluate_method,
    without_dark,
)
from vpr.evaluation.traverses import (
    Tolerance,
    Traverse,
    cut,
    read_traverse,
    same_places,
    without_stops,
)
from vpr.learning.sequence_training import TraversePair, train_sequence
from vpr.models import feature_grid
from vpr.models.seqnet import save_seqnet

STRETCHES = (":580", "604:1184", "1208:")  # frames; 24 between two of them are in neither
TUNNEL = 15.0  # mean grey value up to which a frame does not count, in either season
STILLNESS = 5.0  # grey levels; standing frames differ by up to 1.5, moving ones by 14 and more
TOLERANCE = Tolerance(1.0, "frames")
LENGTH = 11
LENGTHS = (1, 3, 5, 7, 11)
SHORTLISTER_WINDOW = 5  # SeqNet S5


@dataclass(frozen=True)
class StretchRow:
    """One method on one stretch; ``trained`` is empty where nothing was learned."""

    trained: str
    tested: str
    row: SequenceRow

    def to_json(self) -> dict[str, Any]:
        """The row under the names of its columns."""
        return {"trained": self.trained, "tested": self.tested} | self.row.to_json()


@dataclass(frozen=True)
class SeasonTable:
    """Rows at ``LENGTH`` frames, mean recall@1 by length, and the picture of it."""

    rows: list[StretchRow]
    curves: dict[str, list[tuple[int, float]]]
    picture: Path

    def by_method(self) -> dict[str, list[StretchRow]]:
        """The rows of each method, in order."""
        names = dict.fromkeys(each.row.method for each in self.rows)
        return {name: [each for each in self.rows if each.row.method == name] for name in names}


def nordland_table(
    data: Path,
    out: Path,
    report: Callable[[StretchRow], None] = lambda row: None,
    epochs: int | None = None,
) -> SeasonTable:
    """Train, evaluate and draw; the files of the transforms and the picture go into ``out``.

    Args:
        data: folder with ``winter`` and ``summer``.
        report: told of each row as it is ready.
        epochs: of every training; None takes the configured number.

    Raises:
        EvaluationError: images are missing or damaged.
    """
    summer, winter = (read_traverse(data / season, "nordland") for season in ("summer", "winter"))
    rows: list[StretchRow] = []

    def adder(trained: str, tested: str) -> Callable[[SequenceRow], None]:
        def add(row: SequenceRow) -> None:
            rows.append(StretchRow(trained, tested, row))
            report(rows[-1])

        return add

    moving: dict[str, Comparison] = {}
    for frames in STRETCHES:
        add = adder("", frames)
        standing, moving[frames] = _comparisons(cut(summer, frames), cut(winter, frames))
        for method in ("single", "sequence_matching"):
            add(evaluate_method(standing, method, LENGTH).named(f"{method}, stops left in"))
        evaluate_family(moving[frames], LENGTH, report=add)
    learned = {frames: _train(frames, moving[frames], out, epochs) for frames in STRETCHES}
    for trained, tested in zip(STRETCHES, STRETCHES[1:] + STRETCHES[:1], strict=True):
        transforms, shortlister = learned[trained]
        files = transforms, [shortlister]
        evaluate_family(moving[tested], LENGTH, *files, adder(trained, tested), frozen=False)
    last = {frames: str(transforms[-1]) for frames, (transforms, _) in learned.items()}
    curves = {
        "sequence matching": _curve(moving, "sequence_matching"),
        "smoothing": _curve(moving, "smoothing"),
        "SeqMatchNet": _curve(moving, "seqmatchnet", last),
    }
    picture = draw_recall_by_length(out / "nordland_recall_by_length.png", curves, TOLERANCE)
    return SeasonTable(rows, curves, picture)


def _comparisons(references: Traverse, queries: Traverse) -> list[Comparison]:
    """With the stops left in, and without them."""
    features: dict[Path, NDArray[np.float32]] = {}
    for drive in (references, queries):
        made = feature_grid.grid_features(map(read_image, drive.files))
        features.update(zip(drive.files, made, strict=True))
    correct = same_places(references, queries, TOLERANCE)
    return [
        _comparison(*without_stops(references, queries, correct, stillness), features)
        for stillness in (0.0, STILLNESS)
    ]


def _comparison(
    references: Traverse,
    queries: Traverse,
    correct: list[frozenset[int]],
    features: dict[Path, NDArray[np.float32]],
) -> Comparison:
    counted = without_dark(references, queries, correct, TUNNEL)
    summer, winter = (
        feature_grid.standardised(np.stack([features[file] for file in drive.files]))
        for drive in (references, queries)
    )
    return Comparison(summer, winter, counted, TOLERANCE, feature_grid.model_name())


def _curve(
    stretches: dict[str, Comparison], method: str, learned: dict[str, str] | None = None
) -> list[tuple[int, float]]:
    """Recall@1 by length, mean over the stretches.

    Args:
        learned: a transform by the stretch it was learned on; each is tried on the stretch after.
    """
    tested = list(stretches.values())
    files = [""] * len(tested) if learned is None else list(learned.values())
    pairs = list(zip(tested[1:] + tested[:1], files, strict=True))

    def recall(length: int) -> float:
        rows = [evaluate_method(c, method, length, transform=file) for c, file in pairs]
        return float(np.mean([row.recalls[0] for row in rows]))

    return [(length, recall(length)) for length in LENGTHS]


def _train(
    frames: str, compared: Comparison, out: Path, epochs: int | None
) -> tuple[list[Path], Path]:
    """Files of the four transforms, SeqMatch loss with SeqMatch mining last, and of the S5."""
    truth = [sorted(places)[len(places) // 2] if places else -1 for places in compared.correct]
    descriptors = compared.references, compared.queries
    pair = TraversePair(f"Nordland {frames}", *descriptors, np.array(truth, np.int64))
    given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    folder = out / f"trained_on_{frames.replace(':', '_')}"

    def trained(name: str, **settings: Any) -> Path:
        config = SequenceTrainingConfig.from_file(**settings, **given)
        save_seqnet(train_sequence([pair], config, compared.model).network, folder / name)
        return folder / name

    transforms = [
        trained(f"{loss}_{mining}.safetensors", loss=loss, mining=mining)
        for loss in ("single", "seqmatch")
        for mining in ("single", "seqmatch")
    ]
    return transforms, trained("s5.safetensors", window=SHORTLISTER_WINDOW, loss="single")
