"""How far the probabilities of place matches can be believed, and the curves that would fit best.

A recording with ground truth, or two folders of images with theirs, goes through the recognizer as
on the robot; every candidate that it names is judged. The best one of a view and those behind it
have a curve each (`StandoutProbability`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from vpr.bags.reader import BagReader, header_stamp_ns
from vpr.config import CandidateChoice, EmbeddingConfig, SequenceMatchingConfig
from vpr.evaluation.closures import same_place
from vpr.evaluation.places import (
    EvaluationError,
    embed_files,
    image_files,
    match_descriptors,
    read_ground_truth,
)
from vpr.evaluation.recording import image_topic, read_source
from vpr.geometry import PoseTrack, PoseUnavailable
from vpr.learning.calibrating import reliability
from vpr.messages import image_of
from vpr.models.embedder import Embedder
from vpr.places.recognizer import PlaceRecognizer
from vpr.records import Pose

COLUMNS = ("score", "rank", "right")  # of a judged candidate in a file
WEAK_PRIOR = 1e6  # inverse strength of the fit's regularisation: hardly any


@dataclass(frozen=True)
class JudgedCandidates:
    """Every candidate of a drive: its score, its rank behind the view's best, the verdict."""

    name: str
    scores: NDArray[np.float64]  # (K,)
    ranks: NDArray[np.int64]
    right: NDArray[np.bool_]

    def best(self) -> JudgedCandidates:
        """The best one of each view."""
        return self._where(self.ranks == 0)

    def further(self) -> JudgedCandidates:
        """All but the best ones."""
        return self._where(self.ranks > 0)

    def _where(self, chosen: NDArray[np.bool_]) -> JudgedCandidates:
        return JudgedCandidates(
            self.name, self.scores[chosen], self.ranks[chosen], self.right[chosen]
        )

    @classmethod
    def of(cls, name: str, judged: Sequence[tuple[float, int, bool]]) -> JudgedCandidates:
        """From score, rank and verdict of each candidate."""
        scores, ranks, right = zip(*judged, strict=True) if judged else ((), (), ())
        return cls(name, np.array(scores, float), np.array(ranks, np.int64), np.array(right, bool))

    def to_json(self) -> list[dict[str, Any]]:
        """A row a candidate."""
        values = self.scores.tolist(), self.ranks.tolist(), self.right.tolist()
        return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*values, strict=True)]

    @classmethod
    def from_json(cls, name: str, rows: Sequence[dict[str, Any]]) -> JudgedCandidates:
        """From rows as ``to_json`` has them; raises KeyError where something is missing."""
        return cls.of(name, [(row["score"], row["rank"], row["right"]) for row in rows])


@dataclass(frozen=True)
class Curve:
    """P = 1 / (1 + exp((midpoint - score) / width))."""

    midpoint: float
    width: float

    def expected_error(self, judged: JudgedCandidates) -> float:
        """Expected calibration error over some candidates."""
        chances = expit((judged.scores - self.midpoint) / self.width)
        return reliability(chances, judged.right).expected_error


def fitted_curve(drives: Sequence[JudgedCandidates]) -> Curve:
    """The logistic curve of the largest likelihood over all candidates of some drives.

    Raises:
        EvaluationError: all of them are right, or all wrong, or higher scores are not righter.
    """
    scores = np.concatenate([drive.scores for drive in drives])
    right = np.concatenate([drive.right for drive in drives])
    if len(np.unique(right)) < 2:
        raise EvaluationError(f"{right.sum()} of {len(right)} candidates are right: no curve fits")
    model = LogisticRegression(C=WEAK_PRIOR).fit(scores[:, None], right)
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0.0:
        raise EvaluationError("a higher score is not right more often: no curve fits")
    return Curve(-offset / slope, 1.0 / slope)


def configured_curves(config: CandidateChoice) -> tuple[Curve, Curve]:
    """Of the best candidates and of those behind them."""
    return (
        Curve(config.probability_midpoint, config.probability_width),
        Curve(config.further_midpoint, config.further_width),
    )


def judged_in_recording(path: Path, params_file: Path | None = None) -> JudgedCandidates:
    """Candidates of a recorded drive with a ``ground_truth`` topic.

    Raises:
        BagError: missing, damaged, or without images.
        EvaluationError: it has no ground truth.
    """
    source = read_source(path)
    if source.truth is None:
        raise EvaluationError(f"{path} has no ground_truth topic to judge by")
    embedder = Embedder(EmbeddingConfig.from_file(params_file))
    recognizer = PlaceRecognizer(SequenceMatchingConfig.from_file(params_file, min_probability=0.0))
    places: dict[int, Pose | None] = {}
    judged = []
    with BagReader(path) as bag:
        for _, message in bag.messages(image_topic(bag)):
            stamp = header_stamp_ns(message)
            descriptor = embedder.embed([image_of(message)])[0]
            odometry = _pose_at(source.odometry, stamp)
            seen = recognizer.observe(stamp, descriptor, embedder.model, odometry=odometry)
            if seen.keyframe is None or seen.matches is None:
                continue
            here = places[seen.keyframe.id] = _pose_at(source.truth, stamp)
            for rank, match in enumerate(seen.matches.candidates):
                there = places[match.reference_id]
                if here is not None and there is not None:
                    judged.append((match.sequence_score, rank, same_place(there, here)))
    return JudgedCandidates.of(path.name, judged)


def judged_in_folders(
    reference: Path, query: Path, ground_truth: Path, params_file: Path | None = None
) -> JudgedCandidates:
    """Candidates of a walk through one folder of images in that through another.

    Raises:
        EvaluationError: as of ``evaluate_places``.
    """
    references, queries = image_files(reference), image_files(query)
    correct = read_ground_truth(ground_truth, len(queries), len(references))
    config = SequenceMatchingConfig.from_file(params_file)
    found = match_descriptors(
        embed_files(references, params_file),
        embed_files(queries, params_file),
        config,
        config.top_k,
        separation=config.candidate_separation,
    )
    judged = [
        (match.sequence_score, rank, match.reference_id in truth)
        for matches, truth in zip(found, correct, strict=True)
        for rank, match in enumerate(matches.candidates)
    ]
    return JudgedCandidates.of(f"{query.name} in {reference.name}", judged)


def _pose_at(track: PoseTrack, stamp_ns: int) -> Pose | None:
    try:
        return track.at(stamp_ns)
    except PoseUnavailable:
        return None
