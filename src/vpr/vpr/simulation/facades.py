"""Textures of houses: upper storeys with windows, and ground-floor bays with shops and doors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from vpr.simulation.atlas import Texture
from vpr.simulation.textures import (
    Bgr,
    concrete,
    masonry,
    plaster,
    random_colour,
    scaled,
    shaded,
)

SCALE = 48  # texels a metre
STOREY = 3.0  # m
BAY = 3.0  # m, width of a window's share of an upper storey
SHOP_WIDTH = 4.0  # m, width of a ground-floor bay
SHOP_HEIGHT = 3.5  # m

WALL_COLOURS: tuple[Bgr, ...] = (
    (96, 120, 168),
    (150, 190, 215),
    (175, 185, 190),
    (120, 170, 205),
    (150, 160, 140),
    (205, 205, 200),
    (110, 135, 150),
    (165, 175, 215),
)
FRAME_COLOURS: tuple[Bgr, ...] = ((225, 228, 230), (60, 70, 85), (70, 95, 60), (45, 55, 110))


@dataclass(frozen=True)
class HouseStyle:
    """What the houses of one style share."""

    material: Literal["brick", "stone", "plaster", "concrete"]
    colour: Bgr
    frame: Bgr
    window: tuple[float, float]  # m, width and height
    shutters: bool
    balcony: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator, number: int) -> HouseStyle:
        """A random style; the number spreads materials and colours over a palette."""
        return cls(
            material=("brick", "stone", "plaster", "concrete")[number % 4],
            colour=WALL_COLOURS[number % len(WALL_COLOURS)],
            frame=FRAME_COLOURS[int(rng.integers(len(FRAME_COLOURS)))],
            window=(float(rng.uniform(1.0, 1.7)), float(rng.uniform(1.3, 1.9))),
            shutters=bool(rng.random() < 0.35),
            balcony=bool(rng.random() < 0.4),
        )


def wall(rng: np.random.Generator, style: HouseStyle, rows: int, columns: int) -> Texture:
    """Bare wall in a style's material."""
    if style.material == "brick":
        return masonry(rng, rows, columns, style.colour, (16, 6), 0.45)
    if style.material == "stone":
        return masonry(rng, rows, columns, style.colour, (36, 18), 0.3)
    if style.material == "concrete":
        return concrete(rng, rows, columns, style.colour)
    return plaster(rng, rows, columns, style.colour)


