"""Every keyframe looked up among the ones before it, as a robot does, and judged by GPS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.config import FineTuningConfig
from vpr.evaluation.recall import (
    average_precision,
    precision_recall,
    recall_at_full_precision,
)
from vpr.supervision.kernel import Viewpoints

CHUNK = 512  # queries compared at once, which bounds memory


@dataclass(frozen=True)
class Matches:
    """The k nearest earlier keyframes of Q queries, nearest first; -1 where there were fewer."""

    queries: NDArray[np.int64]  # (Q,) rows
    references: NDArray[np.int64]  # (Q, k) rows
    distances: NDArray[np.float64]  # (Q, k) L2, or minus a score; infinite without a reference
    correct: NDArray[np.bool_]  # (Q, k) same place
    revisits: NDArray[np.bool_]  # (Q,) whether any earlier keyframe is the same place
    places: NDArray[np.int64]  # (Q,) how many were searched


@dataclass(frozen=True)
class RetrievalFigures:
    """How well the best match of each query recognised its place."""

    recall_at_1: float  # of the revisits
    recall_at_full_precision: float
    average_precision: float
    queries: int
    revisits: int

    @property
    def score(self) -> float:
        """What models are compared by: the mean of average precision and recall at 100 %."""
        return (self.average_precision + self.recall_at_full_precision) / 2.0

    def to_json(self) -> dict[str, float]:
        """The figures under their usual names."""
        return {
            "recall@1": self.recall_at_1,
            "recall_at_100_precision": self.recall_at_full_precision,
            "average_precision": self.average_precision,
            "queries": self.queries,
            "revisits": self.revisits,
        }


def same_place(a: Viewpoints, b: Viewpoints, config: FineTuningConfig) -> NDArray[np.bool_]:
    """Which pairs (len(a), len(b)) are close and look the same way."""
    near = a.distances(b) <= config.same_place_distance
    return np.asarray(near & (a.turns(b) <= config.same_place_rotation))


def look_up(
    embeddings: NDArray[np.float32],
    viewpoints: Viewpoints,
    drive: NDArray[np.int64],
    queries: NDArray[np.int64],
    config: FineTuningConfig,
    k: int = 1,
    radius: float | None = None,
) -> Matches:
    """Match rows against all earlier ones, but not against what their drive has just seen.

    Args:
        embeddings: (N, d) of all rows, in order of time.
        drive: (N,) drive of each row.
        queries: rows to look up; those with nothing to search are left out.
        radius: m; a match this near counts as right whichever way it looks, as in the paper's
            20 m and 30 m. None asks for ``same_place_distance`` and ``same_place_rotation``.
    """
    parts = [
        _look_up_chunk(embeddings, viewpoints, drive, queries[i : i + CHUNK], config, k, radius)
        for i in range(0, len(queries), CHUNK)
    ]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Matches(*columns)


def figures_of(matches: Matches) -> RetrievalFigures:
    """Figures of the best match of each query."""
    hits = matches.correct[:, 0]
    relevant = int(matches.revisits.sum())
    curve = precision_recall(-matches.distances[:, 0], hits, relevant)
    return RetrievalFigures(
        recall_at_1=float(hits.sum() / max(relevant, 1)),
        recall_at_full_precision=recall_at_full_precision(curve),
        average_precision=average_precision(curve),
        queries=len(hits),
        revisits=relevant,
    )


def searchable(
    queries: NDArray[np.int64], drive: NDArray[np.int64], exclude_recent: int
) -> NDArray[np.bool_]:
    """(Q, N): earlier rows, without the ``exclude_recent`` last ones of the query's own drive."""
    rows = np.arange(len(drive))
    earlier = rows[None] < queries[:, None]
    recent = rows[None] >= queries[:, None] - exclude_recent
    own = drive[None] == drive[queries][:, None]
    return np.asarray(earlier & ~(recent & own))


def _look_up_chunk(
    embeddings: NDArray[np.float32],
    viewpoints: Viewpoints,
    drive: NDArray[np.int64],
    queries: NDArray[np.int64],
    config: FineTuningConfig,
    k: int,
    radius: float | None,
) -> tuple[NDArray[np.int64] | NDArray[np.float64] | NDArray[np.bool_], ...]:
    allowed = searchable(queries, drive, config.exclude_recent_keyframes)
    queries, allowed = queries[allowed.any(axis=1)], allowed[allowed.any(axis=1)]
    distances = np.where(allowed, distance_matrix(embeddings[queries], embeddings), np.inf)
    views = viewpoints[queries]
    if radius is None:
        same = same_place(views, viewpoints, config)
    else:
        same = views.distances(viewpoints) <= radius
    k = min(k, distances.shape[1])
    best = np.argpartition(distances, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(distances, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    found = np.take_along_axis(distances, best, axis=1)
    correct = np.take_along_axis(same & allowed, best, axis=1)
    references = np.where(np.isfinite(found), best, -1)
    revisits = (same & allowed).any(axis=1)
    return queries, references, found, correct, revisits, allowed.sum(axis=1)


def distance_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """L2 distances (len(a), len(b))."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))
