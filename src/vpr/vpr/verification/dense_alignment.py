"""Two views with depth laid over each other: the pose that fits all they show, and how well.

A few dozen matched corners are satisfied by a wallpaper that repeats; all that two views show is
not. Depth is compared point to plane (Chen & Medioni 1992) and brightness pixel to pixel, in one
least-squares problem with projective association (Newcombe et al., ISMAR 2011).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from vpr.geometry import inverse, rotation_from_vector
from vpr.records import CameraModel, Covariance, Pose
from vpr.verification.depth_cells import DepthCells, lens_of

SMOOTHING, CONTRAST_WIDTH = 0.6, 3.0  # cells, of local contrast
CONTRAST_FLOOR = 6.0  # grey levels; less is noise
# Bend of inverse depth d from cell to cell above which it is an edge: a d + b d^2.
EDGE = (0.06, 0.06)
ITERATIONS = 24
CONVERGED = 1e-4  # m and rad
LONGEST_MOVE = 0.3  # m and rad an iteration
GATES = (0.6, 0.15)  # m between a point and the surface it is laid on, at the begin and the end
NARROWING = 0.8  # of the gate, an iteration
DEPTH_SIGMA, DEPTH_NOISE = 0.04, 0.003  # m, and 1/m times the square of the depth
GREY_SIGMA = 0.7  # of local contrast
HUBER = 1.5  # sigmas
CORRELATED = 40.0  # cells whose errors go together: what one datum counts is this much less
ALIKE = 0.12  # m, plus three sigmas, that depths of one surface may differ by
NEAREST = 0.1  # m; points nearer to the other camera are behind it
GLANCE = 7  # every so many cells are enough to guess an overlap

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class DepthView:
    """What a view's cells, H x W, show; normals and contrast are made when first asked for.

    Attributes:
        points: (H, W, 3) m in the camera's optical frame, NaN where there is no depth.
        lens: fx, fy, cx, cy in cells.
    """

    points: Grid
    lens: Grid
    cells: DepthCells

    @classmethod
    def of(cls, cells: DepthCells, camera: CameraModel) -> DepthView:
        """The view of a camera, whose distortion the cells do not have."""
        lens, near = lens_of(camera), cells.near.astype(np.float64)
        columns, rows = np.meshgrid(np.arange(near.shape[1]), np.arange(near.shape[0]))
        rays = [(columns - lens[2]) / lens[0], (rows - lens[3]) / lens[1], np.ones(near.shape)]
        return cls(np.stack(rays, axis=2) / near[:, :, None], lens, cells)

    @cached_property
    def normals(self) -> Grid:
        """(H, W, 3) of unit length towards the camera, NaN at edges."""
        return _normals(self.points, self.cells.near.astype(np.float64))

    @cached_property
    def grey(self) -> Grid:
        """(H, W) local contrast."""
        return _local_contrast(self.cells.shown.astype(np.float64))

    @cached_property
    def slopes(self) -> Grid:
        """(2, H, W) of ``grey`` a cell, across and down."""
        return np.stack([np.gradient(self.grey, axis=1), np.gradient(self.grey, axis=0)])


@dataclass(frozen=True)
class Alignment:
    """How two views lie over each other.

    Attributes:
        pose: reference_T_query between the cameras.
        covariance: of translation (m) and fixed-axis rotation (rad) in the reference's axes.
        overlap: share of the cells of both views that show the same surface.
        agreement: of the cells that should show the same surface, how many do.
        correlation: of the local contrast of those.
        cells: how many those are.
    """

    pose: Pose
    covariance: Covariance
    overlap: float
    agreement: float
    correlation: float
    cells: int


def align(query: DepthView, reference: DepthView, start: Pose) -> Alignment:
    """The pose near ``start`` (reference_T_query) that lays the query over the reference best."""
    pose, hessian = start.copy(), np.eye(6)
    points, grey = query.points.reshape(-1, 3), query.grey.reshape(-1)
    for step in range(ITERATIONS):
        gate = max(GATES[0] * NARROWING**step, GATES[1])
        hessian, gradient = _normal_equations(
            points, grey, reference.points, reference.normals, reference.grey, reference.slopes,
            reference.lens, pose, gate,
        )  # fmt: skip
        hessian += 1e-6 * np.eye(6)  # nothing in common: stay
        move = -np.linalg.solve(hessian, gradient)
        length = float(np.abs(move).max())
        move *= min(1.0, LONGEST_MOVE / max(length, 1e-9))
        pose[:3, 3] += move[:3]
        pose[:3, :3] = rotation_from_vector(move[3:]) @ pose[:3, :3]
        if length < CONVERGED and gate == GATES[1]:
            break
    covariance = CORRELATED * np.linalg.inv(hessian)
    return Alignment(pose, covariance, *_agreement(query, reference, pose))


def expected_overlap(query: DepthView, reference: DepthView, reference_T_query: Pose) -> float:
    """Share of the query's cells that the reference shows too, if the pose is right; a guess."""
    points = np.ascontiguousarray(query.points.reshape(-1, 3)[::GLANCE])
    depths = np.ascontiguousarray(reference.points[:, :, 2])  # nobody asks how bright they are
    sums = _compared(
        points, np.zeros(len(points)), reference.points, depths, reference.lens, reference_T_query
    )
    return float(sums[0] / len(points))


