"""Points that an odometry tracks in its newest keyframes, found again in an old keyframe's image.

VINS-Mono relocalizes by such points (Qin et al., T-RO 2018, VII-B): it knows where each is in
space and needs to be told where the old keyframe saw it. Like its own pose graph this compares
upright binary patches: the gravity that such an odometry knows keeps its camera level.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.config import VinsMonoBridgeConfig
from vpr.geometry import inverse, rotation_from_vector
from vpr.records import CameraModel, Image, Pose
from vpr.verification.features import REFERENCE_WIDTH
from vpr.verification.matching import match_descriptors

PATCH = 31  # px; ORB's
PNP_ITERATIONS = 200
PNP_CONFIDENCE = 0.999
MIN_SAMPLE = 6


@dataclass(frozen=True)
class OldPoints:
    """Corners of an old keyframe's image.

    Attributes:
        rays: (N, 2) float32 normalised image coordinates, without distortion.
        descriptors: (N, 32) uint8.
        unit: one pixel of a 640 px wide image, in normalised image coordinates.
    """

    rays: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    unit: float


@dataclass(frozen=True)
class TrackedPoints:
    """What an odometry tells of the points in one of its keyframes.

    Attributes:
        ids: (N,) int64.
        world: (N, 3) metres, in the odometry's frame.
        descriptors: (N, 32) uint8, of the patches around them.
    """

    ids: NDArray[np.int64]
    world: NDArray[np.float64]
    descriptors: NDArray[np.uint8]


@dataclass(frozen=True)
class FoundPoints:
    """Tracked points seen by an old keyframe.

    Attributes:
        ids: (M,) ascending.
        rays: (M, 2) float32, where the old keyframe saw them.
        camera_pose: odom_T_camera of the old keyframe, as its sight of the points has it.
    """

    ids: NDArray[np.int64]
    rays: NDArray[np.float32]
    camera_pose: Pose


def old_points(grey: Image, camera: CameraModel, config: VinsMonoBridgeConfig) -> OldPoints:
    """The strongest corners of a grey image (H, W) with their descriptors."""
    found = cv2.FastFeatureDetector.create(config.feature_contrast).detect(grey)
    strongest = sorted(found, key=lambda corner: -corner.response)[: config.feature_count]
    pixels = np.asarray(cv2.KeyPoint.convert(strongest), np.float32).reshape(-1, 2)
    kept, descriptors = _upright_descriptors(grey, pixels)
    unit = camera.width / REFERENCE_WIDTH / float(camera.matrix[0, 0])
    return OldPoints(_rays(pixels[kept], camera), descriptors, unit)


def tracked_points(
    grey: Image,
    ids: NDArray[np.int64],
    world: NDArray[np.float64],
    pixels: NDArray[np.float32],
) -> TrackedPoints:
    """The points whose patches lie inside the image; ``pixels`` (N, 2) are as received."""
    kept, descriptors = _upright_descriptors(grey, pixels)
    return TrackedPoints(ids[kept], world[kept], descriptors)


def find_again(
    tracked: TrackedPoints, old: OldPoints, config: VinsMonoBridgeConfig
) -> FoundPoints | None:
    """The tracked points that an old view saw from one pose; None where too few agree."""
    rows, columns = match_descriptors(
        tracked.descriptors, old.descriptors, config.match_ratio, config.match_max_distance
    )
    if len(rows) < max(config.min_matches, MIN_SAMPLE):
        return None
    points, rays = tracked.world[rows], old.rays[columns].astype(np.float64)
    cv2.setRNGSeed(0)  # the same views give the same pose
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        points, rays, np.eye(3), np.zeros(4),
        iterationsCount=PNP_ITERATIONS, reprojectionError=config.inlier_threshold * old.unit,
        confidence=PNP_CONFIDENCE, flags=cv2.SOLVEPNP_SQPNP,
    )  # fmt: skip
    if not found or inliers is None or len(inliers) < config.min_matches:
        return None
    kept = inliers.ravel()
    refined = cv2.solvePnPRefineLM(
        points[kept], rays[kept], np.eye(3), np.zeros(4), rotation, translation
    )
    turn, shift = (np.asarray(vector, np.float64).ravel() for vector in refined)
    if not (np.isfinite(turn).all() and np.isfinite(shift).all()):
        return None
    camera_T_odom = np.eye(4)
    camera_T_odom[:3, :3] = rotation_from_vector(turn)
    camera_T_odom[:3, 3] = shift
    order = kept[np.argsort(tracked.ids[rows[kept]])]
    return FoundPoints(tracked.ids[rows[order]], old.rays[columns[order]], inverse(camera_T_odom))


def _upright_descriptors(
    grey: Image, pixels: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows of the pixels whose patch lies inside the image, and their (M, 32) descriptors."""
    corners = [
        cv2.KeyPoint(float(x), float(y), PATCH, 0.0, 1.0, 0, row)
        for row, (x, y) in enumerate(pixels)
    ]
    kept, descriptors = cv2.ORB.create(edgeThreshold=PATCH, patchSize=PATCH).compute(grey, corners)
    rows = np.array([corner.class_id for corner in kept], np.int64)
    if descriptors is None:
        return rows, np.zeros((0, 32), np.uint8)
    return rows, np.asarray(descriptors, np.uint8)


def _rays(pixels: NDArray[np.float32], camera: CameraModel) -> NDArray[np.float32]:
    if len(pixels) == 0:
        return np.zeros((0, 2), np.float32)
    rays = cv2.undistortPoints(
        pixels.reshape(-1, 1, 2).astype(np.float64), camera.matrix, camera.distortion
    )
    return rays.reshape(-1, 2).astype(np.float32)
