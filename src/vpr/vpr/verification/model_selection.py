"""Epipolar geometry or a homography: which of the two explains matched views with less.

A fundamental matrix fits matches on a plane, or seen from one spot, in many ways, and takes in
false matches that happen to lie along its lines. Torr's geometric robust information criterion
(IJCV 2002) weighs the residuals against the model's dimension and its parameters.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

COORDINATES = 4  # of a match: its dimension in the joint image
OUTLIER = 2.0  # the criterion's lambda_3: squared residuals count no more than this times d
EPIPOLAR_DIMENSION, HOMOGRAPHY_DIMENSION = 3, 2  # of the manifold that matches then lie on
FUNDAMENTAL_PARAMETERS, HOMOGRAPHY_PARAMETERS = 7, 8
CONFIDENCE, ITERATIONS = 0.999, 500


def homography_inliers(
    query: NDArray[np.float64], reference: NDArray[np.float64], threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """query ~ H reference (3, 3) and which matches (M,) agree; None where none is found."""
    model, mask = cv2.findHomography(
        reference,
        query,
        cv2.USAC_MAGSAC,
        threshold,
        maxIters=ITERATIONS,
        confidence=CONFIDENCE,
    )
    if model is None or mask is None or not np.isfinite(model).all():
        return None
    return np.asarray(model, np.float64), np.asarray(mask.ravel() > 0)


def prefers_homography(
    fundamental: NDArray[np.float64],
    homography: NDArray[np.float64],
    query: NDArray[np.float64],
    reference: NDArray[np.float64],
    sigma: float,
) -> bool:
    """Whether the homography has the lower criterion over all matches.

    Args:
        fundamental: (3, 3) with query^T F reference = 0.
        homography: (3, 3) with query ~ H reference.
        query, reference: (M, 2) pixels.
        sigma: location noise of a keypoint, pixels.
    """
    epipolar = _criterion(
        sampson_squared(fundamental, query, reference) / sigma**2,
        EPIPOLAR_DIMENSION,
        FUNDAMENTAL_PARAMETERS,
    )
    plane = _criterion(
        transfer_squared(homography, query, reference) / sigma**2,
        HOMOGRAPHY_DIMENSION,
        HOMOGRAPHY_PARAMETERS,
    )
    return plane < epipolar


def sampson_squared(
    fundamental: NDArray[np.float64],
    query: NDArray[np.float64],
    reference: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(M,) squared Sampson distances from epipolar lines (Hartley & Zisserman, 11.9)."""
    q, r = _homogeneous(query), _homogeneous(reference)
    line_q, line_r = r @ fundamental.T, q @ fundamental
    slope = (line_q[:, :2] ** 2).sum(axis=1) + (line_r[:, :2] ** 2).sum(axis=1)
    result: NDArray[np.float64] = (q * line_q).sum(axis=1) ** 2 / np.maximum(slope, 1e-12)
    return result


def transfer_squared(
    homography: NDArray[np.float64],
    query: NDArray[np.float64],
    reference: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(M,) squared distances of matches from the homography in the joint image, nearly.

    Either transfer error has the noise of both views: a quarter of their sum has that of one.
    """
    inverse = np.linalg.inv(homography)
    there = _projected(homography, reference) - query
    back = _projected(inverse, query) - reference
    result: NDArray[np.float64] = 0.25 * ((there**2).sum(axis=1) + (back**2).sum(axis=1))
    return result


def _criterion(residuals: NDArray[np.float64], dimension: int, parameters: int) -> float:
    """GRIC of squared residuals in units of the noise."""
    count = len(residuals)
    bounded = np.minimum(residuals, OUTLIER * (COORDINATES - dimension)).sum()
    structure = np.log(COORDINATES) * dimension * count
    return float(bounded + structure + np.log(COORDINATES * count) * parameters)


def _homogeneous(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([points, np.ones(len(points))])


def _projected(homography: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = _homogeneous(points) @ homography.T
    depth = np.where(np.abs(moved[:, 2:]) < 1e-12, 1e-12, moved[:, 2:])
    result: NDArray[np.float64] = moved[:, :2] / depth
    return result
