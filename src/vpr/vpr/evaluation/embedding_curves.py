"""Precision and recall of descriptors over distance and over the number of neighbours.

The curves of Pillai & Leonard's figures 5 to 7: each keyframe is looked up among the ones before
it, and a candidate is right when it was taken within a radius of it (20 m, 30 m), whichever way it
looks; without a radius, when both are the same place by ``same_place``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.config import FineTuningConfig
from vpr.learning.drives import Drives
from vpr.learning.retrieval import (
    Matches,
    distance_matrix,
    look_up,
    same_place,
    searchable,
)

Curve = NDArray[np.float64]
LEVELS = 200  # distances at which the epsilon-NN curves are sampled
DEEPEST = 50  # neighbours of the k-NN curves
NEGATIVES_FROM = 50.0  # m; the negative pairs of Fig. 8 are at least this far apart


@dataclass(frozen=True)
class NeighbourCurves:
    """Precision and recall of candidate pairs as more are accepted; one value a level."""

    levels: Curve  # L2 distance, or number of neighbours
    precision: Curve
    recall: Curve


@dataclass(frozen=True)
class SeparationDistances:
    """Distances of pairs at the same place and of pairs far apart, for the histograms of Fig. 8."""

    positive: Curve
    negative: Curve

    @property
    def overlap(self) -> float:
        """Shared mass of the two histograms, 0 .. 1: how ambiguous a distance is."""
        both = np.concatenate([self.positive, self.negative])
        edges = np.histogram_bin_edges(both, 60)
        shares = [
            np.histogram(d, edges)[0] / max(len(d), 1) for d in (self.positive, self.negative)
        ]
        return float(np.minimum(*shares).sum())


def best_matches(
    embeddings: NDArray[np.float32], drives: Drives, radius: float | None, config: FineTuningConfig
) -> Matches:
    """The nearest earlier keyframe of every keyframe."""
    rows = np.arange(len(drives))
    return look_up(embeddings, drives.viewpoints, drives.drive, rows, config, k=1, radius=radius)


def epsilon_curves(
    embeddings: NDArray[np.float32], drives: Drives, radius: float | None, config: FineTuningConfig
) -> NeighbourCurves:
    """All pairs within a distance of each other, for rising distances (Fig. 6)."""
    distances, same = _candidate_pairs(embeddings, drives, radius, config)
    order = np.argsort(distances, kind="stable")
    right = np.cumsum(same[order])
    at = np.unique(np.linspace(0, len(order) - 1, LEVELS).astype(np.int64))
    first = np.unique(np.geomspace(1, len(order), LEVELS).astype(np.int64)) - 1
    at = np.union1d(at, first)
    return NeighbourCurves(
        distances[order][at], right[at] / (at + 1.0), right[at] / max(int(same.sum()), 1)
    )


def neighbour_curves(
    embeddings: NDArray[np.float32], drives: Drives, radius: float | None, config: FineTuningConfig
) -> NeighbourCurves:
    """The k nearest of every keyframe, for rising k (Fig. 7).

    Recall is the share of revisits with a right one among their k nearest.
    """
    matches = look_up(
        embeddings,
        drives.viewpoints,
        drives.drive,
        np.arange(len(drives)),
        config,
        k=min(DEEPEST, len(drives) - 1),
        radius=radius,
    )
    found = np.isfinite(matches.distances)
    right = np.cumsum(matches.correct, axis=1)
    accepted = np.cumsum(found, axis=1)
    revisits = matches.revisits
    return NeighbourCurves(
        np.arange(1.0, right.shape[1] + 1.0),
        right.sum(axis=0) / np.maximum(accepted.sum(axis=0), 1),
        (right[revisits] > 0).sum(axis=0) / max(int(revisits.sum()), 1),
    )


def separation(
    embeddings: NDArray[np.float32], drives: Drives, config: FineTuningConfig
) -> SeparationDistances:
    """Distances of all searchable pairs at the same place, and of those 50 m apart or more."""
    rows = np.arange(len(drives))
    allowed = searchable(rows, drives.drive, config.exclude_recent_keyframes)
    distances = distance_matrix(embeddings, embeddings)
    views = drives.viewpoints
    apart, same = views.distances(views), same_place(views, views, config)
    return SeparationDistances(
        distances[allowed & same], distances[allowed & (apart >= NEGATIVES_FROM)]
    )


def _candidate_pairs(
    embeddings: NDArray[np.float32], drives: Drives, radius: float | None, config: FineTuningConfig
) -> tuple[Curve, NDArray[np.bool_]]:
    rows = np.arange(len(drives))
    allowed = searchable(rows, drives.drive, config.exclude_recent_keyframes)
    distances = distance_matrix(embeddings, embeddings)
    views = drives.viewpoints
    near = views.distances(views) <= (radius or 0.0)
    right = same_place(views, views, config) if radius is None else near
    return distances[allowed], right[allowed]
