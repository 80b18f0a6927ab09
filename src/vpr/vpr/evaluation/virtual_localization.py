"""Views of later laps localized among the virtual views of the first one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vpr.evaluation.relocalization import LOOP, Row, map_and_queries
from vpr.evaluation.relocalization_loops import drifting
from vpr.evaluation.view_search import Search, Seen, Similarities
from vpr.geometry import relative
from vpr.learning.calibrating import reliability
from vpr.records import Pose
from vpr.relocalization.model import S3eModel
from vpr.relocalization.rgbd import RgbdSequence
from vpr.relocalization.virtual_views import VirtualViews

ODOMETRY_SEED = 0


@dataclass(frozen=True)
class Expected:
    """What is expected of Q views of later laps, and of their pairs with R views of the map.

    Attributes:
        overlaps: (Q, R) IoU.
        among: (Q, Q) IoU of the later laps' views with each other.
        loops: (Q, R) probability of an IoU above ``LOOP``.
    """

    overlaps: NDArray[np.float32]
    among: NDArray[np.float32]
    loops: NDArray[np.float32]


def expected(model: S3eModel, seen: Seen, sequence: RgbdSequence) -> Expected:
    """Each later lap begins lost and goes on by an odometry that drifts."""
    references, queries = map_and_queries(sequence)
    given = seen(sequence)
    views = VirtualViews.of_map(model, sequence.chosen(references), given.rows(references))
    asked = views.describe(model, given.rows(queries))
    beliefs = views.follow(model.appearance, asked, _motions(sequence, queries))
    loops = (views.overlaps > LOOP).astype(np.float32)
    return Expected(beliefs @ views.overlaps, views.overlaps_of(beliefs), beliefs @ loops)


def by_virtual_views(model: S3eModel, seen: Seen) -> Search:
    """Expected IoU with the views of the first lap, in which later ones are looked for."""

    def search(sequence: RgbdSequence) -> Similarities:
        result = np.zeros((len(sequence), len(sequence)), np.float32)
        references, queries = map_and_queries(sequence)
        result[np.ix_(queries, references)] = expected(model, seen, sequence).overlaps
        return result

    return search


def probability_row(sequence: RgbdSequence, found: Expected, truth: NDArray[np.float32]) -> Row:
    """How far the probability of each query's likeliest loop can be believed."""
    references, queries = map_and_queries(sequence)
    likeliest = found.loops.argmax(axis=1)
    chances = found.loops[np.arange(len(queries)), likeliest].astype(np.float64)
    right = truth[queries, references[likeliest]] > LOOP
    return {
        "level": sequence.name,
        "candidates": "likeliest, virtual views",
        "number": len(queries),
        "right": float(right.mean()),
        "calibration_error": reliability(chances, right).expected_error,
    }


def _motions(sequence: RgbdSequence, queries: NDArray[np.intp]) -> list[Pose | None]:
    motions: list[Pose | None] = []
    for lap in np.unique(sequence.laps[queries]):
        poses = sequence.poses[queries[sequence.laps[queries] == lap]]
        odometry = drifting(poses, ODOMETRY_SEED)
        motions += [None, *(relative(before, after) for before, after in pairwise(odometry))]
    return motions
