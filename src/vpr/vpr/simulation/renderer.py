"""Headless rendering of upright panels over a flat ground, column by column.

The camera looks horizontally (roll = pitch = 0), so an upright panel has one depth in each image
column and its rows are linear in height. Each column gathers the panels its ray meets, draws them
front to back and fills the rest with ground and sky. Textures are read from mip levels with
several samples along the longer axis of a pixel's footprint, so that distance does not shimmer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vpr.records import CameraModel, Image, Pose
from vpr.simulation.atlas import TextureAtlas
from vpr.simulation.labels import Label
from vpr.simulation.lighting import SKY_TOP, Lighting
from vpr.simulation.panels import PanelSet

NEAR = 0.25  # m; nothing nearer is drawn
MAX_SAMPLES = 6
ROAD_GRAIN_SCALE = 96.0  # texels a metre of the grain laid over the ground
GRAIN_SEEN = 12.0  # m; beyond, a pixel's share of it averages out


# Kernels free the GIL, so that threads render different frames; C division, not Python's.
compiled = njit(cache=True, nogil=True, error_model="numpy")


@dataclass(frozen=True)
class RenderedView:
    """One camera image with its truth.

    ``depth`` is along the optical axis in metres, infinite in the sky; ``labels`` are Cityscapes
    train ids.
    """

    image: Image  # (H, W, 3) BGR uint8
    depth: NDArray[np.float32]  # (H, W)
    labels: NDArray[np.uint8]  # (H, W)


@dataclass(frozen=True)
class GroundLayer:
    """The ground as the renderer reads it; pictures have row 0 at the north edge.

    ``texture`` and ``grain`` are texture numbers, ``labels`` has ``scale`` pixels a metre and
    ``sunlight`` (0..1) ``sunlight_scale``; ``origin`` is the map x, y of their north-west corner.
    """

    texture: int
    grain: int
    labels: NDArray[np.uint8]
    sunlight: NDArray[np.float32]
    origin: tuple[float, float]
    scale: float
    sunlight_scale: float


class Renderer:
    """Draws views of one world under one light.

    Args:
        atlas: textures the panels and the ground refer to by number.
        ground: the ground plane.
        camera: pinhole intrinsics without distortion.
        camera_height: metres of the optical centre above the ground.
    """

    def __init__(
        self,
        atlas: TextureAtlas,
        ground: GroundLayer,
        lighting: Lighting,
        camera: CameraModel,
        camera_height: float,
    ) -> None:
        self.atlas = atlas
        self.ground = ground
        self.lighting = lighting
        self.camera = camera
        self.camera_height = camera_height

    def render(self, pose: Pose, panels: PanelSet) -> RenderedView:
        """The view from map_T_base, whose x axis is where the camera looks.

        Raises:
            ValueError: when the pose is not level.
        """
        if abs(pose[2, 2] - 1.0) > 1e-9:
            raise ValueError("only level poses (roll = pitch = 0) can be rendered")
        rows, columns = self.camera.height, self.camera.width
        ends, visible = _into_view(pose, panels, self.camera)
        first, last = _column_range(ends, self.camera)
        colours = np.empty((columns, rows, 3), np.float32)  # a column at a time
        depth = np.empty((columns, rows), np.float32)
        labels = np.empty((columns, rows), np.uint8)
        lit, dark = self.lighting.on_ground()
        _draw_columns(
            colours, depth, labels,
            ends, first, last,
            panels.heights[visible], panels.texture[visible], panels.window[visible],
            panels.label[visible], self.lighting.on(panels)[visible],
            self.atlas.texels, self.atlas.offsets, self.atlas.sizes,
            self.ground.texture, self.ground.grain, self.ground.labels, self.ground.sunlight,
            np.array([*self.ground.origin, self.ground.scale, self.ground.sunlight_scale]),
            lit, dark, self.lighting.sky, self.lighting.haze,
            np.array([pose[0, 3], pose[1, 3], pose[0, 0], pose[1, 0], self.camera_height]),
            self.camera.matrix,
        )  # fmt: skip
        np.clip(colours, 0.0, 255.0, out=colours)
        np.rint(colours, out=colours)
        image = np.ascontiguousarray(colours.astype(np.uint8).transpose(1, 0, 2))
        return RenderedView(image, np.ascontiguousarray(depth.T), np.ascontiguousarray(labels.T))


def _into_view(
    pose: Pose, panels: PanelSet, camera: CameraModel
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Ends in camera axes (right and forward of start, then of end) of panels in the frustum."""
    forward, position = pose[:2, 0], pose[:2, 3]
    right = np.array([forward[1], -forward[0]])
    start, end = panels.ends[:, :2] - position, panels.ends[:, 2:] - position
    ends = np.column_stack([start @ right, start @ forward, end @ right, end @ forward])
    slope_left = -camera.matrix[0, 2] / camera.matrix[0, 0]
    slope_right = (camera.width - 1 - camera.matrix[0, 2]) / camera.matrix[0, 0]
    x, z = ends[:, [0, 2]], ends[:, [1, 3]]
    outside = (
        (z <= NEAR).all(axis=1)
        | (x < slope_left * z).all(axis=1)
        | (x > slope_right * z).all(axis=1)
    )
    visible = np.flatnonzero(~outside)
    return ends[visible], visible


