"""How much two views see of the same, from metadata alone or from depth.

The 2-D measure is that of Leyva-Vallina et al., "Data-Efficient Large Scale Place Recognition with
Graded Similarity Supervision", CVPR 2023: the field of view is a sector on the ground, and the
similarity of two images is the intersection of their sectors over the union.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vpr.geometry import inverse
from vpr.records import CameraModel, Pose

ARC_POINTS = 33  # of a sector's outline; the polygon lacks 0.03 % of a 90 degree sector's area


class OverlapError(ValueError):
    """Arguments that describe no field of view."""


@dataclass(frozen=True)
class Viewpoints2D:
    """Where N images were taken and where the camera looked."""

    positions: NDArray[np.float64]  # (N, 2) east, north, metres
    headings: NDArray[np.float64]  # (N,) radians from east, counter-clockwise

    def __len__(self) -> int:
        return len(self.headings)


def field_of_view_overlap(
    queries: Viewpoints2D, references: Viewpoints2D, field_of_view: float, reach: float
) -> NDArray[np.float32]:
    """(N, M) intersection over union of the sectors that queries and references see.

    Args:
        field_of_view: opening angle, radians, below pi.
        reach: how far a camera sees, metres.

    Raises:
        OverlapError: an angle or reach that is none.
    """
    if not 0.0 < field_of_view < np.pi or not reach > 0.0:
        raise OverlapError(f"no sector opens by {field_of_view:g} rad and reaches {reach:g} m")
    origin = queries.positions.mean(axis=0)
    first = _sectors(queries, field_of_view, reach, origin)
    second = _sectors(references, field_of_view, reach, origin)
    area = cv2.contourArea(first[0])
    overlap = np.zeros((len(queries), len(references)), np.float32)
    near = cKDTree(references.positions).query_ball_point(queries.positions, 2.0 * reach)
    for query, candidates in enumerate(near):
        for reference in candidates:
            shared, _ = cv2.intersectConvexConvex(first[query], second[reference])
            overlap[query, reference] = shared / (2.0 * area - shared)
    return np.clip(overlap, 0.0, 1.0)


def depth_overlap(
    first: NDArray[np.float32],
    first_pose: Pose,
    second: NDArray[np.float32],
    second_pose: Pose,
    camera: CameraModel,
    tolerance: float = 0.05,
    stride: int = 4,
) -> float:
    """The share of what either view sees that the other sees as well, 0..1.

    Each view's pixels are taken to the other by depth and pose; a point counts as seen when it
    falls into the image and lies no deeper than what is seen there.

    Args:
        first, second: (H, W) depth along the optical axis, metres; 0 or not finite where unknown.
        first_pose, second_pose: world_T_camera of the optical frames (z forward, x right).
        tolerance: share of its depth by which a point may lie behind the surface seen there.
        stride: every how many pixels a point is taken, both ways.

    Raises:
        OverlapError: a depth map of another size than the camera's.
    """
    for depth in (first, second):
        if depth.shape != (camera.height, camera.width):
            raise OverlapError(f"depth {depth.shape} is not {camera.height}x{camera.width}")
    seen = [
        _seen_share(first, inverse(second_pose) @ first_pose, second, camera, tolerance, stride),
        _seen_share(second, inverse(first_pose) @ second_pose, first, camera, tolerance, stride),
    ]
    return float(np.mean(seen))


@dataclass(frozen=True)
class DepthViews:
    """What N images of one camera see, and where they were taken."""

    depths: Sequence[NDArray[np.float32]]  # (H, W) along the optical axis, metres
    poses: NDArray[np.float64]  # (N, 4, 4) world_T_camera of the optical frames
    camera: CameraModel


def depth_overlaps(
    queries: DepthViews, references: DepthViews, reach: float, stride: int = 8
) -> NDArray[np.float32]:
    """(N, M) ``depth_overlap`` of queries and references; 0 where they are ``reach`` apart or more.

    Args:
        reach: metres; further along a straight street the same far houses are still in view.
        stride: every how many pixels a point is taken, both ways.

    Raises:
        OverlapError: a depth map of another size than the camera's.
    """
    overlap = np.zeros((len(queries.poses), len(references.poses)), np.float32)
    places = cKDTree(references.poses[:, :3, 3])
    near = places.query_ball_point(queries.poses[:, :3, 3], reach)
    for query, candidates in enumerate(near):
        for reference in candidates:
            overlap[query, reference] = depth_overlap(
                queries.depths[query],
                queries.poses[query],
                references.depths[reference],
                references.poses[reference],
                queries.camera,
                stride=stride,
            )
    return overlap


def _sectors(
    views: Viewpoints2D, field_of_view: float, reach: float, origin: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(N, ARC_POINTS + 1, 2) outlines around a near origin: float32 is coarse far from it."""
    spread = np.linspace(-0.5, 0.5, ARC_POINTS) * field_of_view
    angles = views.headings[:, None] + spread
    centres = (views.positions - origin)[:, None]
    arc = centres + reach * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return np.asarray(np.concatenate([centres, arc], axis=1), np.float32)


def _seen_share(
    depth: NDArray[np.float32],
    there_T_here: Pose,
    depth_there: NDArray[np.float32],
    camera: CameraModel,
    tolerance: float,
    stride: int,
) -> float:
    rows, columns = np.mgrid[0 : camera.height : stride, 0 : camera.width : stride]
    z = depth[::stride, ::stride].astype(np.float64)
    known = np.isfinite(z) & (z > 0.0)
    if not known.any():
        return 0.0
    pixels = np.stack([columns[known], rows[known], np.ones(known.sum())])
    points = np.linalg.inv(camera.matrix) @ pixels * z[known]
    moved = there_T_here[:3, :3] @ points + there_T_here[:3, 3:]
    ahead = moved[2] > 1e-6
    u, v = (camera.matrix @ (moved[:, ahead] / moved[2, ahead]))[:2]
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    surface = depth_there[row[inside], column[inside]]
    hidden = np.isfinite(surface) & (moved[2, ahead][inside] > surface * (1.0 + tolerance))
    return float(np.count_nonzero(~hidden) / np.count_nonzero(known))
