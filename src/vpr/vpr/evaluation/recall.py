"""Recall and precision of place matches against ground truth, defined as in VPR-Bench.

Zaffar et al., "VPR-Bench: An Open-Source Visual Place Recognition Evaluation Framework with
Quantifiable Viewpoint and Appearance Change", IJCV 2021. Precision and recall look at the best
match of each query alone, the matches accepted from the most to the least confident.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class PrecisionRecall:
    """One point for each distinct confidence, from the strictest threshold to the laxest."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def recall_at(k: int, ranked: Sequence[Sequence[int]], correct: Sequence[Collection[int]]) -> float:
    """Share of the queries with a true match that find one among their k best.

    Args:
        ranked: reference indices of each query, best first.
        correct: the true reference indices of each query; empty where it has none.
    """
    found = [
        any(reference in truth for reference in references[:k])
        for references, truth in zip(ranked, correct, strict=True)
        if truth
    ]
    return float(np.mean(found)) if found else 0.0


def mean_average_precision_at(
    k: int, ranked: Sequence[Sequence[int]], correct: Sequence[Collection[int]]
) -> float:
    """mAP@k as Mapillary Street-Level Sequences defines it, over queries with a true match.

    Of each query the precision at every true match among the k best is summed and divided by the
    most there could be, ``min(k, true matches)``.

    Args:
        ranked, correct: as ``recall_at``.
    """
    scores = []
    for references, truth in zip(ranked, correct, strict=True):
        if not truth:
            continue
        hits = np.isin(list(references[:k]), list(truth))
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        scores.append(float((precision * hits).sum()) / min(k, len(truth)))
    return float(np.mean(scores)) if scores else 0.0


def precision_recall(confidences: ArrayLike, matched: ArrayLike, relevant: int) -> PrecisionRecall:
    """Precision and recall of the best matches over all thresholds.

    Args:
        confidences: (Q,) of each query's best match, higher is surer; equal ones are accepted
            together.
        matched: (Q,) whether that match is true.
        relevant: how many queries have a true match at all.
    """
    scores, hits = np.asarray(confidences, np.float64), np.asarray(matched, bool)
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], hits[order]
    last_of_ties = np.append(scores[1:] != scores[:-1], True) if len(scores) else hits
    true_positives = np.cumsum(hits)[last_of_ties]
    accepted = np.arange(1, len(scores) + 1)[last_of_ties]
    return PrecisionRecall(true_positives / accepted, true_positives / max(relevant, 1))


def average_precision(curve: PrecisionRecall) -> float:
    """Area under the curve as the sum of ``precision * step in recall``."""
    return float(np.sum(curve.precision * np.diff(curve.recall, prepend=0.0)))


def recall_at_full_precision(curve: PrecisionRecall) -> float:
    """The largest recall reached without one false match."""
    return float(curve.recall[curve.precision == 1.0].max(initial=0.0))
