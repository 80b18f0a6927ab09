"""The pose of a query view relative to a reference view, with an honest covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.geometry import inverse, rotation_from_vector
from vpr.records import Covariance, Pose
from vpr.uncertain_pose import between, inverted
from vpr.verification.features import LocalFeatures
from vpr.verification.landmarks import Landmarks
from vpr.verification.two_view import TwoView, coverage

PNP_ITERATIONS = 300
PNP_CONFIDENCE = 0.9999
PNP_TOLERANCE = 2.0  # times the epipolar threshold: the points have errors of their own
MIN_POINTS = 4
REFINEMENTS = 8
CONVERGED = 1e-5  # m and rad
HUBER = 2.0  # standard deviations beyond which a residual counts less
MODEL_FLOOR = (0.02, 0.005)  # m, rad; rolling shutter and the like that residuals do not show


@dataclass(frozen=True)
class RelativePose:
    """reference_T_query between base_link frames, and what it rests on.

    Attributes:
        covariance: of translation (m) and fixed-axis rotation (rad), both in the reference's
            base_link axes, as geometry_msgs has it.
        inliers: features that agree with the pose.
        coverage: share of the image's cells that they lie in, 0..1.
        metric: False where the translation's length is unknown: the pose is then the weak
            closure of Pillai & Leonard (V-B), zero with a wide covariance.
    """

    pose: Pose
    covariance: Covariance
    inliers: int
    coverage: float
    metric: bool


def weak_pose(views: TwoView, config: LoopClosureConfig) -> RelativePose:
    """Zero relative pose with 3 m and 0.3 rad (Pillai & Leonard V-B; both configurable)."""
    sigmas = [config.weak_translation] * 3 + [config.weak_rotation] * 3
    covariance = np.diag(np.square(sigmas))
    return RelativePose(np.eye(4), covariance, views.inliers, views.coverage, metric=False)


def metric_pose(
    query: LocalFeatures,
    reference: LocalFeatures,
    views: TwoView,
    landmarks: Landmarks,
    of_reference: bool,
    base_T_camera: Pose,
    config: LoopClosureConfig,
) -> RelativePose | None:
    """Perspective-n-point pose from the landmarks of one view seen in the other.

    Args:
        landmarks: of the reference's features, or of the query's where ``of_reference`` is False.

    Returns:
        None where fewer than ``min_landmarks`` agree.
    """
    own, seen = (reference, query) if of_reference else (query, reference)
    rows, columns = (
        (views.reference, views.query) if of_reference else (views.query, views.reference)
    )
    known = landmarks.known[rows]
    rows, columns = rows[known], columns[known]
    if len(rows) < config.min_landmarks:
        return None
    points = landmarks.points[rows].astype(np.float64)
    rays = seen.rays[columns]
    start = _solve_pnp(points, rays, seen.unit, config)
    if start is None:
        return None
    assumed = query.camera.assumed or reference.camera.assumed
    noise = _Noise(
        pixel=config.pixel_noise * float(np.hypot(own.unit, seen.unit)),
        depth=landmarks.depth_sigmas[rows].astype(np.float64),
        focal=config.assumed_focal_noise if assumed else config.focal_noise,
        scale=landmarks.scale_sigma,
    )
    tolerance = PNP_TOLERANCE * config.inlier_threshold * seen.unit
    fitted = _refined_twice(start, points, rays, noise, tolerance)
    if fitted is None or fitted[2].sum() < config.min_landmarks:
        return None
    own_T_seen, covariance, kept = fitted
    if not of_reference:
        own_T_seen, covariance = inverted(own_T_seen, covariance)
    camera_T_base = inverse(base_T_camera)
    pose, covariance = between(base_T_camera, own_T_seen, covariance, camera_T_base)
    covariance += np.diag([MODEL_FLOOR[0] ** 2] * 3 + [MODEL_FLOOR[1] ** 2] * 3)
    covered = coverage(seen, columns[kept])
    return RelativePose(pose, covariance, int(kept.sum()), covered, metric=True)


@dataclass(frozen=True)
class _Noise:
    """Standard deviations: of rays (normalised), depths (N,) in m, focal length and scale (1)."""

    pixel: float
    depth: NDArray[np.float64]
    focal: float
    scale: float


def _solve_pnp(
    points: NDArray[np.float64], rays: NDArray[np.float64], unit: float, config: LoopClosureConfig
) -> Pose | None:
    """own_T_seen, or None where too few points agree."""
    tolerance = PNP_TOLERANCE * config.inlier_threshold * unit
    identity, no_distortion = np.eye(3), np.zeros(4)
    cv2.setRNGSeed(0)  # the same views give the same pose
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        points, rays, identity, no_distortion,
        iterationsCount=PNP_ITERATIONS, reprojectionError=tolerance,
        confidence=PNP_CONFIDENCE, flags=cv2.SOLVEPNP_SQPNP,
    )  # fmt: skip
    if not found or inliers is None or len(inliers) < config.min_landmarks:
        return None
    rows = inliers.ravel()
    refined = cv2.solvePnPRefineLM(
        points[rows], rays[rows], identity, no_distortion, rotation, translation
    )
    turn, shift = (np.asarray(vector, np.float64).ravel() for vector in refined)
    if not (np.isfinite(turn).all() and np.isfinite(shift).all()):
        return None
    seen_T_own = np.eye(4)
    seen_T_own[:3, :3] = rotation_from_vector(turn)
    seen_T_own[:3, 3] = shift
    return inverse(seen_T_own)


def _reprojection(
    own_T_seen: Pose, points: NDArray[np.float64], rays: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, 2) errors, far away behind the camera, and the (N, 2, 3) slopes over ``points``."""
    rotation = own_T_seen[:3, :3]
    seen = (points - own_T_seen[:3, 3]) @ rotation
    behind = seen[:, 2] < 1e-3
    depth = np.where(behind, 1.0, seen[:, 2])
    projected = seen[:, :2] / depth[:, None]
    error = np.where(behind[:, None], 1e3, projected - rays)
    slope = np.zeros((len(points), 2, 3))
    slope[:, [0, 1], [0, 1]] = 1.0
    slope[:, :, 2] = -projected
    return error, slope / depth[:, None, None] @ rotation.T


