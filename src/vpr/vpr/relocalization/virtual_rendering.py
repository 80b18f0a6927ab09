"""What a map's depth shows from where no camera has been: a coarse depth image, and what is in it.

Points of all views are splatted into the virtual camera's z-buffer. Walls have holes then, through
which what lies behind them shines, and a cell holds its nearest point, which a slanted floor is
mostly behind: both are mended by the cells beside it and by some slack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vpr.relocalization.reprojection import NEAREST, STRIDE, seen_share, view_points
from vpr.relocalization.rgbd import RgbdSequence

LEAK_SHARE, LEAK_FLOOR = 1.5, 0.2  # times and m behind the cells beside it: shines through a hole
SLACK = 1.12  # times a cell's nearest point, behind which points of the cell are hidden
HIDDEN_SHARE, HIDDEN_FLOOR = 1.05, 0.1  # times and m behind that

Lens = tuple[float, float, float, float]


@dataclass(frozen=True)
class MapDepth:
    """Depth of a map's R views on a coarse grid.

    Attributes:
        poses: (R, 4, 4) float64 map_T_camera.
        buffers: (R, h, w) float32 m, NaN where unknown.
        points: (R, h * w, 3) float32 of each view in its camera's frame.
        surface: (M, 3) float32 all of them in the map.
        lens: focal lengths and centre (x, y, x, y) in cells.
    """

    poses: NDArray[np.float64]
    buffers: NDArray[np.float32]
    points: NDArray[np.float32]
    surface: NDArray[np.float32]
    lens: Lens

    @classmethod
    def of(cls, views: RgbdSequence, stride: int = STRIDE) -> MapDepth:
        """Every stride-th pixel of some views."""
        points = view_points(views, stride)
        placed = points @ views.poses[:, :3, :3].transpose(0, 2, 1) + views.poses[:, None, :3, 3]
        surface = placed.reshape(-1, 3).astype(np.float32)
        matrix = views.camera.matrix / stride
        return cls(
            views.poses,
            np.ascontiguousarray(views.depths[:, ::stride, ::stride], np.float32),
            points,
            np.ascontiguousarray(surface[np.isfinite(surface).all(axis=1)]),
            (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]),
        )

    @classmethod
    def of_virtual(
        cls, poses: NDArray[np.float64], rendered: NDArray[np.float32], lens: Lens
    ) -> MapDepth:
        """Virtual views (S, 4, 4) with what they would see as if they had been taken."""
        rays = _rays(rendered.shape[1:], lens)
        known = np.where(np.isfinite(rendered), rendered, np.float32(np.nan))
        points = (known[..., None] * rays).reshape(len(poses), -1, 3)
        nothing = np.empty((0, 3), np.float32)
        return cls(poses, rendered * np.float32(SLACK), points, nothing, lens)

    def rendered(self, poses: NDArray[np.float64]) -> NDArray[np.float32]:
        """(S, h, w) m, what cameras at map_T_camera (S, 4, 4) would see; inf where unknown."""
        camera_T_map = np.linalg.inv(poses).astype(np.float32)
        buffers = np.empty((len(poses), *self.buffers.shape[1:]), np.float32)
        for own, buffer in zip(camera_T_map, buffers, strict=True):
            _splat(self.surface, own, self.lens, buffer)
        return buffers

    def overlaps(
        self, poses: NDArray[np.float64], rendered: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(S, R) mutual IoU of virtual views with the map's own, see ``mutual``."""
        rays = _rays(self.buffers.shape[1:], self.lens)
        camera_T_map = np.linalg.inv(self.poses)
        result = np.empty((len(poses), len(self.poses)), np.float32)
        for row, (pose, depth) in enumerate(zip(poses, rendered, strict=True)):
            own_T_views = (np.linalg.inv(pose) @ self.poses).astype(np.float32)
            views_T_own = (camera_T_map @ pose).astype(np.float32)
            known = np.isfinite(depth)
            points = depth[known][:, None] * rays[known]
            _shares(
                self.points, own_T_views, depth * np.float32(SLACK), self.lens, result[row],
                points, views_T_own, self.buffers,
            )  # fmt: skip
        return result


