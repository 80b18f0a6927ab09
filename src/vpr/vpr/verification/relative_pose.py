"""The pose of a query view relative to a reference view, with an honest covariance."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vpr.config import LoopClosureConfig
from vpr.geometry import inverse
from vpr.records import Covariance, Pose
from vpr.verification.features import LocalFeatures
from vpr.verification.landmarks import Landmarks
from vpr.verification.two_view import TwoView, coverage

PNP_ITERATIONS = 300
PNP_CONFIDENCE = 0.9999
PNP_TOLERANCE = 2.0  # times the epipolar threshold: the points have errors of their own
REFINEMENTS = 8
CONVERGED = 1e-7  # m and rad
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
    own_T_seen, kept = start
    noise = _Noise(
        pixel=config.pixel_noise * float(np.hypot(own.unit, seen.unit)),
        depth=landmarks.depth_sigmas[rows[kept]].astype(np.float64),
        focal=config.assumed_focal_noise
        if query.camera.assumed or reference.camera.assumed
        else config.focal_noise,
        scale=landmarks.scale_sigma,
    )
    own_T_seen, covariance = _refine(own_T_seen, points[kept], rays[kept], noise)
    if not np.isfinite(covariance).all():
        return None
    if not of_reference:
        own_T_seen, covariance = _inverted(own_T_seen, covariance)
    pose, covariance = _between_bases(own_T_seen, covariance, base_T_camera)
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
) -> tuple[Pose, NDArray[np.bool_]] | None:
    """own_T_seen and the (N,) inliers."""
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
    seen_T_own[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    seen_T_own[:3, 3] = shift
    own_T_seen = inverse(seen_T_own)
    error, _ = _reprojection(own_T_seen, points, rays)
    kept = np.linalg.norm(error, axis=1) < tolerance
    return (own_T_seen, kept) if kept.sum() >= config.min_landmarks else None


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


def _refine(
    own_T_seen: Pose, points: NDArray[np.float64], rays: NDArray[np.float64], noise: _Noise
) -> tuple[Pose, Covariance]:
    """Gauss-Newton on whitened residuals with Huber weights; pose and its covariance.

    A point's residual has the pixel noise of both views and its own depth's noise along its ray,
    seen from the other view. The step is (translation, rotation) in own's axes. The covariance is
    the inverse Hessian, times the residuals' variance where that is more than expected, plus
    what errors common to all points do: the focal length's and the landmarks' scale.
    """
    pose = own_T_seen.copy()
    along = points / points[:, 2:]
    gain = np.zeros((6, 6))
    for _ in range(REFINEMENTS):
        error, slope = _reprojection(pose, points, rays)
        jacobian = np.concatenate([-slope, slope @ _cross(points - pose[:3, 3])], axis=2)
        spread = np.einsum("nij,nj->ni", slope, along) * noise.depth[:, None]
        covariance = noise.pixel**2 * np.eye(2) + spread[:, :, None] * spread[:, None, :]
        weight = np.linalg.inv(covariance)
        distance = np.sqrt(np.einsum("ni,nij,nj->n", error, weight, error))
        weight *= np.minimum(1.0, HUBER / np.maximum(distance, 1e-9))[:, None, None]
        weighted = np.einsum("nki,nkl->nil", jacobian, weight)
        gain = np.linalg.pinv(np.einsum("nil,nlj->ij", weighted, jacobian), hermitian=True)
        step = -gain @ np.einsum("nil,nl->i", weighted, error)
        pose[:3, 3] += step[:3]
        pose[:3, :3] = Rotation.from_rotvec(step[3:]).as_matrix() @ pose[:3, :3]
        if np.abs(step).max() < CONVERGED:
            break
    freedom = max(2 * len(points) - 6, 1)
    excess = max(1.0, float((np.minimum(distance, 2 * HUBER) ** 2).sum()) / freedom)
    # a wrong focal length stretches what one view sees and the points that the other made alike
    stretched = np.einsum("nij,nj->ni", slope[:, :, :2], points[:, :2]) - rays
    by_focal = gain @ np.einsum("nil,nl->i", weighted, stretched) * noise.focal
    by_scale = np.concatenate([pose[:3, 3], np.zeros(3)]) * noise.scale
    common = np.outer(by_focal, by_focal) + np.outer(by_scale, by_scale)
    return pose, gain * excess + common


def _cross(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3) matrices that multiply as the cross product from the left."""
    matrix = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    matrix[:, 0, 1], matrix[:, 0, 2] = -z, y
    matrix[:, 1, 0], matrix[:, 1, 2] = z, -x
    matrix[:, 2, 0], matrix[:, 2, 1] = -y, x
    return matrix


def _inverted(pose: Pose, covariance: Covariance) -> tuple[Pose, Covariance]:
    """b_T_a of a_T_b, its covariance in b's axes."""
    turn = pose[:3, :3].T
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = jacobian[3:, 3:] = -turn
    jacobian[:3, 3:] = -turn @ _cross(pose[None, :3, 3])[0]
    return inverse(pose), jacobian @ covariance @ jacobian.T


def _between_bases(
    pose: Pose, covariance: Covariance, base_T_camera: Pose
) -> tuple[Pose, Covariance]:
    """From between camera frames to between base_link frames."""
    turn = base_T_camera[:3, :3]
    lever = turn @ pose[:3, :3] @ inverse(base_T_camera)[:3, 3]
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = jacobian[3:, 3:] = turn
    jacobian[:3, 3:] = -_cross(lever[None])[0] @ turn
    between = base_T_camera @ pose @ inverse(base_T_camera)
    return between, jacobian @ covariance @ jacobian.T
