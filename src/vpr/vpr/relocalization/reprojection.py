"""Reprojection IoU of two RGB-D views: the label that encoders learn (S3E-GNN equation 1)."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vpr.relocalization.rgbd import RgbdError, RgbdSequence

STRIDE = 8  # px between the pixels that are carried over
HIDDEN_TOLERANCE = 0.05  # of the depth; a point further behind what the target sees is hidden
HIDDEN_FLOOR = 0.1  # m; the same near the camera
NEAREST = 0.05  # m; nearer than this a point is not in front of a camera


def similarity_matrix(
    sources: RgbdSequence, targets: RgbdSequence, stride: int = STRIDE
) -> NDArray[np.float32]:
    """(S, T) share of each source's pixels that each target sees, 0..1 (equation 1).

    A pixel counts where it falls inside the target's image and is not hidden there: a z-buffer
    made of the target's depth image says what is in front. Pixels without depth never count.

    Raises:
        RgbdError: views without any depth, or intrinsics that do not fit the images.
    """
    for sequence in (sources, targets):
        _check(sequence)
    points = view_points(sources, stride)
    matrix = targets.camera.matrix / stride
    lens = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    buffers = np.ascontiguousarray(targets.depths[:, ::stride, ::stride], np.float32)
    camera_T_map = np.linalg.inv(targets.poses)
    result = np.zeros((len(sources), len(targets)), np.float32)
    for row in range(len(sources)):
        own_T_map = (camera_T_map @ sources.poses[row]).astype(np.float32)
        for column in range(len(targets)):
            result[row, column] = seen_share(points[row], own_T_map[column], buffers[column], lens)
    return result


def mutual(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, N) symmetric: of the two directions the smaller, what both views show of each other.

    Equation 1 is nearly symmetric where all views have about one distance. Where halls open behind
    doors it is not: a close view lies wholly inside a distant one that shows a hundred times more.
    """
    return np.minimum(matrix, matrix.T)


@njit(cache=True, nogil=True)
def seen_share(
    points: NDArray[np.float32],
    target_T_source: NDArray[np.float32],
    buffer: NDArray[np.float32],
    lens: tuple[float, float, float, float],
) -> float:
    """Share of the points (N, 3), NaN where unknown, that a target with this depth sees.

    Args:
        lens: focal lengths and centre (x, y, x, y) in cells of ``buffer``.
    """
    rotation, move = target_T_source[:3, :3], target_T_source[:3, 3]
    height, width = buffer.shape
    seen = 0
    for n in range(len(points)):
        x, y, z = points[n]
        depth = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z + move[2]
        if not depth > NEAREST:  # behind the camera, or unknown
            continue
        across = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z + move[0]
        down = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z + move[1]
        column = np.rint(across / depth * lens[0] + lens[2])
        row = np.rint(down / depth * lens[1] + lens[3])
        if 0 <= column < width and 0 <= row < height:
            front = buffer[int(row), int(column)]
            hidden = depth > front * (1.0 + HIDDEN_TOLERANCE) + HIDDEN_FLOOR
            seen += not hidden
    return seen / len(points)


def view_points(sequence: RgbdSequence, stride: int) -> NDArray[np.float32]:
    """(S, N, 3) points of every stride-th pixel in the camera's frame."""
    depth = sequence.depths[:, ::stride, ::stride]
    rows, columns = np.mgrid[0 : depth.shape[1], 0 : depth.shape[2]] * float(stride)
    matrix = sequence.camera.matrix
    x = (columns - matrix[0, 2]) / matrix[0, 0]
    y = (rows - matrix[1, 2]) / matrix[1, 1]
    rays = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)
    points: NDArray[np.float32] = (depth[..., None] * rays).reshape(len(sequence), -1, 3)
    return points


def _check(sequence: RgbdSequence) -> None:
    camera, (height, width) = sequence.camera, sequence.depths.shape[1:]
    if (camera.width, camera.height) != (width, height):
        raise RgbdError(
            f"{sequence.name}: intrinsics are of a {camera.width}x{camera.height} camera, "
            f"the depth images are {width}x{height}"
        )
    known = np.isfinite(sequence.depths).any(axis=(1, 2))
    if not known.all():
        raise RgbdError(f"{sequence.name}: view {int(np.argmin(known))} has no depth at all")
