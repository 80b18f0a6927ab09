"""Relocalization on unseen RGB-D sequences: methods that differ in retrieval and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vpr.config import CandidateChoice
from vpr.evaluation.candidates import JudgedCandidates, configured_curves, fitted_curve
from vpr.evaluation.places import EvaluationError
from vpr.evaluation.view_search import Search
from vpr.evaluation.view_verification import ViewVerifier
from vpr.pose_regression.prediction import pose_errors
from vpr.records import Keyframe
from vpr.relocalization.relocalizer import Relocalizer
from vpr.relocalization.rgbd import RgbdError, RgbdSequence

BLOCK = 10  # views on each side of a block of the error map, where there are as many
LOOP = 0.1  # IoU above which a pair counts as a loop
RECALLS = ((0.25, 5.0), (0.5, 10.0))  # m and degrees

Row = dict[str, object]


def in_laps(sequence: RgbdSequence) -> RgbdSequence:
    """A sequence that was recorded in one go as two: its first half is the map."""
    if len(np.unique(sequence.laps)) > 1:
        return sequence
    halves = np.arange(len(sequence)) * 2 // len(sequence)
    return replace(sequence, laps=halves.astype(np.int64))


def relocalization_row(
    sequence: RgbdSequence,
    method: str,
    search: Search,
    truth: NDArray[np.float32],
    verify: ViewVerifier,
) -> Row:
    """A method judged: the first lap is the map, every view of the later ones a lost robot.

    ``nearest_*`` figures are of the retrieved view's own pose, ``refined_*`` of what verification
    with its depth makes of it; where it refuses, the retrieved pose stays.

    Args:
        truth: (N, N) symmetric IoU; tells how much the retrieved view shows of the query's.

    Raises:
        RgbdError: a sequence of a single lap.
    """
    references, queries = map_and_queries(sequence)
    best = truth[np.ix_(queries, references)].max(axis=1)
    scores = search(sequence)[np.ix_(queries, references)]
    found = references[scores.argmax(axis=1)]
    row: Row = {"level": sequence.name, "method": method, "queries": len(queries)}
    row["overlap"] = float(truth[queries, found].mean())
    row["overlap_of_best"] = float(best.mean())
    return row | _figures(sequence, queries, found, verify)


def map_and_queries(sequence: RgbdSequence) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the first lap, and those of the later ones.

    Raises:
        RgbdError: a sequence of a single lap.
    """
    first = sequence.laps == sequence.laps.min()
    if first.all():
        raise RgbdError(f"{sequence.name}: a single lap has no map to be relocalized in")
    return np.flatnonzero(first), np.flatnonzero(~first)


def _figures(
    sequence: RgbdSequence,
    queries: NDArray[np.intp],
    found: NDArray[np.intp],
    verify: ViewVerifier,
) -> Row:
    nearest = sequence.poses[found]
    relative = [verify(int(query), int(row)) for query, row in zip(queries, found, strict=True)]
    refined = np.stack(
        [pose if r is None else pose @ r.pose for pose, r in zip(nearest, relative, strict=True)]
    )
    verified = np.array([r is not None for r in relative])
    figures: Row = {"verified": float(verified.mean())}
    for kind, poses in (("nearest", nearest), ("refined", refined)):
        metres, degrees = pose_errors(poses, sequence.poses[queries])
        figures[f"{kind}_median_m"] = float(np.median(metres))
        figures[f"{kind}_median_deg"] = float(np.median(degrees))
        for near, turned in RECALLS:
            within = (metres <= near) & (degrees <= turned)
            figures[f"{kind}_recall_{near:g}m_{turned:g}deg"] = float(within.mean())
    return figures