def upper_storeys(rng: np.random.Generator, style: HouseStyle, bays: int, storeys: int) -> Texture:
    """``storeys`` rows of ``bays`` windows; no two windows are furnished alike."""
    bay, storey = int(BAY * SCALE), int(STOREY * SCALE)
    texture = wall(rng, style, storeys * storey, bays * bay)
    for row in range(storeys):
        y = row * storey
        cv2.line(texture, (0, y + 2), (bays * bay, y + 2), (200, 200, 200), 2)
        cv2.line(texture, (0, y + 4), (bays * bay, y + 4), (70, 70, 70), 1)
        for column in range(bays):
            _house_window(texture, rng, style, column * bay + bay // 2, y + storey // 2)
    return texture


def _house_window(
    texture: Texture, rng: np.random.Generator, style: HouseStyle, x: int, y: int
) -> None:
    half_width, half_height = int(style.window[0] * SCALE / 2), int(style.window[1] * SCALE / 2)
    left, right, top, bottom = x - half_width, x + half_width, y - half_height, y + half_height
    cv2.rectangle(texture, (left - 5, top - 5), (right + 5, bottom + 5), (190, 195, 198), -1)
    draw_pane(texture, rng, left, right, top, bottom, style.frame)
    if style.shutters:
        for side in (left - 5 - half_width // 2, right + 5):
            corner = (side + half_width // 2, bottom)
            cv2.rectangle(texture, (side, top), corner, style.frame, -1)
            for slat in range(top + 4, bottom, 6):
                cv2.line(texture, (side + 2, slat), (corner[0] - 2, slat), (40, 40, 40), 1)
    cv2.rectangle(texture, (left - 8, bottom + 4), (right + 8, bottom + 9), (160, 165, 170), -1)
    cv2.line(texture, (left - 8, bottom + 10), (right + 8, bottom + 10), (50, 50, 50), 2)
    if style.balcony and rng.random() < 0.5:
        for bar in range(left - 12, right + 13, 5):
            cv2.line(texture, (bar, bottom - 30), (bar, bottom + 8), (35, 35, 40), 1)
        cv2.line(texture, (left - 12, bottom - 30), (right + 12, bottom - 30), (30, 30, 35), 2)
    if rng.random() < 0.3:
        _flower_box(texture, rng, left, right, bottom)


def _flower_box(
    texture: Texture, rng: np.random.Generator, left: int, right: int, bottom: int
) -> None:
    cv2.rectangle(texture, (left, bottom - 2), (right, bottom + 7), (40, 60, 110), -1)
    for _ in range(26):
        at = (int(rng.integers(left, right)), int(bottom - rng.integers(0, 11)))
        colour = ((40, 120, 50), (60, 60, 210), (180, 90, 200))[int(rng.integers(3))]
        cv2.circle(texture, at, int(rng.integers(1, 4)), colour, -1)


def draw_pane(
    texture: Texture,
    rng: np.random.Generator,
    left: int,
    right: int,
    top: int,
    bottom: int,
    frame: Bgr,
) -> None:
    """Glass with what hangs behind it, and a frame with one or two bars."""
    width, height = right - left, bottom - top
    depth = np.linspace(0.7, 1.15, height)[:, None] * np.ones((1, width))
    texture[top:bottom, left:right] = shaded((78, 66, 56), depth)
    furnishing = rng.random()
    if furnishing < 0.4:  # curtains
        span = int(width * rng.uniform(0.15, 0.45))
        colour = random_colour(rng, 110, 235)
        for x in range(left, right, 4):
            if x < left + span or x > right - span:
                cv2.line(
                    texture, (x, top), (x, bottom), scaled(colour, float(rng.uniform(0.75, 1.0))), 3
                )
    elif furnishing < 0.65:  # a blind, part of the way down
        end = top + int(height * rng.uniform(0.2, 0.95))
        colour = random_colour(rng, 140, 220)
        for y in range(top, end, 5):
            cv2.line(texture, (left, y), (right, y), scaled(colour, 0.8 if y % 2 else 1.0), 3)
    else:  # reflections
        for _ in range(3):
            x = int(rng.integers(left, right))
            corners = np.array([[x, top], [x + 9, top], [x - 5, bottom], [x - 14, bottom]])
            corners[:, 0] = corners[:, 0].clip(left, right - 1)
            cv2.fillPoly(texture, [corners[[0, 1, 2, 3]]], (150, 140, 128), cv2.LINE_AA)
    cv2.rectangle(texture, (left, top), (right, bottom), frame, 4)
    cv2.line(texture, ((left + right) // 2, top), ((left + right) // 2, bottom), frame, 3)
    if rng.random() < 0.6:
        cross = top + height // 3
        cv2.line(texture, (left, cross), (right, cross), frame, 3)


def shop_bay(rng: np.random.Generator, style: HouseStyle, kind: str) -> Texture:
    """One ground-floor bay: ``shop``, ``door``, ``garage``, ``arch`` or ``flat``."""
    rows, columns = int(SHOP_HEIGHT * SCALE), int(SHOP_WIDTH * SCALE)
    texture = wall(rng, style, rows, columns)
    cv2.rectangle(texture, (0, rows - 22), (columns, rows), (95, 100, 104), -1)  # plinth
    cv2.line(texture, (0, rows - 23), (columns, rows - 23), (55, 55, 55), 2)
    draw = {"shop": _shop, "door": _house_door, "garage": _garage, "arch": _arch, "flat": _flat}
    draw[kind](texture, rng, style)
    return texture


def _shop(texture: Texture, rng: np.random.Generator, style: HouseStyle) -> None:
    rows, columns = texture.shape[:2]
    top, bottom = int(rows * 0.3), rows - 24
    door = int(columns * rng.uniform(0.66, 0.76))
    texture[top:bottom, 10:door] = shaded((70, 62, 56), np.full((bottom - top, door - 10), 1.0))
    for _ in range(int(rng.integers(12, 22))):  # goods on display
        x, y = int(rng.integers(14, door - 22)), int(rng.integers(top + 12, bottom - 20))
        size = rng.integers(6, 24, 2)
        colour = random_colour(rng, 50, 245)
        if rng.random() < 0.5:
            cv2.rectangle(texture, (x, y), (x + int(size[0]), y + int(size[1])), colour, -1)
        else:
            cv2.circle(texture, (x, y), int(size[0]) // 2 + 2, colour, -1, cv2.LINE_AA)
    cv2.rectangle(texture, (10, top), (door, bottom), style.frame, 4)
    cv2.line(texture, ((10 + door) // 2, top), ((10 + door) // 2, bottom), style.frame, 3)
    _door(texture, rng, door + 6, columns - 8, top, rows - 4)


def _door(
    texture: Texture, rng: np.random.Generator, left: int, right: int, top: int, bottom: int
) -> None:
    colour = random_colour(rng, 35, 150)
    cv2.rectangle(texture, (left, top), (right, bottom), (205, 208, 210), -1)
    cv2.rectangle(texture, (left + 4, top + 4), (right - 4, bottom), colour, -1)
    middle = (top + bottom) // 2
    for y0, y1 in ((top + 10, middle - 5), (middle + 6, bottom - 10)):
        cv2.rectangle(texture, (left + 10, y0), (right - 10, y1), scaled(colour, 0.55), 3)
    cv2.rectangle(texture, (left + 12, top + 12), (right - 12, top + 34), (105, 96, 80), -1)
    cv2.circle(texture, (right - 12, middle), 4, (60, 190, 220), -1)


def _house_door(texture: Texture, rng: np.random.Generator, style: HouseStyle) -> None:
    rows, columns = texture.shape[:2]
    x = int(columns * rng.uniform(0.1, 0.25))
    _door(texture, rng, x, x + 56, int(rows * 0.33), rows - 2)
    left, top = x + 84, int(rows * 0.32)
    cv2.rectangle(texture, (left - 4, top - 4), (left + 58, top + 74), (195, 198, 200), -1)
    draw_pane(texture, rng, left, left + 54, top, top + 70, style.frame)
    cv2.rectangle(texture, (x + 62, rows - 96), (x + 74, rows - 78), (90, 160, 190), -1)
    cv2.putText(
        texture, str(rng.integers(1, 99)), (x + 12, top - 6), cv2.FONT_HERSHEY_DUPLEX, 0.6,
        (40, 40, 150), 1, cv2.LINE_AA,
    )  # fmt: skip


def _garage(texture: Texture, rng: np.random.Generator, style: HouseStyle) -> None:
    rows, columns = texture.shape[:2]
    colour = random_colour(rng, 90, 190)
    top = int(rows * 0.28)
    cv2.rectangle(texture, (22, top), (columns - 22, rows - 2), colour, -1)
    for y in range(top + 10, rows, 13):
        cv2.line(texture, (22, y), (columns - 22, y), scaled(colour, 0.6), 2)
    for x in range(60, columns - 30, 44):
        cv2.rectangle(texture, (x, top + 18), (x + 20, top + 34), (90, 80, 70), -1)
    cv2.rectangle(texture, (22, top), (columns - 22, rows - 2), style.frame, 4)


def _arch(texture: Texture, rng: np.random.Generator, style: HouseStyle) -> None:
    rows, columns = texture.shape[:2]
    middle, radius, spring = columns // 2, int(columns * 0.36), int(rows * 0.55)
    for grow, colour in ((10, (185, 190, 195)), (0, (44, 44, 48))):
        cv2.circle(texture, (middle, spring), radius + grow, colour, -1, cv2.LINE_AA)
        left, right = middle - radius - grow, middle + radius + grow
        cv2.rectangle(texture, (left, spring), (right, rows), colour, -1)
    for x in range(middle - radius + 8, middle + radius, 14):
        cv2.line(texture, (x, spring - radius // 2), (x, rows), (92, 96, 100), 2)
    for y in range(spring, rows, 40):
        cv2.line(texture, (middle - radius, y), (middle + radius, y), (92, 96, 100), 2)


def _flat(texture: Texture, rng: np.random.Generator, style: HouseStyle) -> None:
    rows, columns = texture.shape[:2]
    top = int(rows * 0.3)
    for left in (20, columns // 2 + 14):
        cv2.rectangle(texture, (left - 4, top - 4), (left + 66, top + 74), (195, 198, 200), -1)
        draw_pane(texture, rng, left, left + 62, top, top + 70, style.frame)
    for x in range(24, columns - 20, 12):  # cellar grilles
        cv2.line(texture, (x, rows - 18), (x, rows - 6), (40, 40, 44), 3)
