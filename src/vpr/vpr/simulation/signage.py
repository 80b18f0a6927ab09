"""Textures that tell places apart: name boards, hanging signs, posters, graffiti, road signs."""

from __future__ import annotations

import cv2
import numpy as np

from vpr.simulation.atlas import Texture
from vpr.simulation.textures import Bgr, cloud_noise, random_colour, scaled, shaded

SCALE = 64  # texels a metre
FONTS = (
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
SYLLABLES = (
    "BA",
    "LO",
    "MIR",
    "KE",
    "TAN",
    "SU",
    "VEL",
    "DO",
    "RIX",
    "HAN",
    "PO",
    "ZE",
    "GRA",
    "FI",
    "NOL",
    "TER",
    "WU",
    "SKA",
    "JE",
    "QUA",
)
TRADES = (
    "BAR",
    "CAFE",
    "BOOKS",
    "TAILOR",
    "BAKERY",
    "HOTEL",
    "PHARMA",
    "CYCLES",
    "FLOWERS",
    "MUSIC",
    "OPTIK",
    "SHOES",
)


def shop_name(rng: np.random.Generator) -> str:
    """A made-up name with a trade."""
    return "".join(rng.choice(SYLLABLES, int(rng.integers(2, 4)))) + " " + str(rng.choice(TRADES))


def _contrasting(rng: np.random.Generator) -> tuple[Bgr, Bgr]:
    dark, light = random_colour(rng, 15, 110), random_colour(rng, 170, 250)
    return (dark, light) if rng.random() < 0.6 else (light, dark)


def _write(texture: Texture, text: str, font: int, colour: Bgr, margin: int) -> None:
    rows, columns = texture.shape[:2]
    (width, height), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = min((columns - 2 * margin) / width, (rows - 2 * margin) / height)
    origin = (int((columns - width * scale) / 2), int((rows + height * scale) / 2))
    thickness = max(1, round(2.4 * scale))
    cv2.putText(texture, text, origin, font, scale, colour, thickness, cv2.LINE_AA)


def name_board(rng: np.random.Generator, width: float = 3.4, height: float = 0.62) -> Texture:
    """A shop's board above its window."""
    back, front = _contrasting(rng)
    rows, columns = int(height * SCALE), int(width * SCALE)
    texture = shaded(back, 0.9 + 0.2 * cloud_noise(rng, rows, columns, 32))
    _write(texture, shop_name(rng), int(rng.choice(FONTS)), front, 7)
    cv2.rectangle(texture, (1, 1), (columns - 2, rows - 2), front, 2)
    if rng.random() < 0.6:
        cv2.circle(texture, (rows // 2, rows // 2), rows // 3, front, -1, cv2.LINE_AA)
        cv2.circle(texture, (rows // 2, rows // 2), rows // 6, back, -1, cv2.LINE_AA)
    return texture


def hanging_sign(rng: np.random.Generator) -> Texture:
    """A sign that sticks out over the pavement: an emblem with a word."""
    back, front = _contrasting(rng)
    rows, columns = int(0.9 * SCALE), int(0.9 * SCALE)
    texture = shaded(back, np.ones((rows, columns)))
    cv2.rectangle(texture, (2, 2), (columns - 3, rows - 3), front, 3)
    _emblem(texture, rng, front, (columns // 2, rows * 2 // 5), rows // 4)
    word = texture[rows * 2 // 3 :]
    _write(word, str(rng.choice(TRADES)), FONTS[0], front, 5)
    return texture


def _emblem(
    texture: Texture,
    rng: np.random.Generator,
    colour: Bgr,
    centre: tuple[int, int],
    radius: int,
) -> None:
    corners = int(rng.integers(3, 8))
    angles = rng.uniform(0, 6.28) + np.arange(2 * corners) * np.pi / corners
    reach = np.where(np.arange(2 * corners) % 2, rng.uniform(0.4, 1.0), 1.0) * radius
    star = np.column_stack([np.cos(angles), np.sin(angles)]) * reach[:, None] + centre
    cv2.fillPoly(texture, [star.astype(np.int32)], colour, cv2.LINE_AA)


def poster(rng: np.random.Generator) -> Texture:
    """A bill on a wall: shapes, a headline and small print."""
    rows, columns = int(1.3 * SCALE), int(0.95 * SCALE)
    texture = shaded(random_colour(rng, 60, 240), 0.9 + 0.2 * cloud_noise(rng, rows, columns, 24))
    for _ in range(int(rng.integers(4, 9))):
        centre = (int(rng.integers(columns)), int(rng.integers(rows)))
        _emblem(texture, rng, random_colour(rng, 10, 250), centre, int(rng.integers(8, 26)))
    headline = texture[: rows // 4]
    headline[:] = random_colour(rng, 10, 90)
    _write(headline, "".join(rng.choice(SYLLABLES, 2)), FONTS[0], (240.0, 240.0, 240.0), 4)
    for y in range(rows - 20, rows - 3, 5):
        cv2.line(texture, (6, y), (columns - int(rng.integers(6, 30)), y), (20, 20, 20), 1)
    cv2.rectangle(texture, (0, 0), (columns - 1, rows - 1), (240, 240, 240), 2)
    return texture


def graffiti(rng: np.random.Generator) -> Texture:
    """A tag sprayed on a wall, see-through around it."""
    rows, columns = int(1.1 * SCALE), int(2.4 * SCALE)
    texture = np.zeros((rows, columns, 4), np.uint8)
    text, colour = "".join(rng.choice(SYLLABLES, 2)), random_colour(rng, 60, 255)
    for width, bright in ((11, 0.3), (5, 1.0)):  # an outline, then the letters
        spray = (*scaled(colour, bright), 255)
        cv2.putText(texture, text, (10, rows - 18), FONTS[1], 1.7, spray, width, cv2.LINE_AA)
    for _ in range(3):
        steps = rng.normal(0, 22, (5, 2))
        points = np.array([columns / 2, rows / 2]) + np.cumsum(steps, axis=0)
        spray = (*random_colour(rng, 40, 250), 255)
        cv2.polylines(texture, [points.astype(np.int32)], False, spray, 4, cv2.LINE_AA)
    return texture


def road_sign(rng: np.random.Generator) -> Texture:
    """A round, triangular or square traffic sign on a see-through ground."""
    size = int(0.8 * SCALE)
    texture = np.zeros((size, size, 4), np.uint8)
    middle, radius = size // 2, size // 2 - 2
    red, white, blue = (40, 40, 200, 255), (240, 240, 240, 255), (190, 100, 30, 255)
    kind = int(rng.integers(3))
    if kind == 0:
        cv2.circle(texture, (middle, middle), radius, red, -1, cv2.LINE_AA)
        cv2.circle(texture, (middle, middle), radius - 6, white, -1, cv2.LINE_AA)
    elif kind == 1:
        corners = np.array([[middle, 3], [size - 3, size - 6], [3, size - 6]])
        cv2.fillPoly(texture, [corners], red, cv2.LINE_AA)
        inner = ((corners - corners.mean(0)) * 0.66 + corners.mean(0)).astype(np.int32)
        cv2.fillPoly(texture, [inner], white, cv2.LINE_AA)
    else:
        cv2.rectangle(texture, (3, 3), (size - 3, size - 3), blue, -1)
    ink = (20, 20, 20, 255) if kind < 2 else white
    text = str(rng.choice(["30", "50", "P", "!", "H", "20", "A"]))
    (width, height), _ = cv2.getTextSize(text, FONTS[0], 0.7, 2)
    origin = (middle - width // 2, middle + height // 2 + (4 if kind == 1 else 0))
    cv2.putText(texture, text, origin, FONTS[0], 0.7, ink, 2, cv2.LINE_AA)
    return texture
