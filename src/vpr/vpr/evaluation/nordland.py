"""Nordland, winter found in summer: learned on one stretch of the line, tried on another.

The four rows of loss and mining, the whole family, and recall against the length of sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceTrainingConfig
from vpr.evaluation.sequences import (
    Comparison,
    SequenceRow,
    describe,
    draw_recall_by_length,
    evaluate_family,
    evaluate_method,
    model_name,
    without_dark,
)
from vpr.evaluation.traverses import Tolerance, Traverse, cut, read_traverse, same_places
from vpr.learning.sequence_training import TraversePair, train_sequence
from vpr.models.seqnet import save_seqnet

TRAINED = ":1000"  # frames; 200 more are kept away from both stretches
TESTED = "1200:"
TUNNEL = 15.0  # mean grey value up to which a frame does not count, in either season
TOLERANCE = Tolerance(1.0, "frames")
LENGTH = 11
LENGTHS = (1, 3, 5, 7, 11, 15, 21)
MODEL = "grid"
SHORTLISTER_WINDOW = 5  # SeqNet S5


@dataclass(frozen=True)
class SeasonTable:
    """Rows at ``LENGTH`` frames, recall@1 by length, and the picture of it."""

    rows: list[SequenceRow]
    curves: dict[str, list[tuple[int, float]]]
    picture: Path


def nordland_table(
    data: Path,
    out: Path,
    report: Callable[[SequenceRow], None] = lambda row: None,
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
    transforms, shortlister = _train(cut(summer, TRAINED), cut(winter, TRAINED), out, epochs)
    compared = _comparison(cut(summer, TESTED), cut(winter, TESTED))
    rows = evaluate_family(compared, LENGTH, transforms, [shortlister], report)
    learned = {"transform": str(transforms[-1])}
    curves = {
        "sequence matching": _curve(compared, "sequence_matching"),
        "smoothing": _curve(compared, "smoothing"),
        "SeqMatchNet": _curve(compared, "seqmatchnet", **learned),
    }
    picture = draw_recall_by_length(out / "nordland_recall_by_length.png", curves, TOLERANCE)
    return SeasonTable(rows, curves, picture)


def _comparison(references: Traverse, queries: Traverse) -> Comparison:
    correct = same_places(references, queries, TOLERANCE)
    counted = without_dark(references, queries, correct, TUNNEL)
    summer, winter = describe(references, MODEL), describe(queries, MODEL)
    return Comparison(summer, winter, counted, TOLERANCE, model_name(references, MODEL))


def _curve(compared: Comparison, method: str, **more: str) -> list[tuple[int, float]]:
    rows = [evaluate_method(compared, method, length, **more) for length in LENGTHS]
    return [(row.sequence_length, row.recalls[0]) for row in rows]


def _train(
    references: Traverse, queries: Traverse, out: Path, epochs: int | None
) -> tuple[list[Path], Path]:
    """Files of the four transforms, SeqMatch loss with SeqMatch mining last, and of the S5."""
    compared = _comparison(references, queries)
    truth: NDArray[np.int64] = np.arange(len(queries))
    truth[[not places for places in compared.correct]] = -1
    pair = TraversePair(f"Nordland {TRAINED}", compared.references, compared.queries, truth)
    given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}

    def trained(name: str, **settings: Any) -> Path:
        config = SequenceTrainingConfig.from_file(**settings, **given)
        save_seqnet(train_sequence([pair], config, compared.model).network, out / name)
        return out / name

    transforms = [
        trained(f"{loss}_{mining}.safetensors", loss=loss, mining=mining)
        for loss in ("single", "seqmatch")
        for mining in ("single", "seqmatch")
    ]
    return transforms, trained("s5.safetensors", window=SHORTLISTER_WINDOW, loss="single")
