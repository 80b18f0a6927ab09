"""See-through textures of trees, hedges, fences, poles, cars and people. BGR and opacity."""

from __future__ import annotations

import cv2
import numpy as np

from vpr.simulation.atlas import Texture
from vpr.simulation.textures import Bgr, cloud_noise, random_colour, scaled

SCALE = 48  # texels a metre

TREE = (4.4, 6.0)  # m, width and height
PERSON = (0.8, 1.8)
CAR_SIDE = (4.3, 1.5)
CAR_END = (1.8, 1.5)
CAR_WAIST = 0.47  # lower edge of the windows, share of the height from the top


def _blank(size: tuple[float, float], scale: int = SCALE) -> Texture:
    return np.zeros((int(size[1] * scale), int(size[0] * scale), 4), np.uint8)


def tree(rng: np.random.Generator) -> Texture:
    """Trunk, branches and a crown of leaves with holes in it."""
    texture = _blank(TREE)
    rows, columns = texture.shape[:2]
    foot = (columns // 2, rows - 1)
    crown = np.array([columns / 2, rows * rng.uniform(0.3, 0.4)])
    bark = (45, 62, 80, 255)
    cv2.line(texture, foot, (int(crown[0]), int(crown[1])), bark, int(rng.integers(9, 15)))
    for _ in range(7):
        tip = crown + rng.normal(0, 1, 2) * (columns / 5, rows / 8)
        start = (foot[0], int(rng.uniform(crown[1], rows * 0.62)))
        cv2.line(texture, start, (int(tip[0]), int(tip[1])), bark, 4, cv2.LINE_AA)
    hue = np.array([rng.uniform(20, 60), rng.uniform(95, 140), rng.uniform(50, 120)])
    lobes = crown + rng.normal(0, 1, (9, 2)) * (columns * 0.17, rows * 0.12)
    for _ in range(1500):
        lobe = lobes[int(rng.integers(len(lobes)))]
        at = lobe + rng.normal(0, 1, 2) * (columns * 0.085, rows * 0.065)
        lift = 1.0 + 0.5 * (lobe[1] - at[1]) / (rows * 0.1)  # leaves are brighter above
        colour = hue * np.clip(lift * rng.uniform(0.6, 1.15), 0.3, 1.6)
        axes = (int(rng.integers(2, 6)), int(rng.integers(1, 4)))
        cv2.ellipse(
            texture, (int(at[0]), int(at[1])), axes, float(rng.uniform(0, 180)), 0, 360,
            (*colour.tolist(), 255), -1,
        )  # fmt: skip
    return texture


def hedge(rng: np.random.Generator) -> Texture:
    """A clipped hedge, 4 m long and 1.4 m high, ragged at the top."""
    texture = _blank((4.0, 1.4))
    rows, columns = texture.shape[:2]
    leaves = cloud_noise(rng, rows, columns, 32)
    texture[..., :3] = np.array([40, 115, 70]) * (0.4 + 1.2 * leaves[..., None])
    ragged = 4 + 10 * cloud_noise(rng, 1 + columns // 4, columns, 16)[0]
    texture[..., 3] = np.where(np.arange(rows)[:, None] > ragged, 255, 0)
    for _ in range(120):
        at = (int(rng.integers(columns)), int(rng.integers(14, rows)))
        colour = (*rng.choice([[60, 170, 110], [20, 60, 35], [90, 110, 200]]).tolist(), 255)
        cv2.circle(texture, at, int(rng.integers(1, 4)), colour, -1)
    return texture


def fence(rng: np.random.Generator) -> Texture:
    """Iron bars on a low wall, 4 m long and 1.8 m high."""
    texture = _blank((4.0, 1.8))
    rows, columns = texture.shape[:2]
    iron = (*random_colour(rng, 25, 70), 255)
    for x in range(4, columns, 9):
        cv2.line(texture, (x, 6), (x, rows), iron, 2)
        cv2.circle(texture, (x, 6), 3, iron, -1)
    for y in (18, rows - 36):
        cv2.line(texture, (0, y), (columns, y), iron, 3)
    stone = cloud_noise(rng, 28, columns, 16)
    texture[-28:, :, :3] = np.array([140, 145, 150]) * (0.6 + 0.7 * stone[..., None])
    texture[-28:, :, 3] = 255
    return texture


def lamp_post(rng: np.random.Generator) -> Texture:
    """A street lamp, 1.6 m wide with its arm and 6 m high."""
    texture = _blank((1.6, 6.0))
    rows, columns = texture.shape[:2]
    iron = (*random_colour(rng, 50, 110), 255)
    x = columns // 2
    cv2.line(texture, (x, 8), (x, rows), iron, 5)
    cv2.line(texture, (x, rows - 40), (x, rows), iron, 11)
    cv2.line(texture, (x, 10), (columns - 16, 6), iron, 4, cv2.LINE_AA)
    cv2.ellipse(texture, (columns - 14, 9), (13, 5), 0, 0, 360, (190, 215, 225, 255), -1)
    return texture


def sign_pole() -> Texture:
    """A bare pole, 0.3 m wide and 3 m high."""
    texture = _blank((0.3, 3.0))
    rows, columns = texture.shape[:2]
    cv2.line(texture, (columns // 2, 0), (columns // 2, rows), (150, 152, 155, 255), 4)
    return texture


def traffic_light() -> Texture:
    """Three lights in a dark box, 0.5 x 1.1 m."""
    texture = _blank((0.5, 1.1))
    rows, columns = texture.shape[:2]
    cv2.rectangle(texture, (3, 1), (columns - 4, rows - 2), (30, 34, 34, 255), -1)
    for row, colour in enumerate(((40, 40, 220), (40, 180, 220), (90, 190, 60))):
        centre = (columns // 2, int(rows * (row + 0.5) / 3))
        cv2.circle(texture, centre, 6, (*colour, 255), -1, cv2.LINE_AA)
    return texture


def car_side(rng: np.random.Generator, paint: Bgr) -> Texture:
    """A car from its side, front to the right; no two have quite the same lines."""
    texture = _blank(CAR_SIDE)
    rows, columns = texture.shape[:2]
    body = np.array(
        [[0.01, 0.80], [0.02, 0.48], [0.14, 0.42], [0.24, 0.05], [0.62, 0.03],
         [0.76, 0.40], [0.96, 0.50], [0.99, 0.80]]
    )  # fmt: skip
    glass = np.array([[0.18, 0.40], [0.26, 0.10], [0.60, 0.09], [0.71, 0.40]])
    cabin = rng.uniform(-0.05, 0.05, 2)  # where the rear and the front window begin
    body[2:4, 0] += cabin[0]
    body[4:6, 0] += cabin[1]
    glass[:2, 0] += cabin[0]
    glass[2:, 0] += cabin[1]
    size = np.array([columns, rows])
    cv2.fillPoly(texture, [(body * size).astype(np.int32)], (*paint, 255), cv2.LINE_AA)
    cv2.fillPoly(texture, [(glass * size).astype(np.int32)], (70, 58, 48, 255), cv2.LINE_AA)
    for x in (float(rng.uniform(0.36, 0.48)), 0.66 + float(cabin[1])):
        line = (int(x * columns), int(0.08 * rows)), (int(x * columns), int(0.78 * rows))
        cv2.line(texture, *line, (*scaled(paint, 0.5), 255), 2)
    sill = (0, int(0.70 * rows)), (columns, int(0.70 * rows))
    lower = texture[int(0.70 * rows) :]
    lower[..., :3] = (lower[..., :3] * 0.7).astype(np.uint8)
    cv2.line(texture, *sill, (*scaled(paint, 0.6), texture[sill[0][1], 0, 3].item()), 1)
    spokes = int(rng.integers(3, 8))
    for x in (0.2, 0.8):
        hub = (int(x * columns), int(0.80 * rows))
        cv2.circle(texture, hub, int(0.2 * rows), (25, 25, 25, 255), -1, cv2.LINE_AA)
        cv2.circle(texture, hub, int(0.13 * rows), (165, 165, 165, 255), -1, cv2.LINE_AA)
        for angle in np.arange(spokes) * 2 * np.pi / spokes:
            rim = hub[0] + int(8 * np.cos(angle)), hub[1] + int(8 * np.sin(angle))
            cv2.line(texture, hub, rim, (60, 60, 60, 255), 2)
    return texture


def car_end(rng: np.random.Generator, paint: Bgr, front: bool) -> Texture:
    """A car from the front or from behind."""
    texture = _blank(CAR_END)
    rows, columns = texture.shape[:2]
    body = np.array(
        [[0.03, 0.9], [0.03, 0.5], [0.17, 0.05], [0.83, 0.05], [0.97, 0.5], [0.97, 0.9]]
    )
    glass = np.array([[0.13, 0.45], [0.22, 0.11], [0.78, 0.11], [0.87, 0.45]])
    size = np.array([columns, rows])
    for x in (0.14, 0.86):
        foot = (int(x * columns), int(0.97 * rows))
        cv2.line(texture, (foot[0], int(0.7 * rows)), foot, (20, 20, 20, 255), 10)
    cv2.fillPoly(texture, [(body * size).astype(np.int32)], (*paint, 255), cv2.LINE_AA)
    cv2.fillPoly(texture, [(glass * size).astype(np.int32)], (70, 58, 48, 255), cv2.LINE_AA)
    lamp = (235, 240, 245, 255) if front else (40, 40, 200, 255)
    for x in (0.14, 0.86):
        cv2.ellipse(
            texture, (int(x * columns), int(0.58 * rows)), (8, 5), 0, 0, 360, lamp, -1, cv2.LINE_AA
        )
    plate = np.array([0.34, 0.70]) * size, np.array([0.66, 0.80]) * size
    cv2.rectangle(
        texture, plate[0].astype(int).tolist(), plate[1].astype(int).tolist(),
        (235, 235, 235, 255), -1,
    )  # fmt: skip
    number = str(rng.integers(100, 999))
    origin = (int(0.4 * columns), int(0.79 * rows))
    cv2.putText(texture, number, origin, cv2.FONT_HERSHEY_PLAIN, 0.7, (20, 20, 20, 255), 1)
    return texture


def person(rng: np.random.Generator) -> Texture:
    """A walker, seen from anywhere."""
    texture = _blank(PERSON)
    rows, columns = texture.shape[:2]
    coat, legs = random_colour(rng, 20, 220), random_colour(rng, 15, 110)
    x = columns // 2
    for side in (-5, 5):
        foot = (x + 2 * side, rows - 2)
        cv2.line(texture, (x + side, rows // 2), foot, (*legs, 255), 7, cv2.LINE_AA)
        hand = (x + int(2.2 * side), int(0.52 * rows))
        shoulder = (x + int(1.6 * side), int(0.24 * rows))
        cv2.line(texture, shoulder, hand, (*scaled(coat, 0.8), 255), 5, cv2.LINE_AA)
    cv2.ellipse(
        texture, (x, int(0.36 * rows)), (11, int(0.19 * rows)), 0, 0, 360,
        (*coat, 255), -1, cv2.LINE_AA,
    )  # fmt: skip
    cv2.circle(texture, (x, int(0.1 * rows)), 7, (140, 175, 215, 255), -1, cv2.LINE_AA)
    hair = (*random_colour(rng, 10, 90), 255)
    cv2.ellipse(texture, (x, int(0.08 * rows)), (7, 5), 0, 180, 360, hair, -1, cv2.LINE_AA)
    return texture