def _agreement(
    one: DepthView, other: DepthView, other_T_one: Pose
) -> tuple[float, float, float, int]:
    """Overlap, agreement, correlation and cells, both ways."""
    there = _compared(one.points.reshape(-1, 3), one.grey.reshape(-1), other.points, other.grey,
                      other.lens, other_T_one)  # fmt: skip
    back = _compared(other.points.reshape(-1, 3), other.grey.reshape(-1), one.points, one.grey,
                     one.lens, inverse(other_T_one))  # fmt: skip
    alike, contradicting, own, shown, own_square, shown_square, product = there + back
    if alike < 2.0:
        return 0.0, 0.0, 0.0, 0
    variances = (own_square / alike - (own / alike) ** 2) * (
        shown_square / alike - (shown / alike) ** 2
    )
    shared = product / alike - own * shown / alike**2
    correlation = shared / np.sqrt(max(variances, 1e-12))
    overlap = alike / (one.grey.size + other.grey.size)
    return float(overlap), float(alike / (alike + contradicting)), float(correlation), int(alike)


def _local_contrast(grey: Grid) -> Grid:
    smooth = cv2.GaussianBlur(grey, (0, 0), SMOOTHING)
    aside = smooth - cv2.GaussianBlur(grey, (0, 0), CONTRAST_WIDTH)
    spread = np.sqrt(cv2.GaussianBlur(aside**2, (0, 0), CONTRAST_WIDTH))
    return np.asarray(aside / (spread + CONTRAST_FLOOR))


def _normals(points: Grid, near: Grid) -> Grid:
    """Cross products of the differences to the cells around, NaN where the surface bends."""
    result = np.full(points.shape, np.nan)
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    normal = np.cross(down, across)
    middle = near[1:-1, 1:-1]
    bend = np.maximum(
        np.abs(near[1:-1, 2:] + near[1:-1, :-2] - 2.0 * middle),
        np.abs(near[2:, 1:-1] + near[:-2, 1:-1] - 2.0 * middle),
    )
    length = np.linalg.norm(normal, axis=2)
    with np.errstate(invalid="ignore"):
        smooth = (bend < EDGE[0] * middle + EDGE[1] * middle**2) & (length > 0.0)
    result[1:-1, 1:-1][smooth] = normal[smooth] / length[smooth][:, None]
    return result


@njit(cache=True, nogil=True, inline="always")
def _in_other(
    points: Grid, i: int, pose: Grid, lens: Grid, height: int, width: int
) -> tuple[bool, float, float, float, float, float]:
    """Whether the other camera has point ``i`` in its image; the point turned into its axes, not
    yet moved there; and its column and row."""
    px, py, pz = points[i, 0], points[i, 1], points[i, 2]
    x = pose[0, 0] * px + pose[0, 1] * py + pose[0, 2] * pz
    y = pose[1, 0] * px + pose[1, 1] * py + pose[1, 2] * pz
    z = pose[2, 0] * px + pose[2, 1] * py + pose[2, 2] * pz
    qz = z + pose[2, 3]
    if not (np.isfinite(pz) and qz >= NEAREST):
        return False, x, y, z, 0.0, 0.0
    u = lens[0] * (x + pose[0, 3]) / qz + lens[2]
    v = lens[1] * (y + pose[1, 3]) / qz + lens[3]
    return 0.0 <= u < width - 1 and 0.0 <= v < height - 1, x, y, z, u, v


