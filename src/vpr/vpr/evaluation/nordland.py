"""Nordland, winter found in summer: learned on one stretch of the line, tried on the next.

The four rows of loss and mining, the whole family, and recall against the length of sequences. The
train stands in stations for up to nine minutes, in fifty frames that show the same. Sequences are
therefore matched along what was driven: frames of a stop are taken out of both seasons, each by its
own images, and a standing query has the answer of the frame it came to stand at. Every frame
counts, tunnels apart; the frozen descriptor is also tried with the stops left in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceTrainingConfig
from vpr.evaluation.kept_rows import KeptRows
from vpr.evaluation.places import read_image
from vpr.evaluation.sequences import (
    FROZEN,
    Comparison,
    FamilyMember,
    SequenceRow,
    draw_recall_by_length,
    learned_family,
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
STILLNESS = 8.0  # grey levels; of two frames in a row 14 % differ by less than 3.5, 84 % by more
TOLERANCE = Tolerance(1.0, "frames")
LENGTH = 11
LENGTHS = (1, 3, 5, 7, 11, 15)
SHORTLISTER_WINDOW = 5  # SeqNet S5
STOPS_LEFT_IN = "stops left in"
MOVING_ALONE = "moving frames alone"
SEQMATCHNET = "seqmatch loss / seqmatch mining, sequence"  # drawn of the learned rows


@dataclass(frozen=True)
class StretchRow:
    """One method on one stretch; ``trained`` is empty where nothing was learned."""

    trained: str
    tested: str
    row: SequenceRow


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
    """Train, evaluate and draw; rows, transforms and the picture go into ``out``.

    A run that was cut short goes on behind its last row or training.

    Args:
        data: folder with ``winter`` and ``summer``.
        report: told of each row as it is ready.
        epochs: of every training; None takes the configured number.

    Raises:
        EvaluationError: images are missing or damaged.
        KeptRowsError: the rows in ``out`` are of other settings.
    """
    trial = _Trial(data, out, epochs)
    rows = []
    for row in trial.rows():
        rows.append(row)
        report(row)
    curves = trial.curves()
    picture = draw_recall_by_length(out / "nordland_recall_by_length.png", curves, TOLERANCE)
    return SeasonTable(rows, curves, picture)


class _Stretch:
    """One stretch of the line: along what was driven, and frame by frame as it was taken."""

    def __init__(self, frames: str, summer: Traverse, winter: Traverse) -> None:
        references, queries = cut(summer, frames), cut(winter, frames)
        features: dict[Path, NDArray[np.float32]] = {}
        for drive in (references, queries):
            made = feature_grid.grid_features(map(read_image, drive.files))
            features.update(zip(drive.files, made, strict=True))
        correct = same_places(references, queries, TOLERANCE)
        counted = without_dark(references, queries, correct, TUNNEL)

        def compared(stillness: float) -> Comparison:
            driven = without_stops(references, queries, counted, stillness)
            there, asked = (
                feature_grid.standardised(np.stack([features[file] for file in drive.files]))
                for drive in (driven.references, driven.queries)
            )
            model = feature_grid.model_name()
            return Comparison(there, asked, driven.correct, TOLERANCE, model, driven.answers)

        self.frames = frames
        self.driven, self.as_taken = compared(STILLNESS), compared(0.0)
        assert self.driven.answers is not None
        self._first_asked = np.unique(self.driven.answers, return_index=True)[1]

    def moving_alone(self) -> Comparison:
        """As ``driven``, where of each stop the first frame alone counts."""
        correct = [frozenset[int]()] * len(self.driven.correct)
        for frame in self._first_asked:
            correct[frame] = self.driven.correct[frame]
        return replace(self.driven, correct=correct)

    def pair(self) -> TraversePair:
        """What is learned from: the middle one of the right places of each moving frame."""
        right = [sorted(self.driven.correct[frame]) for frame in self._first_asked]
        truth = [places[len(places) // 2] if places else -1 for places in right]
        descriptors = self.driven.references, self.driven.queries
        return TraversePair(f"Nordland {self.frames}", *descriptors, np.array(truth, np.int64))


class _Trial:
    """What the table is made of; each row and each transform is computed once and kept."""

    def __init__(self, data: Path, out: Path, epochs: int | None) -> None:
        self._given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
        settings = {
            "stretches": STRETCHES,
            "stillness": STILLNESS,
            "descriptor": feature_grid.model_name(),
            "training": SequenceTrainingConfig.from_file(**self._given).model_dump(),
        }
        self._kept = KeptRows(out / "nordland.json", settings)
        self._out = out
        summer, winter = (read_traverse(data / name, "nordland") for name in ("summer", "winter"))
        self._stretches = [_Stretch(frames, summer, winter) for frames in STRETCHES]
        before = self._stretches[-1:] + self._stretches[:-1]
        self._pairs = list(zip(before, self._stretches, strict=True))  # learned on, tested on
        self._learned: dict[str, list[FamilyMember]] = {}

    def rows(self) -> Iterator[StretchRow]:
        """The frozen descriptor on every stretch, then what was learned on the one before."""
        single, matched = FROZEN[0], FROZEN[-1]
        for each in self._stretches:
            for member in FROZEN:
                yield self._row(member, each.driven, each.frames)
            others = {MOVING_ALONE: each.moving_alone(), STOPS_LEFT_IN: each.as_taken}
            for kind, compared in others.items():
                for member in (single, matched):
                    named = replace(member, name=f"{member.name}, {kind}")
                    yield self._row(named, compared, each.frames)
        for before, each in self._pairs:
            for member in self._family_of(before):
                yield self._row(member, each.driven, each.frames, before.frames)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Mean recall@1 over the stretches by length."""
        left_in = replace(FROZEN[-1], name=f"{FROZEN[-1].name}, {STOPS_LEFT_IN}")
        curves: dict[str, list[tuple[int, float]]] = {
            name: [] for name in ("sequence matching", STOPS_LEFT_IN, "smoothing", "SeqMatchNet")
        }
        for length in LENGTHS:
            rows: dict[str, list[StretchRow]] = {name: [] for name in curves}
            for before, each in self._pairs:
                drawn = {
                    "sequence matching": (FROZEN[-1], each.driven, ""),
                    STOPS_LEFT_IN: (left_in, each.as_taken, ""),
                    "smoothing": (FROZEN[1], each.driven, ""),
                    "SeqMatchNet": (self._seqmatchnet(before), each.driven, before.frames),
                }
                for name, (member, compared, trained) in drawn.items():
                    rows[name].append(self._row(member, compared, each.frames, trained, length))
            for name, of_stretches in rows.items():
                mean = float(np.mean([each.row.recalls[0] for each in of_stretches]))
                curves[name].append((length, mean))
        return curves

    def _row(
        self,
        member: FamilyMember,
        compared: Comparison,
        tested: str,
        trained: str = "",
        length: int = LENGTH,
    ) -> StretchRow:
        learned = f", learned on {trained}" if trained else ""
        name = f"{member.name}, {length} frames, on {tested}{learned}"
        kept = self._kept.row(name, lambda: member.evaluate(compared, length).to_json())
        return StretchRow(trained, tested, SequenceRow.from_json(kept))

    def _seqmatchnet(self, stretch: _Stretch) -> FamilyMember:
        return next(each for each in self._family_of(stretch) if each.name == SEQMATCHNET)

    def _family_of(self, stretch: _Stretch) -> list[FamilyMember]:
        """What the transforms learned on a stretch allow: four of one frame, and the S5."""
        if stretch.frames not in self._learned:
            transforms = [
                self._trained(stretch, f"{loss}_{mining}", loss=loss, mining=mining)
                for loss in ("single", "seqmatch")
                for mining in ("single", "seqmatch")
            ]
            s5 = self._trained(stretch, "s5", window=SHORTLISTER_WINDOW, loss="single")
            self._learned[stretch.frames] = learned_family(transforms, [s5])
        return self._learned[stretch.frames]

    def _trained(self, stretch: _Stretch, name: str, **settings: Any) -> Path:
        """The file of a transform, learned unless it is there."""
        folder = self._out / f"trained_on_{stretch.frames.replace(':', '_')}"
        file = folder / f"{name}.safetensors"
        if not file.exists():
            config = SequenceTrainingConfig.from_file(**settings, **self._given)
            made = train_sequence([stretch.pair()], config, stretch.driven.model)
            save_seqnet(made.network, file)
        return file
