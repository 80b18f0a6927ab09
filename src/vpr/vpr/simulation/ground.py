"""The ground: one picture of the whole town from above, with labels and shadows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.simulation.atlas import Texture
from vpr.simulation.labels import Label
from vpr.simulation.lighting import Lighting
from vpr.simulation.panels import PanelSet
from vpr.simulation.textures import Bgr, cloud_noise, draw_crack
from vpr.simulation.town import PAVEMENT_WIDTH, ROAD_HALF_WIDTH, STREET_HALF_WIDTH, TownPlan

SCALE = 20  # pixels a metre
SHADOW_SCALE = 4
PAINT = (215, 218, 220)
ASPHALT = (98, 98, 96)
FLAGSTONE = (158, 164, 168)
GRASS = (70, 105, 85)
SLAB = 14  # pixels, the side of a paving stone


@dataclass(frozen=True)
class Ground:
    """Pictures of the ground; row 0 is the north edge, column 0 the west edge.

    ``texture`` (H, W, 3) and ``labels`` (H, W) have ``SCALE`` pixels a metre.
    """

    texture: Texture
    labels: NDArray[np.uint8]
    extent: tuple[float, float, float, float]

    def pixel(self, x: float, y: float, scale: float = SCALE) -> tuple[int, int]:
        """Column and row of a place."""
        return round((x - self.extent[0]) * scale), round((self.extent[3] - y) * scale)


def draw_ground(seed: int, plan: TownPlan) -> Ground:
    """Asphalt with markings, patches and manholes; paved footways; yards inside the blocks."""
    rng = np.random.default_rng([seed, 102])
    west, south, east, north = plan.extent
    rows, columns = int((north - south) * SCALE), int((east - west) * SCALE)
    ground = Ground(
        np.zeros((rows, columns, 3), np.uint8), np.zeros((rows, columns), np.uint8), plan.extent
    )
    _pave(ground, rng, plan)
    _mark_lanes(ground, rng, plan)
    _wear(ground, rng, plan)
    return ground


def _pave(ground: Ground, rng: np.random.Generator, plan: TownPlan) -> None:
    rows, columns = ground.labels.shape
    noise = cv2.resize(cloud_noise(rng, rows // 2, columns // 2, 128), (columns, rows))
    footway, yard = np.zeros_like(ground.labels), np.zeros_like(ground.labels)
    for block in plan.blocks():
        corners = ground.pixel(block.west, block.south), ground.pixel(block.east, block.north)
        cv2.rectangle(yard, *corners, 1, -1)
        low = ground.pixel(block.west - PAVEMENT_WIDTH, block.south - PAVEMENT_WIDTH)
        high = ground.pixel(block.east + PAVEMENT_WIDTH, block.north + PAVEMENT_WIDTH)
        cv2.rectangle(footway, low, high, 1, -1)
    ground.texture[:] = _toned(ASPHALT, 0.55 + 0.9 * noise)
    cv2.copyTo(_toned(FLAGSTONE, _slabs(rng, rows, columns) * noise), footway, ground.texture)
    cv2.copyTo(_toned(GRASS, 0.6 + 0.7 * noise), yard, ground.texture)
    ground.labels[footway == 1] = Label.SIDEWALK
    ground.labels[yard == 1] = Label.TERRAIN
    edges, _ = cv2.findContours(footway, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(ground.texture, edges, -1, (205, 205, 200), 4)
    cv2.drawContours(ground.texture, edges, -1, (90, 90, 90), 1)


def _toned(colour: Bgr, brightness: NDArray[np.float32]) -> Texture:
    """A colour times a brightness, saturating; made for pictures of many megapixels."""
    return cv2.merge([cv2.convertScaleAbs(brightness, alpha=value) for value in colour]).astype(
        np.uint8, copy=False
    )


def _slabs(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """Brightness of square paving stones with dark joints."""
    tone = 1.3 + 0.5 * rng.random((rows // SLAB + 1, columns // SLAB + 1), dtype=np.float32)
    stones = np.kron(tone, np.ones((SLAB, SLAB), np.float32))[:rows, :columns]
    stones[::SLAB] *= 0.62
    stones[:, ::SLAB] *= 0.62
    return stones


def _mark_lanes(ground: Ground, rng: np.random.Generator, plan: TownPlan) -> None:
    west, south, east, north = ground.extent
    crossing = STREET_HALF_WIDTH + 1.0
    for x in plan.easts:
        for y in np.arange(south + rng.uniform(0, 3), north, rng.uniform(2.7, 3.6)):
            if np.abs(plan.norths - y - 0.75).min() > crossing + 3.0:
                ends = ground.pixel(x, y), ground.pixel(x, y + 1.5)
                cv2.line(ground.texture, *ends, PAINT, 3)
    for y in plan.norths:
        for x in np.arange(west + rng.uniform(0, 3), east, rng.uniform(2.7, 3.6)):
            if np.abs(plan.easts - x - 0.75).min() > crossing + 3.0:
                ends = ground.pixel(x, y), ground.pixel(x + 1.5, y)
                cv2.line(ground.texture, *ends, PAINT, 3)
    for x in plan.easts:
        for y in plan.norths:
            _zebra_crossings(ground, rng, float(x), float(y))


def _zebra_crossings(ground: Ground, rng: np.random.Generator, x: float, y: float) -> None:
    """Stripes on some of the four arms of a street crossing."""
    for northward in (True, False):
        for side in (-1, 1):
            if rng.random() < 0.4:
                continue
            near = side * (STREET_HALF_WIDTH + float(rng.uniform(0.5, 2.0)))
            far = near + side * 2.2
            step = float(rng.uniform(0.85, 1.1))
            for across in np.arange(-ROAD_HALF_WIDTH + 0.4, ROAD_HALF_WIDTH - 0.3, step):
                one, other = (across, near), (across + 0.45, far)
                if not northward:
                    one, other = one[::-1], other[::-1]
                corners = (
                    ground.pixel(x + one[0], y + one[1]),
                    ground.pixel(x + other[0], y + other[1]),
                )
                cv2.rectangle(ground.texture, *corners, PAINT, -1)


def _wear(ground: Ground, rng: np.random.Generator, plan: TownPlan) -> None:
    """Patches, manholes, cracks and oil stains along the streets: each where it is, only once."""
    west, south, east, north = ground.extent
    for _ in range(int((east - west) * (north - south) / 22)):
        if rng.random() < 0.5:
            x = float(rng.choice(plan.easts) + rng.uniform(-1, 1) * STREET_HALF_WIDTH)
            y = float(rng.uniform(south, north))
        else:
            x = float(rng.uniform(west, east))
            y = float(rng.choice(plan.norths) + rng.uniform(-1, 1) * STREET_HALF_WIDTH)
        _blemish(ground.texture, rng, np.array(ground.pixel(x, y), np.float64))


def _blemish(texture: Texture, rng: np.random.Generator, at: NDArray[np.float64]) -> None:
    kind = rng.random()
    x, y = int(at[0]), int(at[1])
    if kind < 0.35:
        draw_crack(texture, rng, at, int(rng.integers(40, 160)), (38, 38, 38))
    elif kind < 0.55:
        size = rng.integers(14, 60, 2)
        tone = float(rng.uniform(45, 140))
        corner = (x + int(size[0]), y + int(size[1]))
        cv2.rectangle(texture, (x, y), corner, (tone, tone, tone), -1)
        cv2.rectangle(texture, (x, y), corner, (40, 40, 40), 1)
    elif kind < 0.72:
        cv2.circle(texture, (x, y), 7, (62, 64, 66), -1, cv2.LINE_AA)
        cv2.circle(texture, (x, y), 7, (28, 28, 28), 1, cv2.LINE_AA)
        for step in (-3, 0, 3):
            cv2.line(texture, (x - 4, y + step), (x + 4, y + step), (120, 120, 120), 1)
    elif kind < 0.86:
        cv2.circle(texture, (x, y), int(rng.integers(3, 12)), (48, 46, 44), -1, cv2.LINE_AA)
    else:
        cv2.rectangle(texture, (x, y), (x + 11, y + 7), (40, 42, 44), -1)
        for step in range(2, 11, 3):
            cv2.line(texture, (x + step, y + 1), (x + step, y + 6), (130, 130, 130), 1)


def shadows_on(ground: Ground, solid: PanelSet, lighting: Lighting) -> NDArray[np.float32]:
    """Share of the sun reaching each place, (rows, columns) in 0..1 at ``SHADOW_SCALE``."""
    west, south, east, north = ground.extent
    rows, columns = int((north - south) * SHADOW_SCALE), int((east - west) * SHADOW_SCALE)
    sunlight = np.ones((rows, columns), np.float32)
    reach = solid.heights[:, 1:] / np.tan(lighting.sun_elevation)
    away = -np.array([np.cos(lighting.sun_azimuth), np.sin(lighting.sun_azimuth)])
    start, end = solid.ends[:, :2], solid.ends[:, 2:]
    corners = np.stack([start, end, end + reach * away, start + reach * away], axis=1)
    pixels = (corners - (west, north)) * (SHADOW_SCALE, -SHADOW_SCALE)
    for polygon in np.round(pixels).astype(np.int32):
        cv2.fillConvexPoly(sunlight, polygon, (0.0,))
    return np.asarray(cv2.GaussianBlur(sunlight, (0, 0), 1.2), np.float32)