def _rays(shape: tuple[int, ...], lens: Lens) -> NDArray[np.float32]:
    """(h, w, 3) of cells, of length 1 along the camera's axis."""
    rays = np.ones((*shape, 3), np.float32)
    rows, columns = np.indices(shape)
    rays[..., 0] = (columns - lens[2]) / lens[0]
    rays[..., 1] = (rows - lens[3]) / lens[1]
    return rays


@njit(cache=True, nogil=True)
def _splat(
    surface: NDArray[np.float32],
    camera_T_map: NDArray[np.float32],
    lens: Lens,
    buffer: NDArray[np.float32],
) -> None:
    height, width = buffer.shape
    nearest = np.full((height, width), np.inf, np.float32)
    for n in range(len(surface)):
        column, row, depth = projected(surface[n], camera_T_map, lens)
        if 0 <= column < width and 0 <= row < height and depth < nearest[row, column]:
            nearest[row, column] = depth
    for row in range(height):
        for column in range(width):
            own = nearest[row, column]
            around = nearest[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].min()
            leaks = own > around * LEAK_SHARE + LEAK_FLOOR
            buffer[row, column] = around if leaks else own


@njit(cache=True, nogil=True)
def projected(
    point: NDArray[np.float32], camera_T_map: NDArray[np.float32], lens: Lens
) -> tuple[int, int, float]:
    """Column, row and depth (m) of a point; column -1 behind the camera."""
    rotation, move = camera_T_map[:3, :3], camera_T_map[:3, 3]
    x, y, z = point
    depth = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z + move[2]
    if not depth > NEAREST:
        return -1, -1, depth
    across = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z + move[0]
    down = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z + move[1]
    column, row = across / depth * lens[0] + lens[2], down / depth * lens[1] + lens[3]
    if not (abs(column) < 1e6 and abs(row) < 1e6):
        return -1, -1, depth
    return int(np.rint(column)), int(np.rint(row)), depth


@njit(cache=True, nogil=True)
def _shares(
    points: NDArray[np.float32],
    own_T_views: NDArray[np.float32],
    own_buffer: NDArray[np.float32],
    lens: Lens,
    result: NDArray[np.float32],
    own_points: NDArray[np.float32],
    views_T_own: NDArray[np.float32],
    buffers: NDArray[np.float32],
) -> None:
    """Of both directions the smaller, for one virtual view and all of the map."""
    for view in range(len(points)):
        seen = seen_share(points[view], own_T_views[view], own_buffer, lens)
        if seen > 0.0 and len(own_points):
            seen = min(seen, seen_share(own_points, views_T_own[view], buffers[view], lens))
        result[view] = seen


@njit(cache=True, nogil=True)
def pooled(
    values: NDArray[np.float32],
    points: NDArray[np.float32],
    distances: NDArray[np.float32],
    camera_T_map: NDArray[np.float32],
    rendered: NDArray[np.float32],
    lens: Lens,
    strips: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sums (S, strips, D) of values (M, D) at points (M, 3) in the map that virtual views see.

    Args:
        distances: (M,) m from which each was seen; one seen from elsewhere counts less.
        rendered: (S, h, w) the virtual views' depth, from camera_T_map (S, 4, 4).

    Returns:
        Sums, and their weights (S, strips); strips stand side by side from left to right.
    """
    count, height, width = rendered.shape
    sums = np.zeros((count, strips, values.shape[1]), np.float32)
    weights = np.zeros((count, strips), np.float32)
    for view in range(count):
        for n in range(len(points)):
            column, row, depth = projected(points[n], camera_T_map[view], lens)
            if not (0 <= column < width and 0 <= row < height):
                continue
            if depth > rendered[view, row, column] * SLACK * HIDDEN_SHARE + HIDDEN_FLOOR:
                continue
            strip = min(int((column + 0.5) / width * strips), strips - 1)
            nearness = min(distances[n] / depth, depth / distances[n]) ** 2
            weights[view, strip] += nearness
            for k in range(values.shape[1]):
                sums[view, strip, k] += nearness * values[n, k]
    return sums, weights
