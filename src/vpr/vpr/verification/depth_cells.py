"""A view with depth reduced to a grid of cells: what is kept of each keyframe to lay others over.

14 kB a view: inverse depth in half precision (0.05 % of the depth) and how bright each cell is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.images.decoding import grey_of
from vpr.records import CameraModel, Image

Depth = NDArray[np.uint16] | NDArray[np.float32]  # (H, W), registered to the image
WIDTH, HEIGHT = 80, 60  # cells, of any image: they need not be square
KNOWN_SHARE = 0.7  # of a cell's pixels that must have a depth
LEAST_KNOWN = 0.05  # of the cells; with fewer no two views can be compared
NEAREST, FURTHEST = 0.05, 1000.0  # m; what claims to be beyond is no measurement
SAME_SHAPE = 0.02  # by which the sides of image and depth image may be in another ratio


@dataclass(frozen=True)
class DepthCells:
    """A view of ``HEIGHT`` x ``WIDTH`` cells, as the camera would see it without distortion.

    Attributes:
        near: (H, W) float16, inverse depth along the optical axis in 1/m; NaN where unknown.
        shown: (H, W) uint8, grey.
    """

    near: NDArray[np.float16]
    shown: NDArray[np.uint8]

    @classmethod
    def of(
        cls, image: Image, depth: Depth, camera: CameraModel, depth_scale: float = 1.0
    ) -> DepthCells | None:
        """Reduce an image with registered depth; None where that says too little of the view.

        Args:
            depth: (H, W) of any size but the image's field of view; float m, or integer in units
                of ``depth_scale`` m; 0 or NaN where unknown.
            camera: of any size but the image's field of view.
        """
        if depth.ndim != 2 or depth.size == 0 or not _same_shape(depth, image):
            return None
        near = _inverse_depth(depth, depth_scale if depth.dtype.kind == "u" else 1.0)
        shown = cv2.resize(grey_of(image), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        if np.any(camera.distortion):
            matrix = _matrix(camera)
            across, down = cv2.initUndistortRectifyMap(
                matrix, camera.distortion, np.eye(3), matrix, (WIDTH, HEIGHT), cv2.CV_32FC1
            )
            shown = cv2.remap(shown, across, down, cv2.INTER_LINEAR)
            near[:] = cv2.remap(
                near, across, down, cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT, borderValue=(float("nan"),),
            )  # fmt: skip
        if np.isfinite(near).mean() < LEAST_KNOWN:
            return None
        return cls(near.astype(np.float16), np.asarray(shown, np.uint8))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.near.nbytes + self.shown.nbytes


def lens_of(camera: CameraModel) -> NDArray[np.float64]:
    """fx, fy, cx, cy of a camera in cells."""
    matrix = _matrix(camera)
    return np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])


def _matrix(camera: CameraModel) -> NDArray[np.float64]:
    """(3, 3) intrinsics in cells."""
    across, down = WIDTH / camera.width, HEIGHT / camera.height
    matrix = np.eye(3)
    matrix[0, 0], matrix[1, 1] = camera.matrix[0, 0] * across, camera.matrix[1, 1] * down
    matrix[0, 2] = (camera.matrix[0, 2] + 0.5) * across - 0.5
    matrix[1, 2] = (camera.matrix[1, 2] + 0.5) * down - 0.5
    return matrix


def _same_shape(depth: Depth, image: Image) -> bool:
    """Whether depth and image can have one field of view: one that is cropped has not."""
    ratio = depth.shape[1] * image.shape[0] / (depth.shape[0] * image.shape[1])
    return abs(ratio - 1.0) < SAME_SHAPE


def _inverse_depth(depth: Depth, scale: float) -> NDArray[np.float32]:
    """(H, W) means over the pixels of each cell, which are right on planes; NaN where unknown."""
    size = WIDTH, HEIGHT
    metres = depth.astype(np.float32) * np.float32(scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        known = (metres > NEAREST) & (metres < FURTHEST)
        inverse = np.where(known, 1.0 / metres, 0.0).astype(np.float32)
        share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        mean = cv2.resize(inverse, size, interpolation=cv2.INTER_AREA) / share
    return np.where(share > KNOWN_SHARE, mean, np.nan).astype(np.float32)
