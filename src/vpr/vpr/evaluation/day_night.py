"""Simulated day and night: transforms learned in some towns, tried in towns never seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vpr.config import EmbeddingConfig, SequenceTrainingConfig
from vpr.evaluation.kept_rows import KeptRows
from vpr.evaluation.sequences import Comparison, evaluate_method
from vpr.evaluation.traverses import Tolerance
from vpr.learning.sequence_training import TraversePair, train_sequence
from vpr.models.embedder import Embedder
from vpr.models.feature_grid import grid_descriptors, model_name
from vpr.models.seqnet import save_seqnet
from vpr.simulation.day_night import (
    DayAndNight,
    Images,
    NightCamera,
    drive_day_and_night,
    read_day_and_night,
)

Kind = Literal["single", "seqmatch"]
Descriptor = Literal["network", "grid"]
TOLERANCE = Tolerance(5.0, "m")
FROZEN = "none"  # of the row without learning


@dataclass(frozen=True)
class DayNightRow:
    """Recall@1 of one combination of loss and mining in every unseen town.

    Both are ``FROZEN`` for descriptors as they are.
    """

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
        drawings: nights of each learned town, alike but for the noise.
        trainings: of each row, by as many seeds; a town's recall is the mean over them.
        model: the descriptors; ``grid`` ones are standardised over a whole lap.
        length: frames matched together in the test.
    """

    out: Path
    learned: Sequence[int]
    unseen: Sequence[int]
    camera: NightCamera = field(default_factory=NightCamera)
    drawings: int = 1
    trainings: int = 1
    model: Descriptor = "grid"
    length: int = 5

    def rows(
        self,
        training: SequenceTrainingConfig,
        report: Callable[[DayNightRow], None] = lambda row: None,
    ) -> list[DayNightRow]:
        """The frozen descriptor and the four rows of the poster, Single/Single first.

        Args:
            training: its loss and mining are those of the row.
            report: told of each row as it is ready.

        Raises:
            TownError, KeptRowsError: a file in ``out`` is damaged, or its rows are of other
                settings.
        """
        settings = {
            "learned": list(self.learned),
            "unseen": list(self.unseen),
            "camera": asdict(self.camera),
            "drawings": self.drawings,
            "trainings": self.trainings,
            "model": self._name,
            "length": self.length,
            "training": training.model_dump(exclude={"loss", "mining"}),
        }
        kept = KeptRows(self.out / "day_night.json", settings)
        tried = {"frozen": self._frozen}
        for loss in get_args(Kind):
            for mining in get_args(Kind):
                config = training.model_copy(update={"loss": loss, "mining": mining})
                tried[f"{loss} loss, {mining} mining"] = partial(self._learned, config)
        rows = []
        for name, compute in tried.items():
            rows.append(DayNightRow.from_json(kept.row(name, compute)))
            report(rows[-1])
        return rows

    def _frozen(self) -> dict[str, Any]:
        recalls, single = (self._recalls(name) for name in ("sequence_matching", "single"))
        return asdict(DayNightRow(FROZEN, FROZEN, recalls, single))

    def _learned(self, config: SequenceTrainingConfig) -> dict[str, Any]:
        tried = []
        for seed in range(config.seed, config.seed + self.trainings):
            file = self.out / f"{config.loss}_{config.mining}_{seed}.safetensors"
            seeded = config.model_copy(update={"seed": seed})
            save_seqnet(train_sequence(self._pairs, seeded, self._name).network, file)
            methods = "seqmatchnet", "seqnet_single"
            tried.append([self._recalls(name, transform=str(file)) for name in methods])
        recalls, single = (tuple(means) for means in np.mean(tried, axis=0).tolist())
        return asdict(DayNightRow(config.loss, config.mining, recalls, single))

    def _recalls(self, method: str, **settings: str) -> tuple[float, ...]:
        return tuple(
            evaluate_method(town, method, self.length, **settings).recalls[0]
            for town in self._towns
        )

    @cached_property
    def _pairs(self) -> list[TraversePair]:
        """Nights found in days to learn from."""
        pairs = []
        for seed in self.learned:
            for drawing in range(self.drawings):
                laps = self._laps(seed).sensed(self.camera, seed, drawing)
                described = self._described(laps.day), self._described(laps.night)
                pairs.append(TraversePair(f"town {seed}", *described, laps.nearest()))
        return pairs

    @cached_property
    def _towns(self) -> list[Comparison]:
        """The same to try on."""
        compared = []
        for seed in self.unseen:
            laps = self._laps(seed).sensed(self.camera, seed)
            apart = np.linalg.norm(laps.night_positions[:, None] - laps.day_positions, axis=2)
            near = [frozenset(np.flatnonzero(row <= TOLERANCE.amount).tolist()) for row in apart]
            described = self._described(laps.day), self._described(laps.night)
            compared.append(Comparison(*described, near, TOLERANCE, self._name))
        return compared

    @cached_property
    def _embedder(self) -> Embedder:
        return Embedder(EmbeddingConfig.from_file())

    @property
    def _name(self) -> str:
        return model_name() if self.model == "grid" else self._embedder.model

    def _described(self, images: Images) -> NDArray[np.float32]:
        """(N, D) of one lap."""
        if self.model == "grid":
            return grid_descriptors(images)
        return np.concatenate([self._embedder.embed([image]) for image in images])

    def _laps(self, seed: int) -> DayAndNight:
        """A town's two laps, rendered unless they are there."""
        file = self.out / f"town_{seed}.npz"
        if not file.exists():
            drive_day_and_night(seed).save(file)
        return read_day_and_night(file)