def _refined_twice(
    own_T_seen: Pose,
    points: NDArray[np.float64],
    rays: NDArray[np.float64],
    noise: _Noise,
    tolerance: float,
) -> tuple[Pose, Covariance, NDArray[np.bool_]] | None:
    """Pose, covariance and the (N,) inliers, which are chosen again after the first fit."""
    stretch = 0.0
    covariance = np.zeros((6, 6))
    kept = np.zeros(len(points), bool)
    for _ in range(2):
        error, _ = _reprojection(own_T_seen, *_stretched(points, rays, stretch))
        kept = np.linalg.norm(error, axis=1) < tolerance
        if kept.sum() < MIN_POINTS:
            return None
        chosen = replace(noise, depth=noise.depth[kept])
        own_T_seen, stretch, covariance = _refine(own_T_seen, points[kept], rays[kept], chosen)
        if not np.isfinite(covariance).all():
            return None
    return own_T_seen, covariance, kept


def _stretched(
    points: NDArray[np.float64], rays: NDArray[np.float64], stretch: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What both views would say with a focal length that is shorter by ``stretch``."""
    return points * (1.0 + stretch, 1.0 + stretch, 1.0), rays * (1.0 + stretch)


def _refine(
    own_T_seen: Pose, points: NDArray[np.float64], rays: NDArray[np.float64], noise: _Noise
) -> tuple[Pose, float, Covariance]:
    """Gauss-Newton on whitened residuals with Huber weights: pose, stretch and covariance.

    A point's residual has the pixel noise of both views and its own depth's noise along its ray,
    seen from the other view. The unknowns are translation and rotation in own's axes and, held
    by its prior, the focal length of both views: what it could explain makes the pose less sure.
    The covariance is the inverse Hessian, times the residuals' variance where that is more than
    expected, plus what the landmarks' common scale does.
    """
    pose, stretch = own_T_seen.copy(), 0.0
    prior = np.diag([0.0] * 6 + [1.0 / noise.focal**2])
    gain = np.zeros((7, 7))
    distance = np.zeros(len(points))
    for _ in range(REFINEMENTS):
        own_points, seen_rays = _stretched(points, rays, stretch)
        error, slope = _reprojection(pose, own_points, seen_rays)
        turning = slope @ _cross(own_points - pose[:3, 3])
        stretching = np.einsum("nij,nj->ni", slope[:, :, :2], points[:, :2]) - rays
        jacobian = np.concatenate([-slope, turning, stretching[:, :, None]], axis=2)
        along = own_points / own_points[:, 2:]
        spread = np.einsum("nij,nj->ni", slope, along) * noise.depth[:, None]
        weight = np.linalg.inv(noise.pixel**2 * np.eye(2) + spread[:, :, None] * spread[:, None, :])
        distance = np.sqrt(np.einsum("ni,nij,nj->n", error, weight, error))
        weight *= np.minimum(1.0, HUBER / np.maximum(distance, 1e-9))[:, None, None]
        weighted = np.einsum("nki,nkl->nil", jacobian, weight)
        hessian = np.einsum("nil,nlj->ij", weighted, jacobian) + prior
        gain = np.linalg.pinv(hessian, hermitian=True)
        gradient = np.einsum("nil,nl->i", weighted, error)
        gradient[6] += stretch / noise.focal**2
        step = -gain @ gradient
        pose[:3, 3] += step[:3]
        pose[:3, :3] = rotation_from_vector(step[3:6]) @ pose[:3, :3]
        stretch = float(np.clip(stretch + step[6], -0.5, 0.5))
        if np.abs(step).max() < CONVERGED:
            break
    freedom = max(2 * len(points) - 6, 1)
    excess = max(1.0, float((np.minimum(distance, 2 * HUBER) ** 2).sum()) / freedom)
    by_scale = np.concatenate([pose[:3, 3], np.zeros(3)]) * noise.scale
    return pose, stretch, gain[:6, :6] * excess + np.outer(by_scale, by_scale)


def _cross(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3) matrices that multiply as the cross product from the left."""
    matrix = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    matrix[:, 0, 1], matrix[:, 0, 2] = -z, y
    matrix[:, 1, 0], matrix[:, 1, 2] = z, -x
    matrix[:, 2, 0], matrix[:, 2, 1] = -y, x
    return matrix