def _column_range(
    ends: NDArray[np.float64], camera: CameraModel
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last image column each panel may touch."""
    focal, centre = camera.matrix[0, 0], camera.matrix[0, 2]
    x, z = ends[:, [0, 2]].copy(), ends[:, [1, 3]].copy()
    for near, far in ((0, 1), (1, 0)):  # cut what is behind the camera
        cut = z[:, near] < NEAR
        share = (NEAR - z[cut, near]) / (z[cut, far] - z[cut, near])
        x[cut, near] += share * (x[cut, far] - x[cut, near])
        z[cut, near] = NEAR
    u = np.clip(centre + focal * x / z, -1, camera.width)
    first = np.maximum(np.floor(u.min(axis=1)), 0).astype(np.int64)
    last = np.minimum(np.ceil(u.max(axis=1)), camera.width - 1).astype(np.int64)
    return first, last


@compiled
def _texel(texels, offset, height, width, s, t):  # type: ignore[no-untyped-def]
    """Bilinear, repeating BGRA at column s, row t of one mip level."""
    x, y = s - 0.5, t - 0.5
    left, top = math.floor(x), math.floor(y)
    fx, fy = x - left, y - top
    if left < 0 or left >= width:  # a remainder costs more than the test
        left %= width
    if top < 0 or top >= height:
        top %= height
    right = left + 1 if left + 1 < width else 0
    bottom = top + 1 if top + 1 < height else 0
    a, b = offset + top * width + left, offset + top * width + right
    c, d = offset + bottom * width + left, offset + bottom * width + right
    wa, wb, wc, wd = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    return (
        wa * texels[a, 0] + wb * texels[b, 0] + wc * texels[c, 0] + wd * texels[d, 0],
        wa * texels[a, 1] + wb * texels[b, 1] + wc * texels[c, 1] + wd * texels[d, 1],
        wa * texels[a, 2] + wb * texels[b, 2] + wc * texels[c, 2] + wd * texels[d, 2],
        wa * texels[a, 3] + wb * texels[b, 3] + wc * texels[c, 3] + wd * texels[d, 3],
    )


@compiled
def _area(texels, offsets, sizes, texture, s, t, ds, dt, minor):  # type: ignore[no-untyped-def]
    """Mean colour of a footprint centred at texel (s, t) of the finest level.

    (ds, dt) is the footprint's longer axis in texels, ``minor`` the length of the shorter one.
    """
    major = math.sqrt(ds * ds + dt * dt)
    width = max(minor, major / MAX_SAMPLES)
    level = 0
    while width > 1.5 and level + 1 < sizes.shape[1]:
        width *= 0.5
        level += 1
    scale = 1.0 / (1 << level)
    samples = min(MAX_SAMPLES, max(1, math.ceil(major * scale)))
    height, columns = sizes[texture, level, 0], sizes[texture, level, 1]
    to_s, to_t = columns / sizes[texture, 0, 1], height / sizes[texture, 0, 0]
    offset = offsets[texture, level]
    b = g = r = a = 0.0
    for i in range(samples):
        along = (i + 0.5) / samples - 0.5
        sb, sg, sr, sa = _texel(
            texels, offset, height, columns, (s + along * ds) * to_s, (t + along * dt) * to_t
        )
        b, g, r, a = b + sb, g + sg, r + sr, a + sa
    return b / samples, g / samples, r / samples, a / (255.0 * samples)


@compiled
def _hits_of_column(c, slope, ends, first, last, hit_panel, hit_depth, hit_along):  # type: ignore[no-untyped-def]
    """Panels the column's ray meets, nearest first; returns how many."""
    count = 0
    for n in range(ends.shape[0]):
        if c < first[n] or c > last[n]:
            continue
        dx, dz = ends[n, 2] - ends[n, 0], ends[n, 3] - ends[n, 1]
        across = dx - slope * dz
        if abs(across) < 1e-12:
            continue
        along = (slope * ends[n, 1] - ends[n, 0]) / across
        z = ends[n, 1] + along * dz
        if along < 0.0 or along > 1.0 or z < NEAR:
            continue
        at = count
        while at > 0 and hit_depth[at - 1] > z:
            hit_panel[at], hit_depth[at] = hit_panel[at - 1], hit_depth[at - 1]
            hit_along[at] = hit_along[at - 1]
            at -= 1
        hit_panel[at], hit_depth[at], hit_along[at] = n, z, along
        count += 1
    return count


@compiled
def _draw_panel(  # type: ignore[no-untyped-def]
    c, colours, depth, labels, through, z, along, spread, height, texture, window, label, light,
    texels, offsets, sizes, fade, haze_colour, focal_v, centre_v, camera_height,
):  # fmt: skip
    """Lay one column of one panel behind what is already drawn there."""
    top = centre_v - focal_v * (height[1] - camera_height) / z
    bottom = centre_v - focal_v * (height[0] - camera_height) / z
    step = (window[3] - window[2]) / (bottom - top)
    s = window[0] + along * (window[1] - window[0])
    for row in range(max(0, int(top + 0.5)), min(colours.shape[1] - 1, int(bottom + 0.5)) + 1):
        if through[row] < 0.004:
            continue
        covered = min(row + 0.5, bottom) - max(row - 0.5, top)
        t = min(max(window[2] + (row - top) * step, window[2]), window[3])
        if spread > step:
            b, g, r, a = _area(texels, offsets, sizes, texture, s, t, spread, 0.0, step)
        else:
            b, g, r, a = _area(texels, offsets, sizes, texture, s, t, 0.0, step, spread)
        weight = through[row] * covered
        clear, hazy = weight * fade, weight * (1.0 - fade) * a
        colours[c, row, 0] += clear * b * light[0] + hazy * haze_colour[0]
        colours[c, row, 1] += clear * g * light[1] + hazy * haze_colour[1]
        colours[c, row, 2] += clear * r * light[2] + hazy * haze_colour[2]
        through[row] -= weight * a
        if through[row] < 0.5 and depth[c, row] == 0.0:
            depth[c, row] = z
            labels[c, row] = label


@compiled
def _draw_ground(  # type: ignore[no-untyped-def]
    c, colours, depth, labels, through, slope, focal, centre, camera, texels, offsets, sizes,
    texture, grain, ground_labels, sunlight, raster, lit, dark, haze, haze_colour,
):  # fmt: skip
    """Fill what is open below the horizon: ground under sun or shadow, with grain near by."""
    ray_x = camera[2] + slope * camera[3]
    ray_y = camera[3] - slope * camera[2]
    scale, to_grain = raster[2], ROAD_GRAIN_SCALE / raster[2]
    for row in range(max(0, math.floor(centre) + 1), depth.shape[1]):
        if through[row] < 0.004:
            continue
        z = focal * camera[4] / (row - centre)
        east, south = camera[0] + z * ray_x - raster[0], raster[1] - camera[1] - z * ray_y
        s, t, wide = east * scale, south * scale, z / focal * scale
        ds, dt = z * wide / camera[4] * ray_x, -z * wide / camera[4] * ray_y
        b, g, r, _ = _area(texels, offsets, sizes, texture, s, t, ds, dt, wide)
        bright = 1.0
        if z < GRAIN_SEEN:
            tone, _, _, _ = _area(
                texels, offsets, sizes, grain,
                s * to_grain, t * to_grain, ds * to_grain, dt * to_grain, wide * to_grain,
            )  # fmt: skip
            bright = tone / 128.0
        i = min(max(int(south * raster[3]), 0), sunlight.shape[0] - 1)
        j = min(max(int(east * raster[3]), 0), sunlight.shape[1] - 1)
        sun, fade = sunlight[i, j], math.exp(-z / haze)
        for k, value in enumerate((b, g, r)):
            colour = value * bright * (sun * lit[k] + (1.0 - sun) * dark[k])
            colours[c, row, k] += through[row] * (fade * colour + (1.0 - fade) * haze_colour[k])
        if depth[c, row] == 0.0:
            depth[c, row] = z
            i = min(max(int(t), 0), ground_labels.shape[0] - 1)
            j = min(max(int(s), 0), ground_labels.shape[1] - 1)
            labels[c, row] = ground_labels[i, j]


@compiled
def _sky_colour(sky, azimuth, elevation, out):  # type: ignore[no-untyped-def]
    rows, columns = sky.shape[0], sky.shape[1]
    x = (azimuth / (2.0 * math.pi)) % 1.0 * columns
    y = (1.0 - min(max(elevation / SKY_TOP, 0.0), 1.0)) * (rows - 1)
    left, top = int(x) % columns, min(int(y), rows - 2)
    right, fx, fy = (left + 1) % columns, x - int(x), y - top
    for k in range(3):
        upper = (1 - fx) * sky[top, left, k] + fx * sky[top, right, k]
        lower = (1 - fx) * sky[top + 1, left, k] + fx * sky[top + 1, right, k]
        out[k] = (1 - fy) * upper + fy * lower


@compiled
def _draw_sky(c, colours, depth, through, slope, focal, centre, azimuth, sky):  # type: ignore[no-untyped-def]
    """Fill what is open above the horizon."""
    colour = np.empty(3)
    distance = focal * math.sqrt(1.0 + slope * slope)
    for row in range(min(depth.shape[1], math.floor(centre) + 1)):
        if through[row] < 0.004:
            continue
        _sky_colour(sky, azimuth, math.atan((centre - row) / distance), colour)
        for k in range(3):
            colours[c, row, k] += through[row] * colour[k]
        if depth[c, row] == 0.0:
            depth[c, row] = np.inf


@compiled
def _draw_columns(  # type: ignore[no-untyped-def]
    colours, depth, labels, ends, first, last, heights, texture, window, label, light,
    texels, offsets, sizes, ground_texture, grain, ground_labels, sunlight, raster, lit, dark,
    sky, haze, camera, matrix,
):  # fmt: skip
    columns, rows = depth.shape
    focal, centre_u, focal_v, centre_v = matrix[0, 0], matrix[0, 2], matrix[1, 1], matrix[1, 2]
    heading = math.atan2(camera[3], camera[2])
    hit_panel = np.empty(ends.shape[0] + 1, np.int64)
    hit_depth = np.empty(ends.shape[0] + 1)
    hit_along = np.empty(ends.shape[0] + 1)
    through = np.empty(rows)
    haze_colour = np.empty(3)
    colours[:], depth[:], labels[:] = 0.0, 0.0, Label.SKY
    for c in range(columns):
        slope = (c - centre_u) / focal
        azimuth = heading - math.atan(slope)
        _sky_colour(sky, azimuth, 0.0, haze_colour)
        through[:] = 1.0
        count = _hits_of_column(c, slope, ends, first, last, hit_panel, hit_depth, hit_along)
        for i in range(count):
            n, z, along = hit_panel[i], hit_depth[i], hit_along[i]
            dx, dz = ends[n, 2] - ends[n, 0], ends[n, 3] - ends[n, 1]
            spread = z / (abs(dx - slope * dz) * focal) * abs(window[n, 1] - window[n, 0])
            _draw_panel(
                c, colours, depth, labels, through, z, along, spread, heights[n], texture[n],
                window[n], label[n], light[n], texels, offsets, sizes, math.exp(-z / haze),
                haze_colour, focal_v, centre_v, camera[4],
            )  # fmt: skip
        _draw_ground(
            c, colours, depth, labels, through, slope, focal_v, centre_v, camera, texels, offsets,
            sizes, ground_texture, grain, ground_labels, sunlight, raster, lit, dark, haze,
            haze_colour,
        )  # fmt: skip
        _draw_sky(c, colours, depth, through, slope, focal_v, centre_v, azimuth, sky)