@njit(cache=True, nogil=True)
def _normal_equations(
    points: Grid, grey: Grid, known: Grid, normals: Grid, seen: Grid, slopes: Grid, lens: Grid,
    pose: Grid, gate: float,
) -> tuple[Grid, Grid]:  # fmt: skip
    """Hessian (6, 6) and gradient (6,) over translation and rotation in the reference's axes."""
    height, width = seen.shape
    hessian, gradient = np.zeros((6, 6)), np.zeros(6)
    row = np.zeros(6)
    for i in range(points.shape[0]):
        seen_there, x, y, z, u, v = _in_other(points, i, pose, lens, height, width)
        if not seen_there:
            continue
        qx, qy, qz = x + pose[0, 3], y + pose[1, 3], z + pose[2, 3]
        c, r = int(u + 0.5), int(v + 0.5)
        if not np.isfinite(normals[r, c, 0]):
            continue
        nx, ny, nz = normals[r, c]
        error = nx * (qx - known[r, c, 0]) + ny * (qy - known[r, c, 1]) + nz * (qz - known[r, c, 2])
        if abs(error) > gate or abs(qz - known[r, c, 2]) > 3.0 * gate:
            continue
        sigma = DEPTH_SIGMA + DEPTH_NOISE * qz * qz
        row[0], row[1], row[2] = nx, ny, nz
        row[3], row[4], row[5] = y * nz - z * ny, z * nx - x * nz, x * ny - y * nx
        _add(hessian, gradient, row, error, sigma)
        shown = _between(seen, u, v)
        gx, gy = slopes[0, r, c] * lens[0] / qz, slopes[1, r, c] * lens[1] / qz
        gz = -(gx * qx + gy * qy) / qz
        row[0], row[1], row[2] = gx, gy, gz
        row[3], row[4], row[5] = y * gz - z * gy, z * gx - x * gz, x * gy - y * gx
        _add(hessian, gradient, row, shown - grey[i], GREY_SIGMA)
    return hessian, gradient


@njit(cache=True, nogil=True)
def _between(values: Grid, u: float, v: float) -> float:
    """Bilinear in (H, W) values; u, v inside the last row and column."""
    left, top = int(u), int(v)
    a, b = u - left, v - top
    above = (1.0 - a) * values[top, left] + a * values[top, left + 1]
    below = (1.0 - a) * values[top + 1, left] + a * values[top + 1, left + 1]
    return float((1.0 - b) * above + b * below)


@njit(cache=True, nogil=True)
def _range_around(points: Grid, row: int, column: int) -> tuple[float, float]:
    """Least and greatest depth of a cell with depth and those beside it."""
    nearest = furthest = points[row, column, 2]
    for r in range(max(row - 1, 0), min(row + 2, points.shape[0])):
        for c in range(max(column - 1, 0), min(column + 2, points.shape[1])):
            depth = points[r, c, 2]
            if np.isfinite(depth):
                nearest, furthest = min(nearest, depth), max(furthest, depth)
    return nearest, furthest


@njit(cache=True, nogil=True)
def _add(hessian: Grid, gradient: Grid, row: Grid, error: float, sigma: float) -> None:
    size = abs(error) / sigma
    weight = 1.0 / (sigma * sigma)
    if size > HUBER:
        weight *= HUBER / size
    for j in range(6):
        gradient[j] += weight * row[j] * error
        for k in range(6):
            hessian[j, k] += weight * row[j] * row[k]


@njit(cache=True, nogil=True)
def _compared(points: Grid, grey: Grid, known: Grid, seen: Grid, lens: Grid, pose: Grid) -> Grid:
    """How many cells agree and how many contradict, and sums over the grey of those that agree."""
    height, width = seen.shape
    total = np.zeros(7)
    for i in range(points.shape[0]):
        seen_there, _, _, z, u, v = _in_other(points, i, pose, lens, height, width)
        if not seen_there:
            continue
        qz = z + pose[2, 3]
        c, r = int(u + 0.5), int(v + 0.5)
        if not np.isfinite(known[r, c, 2]):
            continue
        allowed = ALIKE + 3.0 * (DEPTH_SIGMA + DEPTH_NOISE * qz * qz)
        nearest, furthest = _range_around(known, r, c)
        if qz < nearest - allowed:
            total[1] += 1.0  # the other view should see this point, and sees behind it
        elif qz <= furthest + allowed:
            shown = _between(seen, u, v)
            total[0] += 1.0
            total[2] += grey[i]
            total[3] += shown
            total[4] += grey[i] * grey[i]
            total[5] += shown * shown
            total[6] += grey[i] * shown
    return total
