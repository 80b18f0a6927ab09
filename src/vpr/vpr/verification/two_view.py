"""Two-view geometry: which matches agree with one motion of one camera through a rigid world."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.verification.features import LocalFeatures
from vpr.verification.matching import match_descriptors

COVERAGE_GRID = (8, 6)  # cells across and down
RANSAC_CONFIDENCE = 0.9999
RANSAC_ITERATIONS = 2000
MIN_SAMPLE = 8  # matches; fewer always fit some fundamental matrix


@dataclass(frozen=True)
class TwoView:
    """Matches between a query and a reference view that agree with one epipolar geometry.

    Attributes:
        matches: how many features were matched at all.
        query, reference: (M,) indices of the M inliers in the features of each view.
        coverage: share of the query image's cells that hold an inlier, 0..1.
        view_scale: how much larger the inliers' pattern is in the query than in the reference.
    """

    matches: int
    query: NDArray[np.int64]
    reference: NDArray[np.int64]
    coverage: float
    view_scale: float

    @property
    def inliers(self) -> int:
        """How many matches agree."""
        return len(self.query)

    @property
    def share(self) -> float:
        """Inliers among the matches, 0..1."""
        return self.inliers / self.matches if self.matches else 0.0


def match_views(
    query: LocalFeatures, reference: LocalFeatures, config: LoopClosureConfig
) -> TwoView:
    """Match two views and keep what agrees with one epipolar geometry.

    The essential matrix is used where both cameras are calibrated, the fundamental matrix where
    a field of view is only assumed. MAGSAC++ (Barath et al., CVPR 2020) with a fixed seed: the
    same views give the same answer.
    """
    rows, columns = match_descriptors(
        query.descriptors, reference.descriptors, config.match_ratio, config.match_max_distance
    )
    kept = _epipolar_inliers(query, reference, rows, columns, config)
    inlier_rows, inlier_columns = rows[kept], columns[kept]
    return TwoView(
        matches=len(rows),
        query=inlier_rows,
        reference=inlier_columns,
        coverage=_coverage(query, inlier_rows),
        view_scale=_view_scale(query.rays[inlier_rows], reference.rays[inlier_columns]),
    )


def _epipolar_inliers(
    query: LocalFeatures,
    reference: LocalFeatures,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    config: LoopClosureConfig,
) -> NDArray[np.bool_]:
    if len(rows) < MIN_SAMPLE:
        return np.zeros(len(rows), bool)
    threshold = config.inlier_threshold
    if query.camera.assumed or reference.camera.assumed:
        scale = np.array([q.camera.width for q in (reference, query)]) / 640.0
        _, mask = cv2.findFundamentalMat(
            reference.pixels[columns] / scale[0],
            query.pixels[rows] / scale[1],
            cv2.USAC_MAGSAC,
            threshold,
            RANSAC_CONFIDENCE,
            RANSAC_ITERATIONS,
        )
    else:
        unit = max(query.unit, reference.unit)
        _, mask = cv2.findEssentialMat(
            reference.rays[columns],
            query.rays[rows],
            focal=1.0,
            pp=(0.0, 0.0),
            method=cv2.USAC_MAGSAC,
            prob=RANSAC_CONFIDENCE,
            threshold=threshold * unit,
            maxIters=RANSAC_ITERATIONS,
        )
    if mask is None:
        return np.zeros(len(rows), bool)
    return np.asarray(mask.ravel() > 0)


def _coverage(features: LocalFeatures, rows: NDArray[np.int64]) -> float:
    across, down = COVERAGE_GRID
    size = np.array([features.camera.width, features.camera.height], np.float64)
    cells = (features.pixels[rows] / size * (across, down)).astype(int)
    cells = cells.clip(0, (across - 1, down - 1))
    return len(np.unique(cells[:, 1] * across + cells[:, 0])) / (across * down)


def _view_scale(query: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Ratio of the median distances of the inliers from their own median."""
    if len(query) < 2:
        return 1.0
    spreads = [
        np.median(np.linalg.norm(rays - np.median(rays, axis=0), axis=1))
        for rays in (query, reference)
    ]
    return float(spreads[0] / max(spreads[1], 1e-9))