def judged_candidates(
    sequence: RgbdSequence, relocalizer: Relocalizer, truth: NDArray[np.float32]
) -> JudgedCandidates:
    """Candidates for every view of the later laps in a map of the first; loops are right.

    Args:
        relocalizer: an empty one.
        truth: (N, N) symmetric IoU.
    """
    no_descriptor = np.zeros(0, np.float32)
    first = np.flatnonzero(sequence.laps == sequence.laps.min())
    for row in first.tolist():
        keyframe = Keyframe(row, 0, int(sequence.stamps_ns[row]), no_descriptor, "")
        relocalizer.observe(keyframe, sequence.images[row])
    relocalizer.map_is(first.tolist(), first.tolist(), [])
    judged = []
    for query in np.flatnonzero(~np.isin(np.arange(len(sequence)), first)):
        matches = relocalizer.locate(sequence.images[query], int(sequence.stamps_ns[query]))
        judged += [
            (match.sequence_score, rank, bool(truth[query, match.reference_id] > LOOP))
            for rank, match in enumerate(matches.candidates)
        ]
    return JudgedCandidates.of(sequence.name, judged)


def probability_rows(judged: JudgedCandidates, config: CandidateChoice) -> list[Row]:
    """How far configured probabilities can be believed, and the curve that fits best here."""
    rows: list[Row] = []
    parts = ("best", judged.best()), ("further", judged.further())
    for (rank, part), curve in zip(parts, configured_curves(config), strict=True):
        row: Row = {"level": judged.name, "candidates": rank, "number": len(part.right)}
        row["right"] = float(part.right.mean())
        row["calibration_error"] = curve.expected_error(part)
        try:
            fitted = fitted_curve([part])
        except EvaluationError:
            rows.append(row)
            continue
        row |= {"fitting_midpoint": fitted.midpoint, "fitting_width": fitted.width}
        rows.append(row)
    return rows


def similarity_row(
    sequence: RgbdSequence,
    pairs: str,
    predicted: NDArray[np.float32],
    truth: NDArray[np.float32],
    known: NDArray[np.intp] | None = None,
) -> Row:
    """How far predicted similarities (N, N) are from the true IoU, the diagonal left out.

    ``map_maximum`` is the largest value of the error map averaged over blocks of ``BLOCK`` views;
    ``always_zero`` is the error of an encoder that finds nothing alike.

    Args:
        known: rows of views whose pairs with each other nobody had to predict; they do not count.
    """
    counted = ~np.eye(len(truth), dtype=bool)
    if known is not None:
        counted[np.ix_(known, known)] = False
    return {"level": sequence.name, "pairs": pairs, **_errors(predicted, truth, counted)}


def map_rows(
    sequence: RgbdSequence,
    predicted: Mapping[str, NDArray[np.float32]],
    truth: NDArray[np.float32],
) -> list[Row]:
    """The same of every later lap's views with those of the first.

    Args:
        predicted: (Q, R) by name of what predicts it.
    """
    references, queries = map_and_queries(sequence)
    rows: list[Row] = []
    for lap in np.unique(sequence.laps[queries]).tolist():
        own = sequence.laps[queries] == lap
        wanted = truth[np.ix_(queries[own], references)]
        for kind, values in predicted.items():
            pairs = f"lap {lap + 1} on the map, {kind}"
            errors = _errors(values[own], wanted, np.ones(wanted.shape, bool))
            rows.append({"level": sequence.name, "pairs": pairs, **errors})
    return rows


def _errors(
    predicted: NDArray[np.float32], truth: NDArray[np.float32], counted: NDArray[np.bool_]
) -> Row:
    error = np.where(counted, np.abs(predicted - truth), 0.0)
    loops = (truth > LOOP) & counted
    side = min(BLOCK, *truth.shape)
    height, width = (count // side for count in truth.shape)
    whole = error[: height * side, : width * side]
    blocks = whole.reshape(height, side, width, side).mean(axis=(1, 3))
    return {
        "views": len(truth),
        "mean_absolute_error": float(error[counted].mean()),
        "of_loops": float(error[loops].mean()) if loops.any() else 0.0,
        "map_maximum": float(blocks.max()),
        "pair_maximum": float(error.max()),
        "always_zero": float(truth[counted].mean()),
        "correlation": _correlation(predicted[counted], truth[counted]),
    }


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's coefficient; 0 where one of the two never changes."""
    if float(one.std()) == 0.0 or float(other.std()) == 0.0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
