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
from vpr.verification.two_view import TwoView

PNP_ITERATIONS = 300
PNP_CONFIDENCE = 0.9999
PNP_TOLERANCE = 2.0  # times the epipolar threshold: the points have errors of their own
DIFFERENCE_STEP = 1e-6
MODEL_FLOOR = (0.02, 0.005)  # m, rad; calibration and rolling shutter that residuals do not show


@dataclass(frozen=True)
class RelativePose:
    """reference_T_query between base_link frames, and the features that agree with it.

    ``metric`` is False where the translation's length is unknown: the pose is then the weak
    closure of Pillai & Leonard (V-B), zero with a wide covariance.
    """

    pose: Pose
    covariance: Covariance
    inliers: int
    metric: bool


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
    mine, theirs = (
        (views.reference, views.query) if of_reference else (views.query, views.reference)
    )
    seen_by = query if of_reference else reference
    known = landmarks.known[mine]
    points = landmarks.points[mine[known]].astype(np.float64)
    rays = seen_by.rays[theirs[known]]
    if len(points) < config.min_landmarks:
        return None
    solved = _solve_pnp(points, rays, seen_by.unit, config)
    if solved is None:
        return None
    rotation, translation, kept = solved
    tangent = _pnp_covariance(
        rotation, translation, points[kept], rays[kept], seen_by.unit, landmarks, config
    )

    def base_pose(parameters: NDArray[np.float64]) -> Pose:
        seen_T_mine = np.eye(4)
        seen_T_mine[:3, :3] = Rotation.from_rotvec(parameters[:3]).as_matrix()
        seen_T_mine[:3, 3] = parameters[3:]
        reference_T_query = inverse(seen_T_mine) if of_reference else seen_T_mine
        return base_T_camera @ reference_T_query @ inverse(base_T_camera)

    parameters = np.concatenate([rotation, translation])
    pose = base_pose(parameters)
    jacobian = np.column_stack(
        [
            _difference(pose, base_pose(parameters + DIFFERENCE_STEP * axis)) / DIFFERENCE_STEP
            for axis in np.eye(6)
        ]
    )
    covariance = jacobian @ tangent @ jacobian.T
    assumed = query.camera.assumed or reference.camera.assumed
    scale_sigma = np.hypot(landmarks.scale_sigma, config.assumed_scale_noise if assumed else 0.0)
    shift = pose[:3, 3]
    covariance[:3, :3] += scale_sigma**2 * np.outer(shift, shift)
    covariance += np.diag([MODEL_FLOOR[0] ** 2] * 3 + [MODEL_FLOOR[1] ** 2] * 3)
    return RelativePose(pose, covariance, int(kept.sum()), metric=True)


def weak_pose(inliers: int, config: LoopClosureConfig) -> RelativePose:
    """Zero relative pose with 3 m and 0.3 rad (Pillai & Leonard V-B; both configurable)."""
    sigmas = [config.weak_translation] * 3 + [config.weak_rotation] * 3
    return RelativePose(np.eye(4), np.diag(np.square(sigmas)), inliers, metric=False)


def _solve_pnp(
    points: NDArray[np.float64], rays: NDArray[np.float64], unit: float, config: LoopClosureConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None:
    """Rotation vector and translation of seen_T_mine, and the (N,) inliers."""
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
    kept = np.linalg.norm(_residuals(turn, shift, points, rays), axis=1) < tolerance
    return (turn, shift, kept) if kept.sum() >= config.min_landmarks else None


def _residuals(
    rotation: NDArray[np.float64],
    translation: NDArray[np.float64],
    points: NDArray[np.float64],
    rays: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(N, 2) reprojection errors in normalised image coordinates; far away behind the camera."""
    seen = points @ Rotation.from_rotvec(rotation).as_matrix().T + translation
    depth = np.where(seen[:, 2] > 1e-3, seen[:, 2], np.nan)
    error = seen[:, :2] / depth[:, None] - rays
    return np.asarray(np.nan_to_num(error, nan=1e3))


def _pnp_covariance(
    rotation: NDArray[np.float64],
    translation: NDArray[np.float64],
    points: NDArray[np.float64],
    rays: NDArray[np.float64],
    unit: float,
    landmarks: Landmarks,
    config: LoopClosureConfig,
) -> Covariance:
    """(6, 6) of rotation vector and translation: inverse Gauss-Newton Hessian.

    Each point is weighted by the larger of the pixel noise with its own depth noise propagated,
    and all are scaled up by what the residuals show beyond that.
    """
    _, jacobian = cv2.projectPoints(points, rotation, translation, np.eye(3), np.zeros(4))
    jacobian = jacobian[:, :6].reshape(-1, 2, 6)
    variance = np.full(len(points), (config.pixel_noise * unit) ** 2)
    if landmarks.measured:
        sigma = config.depth_noise * points[:, 2] ** 2
        along = np.linalg.norm(translation) / np.maximum(points[:, 2], 0.1) ** 2
        variance += (sigma * along) ** 2
    hessian = np.einsum("nki,nkj,n->ij", jacobian, jacobian, 1.0 / variance)
    error = _residuals(rotation, translation, points, rays)
    freedom = max(2 * len(points) - 6, 1)
    excess = max(1.0, float(((error**2).sum(axis=1) / variance).sum()) / freedom)
    return np.asarray(np.linalg.pinv(hessian, hermitian=True) * excess)


def _difference(a: Pose, b: Pose) -> NDArray[np.float64]:
    """Translation and fixed-axis rotation from a to b, as geometry_msgs covariances have it."""
    turn = Rotation.from_matrix(b[:3, :3] @ a[:3, :3].T).as_rotvec()
    return np.concatenate([b[:3, 3] - a[:3, 3], turn])
