"""Two-view geometry: which matches agree with one motion of one camera through a rigid world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.verification.features import REFERENCE_WIDTH, LocalFeatures
from vpr.verification.matching import Matched, match_features
from vpr.verification.model_selection import homography_inliers, prefers_homography

COVERAGE_GRID = (8, 6)  # cells across and down
RANSAC_CONFIDENCE = 0.999
RANSAC_ITERATIONS = 500  # enough for a third of inliers; more false matches are filtered before
ROTATION_BINS = 36
LAYOUT_ITERATIONS = 200
MIN_SAMPLE = 8  # matches; fewer always fit some fundamental matrix


@dataclass(frozen=True)
class TwoView:
    """Matches between a query and a reference view that agree with one epipolar geometry.

    Attributes:
        matches: how many features were matched at all.
        query, reference: (M,) indices of the M inliers in the features of each view.
        aligned: how many inliers one affine map carries to within ``layout_tolerance``. Places
            seen again from nearby keep their layout; chance matches along epipolar lines do not.
        coverage: share of the query image's cells that hold an inlier, 0..1.
        view_scale: how much larger the inliers' pattern is in the query than in the reference.
    """

    matches: int
    query: NDArray[np.int64]
    reference: NDArray[np.int64]
    aligned: int
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
    """Match two views by their nearest descriptors and keep what agrees (`agreeing_matches`)."""
    return agreeing_matches(query, reference, match_features(query, reference, config), config)


def agreeing_matches(
    query: LocalFeatures, reference: LocalFeatures, matched: Matched, config: LoopClosureConfig
) -> TwoView:
    """What of the matches of two views agrees with one epipolar geometry.

    The essential matrix is used where both cameras are calibrated (planes do not mislead it); the
    fundamental matrix, or a homography if that explains more, where a field of view is assumed.
    Scored by MAGSAC++ (Barath et al., CVPR 2020) on samples in PROSAC's order (Chum and Matas,
    CVPR 2005), with a fixed seed: the same views give the same answer.
    """
    rows, columns = matched
    same_way_up = _turned_alike(query, reference, rows, columns, config)
    rows, columns = rows[same_way_up], columns[same_way_up]
    kept = _epipolar_inliers(query, reference, rows, columns, config)
    inlier_rows, inlier_columns = rows[kept], columns[kept]
    return TwoView(
        matches=len(rows),
        query=inlier_rows,
        reference=inlier_columns,
        aligned=_aligned(query.rays[inlier_rows], reference.rays[inlier_columns], query, config),
        coverage=coverage(query, inlier_rows),
        view_scale=_view_scale(query.rays[inlier_rows], reference.rays[inlier_columns]),
    )


def shortcoming(views: TwoView, config: LoopClosureConfig) -> tuple[str, str]:
    """The first test that two views fail, and what a person may read; both "" where they pass."""
    agree = f"{views.inliers} matches agree with one motion"
    if views.inliers < config.min_inliers:
        return "too_few_inliers", (
            f"{views.inliers} of {views.matches} matches agree with one motion, "
            f"{config.min_inliers} needed"
        )
    if views.aligned < config.min_aligned:
        return "layout", (
            f"{agree}, but only {views.aligned} keep their layout, {config.min_aligned} needed"
        )
    if views.share < config.min_inlier_share:
        return "inlier_share", (
            f"only {views.share:.0%} of {views.matches} matches agree with one motion, "
            f"{config.min_inlier_share:.0%} needed"
        )
    if views.coverage < config.min_inlier_coverage:
        return "coverage", (
            f"the {views.inliers} agreeing matches cover {views.coverage:.0%} of the image, "
            f"{config.min_inlier_coverage:.0%} needed"
        )
    return "", ""


def _turned_alike(
    query: LocalFeatures,
    reference: LocalFeatures,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    config: LoopClosureConfig,
) -> NDArray[np.bool_]:
    """(M,) matches whose keypoints turned with the camera and look about equally large.

    The camera's roll shows as the commonest turn of the keypoints, as in ORB-SLAM (Mur-Artal et
    al., T-RO 2015).
    """
    if len(rows) == 0:
        return np.zeros(0, bool)
    turns = (query.angles[rows] - reference.angles[columns]) % 360.0
    width = 360.0 / ROTATION_BINS
    counts = np.bincount((turns // width).astype(int) % ROTATION_BINS, minlength=ROTATION_BINS)
    smooth = 2 * counts + np.roll(counts, 1) + np.roll(counts, -1)
    roll = (np.argmax(smooth) + 0.5) * width
    off = np.abs((turns - roll + 180.0) % 360.0 - 180.0)
    growth = query.sizes[rows] / reference.sizes[columns]
    limit = config.match_max_scale
    alike = (growth < limit) & (growth > 1.0 / limit)
    return np.asarray((off <= np.degrees(config.match_max_turn)) & alike)


def _aligned(
    query: NDArray[np.float64],
    reference: NDArray[np.float64],
    features: LocalFeatures,
    config: LoopClosureConfig,
) -> int:
    if len(query) < MIN_SAMPLE:
        return 0
    _, mask = cv2.estimateAffine2D(
        reference / features.unit,
        query / features.unit,
        method=cv2.RANSAC,
        ransacReprojThreshold=config.layout_tolerance,
        maxIters=LAYOUT_ITERATIONS,
    )
    return 0 if mask is None else int(np.count_nonzero(mask))


def _epipolar_inliers(
    query: LocalFeatures,
    reference: LocalFeatures,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    config: LoopClosureConfig,
) -> NDArray[np.bool_]:
    """(M,) matches that agree with one fundamental or essential matrix."""
    none = np.zeros(len(rows), bool)
    if len(rows) < max(MIN_SAMPLE, config.min_inliers):  # can't be enough, whatever the motion
        return none
    try:
        if query.camera.assumed or reference.camera.assumed:
            mask = _uncalibrated_mask(
                query.pixels[rows] * (REFERENCE_WIDTH / query.camera.width),
                reference.pixels[columns] * (REFERENCE_WIDTH / reference.camera.width),
                config,
            )
        else:
            unit = max(query.unit, reference.unit)
            mask = _essential_mask(
                query.rays[rows], reference.rays[columns], config.inlier_threshold * unit
            )
    except cv2.error:  # OpenCV's last polish asserts that a model was found; here none was
        return none
    return none if mask is None else np.asarray(mask.ravel() > 0)


def _uncalibrated_mask(
    query: NDArray[np.float64], reference: NDArray[np.float64], config: LoopClosureConfig
) -> Any:
    """Of a fundamental matrix, or of a homography where that explains the matches with less."""
    threshold = config.inlier_threshold
    fundamental, mask = cv2.findFundamentalMat(
        reference,
        query,
        cv2.USAC_MAGSAC,
        threshold,
        RANSAC_CONFIDENCE,
        RANSAC_ITERATIONS,
    )
    if mask is None or fundamental is None or np.count_nonzero(mask) < config.min_inliers:
        return mask
    plane = homography_inliers(query, reference, threshold)
    if plane is not None and prefers_homography(
        np.asarray(fundamental[:3], np.float64), plane[0], query, reference, config.pixel_noise
    ):
        return plane[1]
    return mask


def _essential_mask(
    query: NDArray[np.float64], reference: NDArray[np.float64], threshold: float
) -> Any:
    _, mask = cv2.findEssentialMat(
        reference,
        query,
        focal=1.0,
        pp=(0.0, 0.0),
        method=cv2.USAC_MAGSAC,
        prob=RANSAC_CONFIDENCE,
        threshold=threshold,
        maxIters=RANSAC_ITERATIONS,
    )
    return mask


def coverage(features: LocalFeatures, rows: NDArray[np.int64]) -> float:
    """Share of the cells of the image that hold one of these features, 0..1."""
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
