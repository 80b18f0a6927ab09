"""Local features of an image: where to look again when a place seems to be revisited.

The default is ORB (Rublee et al., ICCV 2011): binary, fast on one CPU thread and patent-free.
Keypoints are thinned over a grid so that one textured corner can't take them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.records import CameraModel, Image
from vpr.verification.depth_cells import Depth, DepthCells

REFERENCE_WIDTH = 640.0  # px; thresholds in the configuration are for an image this wide
KEYPOINTS_PER_CELL = 6
THUMBNAIL_QUALITY = 60  # of 100, of a JPEG
ORB_SCALE_FACTOR = 1.2
ORB_LEVELS = 8
ORB_EDGE = 19  # px, ORB's own patch radius with margin
LENS_WIDTH = 160  # px; a lens's image circle is looked for at this width
LENS_DARK = (0.3, 0.45)  # of the mean grey value; what surrounds an image circle is darker
LENS_MARGIN = 5  # px at that width; the rim's own gradient and most of ORB's patch
LENS_ROUND = 5.0  # px at that width; how far a rim may be from a circle
DEPTH_EDGE = 0.05  # depths around a keypoint that differ by more than 5 % are a silhouette


class ImageUnusable(ValueError):
    """No features can be had from this image; ``str(error)`` says why."""


@dataclass(frozen=True)
class LocalFeatures:
    """Keypoints of one image with distortion removed.

    Attributes:
        pixels: (N, 2) float32, in the undistorted image of ``camera``'s matrix.
        sizes: (N,) float32, pyramid scale of each keypoint, >= 1.
        angles: (N,) float32, orientation of each keypoint in the image, degrees 0..360.
        descriptors: (N, 32) uint8, 256 bits each, of ORB; (N, 64) float16 of unit length, of XFeat.
        depths: (N,) float32, metres along the optical axis; NaN where unknown.
        camera: the pinhole model of the image; its distortion is zero.
        thumbnail: (B,) uint8, a small JPEG of the image for people to look at; may be empty.
        cells: the view with its depth, to lay others over; None without depth.
    """

    pixels: NDArray[np.float32]
    sizes: NDArray[np.float32]
    angles: NDArray[np.float32]
    descriptors: NDArray[np.uint8] | NDArray[np.float16]
    depths: NDArray[np.float32]
    camera: CameraModel = field(repr=False)
    thumbnail: NDArray[np.uint8] = field(repr=False, default_factory=lambda: np.zeros(0, np.uint8))
    cells: DepthCells | None = field(repr=False, default=None)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def nbytes(self) -> int:
        """Bytes held, without the camera model."""
        arrays = (
            self.pixels, self.sizes, self.angles, self.descriptors, self.depths, self.thumbnail,
        )  # fmt: skip
        of_cells = 0 if self.cells is None else self.cells.nbytes
        return of_cells + sum(array.nbytes for array in arrays)

    @property
    def kind(self) -> str:
        """Which features these are: those of two kinds never match."""
        return "ORB" if self.descriptors.dtype == np.uint8 else "XFeat"

    @cached_property
    def rays(self) -> NDArray[np.float64]:
        """(N, 2) normalised image coordinates x/z, y/z."""
        matrix = self.camera.matrix
        focal = np.array([matrix[0, 0], matrix[1, 1]])
        result: NDArray[np.float64] = (self.pixels - matrix[:2, 2]) / focal
        return result

    @property
    def unit(self) -> float:
        """One pixel of a 640 px wide image, in normalised image coordinates."""
        return self.camera.width / REFERENCE_WIDTH / float(self.camera.matrix[0, 0])


class FeatureExtractor(Protocol):
    """Any detector and descriptor."""

    def __call__(self, image: Image, depth: Depth | None, camera: CameraModel) -> LocalFeatures:
        """Features of an image; safe to call from several threads.

        Raises:
            ImageUnusable: the image does not fit the camera model, or is empty.
        """
        ...


class OrbFeatures:
    """ORB keypoints and descriptors, spread over the image.

    Small images (160x120 thumbnails) are enlarged before detection, large ones reduced.
    """

    def __init__(self, config: LoopClosureConfig) -> None:
        self.config = config

    def __call__(self, image: Image, depth: Depth | None, camera: CameraModel) -> LocalFeatures:
        """See `FeatureExtractor`."""
        grey, camera, scale = working_image(image, camera, self.config)
        keypoints, descriptors = self._detect(grey)
        # pixel centres: (u + 0.5) scales, u does not
        pixels = (_points(keypoints) + 0.5) / scale - 0.5
        octaves = np.array([keypoint.octave for keypoint in keypoints], dtype=np.float32)
        return LocalFeatures(
            pixels=undistorted(pixels, camera),
            sizes=(ORB_SCALE_FACTOR**octaves).astype(np.float32),
            angles=np.array([keypoint.angle for keypoint in keypoints], dtype=np.float32),
            descriptors=descriptors,
            depths=sampled_depths(depth, pixels, camera, self.config.depth_scale),
            camera=replace(camera, distortion=np.zeros(5)),
            thumbnail=thumbnail_of(image, self.config.thumbnail_width),
        )

    def _detect(self, grey: Image) -> tuple[tuple[cv2.KeyPoint, ...], NDArray[np.uint8]]:
        count = self.config.feature_count
        orb = cv2.ORB.create(
            nfeatures=4 * count,  # a surplus to thin out over the grid
            scaleFactor=ORB_SCALE_FACTOR,
            nlevels=ORB_LEVELS,
            edgeThreshold=ORB_EDGE,
            fastThreshold=self.config.feature_contrast,
        )
        found = orb.detect(grey, lens_mask(grey))
        kept = _spread(tuple(found), grey.shape[1], grey.shape[0], count)
        if not kept:
            return (), np.zeros((0, 32), np.uint8)
        keypoints, descriptors = orb.compute(grey, kept)
        return tuple(keypoints), np.asarray(descriptors, dtype=np.uint8)


def grey_of(image: Image) -> Image:
    """8-bit grey (H, W) of a grey or BGR image.

    Raises:
        ImageUnusable: neither.
    """
    if image.ndim not in (2, 3) or image.size == 0 or image.dtype != np.uint8:
        raise ImageUnusable(f"not an 8-bit image: shape {image.shape}, {image.dtype}")
    if image.ndim == 2:
        return image
    if image.shape[2] != 3:
        raise ImageUnusable(f"{image.shape[2]} channels; grey or BGR expected")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def thumbnail_of(image: Image, width: int) -> NDArray[np.uint8]:
    """(B,) a JPEG of an image made ``width`` pixels wide; empty where that is 0."""
    if width == 0:
        return np.zeros(0, np.uint8)
    height = max(round(image.shape[0] * width / image.shape[1]), 1)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY))
    return np.asarray(encoded, np.uint8).ravel()


def fitted_camera(camera: CameraModel, width: int, height: int) -> CameraModel:
    """The camera model for an image of another size with the same field of view.

    Raises:
        ImageUnusable: the image's shape differs from the camera's, so it was cropped.
    """
    if (camera.width, camera.height) == (width, height):
        return camera
    scale_x, scale_y = width / camera.width, height / camera.height
    if abs(scale_x / scale_y - 1.0) > 0.02:
        raise ImageUnusable(
            f"the image is {width}x{height} but its CameraInfo describes "
            f"{camera.width}x{camera.height}: a crop whose intrinsics are unknown"
        )
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # origin at the corner, not the centre
    scaling = np.diag([scale_x, scale_y, 1.0])
    matrix = np.linalg.inv(shift) @ scaling @ shift @ camera.matrix
    return replace(camera, width=width, height=height, matrix=matrix)


def lens_mask(grey: Image) -> NDArray[np.uint8] | None:
    """Mask (H, W) of a fisheye's image circle, 255 inside; None for lenses without one.

    The rim stands still in every image and would match itself at any place. It is taken for one
    where dark corners bound a bright convex area.
    """
    height, width = grey.shape
    size = (LENS_WIDTH, max(round(height * LENS_WIDTH / width), 4))
    small = cv2.blur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), (3, 3))
    for level in LENS_DARK:
        outline = _bright_outline((small < level * small.mean()).astype(np.uint8))
        circle = None if outline is None else _circle_through(outline, size)
        if circle is not None:
            centre_x, centre_y, radius = circle
            across, down = np.meshgrid(np.arange(width), np.arange(height))
            scale = width / size[0]
            distance = np.hypot(across / scale - centre_x, down / scale - centre_y)
            return np.asarray(np.where(distance < radius - LENS_MARGIN, 255, 0), dtype=np.uint8)
    return None


def _bright_outline(dark: NDArray[np.uint8]) -> NDArray[np.int32] | None:
    """(N, 2) convex outline of what dark corners bound; None where they do not."""
    corners = ([0, 0, -1, -1], [0, -1, 0, -1])
    if np.count_nonzero(dark[corners]) < 3:
        return None
    _, labels = cv2.connectedComponents(dark, connectivity=4)
    outside = np.isin(labels, labels[corners][dark[corners] > 0])
    if not 0.08 < outside.mean() < 0.5:
        return None
    outlines, _ = cv2.findContours(
        (~outside).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    hull = cv2.convexHull(max(outlines, key=cv2.contourArea))
    return np.asarray(hull, dtype=np.int32).reshape(-1, 2)


def _circle_through(
    outline: NDArray[np.int32], size: tuple[int, int]
) -> tuple[float, float, float] | None:
    """Centre and radius of the circle that an outline is, where the image does not cut it."""
    last = np.array(size) - 2
    free = outline[((outline > 1) & (outline < last)).all(axis=1)].astype(np.float64)
    if len(free) < 8:
        return None
    nearer = np.ones(len(free), bool)
    for _ in range(3):  # again without the worse half: a bright corner bulges the outline
        # x^2 + y^2 = 2 a x + 2 b y + c is linear in its unknowns (Kasa 1976)
        rows = np.column_stack([2.0 * free, np.ones(len(free))])[nearer]
        (a, b, c), *_ = np.linalg.lstsq(rows, (free[nearer] ** 2).sum(axis=1), rcond=None)
        radius = float(np.sqrt(max(c + a * a + b * b, 0.0)))
        off = np.abs(np.linalg.norm(free - (a, b), axis=1) - radius)
        nearer = off <= np.median(off)
    if np.percentile(off, 75) > LENS_ROUND or not 0.35 < radius / size[0] < 0.8:
        return None
    return float(a), float(b), radius


def _points(keypoints: Sequence[cv2.KeyPoint]) -> NDArray[np.float32]:
    """(N, 2) pixel positions."""
    return np.asarray(cv2.KeyPoint.convert(keypoints), dtype=np.float32).reshape(-1, 2)


def _spread(
    keypoints: tuple[cv2.KeyPoint, ...], width: int, height: int, count: int
) -> list[cv2.KeyPoint]:
    """The ``count`` keypoints that are strongest in their own grid cell."""
    if len(keypoints) <= count:
        return list(keypoints)
    points = _points(keypoints)
    strength = np.array([keypoint.response for keypoint in keypoints])
    cell_size = np.sqrt(width * height * KEYPOINTS_PER_CELL / count)
    columns, rows = (points // cell_size).astype(int).T
    cell = rows * (int(width / cell_size) + 1) + columns
    by_cell = np.lexsort((-strength, cell))
    first = np.searchsorted(cell[by_cell], cell[by_cell])
    rank = np.arange(len(by_cell)) - first  # 0 for the strongest of its cell
    order = by_cell[np.lexsort((-strength[by_cell], rank))]
    return [keypoints[index] for index in order[:count]]


def working_image(
    image: Image, camera: CameraModel, config: LoopClosureConfig
) -> tuple[Image, CameraModel, float]:
    """The grey image that features are looked for in, and by how much it was enlarged or reduced.

    The camera is that of the image as received.

    Raises:
        ImageUnusable: the image does not fit the camera model, or is empty.
    """
    grey = grey_of(image)
    height, width = grey.shape
    camera = fitted_camera(camera, width, height)
    scale = float(np.clip(width, config.feature_min_width, config.feature_max_width) / width)
    if scale != 1.0:
        interpolation = cv2.INTER_CUBIC if scale > 1.0 else cv2.INTER_AREA
        grey = np.asarray(
            cv2.resize(grey, None, fx=scale, fy=scale, interpolation=interpolation), np.uint8
        )
    return grey, camera, scale


def undistorted(pixels: NDArray[np.float32], camera: CameraModel) -> NDArray[np.float32]:
    """Where the pixels (N, 2) are in the image of the same matrix without distortion."""
    if len(pixels) == 0 or not np.any(camera.distortion):
        return pixels.astype(np.float32)
    points = cv2.undistortPoints(
        pixels.reshape(-1, 1, 2).astype(np.float64),
        camera.matrix,
        camera.distortion,
        P=camera.matrix,
    )
    return points.reshape(-1, 2).astype(np.float32)


def sampled_depths(
    depth: Depth | None, pixels: NDArray[np.float32], camera: CameraModel, scale: float
) -> NDArray[np.float32]:
    """Depth in metres at each keypoint; NaN without depth, at holes and at silhouettes.

    Args:
        depth: uint16 in units of ``scale`` metres, or float metres; any size, same field of view.
        pixels: (N, 2) in the image as received.
    """
    nothing = np.full(len(pixels), np.nan, np.float32)
    if depth is None or depth.ndim != 2 or depth.size == 0 or len(pixels) == 0:
        return nothing
    height, width = depth.shape
    ratio = np.array([width / camera.width, height / camera.height])
    columns, rows = np.rint((pixels + 0.5) * ratio - 0.5).astype(int).T
    columns, rows = columns.clip(1, width - 2), rows.clip(1, height - 2)
    around = [depth[rows + dy, columns + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    patch = np.stack(around).astype(np.float32)
    if depth.dtype.kind == "u":
        patch *= np.float32(scale)
    centre = patch[4]
    with np.errstate(invalid="ignore"):  # NaN and infinite depths compare as unusable
        valid = np.isfinite(patch).all(axis=0) & (patch.min(axis=0) > 0)
        valid &= np.ptp(patch, axis=0) < DEPTH_EDGE * centre
    return np.where(valid, centre, nothing)
