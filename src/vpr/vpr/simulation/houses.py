"""Houses along the blocks, built from a small stock of repeated parts with a few details apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vpr.simulation import facades, props, signage
from vpr.simulation.atlas import AtlasBuilder
from vpr.simulation.facades import BAY, SHOP_HEIGHT, SHOP_WIDTH, STOREY, HouseStyle
from vpr.simulation.labels import Label
from vpr.simulation.panels import Colour, Panel
from vpr.simulation.town import Block, TownPlan

STYLES = 6
PATTERNS = 8
CORNER_PATTERNS = 5  # corners are more alike than what stands between them
UPPER_BAYS, UPPER_STOREYS = 6, 4
UPPER_WINDOWS = 2 * UPPER_BAYS  # over both pictures of a style's upper floors
BAY_VARIANTS = 4
BAY_KINDS = ("shop", "door", "garage", "arch", "flat")
CORNER_WIDTH = 6.0  # m, both fronts of a corner house
DEPTH = 8.0  # m, of a terraced house
BANNER_SCALE = 34  # texels a metre; a poster as large as a window
PROUD = 0.04  # m, how far boards and posters stand off the wall

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class HousePattern:
    """A house that stands in the town many times."""

    style: int
    storeys: int
    first_window: int  # 0 .. UPPER_WINDOWS - 1
    bays: tuple[str, ...]  # ground-floor kinds, repeated along the front
    board: int  # the chain's name board


@dataclass(frozen=True)
class Stock:
    """Texture numbers of everything houses are made of, and the patterns of whole houses."""

    builder: AtlasBuilder
    walls: list[int]
    uppers: list[list[int]]
    bays: dict[tuple[int, str], list[int]]
    fence: int
    hedges: list[int]
    patterns: list[HousePattern]


def make_stock(rng: np.random.Generator, builder: AtlasBuilder) -> Stock:
    """Draw the parts; whole houses repeat ``patterns``, so the town is full of look-alikes."""
    styles = [HouseStyle.drawn(rng, number) for number in rng.permutation(8)[:STYLES]]
    scale = facades.SCALE
    walls = [builder.add(facades.wall(rng, style, 192, 192), scale) for style in styles]
    uppers = [
        [
            builder.add(facades.upper_storeys(rng, style, UPPER_BAYS, UPPER_STOREYS), scale)
            for _ in range(UPPER_WINDOWS // UPPER_BAYS)
        ]
        for style in styles
    ]
    bays = {
        (number, kind): [
            builder.add(facades.shop_bay(rng, style, kind), scale) for _ in range(BAY_VARIANTS)
        ]
        for number, style in enumerate(styles)
        for kind in BAY_KINDS
    }
    patterns = [
        HousePattern(
            style=int(rng.integers(STYLES)),
            storeys=int(rng.integers(1, UPPER_STOREYS)),
            first_window=int(rng.integers(UPPER_WINDOWS)),
            bays=tuple(str(kind) for kind in rng.choice(BAY_KINDS, 3)),
            board=builder.add(signage.name_board(rng), signage.SCALE),
        )
        for _ in range(PATTERNS)
    ]
    return Stock(
        builder,
        walls,
        uppers,
        bays,
        builder.add(props.fence(rng), props.SCALE),
        [builder.add(props.hedge(rng), props.SCALE) for _ in range(2)],
        patterns,
    )


@dataclass(frozen=True)
class Front:
    """A stretch of building line: left end seen from the street, direction, way out, length."""

    left: Vector
    along: Vector
    outward: Vector
    length: float

    def at(self, distance: float, out: float = 0.0) -> tuple[float, float]:
        """Point ``distance`` metres from the left end, ``out`` metres towards the street."""
        point = self.left + distance * self.along + out * self.outward
        return float(point[0]), float(point[1])

    def part(self, start: float, end: float, setback: float = 0.0) -> Front:
        """A shorter stretch, moved back from the street."""
        left = self.left + start * self.along - setback * self.outward
        return Front(left, self.along, self.outward, end - start)


def build_houses(rng: np.random.Generator, plan: TownPlan, stock: Stock) -> list[Panel]:
    """All houses and front gardens of the town."""
    panels: list[Panel] = []
    for block in plan.blocks():
        corners = [
            _varied(rng, stock.patterns[int(rng.integers(CORNER_PATTERNS))]) for _ in range(4)
        ]
        for side, front in enumerate(_sides(block)):
            if _faces_outside(plan, front):
                continue
            here, there = corners[side], corners[(side + 1) % 4]
            panels += _house(rng, stock, here, front.part(0.0, CORNER_WIDTH))
            panels += _house(
                rng, stock, there, front.part(front.length - CORNER_WIDTH, front.length)
            )
            panels += _terrace(rng, stock, front.part(CORNER_WIDTH, front.length - CORNER_WIDTH))
    return panels + _street_ends(rng, plan, stock)


def _varied(rng: np.random.Generator, pattern: HousePattern) -> HousePattern:
    """The pattern as it is, or with other windows, at times one storey higher."""
    if rng.random() < 0.06:
        return pattern
    storeys = pattern.storeys + int(rng.random() < 0.4)
    return replace(
        pattern,
        storeys=min(storeys, UPPER_STOREYS),
        first_window=int(rng.integers(UPPER_WINDOWS)),
    )


def _sides(block: Block) -> list[Front]:
    """South, east, north and west front, counter-clockwise."""
    corners = np.array(
        [
            (block.west, block.south),
            (block.east, block.south),
            (block.east, block.north),
            (block.west, block.north),
        ]
    )
    fronts = []
    for left, right in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = float(np.linalg.norm(right - left))
        along = (right - left) / length
        fronts.append(Front(left, along, np.array([along[1], -along[0]]), length))
    return fronts


def _faces_outside(plan: TownPlan, front: Front) -> bool:
    west, south, east, north = plan.extent
    x, y = front.at(front.length / 2, out=1.0)
    return not (west < x < east and south < y < north)


def _terrace(rng: np.random.Generator, stock: Stock, front: Front) -> list[Panel]:
    """Fill a stretch with houses and now and then a front garden."""
    panels: list[Panel] = []
    count = max(1, round(front.length / float(rng.uniform(7.0, 10.0))))
    borders = np.linspace(0.0, front.length, count + 1)
    for start, end in pairwise(borders):
        if rng.random() < 0.18:
            panels += _garden(rng, stock, front.part(start, end))
        else:
            pattern = _varied(rng, stock.patterns[int(rng.integers(len(stock.patterns)))])
            setback = float(rng.choice([0.0, 0.0, 0.5, 1.0]))
            panels += _house(rng, stock, pattern, front.part(start, end, setback))
    return panels


def _garden(rng: np.random.Generator, stock: Stock, front: Front) -> list[Panel]:
    """A fence or hedge at the street and a house wall far behind it."""
    texture = stock.fence if rng.random() < 0.5 else int(rng.choice(stock.hedges))
    label = Label.FENCE if texture == stock.fence else Label.VEGETATION
    width, height = stock.builder.texels_of(texture)
    metres = stock.builder.metres[texture]
    window = (0.0, width * front.length / metres[0], 0.0, float(height))
    fence = Panel(front.at(0), front.at(front.length), 0.0, metres[1], texture, window, label)
    back = _house(
        rng, stock, stock.patterns[int(rng.integers(PATTERNS))], front.part(0, front.length, 4.5)
    )
    return [fence, *back]


def _house(
    rng: np.random.Generator, stock: Stock, pattern: HousePattern, front: Front
) -> list[Panel]:
    tone = float(rng.uniform(0.88, 1.08))
    tint: Colour = (tone * float(rng.uniform(0.97, 1.03)), tone, tone)
    panels = _ground_floor(rng, stock, pattern, front, tint)
    panels.append(_upper_floors(stock, pattern, front, tint))
    panels += _side_walls(stock, pattern, front, tint)
    if rng.random() < 0.5:
        root = front.at(float(rng.uniform(0.1, 0.9)) * front.length, out=PROUD)
        panels += _hanging_sign(rng, stock, front, root)
    if rng.random() < 0.35:
        banner = stock.builder.add(signage.poster(rng), BANNER_SCALE)
        middle = float(rng.uniform(0.3, 0.7)) * front.length
        bottom = SHOP_HEIGHT + float(rng.uniform(0.1, STOREY * pattern.storeys - 2.5))
        panels.append(_fixed_to_wall(stock, front, middle, bottom, banner, Label.BUILDING))
    return panels


def _ground_floor(
    rng: np.random.Generator, stock: Stock, pattern: HousePattern, front: Front, tint: Colour
) -> list[Panel]:
    count = max(1, round(front.length / SHOP_WIDTH))
    width = front.length / count
    panels = []
    for index in range(count):
        kind = pattern.bays[index % len(pattern.bays)]
        texture = int(rng.choice(stock.bays[pattern.style, kind]))
        texels, rows = stock.builder.texels_of(texture)
        start, end = front.at(index * width), front.at((index + 1) * width)
        window = (0.0, float(texels), 0.0, float(rows))
        panels.append(Panel(start, end, 0.0, SHOP_HEIGHT, texture, window, Label.BUILDING, tint))
        if kind == "shop":
            board = pattern.board
            if rng.random() < 0.6:  # a shop of its own, not the chain's
                board = stock.builder.add(signage.name_board(rng), signage.SCALE)
            middle = (index + 0.5) * width
            panels.append(_fixed_to_wall(stock, front, middle, 2.72, board, Label.BUILDING))
        elif rng.random() < 0.4:
            middle = (index + float(rng.uniform(0.25, 0.75))) * width
            panels.append(_bill(rng, stock, front, middle))
    return panels


def _bill(rng: np.random.Generator, stock: Stock, front: Front, middle: float) -> Panel:
    if rng.random() < 0.6:
        texture = stock.builder.add(signage.poster(rng), signage.SCALE)
        return _fixed_to_wall(stock, front, middle, 0.9, texture, Label.BUILDING)
    texture = stock.builder.add(signage.graffiti(rng), signage.SCALE)
    middle = min(max(middle, 1.25), front.length - 1.25)
    return _fixed_to_wall(stock, front, middle, 0.5, texture, Label.BUILDING)


def _fixed_to_wall(
    stock: Stock, front: Front, middle: float, bottom: float, texture: int, label: Label
) -> Panel:
    width, height = stock.builder.metres[texture]
    texels, rows = stock.builder.texels_of(texture)
    start, end = front.at(middle - width / 2, PROUD), front.at(middle + width / 2, PROUD)
    window = (0.0, float(texels), 0.0, float(rows))
    return Panel(start, end, bottom, bottom + height, texture, window, label)


def _hanging_sign(
    rng: np.random.Generator, stock: Stock, front: Front, wall: tuple[float, float]
) -> list[Panel]:
    """Both faces of a sign square to the wall."""
    texture = stock.builder.add(signage.hanging_sign(rng), signage.SCALE)
    texels, rows = stock.builder.texels_of(texture)
    width, height = stock.builder.metres[texture]
    tip = np.array(wall) + width * front.outward
    outer = (float(tip[0]), float(tip[1]))
    bottom = float(rng.uniform(2.6, 3.6))
    window = (0.0, float(texels), 0.0, float(rows))
    faces = ((wall, outer), (outer, wall))
    thickness = 0.03 * front.along
    panels = []
    for sign, (start, end) in zip((-1, 1), faces, strict=True):
        shift = sign * thickness
        start = (start[0] + float(shift[0]), start[1] + float(shift[1]))
        end = (end[0] + float(shift[0]), end[1] + float(shift[1]))
        panels.append(Panel(start, end, bottom, bottom + height, texture, window, Label.BUILDING))
    return panels


def _upper_floors(stock: Stock, pattern: HousePattern, front: Front, tint: Colour) -> Panel:
    picture, first = divmod(pattern.first_window, UPPER_BAYS)
    texture = stock.uppers[pattern.style][picture]
    _, rows = stock.builder.texels_of(texture)
    bay = BAY * facades.SCALE
    left = first * bay
    count = max(1, round(front.length / BAY))
    top = rows - pattern.storeys * STOREY * facades.SCALE
    return Panel(
        front.at(0),
        front.at(front.length),
        SHOP_HEIGHT,
        SHOP_HEIGHT + pattern.storeys * STOREY,
        texture,
        (left, left + count * bay, top, float(rows)),
        Label.BUILDING,
        tint,
    )


def _side_walls(stock: Stock, pattern: HousePattern, front: Front, tint: Colour) -> list[Panel]:
    """Party walls, seen where the neighbour is lower or stands further back."""
    height = SHOP_HEIGHT + pattern.storeys * STOREY
    texture = stock.walls[pattern.style]
    window = (0.0, DEPTH * facades.SCALE, 0.0, height * facades.SCALE)
    inset = 0.02
    left = front.at(inset, -DEPTH), front.at(inset)
    right = front.at(front.length - inset), front.at(front.length - inset, -DEPTH)
    return [
        Panel(start, end, 0.0, height, texture, window, Label.BUILDING, tint)
        for start, end in (left, right)
    ]


def _street_ends(rng: np.random.Generator, plan: TownPlan, stock: Stock) -> list[Panel]:
    """A house across the end of every street, so that no view is empty."""
    west, south, east, north = plan.extent
    panels: list[Panel] = []
    half = 7.0
    across = (np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    fronts = []
    for x in plan.easts:
        fronts.append(Front(np.array([x - half, north]), across[0], -across[1], 2 * half))
        fronts.append(Front(np.array([x + half, south]), -across[0], across[1], 2 * half))
    for y in plan.norths:
        fronts.append(Front(np.array([east, y + half]), -across[1], -across[0], 2 * half))
        fronts.append(Front(np.array([west, y - half]), across[1], across[0], 2 * half))
    for front in fronts:
        pattern = stock.patterns[int(rng.integers(len(stock.patterns)))]
        panels += _house(rng, stock, pattern, front)
    return panels
