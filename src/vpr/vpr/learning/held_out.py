"""A trained model calibrated on drives that it has not seen, by single images and by sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vpr.config import ConfigError, FineTuningConfig, SequenceMatchingConfig
from vpr.learning.calibrating import (
    JudgedMatches,
    choose_threshold,
    drives_needed,
    fit_reduced_map,
)
from vpr.learning.drives import Drives
from vpr.learning.errors import TrainingError
from vpr.learning.retrieval import Matches, look_up
from vpr.learning.sequence_look_up import keyframe_spacing, look_up_sequences
from vpr.models.calibration import Calibration, PrecisionThreshold, SequenceCalibration
from vpr.models.descriptor_model import DescriptorModel
from vpr.models.weights import WeightsError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Verdicts:
    """Nearest matches and those behind them, judged by GPS, and how many could be found."""

    best: JudgedMatches
    further: JudgedMatches
    revisits: int


class HeldOutDrives:
    """Drives as a model describes them, matched as a robot would."""

    def __init__(
        self,
        drives: Drives,
        embeddings: NDArray[np.float32],
        model: DescriptorModel,
        config: FineTuningConfig,
        sequences: SequenceMatchingConfig,
    ) -> None:
        self.drives = drives
        self._embeddings, self._config, self._sequences = embeddings, config, sequences
        self._impostors = model.impostor_distances(embeddings)

    def image_matches(self, rows: Rows) -> Matches:
        """Single images in a memory of some rows."""
        part, config = self.drives.subset(rows), self._config
        return look_up(
            self._embeddings[rows], part.viewpoints, part.drive, np.arange(len(rows)), config,
            config.candidates,
        )  # fmt: skip

    def sequence_matches(self, rows: Rows) -> Matches:
        """Sequences in a memory of some rows; raises as ``look_up_sequences``."""
        part = self.drives.subset(rows)
        return look_up_sequences(self._embeddings[rows], part, self._config, self._sequences)

    def together(self, matching: Callable[[Rows], Matches]) -> Verdicts:
        """All drives in one memory."""
        return self._judged(matching, np.arange(len(self.drives)))

    def apart(self, matching: Callable[[Rows], Matches]) -> Verdicts:
        """Each drive in a memory of its own."""
        each = [self.drives.rows_of([drive]) for drive in np.unique(self.drives.drive).tolist()]
        searchable = self._config.exclude_recent_keyframes + 2  # keyframes that search anything
        parts = [self._judged(matching, rows) for rows in each if len(rows) >= searchable]
        return Verdicts(
            JudgedMatches.together([part.best for part in parts]),
            JudgedMatches.together([part.further for part in parts]),
            sum(part.revisits for part in parts),
        )

    def _judged(self, matching: Callable[[Rows], Matches], rows: Rows) -> Verdicts:
        matches, drive, impostors = matching(rows), self.drives.drive[rows], self._impostors[rows]
        return Verdicts(
            JudgedMatches.best(matches, drive, impostors),
            JudgedMatches.further(matches, drive, impostors),
            int(matches.revisits.sum()),
        )


def calibrated(
    model: DescriptorModel,
    drives: Drives,
    embeddings: NDArray[np.float32],
    config: FineTuningConfig,
    sequences: SequenceMatchingConfig,
) -> tuple[DescriptorModel, list[str]]:
    """The model with probabilities fitted on held-out drives, and what was left wanting.

    Matches are taken from one memory of all drives and from a memory of each, so that what the
    memory's size does is seen. Where there is too little to calibrate on, the second value says so.
    """
    held_out = HeldOutDrives(drives, embeddings, model, config, sequences)
    try:
        images = _fitted(held_out, held_out.image_matches, config)
    except TrainingError as error:
        return model, [f"not calibrated: {error}"]
    notes = [_shortcoming(t) for t in images.thresholds if t.assured_drives < t.wanted_drives]
    model = replace(model, calibration=images)
    if not model.heads[-1].normalised:
        return model, [*notes, "sequences not calibrated: nodes compare unit vectors"]
    try:
        scores = _fitted(held_out, held_out.sequence_matches, config)
    except (TrainingError, ConfigError, WeightsError) as error:
        return model, [*notes, f"sequences not calibrated: {error}"]
    of_sequences = SequenceCalibration(
        **scores.model_dump(),
        method=sequences.method,
        sequence_length=sequences.sequence_length,
        spacing=keyframe_spacing(drives, sequences),
    )
    return replace(model, sequence_calibration=of_sequences), notes


def _fitted(
    held_out: HeldOutDrives, matching: Callable[[Rows], Matches], config: FineTuningConfig
) -> Calibration:
    """Maps of both kinds of memory, and thresholds for the larger one."""
    together, apart = held_out.together(matching), held_out.apart(matching)
    best = fit_reduced_map(JudgedMatches.together([together.best, apart.best]))
    behind = JudgedMatches.together([together.further, apart.further])
    further = fit_reduced_map(behind, min_of_each=0)
    nearest = together.best.reduced_by(best)
    thresholds = tuple(
        choose_threshold(nearest, wanted, config.wanted_drives, config.confidence)
        for wanted in config.wanted_precisions
    )
    return Calibration(best=best, further=further, thresholds=thresholds)


def _shortcoming(threshold: PrecisionThreshold) -> str:
    """What a threshold can't promise, and what it would need."""
    needed = drives_needed(threshold.wanted_drives, threshold.confidence)
    return (
        f"threshold for a precision of {threshold.wanted_precision:g}: {threshold.drives} "
        f"calibration drives assure it on {threshold.assured_drives:.0%} of new drives (with "
        f"{threshold.confidence:.0%} confidence); {threshold.wanted_drives:.0%} needs {needed}"
    )
