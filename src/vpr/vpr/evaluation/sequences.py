"""The family of sequence methods side by side, by the code that runs on the robot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.evaluation.pictures import STYLE
from vpr.evaluation.places import (
    EvaluationError,
    embed_files,
    match_descriptors,
    read_image,
)
from vpr.evaluation.recall import recall_at
from vpr.evaluation.traverses import Tolerance, Traverse
from vpr.models import feature_grid
from vpr.models.gradients import MODEL as GRADIENTS
from vpr.models.gradients import gradient_descriptor
from vpr.models.seqnet import read_seqnet

RANKS = (1, 5, 20)  # of the poster's table


@dataclass(frozen=True)
class SequenceRow:
    """One method's recall over the queries that count."""

    method: str
    sequence_length: int
    recalls: tuple[float, ...]  # at RANKS
    queries: int

    def named(self, method: str) -> SequenceRow:
        """The same under another name."""
        return SequenceRow(method, self.sequence_length, self.recalls, self.queries)

    def to_json(self) -> dict[str, Any]:
        """The row under the names of its columns."""
        named = {f"recall@{k}": recall for k, recall in zip(RANKS, self.recalls, strict=True)}
        return {"method": self.method, "frames": self.sequence_length, **named} | {
            "queries": self.queries
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> SequenceRow:
        """A row as ``to_json`` has it; raises KeyError where something is missing."""
        recalls = tuple(float(row[f"recall@{k}"]) for k in RANKS)
        return cls(str(row["method"]), int(row["frames"]), recalls, int(row["queries"]))


@dataclass(frozen=True)
class Comparison:
    """What is compared: two traverses' descriptors and which references are right.

    Attributes:
        correct: the right references of each frame that is asked for.
        model: what made the descriptors, where that is known.
        answers: the row of ``queries`` whose match answers for each of them; None: its own.
    """

    references: NDArray[np.float32]
    queries: NDArray[np.float32]
    correct: list[frozenset[int]]
    tolerance: Tolerance
    model: str = ""
    answers: NDArray[np.int64] | None = None

    def check(self, length: int) -> None:
        """Raises EvaluationError where a traverse is too short, says nothing, or is not finite."""
        for name, descriptors in (("reference", self.references), ("query", self.queries)):
            if len(descriptors) < length:
                raise EvaluationError(
                    f"the {name} traverse has {len(descriptors)} frames, sequences need {length}"
                )
            if not np.isfinite(descriptors).all():
                raise EvaluationError(f"the {name} traverse has a descriptor that is not finite")
            if len(descriptors) > 1 and float(np.ptp(descriptors, axis=0).max()) < 1e-6:
                raise EvaluationError(f"all descriptors of the {name} traverse are the same")
        if self.references.shape[1] != self.queries.shape[1]:
            raise EvaluationError(
                f"reference descriptors have {self.references.shape[1]} values, query ones "
                f"{self.queries.shape[1]}: they are of two models"
            )
        if not any(self.correct):
            raise EvaluationError(f"no query has a reference within {self.tolerance}")


def describe(
    traverse: Traverse, model: str, params_file: Path | None = None
) -> NDArray[np.float32]:
    """(N, D) descriptors: ready ones, ``gradients``, ``grid``, or the node's (``network``).

    Raises:
        EvaluationError: an image that cannot be decoded.
    """
    if traverse.descriptors is not None:
        return traverse.descriptors
    if model == "network":
        return embed_files(list(traverse.files), params_file)
    if model == "grid":
        return feature_grid.grid_descriptors(map(read_image, traverse.files))
    return np.stack([gradient_descriptor(read_image(file)) for file in traverse.files])


def model_name(traverse: Traverse, model: str) -> str:
    """What made the descriptors, if that can be told without loading it."""
    if traverse.descriptors is not None or model == "network":
        return ""
    return GRADIENTS if model == "gradients" else feature_grid.model_name()


def without_dark(
    references: Traverse, queries: Traverse, correct: list[frozenset[int]], darkest: float
) -> list[frozenset[int]]:
    """Queries count no more whose mean grey value is at most ``darkest`` (tunnels).

    Neither do those whose place is that dark in the reference traverse.
    """
    dark = [
        {i for i, file in enumerate(drive.files) if float(read_image(file).mean()) <= darkest}
        for drive in (references, queries)
    ]
    return [
        frozenset() if query in dark[1] or _middle(truth) in dark[0] else truth
        for query, truth in enumerate(correct)
    ]


def _middle(places: frozenset[int]) -> int | None:
    return sorted(places)[len(places) // 2] if places else None


def evaluate_method(compared: Comparison, method: str, length: int, **settings: Any) -> SequenceRow:
    """Recall of one method at one sequence length.

    Raises:
        EvaluationError: as ``Comparison.check``.
        ConfigError, WeightsError: a learned method's file is missing or does not fit.
    """
    compared.check(length)
    config = SequenceMatchingConfig.from_file(method=method, sequence_length=length, **settings)
    found = match_descriptors(
        compared.references, compared.queries, config, max(RANKS), compared.model
    )
    ranked = [[match.reference_id for match in matches.candidates] for matches in found]
    if compared.answers is not None:
        ranked = [ranked[row] for row in compared.answers]
    recalls = tuple(recall_at(k, ranked, compared.correct) for k in RANKS)
    return SequenceRow(method, length, recalls, sum(bool(truth) for truth in compared.correct))


@dataclass(frozen=True)
class FamilyMember:
    """One line of the table: what it is called, and the configuration that picks it."""

    name: str
    method: str
    settings: dict[str, str]

    def evaluate(self, compared: Comparison, length: int) -> SequenceRow:
        """As ``evaluate_method``, under the name of the line."""
        return evaluate_method(compared, self.method, length, **self.settings).named(self.name)


FROZEN = tuple(
    FamilyMember(method, method, {})
    for method in ("single", "smoothing", "delta", "sequence_matching")
)


def learned_family(
    transforms: Sequence[Path], shortlisters: Sequence[Path] = ()
) -> list[FamilyMember]:
    """Every method that the given files allow.

    Args:
        transforms: of one frame (S1, SeqMatchNet); each by single images and by sequences.
        shortlisters: of several frames (S5); alone, and re-ranked by the last of ``transforms``.

    Raises:
        WeightsError: one of them is no such file.
    """
    members = []
    for path in transforms:
        record, file = read_seqnet(path).training_record, {"transform": str(path)}
        name = f"{record.get('loss', '?')} loss / {record.get('mining', '?')} mining"
        members.append(FamilyMember(f"{name}, single image", "seqnet_single", file))
        members.append(FamilyMember(f"{name}, sequence", "seqmatchnet", file))
    for path in shortlisters:
        file = {"transform": str(path)}
        members.append(FamilyMember(f"seqnet S{read_seqnet(path).window}", "seqnet_single", file))
        if transforms:
            files = {"transform": str(transforms[-1]), "shortlister": str(path)}
            members.append(FamilyMember("hvpr", "hvpr", files))
    return members


def draw_recall_by_length(
    file: Path, curves: dict[str, list[tuple[int, float]]], tolerance: Tolerance
) -> Path:
    """Recall@1 against sequence length, a line for each named method."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for name, points in curves.items():
            lengths, recalls = zip(*points, strict=True)
            axes.plot(lengths, recalls, marker="o", markersize=4, linewidth=1.8, label=name)
        axes.set(xlabel="frames in a sequence", ylabel=f"recall@1 ({tolerance})", ylim=(0, 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=len(curves))
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.unfinished")
        figure.savefig(unfinished, format="png")
        unfinished.replace(file)
    return file
