"""Simulated day and night: transforms learned in some towns, tried in towns never seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vpr.config import SequenceTrainingConfig
from vpr.evaluation.kept_rows import KeptRows
from vpr.evaluation.sequences import Comparison, evaluate_method
from vpr.evaluation.traverses import Tolerance
from vpr.learning.sequence_training import TraversePair, train_sequence
from vpr.models.feature_grid import grid_descriptors, model_name
from vpr.models.seqnet import save_seqnet
from vpr.simulation.day_night import (
    NIGHT_NOISE,
    DayAndNight,
    drive_day_and_night,
    read_day_and_night,
)

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

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> DayNightRow:
        """A row by the names of its fields."""
        recalls, single = tuple(row["recalls"]), tuple(row["single_recalls"])
        return cls(row["loss"], row["mining"], recalls, single)


@dataclass(frozen=True)
class DayNightTrial:
    """Which towns are learned and which are tried, and how hard their nights are.

    Attributes:
        out: folder for towns, transforms and rows; a run that was cut short goes on there.
        learned, unseen: seeds of towns.
        night_noise: grey levels; the more, the harder the nights.
        drawings: nights of each learned town, alike but for the noise.
    """

    out: Path
    learned: Sequence[int]
    unseen: Sequence[int]
    night_noise: float = NIGHT_NOISE
    drawings: int = 1

    def rows(
        self, report: Callable[[DayNightRow], None] = lambda row: None, **training: Any
    ) -> list[DayNightRow]:
        """The four rows, Single/Single first.

        Args:
            report: told of each row as it is ready.
            training: what differs from the configured training.

        Raises:
            TownError, KeptRowsError: a file in ``out`` is damaged, or its rows are of other
                settings.
        """
        settings = {
            "learned": list(self.learned),
            "unseen": list(self.unseen),
            "night_noise": self.night_noise,
            "drawings": self.drawings,
            "training": SequenceTrainingConfig.from_file(**training).model_dump(),
        }
        kept = KeptRows(self.out / "day_night.json", settings)
        rows = []
        for loss in get_args(Kind):
            for mining in get_args(Kind):
                config = SequenceTrainingConfig.from_file(loss=loss, mining=mining, **training)
                row = kept.row(f"{loss} loss, {mining} mining", partial(self._tried, config))
                rows.append(DayNightRow.from_json(row))
                report(rows[-1])
        return rows

    def _tried(self, config: SequenceTrainingConfig) -> dict[str, Any]:
        file = self.out / f"{config.loss}_{config.mining}.safetensors"
        save_seqnet(train_sequence(self._pairs, config, model_name()).network, file)
        recalls, single = (
            tuple(
                evaluate_method(town, method, LENGTH, transform=str(file)).recalls[0]
                for town in self._towns
            )
            for method in ("seqmatchnet", "seqnet_single")
        )
        return asdict(DayNightRow(config.loss, config.mining, recalls, single))

    @cached_property
    def _pairs(self) -> list[TraversePair]:
        """Nights found in days to learn from."""
        pairs = []
        for seed in self.learned:
            for drawing in range(self.drawings):
                laps = self._laps(seed).sensed(self.night_noise, seed, drawing)
                day, night = grid_descriptors(laps.day), grid_descriptors(laps.night)
                pairs.append(TraversePair(f"town {seed}", day, night, laps.nearest()))
        return pairs

    @cached_property
    def _towns(self) -> list[Comparison]:
        """The same to try on."""
        compared = []
        for seed in self.unseen:
            laps = self._laps(seed).sensed(self.night_noise, seed)
            apart = np.linalg.norm(laps.night_positions[:, None] - laps.day_positions, axis=2)
            near = [frozenset(np.flatnonzero(row <= TOLERANCE.amount).tolist()) for row in apart]
            described = grid_descriptors(laps.day), grid_descriptors(laps.night)
            compared.append(Comparison(*described, near, TOLERANCE, model_name()))
        return compared

    def _laps(self, seed: int) -> DayAndNight:
        """A town's two laps, rendered unless they are there."""
        file = self.out / f"town_{seed}.npz"
        if not file.exists():
            drive_day_and_night(seed).save(file)
        return read_day_and_night(file)
