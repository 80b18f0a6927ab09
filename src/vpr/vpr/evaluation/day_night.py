"""Simulated day and night: transforms learned in some towns, tried in towns never seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vpr.config import SequenceTrainingConfig
from vpr.evaluation.sequences import Comparison, evaluate_method
from vpr.evaluation.traverses import Tolerance
from vpr.learning.sequence_training import TraversePair, train_sequence
from vpr.models.feature_grid import grid_descriptors, model_name
from vpr.models.seqnet import save_seqnet
from vpr.simulation.day_night import NIGHT_NOISE, drive_day_and_night

Kind = Literal["single", "seqmatch"]
TOLERANCE = Tolerance(5.0, "m")
LENGTH = 5  # frames matched together in the test


@dataclass(frozen=True)
class DayNightRow:
    """Recall@1 of one combination of loss and mining in every unseen town."""

    loss: str
    mining: str
    recalls: tuple[float, ...]
    single_recalls: tuple[float, ...]  # without sequences

    def gain_over(self, other: DayNightRow) -> tuple[float, float]:
        """Mean and standard deviation over towns of how much more is recognised than by another."""
        gains = np.subtract(self.recalls, other.recalls)
        return float(gains.mean()), float(gains.std())


def day_night_rows(
    out: Path,
    learned: Sequence[int] = (1, 2),
    unseen: Sequence[int] = (11, 12, 13, 14, 15),
    epochs: int | None = None,
    night_noise: float = NIGHT_NOISE,
    report: Callable[[DayNightRow], None] = lambda row: None,
) -> list[DayNightRow]:
    """The four rows, Single/Single first; the transforms go into ``out``.

    Args:
        learned, unseen: seeds of towns.
        epochs: of every training; None takes the configured number.
        night_noise: grey levels; the more, the harder the nights.
        report: told of each row as it is ready.
    """
    pairs = [_town(seed, night_noise)[0] for seed in learned]
    towns = [_town(seed, night_noise)[1] for seed in unseen]
    given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    rows = []
    for loss in get_args(Kind):
        for mining in get_args(Kind):
            config = SequenceTrainingConfig.from_file(loss=loss, mining=mining, **given)
            file = out / f"{loss}_{mining}.safetensors"
            save_seqnet(train_sequence(pairs, config, model_name()).network, file)
            recalls, single = (
                tuple(
                    evaluate_method(town, method, LENGTH, transform=str(file)).recalls[0]
                    for town in towns
                )
                for method in ("seqmatchnet", "seqnet_single")
            )
            rows.append(DayNightRow(loss, mining, recalls, single))
            report(rows[-1])
    return rows


def _town(seed: int, night_noise: float) -> tuple[TraversePair, Comparison]:
    """Night found in day, as something to learn from and as something to try on."""
    drives = drive_day_and_night(seed, night_noise=night_noise)
    day, night = grid_descriptors(drives.day), grid_descriptors(drives.night)
    apart = np.linalg.norm(drives.night_positions[:, None] - drives.day_positions[None], axis=2)
    correct = [frozenset(np.flatnonzero(row <= TOLERANCE.amount).tolist()) for row in apart]
    pair = TraversePair(f"town {seed}", day, night, drives.nearest())
    return pair, Comparison(day, night, correct, TOLERANCE, model_name())
