"""Procedural materials: noise, brick, stone, plaster, paving, asphalt. All BGR uint8."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.simulation.atlas import Texture

Bgr = tuple[float, float, float]


def cloud_noise(
    rng: np.random.Generator, rows: int, columns: int, coarsest: int, finest: int = 2
) -> NDArray[np.float32]:
    """(rows, columns) noise in 0..1 with detail at every octave from coarsest to finest pixels."""
    total = np.zeros((rows, columns), np.float32)
    size, weight, weights = coarsest, 1.0, 0.0
    while size >= finest:
        grid = rng.random((rows // size + 2, columns // size + 2), dtype=np.float32)
        total += weight * cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC)
        weights += weight
        size, weight = size // 2, weight * 0.7
    total /= weights
    return np.clip(total, 0.0, 1.0, out=total)


def random_colour(rng: np.random.Generator, darkest: float, brightest: float) -> Bgr:
    """A colour whose channels lie between two values of 0..255."""
    blue, green, red = rng.uniform(darkest, brightest, 3)
    return float(blue), float(green), float(red)


def scaled(colour: Bgr, factor: float) -> Bgr:
    """A darker or brighter shade."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def shaded(colour: Bgr, brightness: NDArray[Any]) -> Texture:
    """A colour times a (H, W) brightness around 1."""
    texture: Texture = np.clip(np.asarray(colour) * brightness[..., None], 0, 255).astype(np.uint8)
    return texture


def plaster(rng: np.random.Generator, rows: int, columns: int, colour: Bgr) -> Texture:
    """Rendered wall: blotches, stains running down, a few cracks."""
    brightness = 0.84 + 0.3 * cloud_noise(rng, rows, columns, 64)
    streaks = cv2.resize(rng.random((3, columns // 3 + 1)), (columns, rows))
    texture = shaded(colour, brightness * (0.95 + 0.1 * streaks))
    for _ in range(max(1, rows * columns // 40_000)):
        draw_crack(texture, rng, rng.random(2) * (columns, rows), 60, (70, 75, 80))
    return texture


def masonry(
    rng: np.random.Generator,
    rows: int,
    columns: int,
    colour: Bgr,
    stone: tuple[int, int],
    contrast: float,
) -> Texture:
    """Courses of stones or bricks, ``stone`` = (width, height) pixels, every other one shifted."""
    width, height = stone
    y, x = np.mgrid[0:rows, 0:columns]
    course = y // height
    shift = (course % 2) * (width // 2)
    index = ((x + shift) // width) % max(1, columns // width)
    tone = rng.random((rows // height + 1, columns // width + 2))
    brightness = 1.0 - contrast / 2 + contrast * tone[course, index]
    joint = (y % height == 0) | ((x + shift) % width == 0)
    brightness = np.where(joint, 1.25, brightness) * (
        0.9 + 0.2 * cloud_noise(rng, rows, columns, 96)
    )
    return shaded(colour, brightness)


def concrete(rng: np.random.Generator, rows: int, columns: int, colour: Bgr) -> Texture:
    """Cast panels with dark joints and bolt holes."""
    texture = plaster(rng, rows, columns, colour)
    step = 72
    for x in range(0, columns, step):
        cv2.line(texture, (x, 0), (x, rows), (75, 75, 75), 1)
        for y in range(0, rows, step):
            cv2.line(texture, (0, y), (columns, y), (75, 75, 75), 1)
            cv2.circle(texture, (x + 9, y + 9), 2, (60, 60, 60), -1)
            cv2.circle(texture, (x + step - 9, y + 9), 2, (60, 60, 60), -1)
    return texture


def asphalt_grain(rng: np.random.Generator, size: int) -> Texture:
    """Seamless grain around mid grey, multiplied over the ground near the camera."""
    grain = rng.normal(128.0, 14.0, (size, size))
    for sigma in (1.0, 3.0):
        spots = rng.normal(0.0, 1.0, (size, size))
        tiled = np.asarray(cv2.GaussianBlur(np.tile(spots, (3, 3)), (0, 0), sigma))
        smooth = tiled[size:-size, size:-size]
        grain += 9.0 * smooth / smooth.std()
    return np.repeat(np.clip(grain, 30, 225).astype(np.uint8)[..., None], 3, axis=2)


def draw_crack(
    texture: Texture,
    rng: np.random.Generator,
    start: NDArray[np.float64],
    length: int,
    colour: Bgr,
) -> None:
    """A wandering thin line drawn onto a texture."""
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.5, length // 5 + 2))
    steps = 5.0 * np.column_stack([np.cos(heading), np.sin(heading)])
    points = (start + np.cumsum(steps, axis=0)).astype(np.int32)
    cv2.polylines(texture, [points], False, colour, 1, cv2.LINE_AA)
