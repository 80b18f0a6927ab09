"""What stands on the pavements: trees, lamps, signs and traffic lights."""

from __future__ import annotations

from itertools import product

import numpy as np

from vpr.simulation import props, signage
from vpr.simulation.atlas import AtlasBuilder
from vpr.simulation.labels import Label
from vpr.simulation.panels import Panel, Point
from vpr.simulation.town import ROAD_HALF_WIDTH, STREET_HALF_WIDTH, TownPlan

KERB = ROAD_HALF_WIDTH + 0.6  # m from the street's centre line


def upright(
    builder: AtlasBuilder,
    at: Point,
    heading: float,
    texture: int,
    label: Label,
    bottom: float = 0.0,
    shaded: float = 0.0,
) -> Panel:
    """A whole texture standing upright, centred at a place, its front facing ``heading``."""
    width, height = builder.metres[texture]
    texels, rows = builder.texels_of(texture)
    half = width / 2 * np.array([-np.sin(heading), np.cos(heading)])
    start = (float(at[0] - half[0]), float(at[1] - half[1]))
    end = (float(at[0] + half[0]), float(at[1] + half[1]))
    window = (0.0, float(texels), 0.0, float(rows))
    return Panel(start, end, bottom, bottom + height, texture, window, label, shaded=shaded)


def crossed(
    builder: AtlasBuilder, at: Point, heading: float, texture: int, label: Label
) -> list[Panel]:
    """Two whole textures at right angles: something round seen from any side."""
    return [
        upright(builder, at, heading, texture, label),
        upright(builder, at, heading + np.pi / 2, texture, label),
    ]


def furnish(
    rng: np.random.Generator, plan: TownPlan, builder: AtlasBuilder
) -> tuple[list[Panel], list[Panel]]:
    """Fixed street furniture, and of it the trees that throw broad shadows."""
    trees = [builder.add(props.tree(rng), props.SCALE) for _ in range(5)]
    pole = builder.add(props.sign_pole(), props.SCALE)
    lamp = builder.add(props.lamp_post(rng), props.SCALE)
    fixed: list[Panel] = []
    crowns: list[Panel] = []
    for place, heading in _kerb_places(rng, plan):
        choice = rng.random()
        if choice < 0.34:
            tree = crossed(
                builder, place, float(rng.uniform(0, np.pi)), int(rng.choice(trees)),
                Label.VEGETATION,
            )  # fmt: skip
            fixed += tree
            crowns += tree
        elif choice < 0.58:
            fixed += crossed(builder, place, heading, lamp, Label.POLE)
        elif choice < 0.74:
            fixed += _road_sign(rng, builder, place, heading, pole)
    fixed += _traffic_lights(rng, plan, builder, pole)
    return fixed, crowns


def _kerb_places(rng: np.random.Generator, plan: TownPlan) -> list[tuple[Point, float]]:
    """Places along both kerbs, clear of the crossings, with the street's direction."""
    west, south, east, north = plan.extent
    clear = STREET_HALF_WIDTH + 4.0
    places: list[tuple[Point, float]] = []
    for x in plan.easts:
        for y in np.arange(south + 3.0, north, 6.5):
            y += float(rng.uniform(-1.5, 1.5))
            if np.abs(plan.norths - y).min() > clear:
                places += [((float(x + side * KERB), y), np.pi / 2) for side in (-1, 1)]
    for y in plan.norths:
        for x in np.arange(west + 3.0, east, 6.5):
            x += float(rng.uniform(-1.5, 1.5))
            if np.abs(plan.easts - x).min() > clear:
                places += [((x, float(y + side * KERB)), 0.0) for side in (-1, 1)]
    return places


def _road_sign(
    rng: np.random.Generator, builder: AtlasBuilder, place: Point, heading: float, pole: int
) -> list[Panel]:
    """A pole with one sign facing each way along the street."""
    panels = crossed(builder, place, heading, pole, Label.POLE)
    for face, ahead in ((heading, 0.06), (heading + np.pi, 0.06)):
        sign = builder.add(signage.road_sign(rng), signage.SCALE)
        at = (place[0] + ahead * float(np.cos(face)), place[1] + ahead * float(np.sin(face)))
        panels.append(
            upright(builder, at, face, sign, Label.TRAFFIC_SIGN, float(rng.uniform(2.0, 2.3)))
        )
    return panels


def _traffic_lights(
    rng: np.random.Generator, plan: TownPlan, builder: AtlasBuilder, pole: int
) -> list[Panel]:
    """The same light at some corners of the crossings."""
    lights = builder.add(props.traffic_light(), props.SCALE)
    panels: list[Panel] = []
    corner = STREET_HALF_WIDTH - 1.2
    for x, y, quarter in product(plan.easts, plan.norths, range(4)):
        if rng.random() < 0.4:
            continue
        angle = np.pi / 4 + quarter * np.pi / 2
        side = np.sqrt(2) * corner * np.array([np.cos(angle), np.sin(angle)])
        place = (float(x + side[0]), float(y + side[1]))
        heading = quarter * np.pi / 2
        panels += crossed(builder, place, heading, pole, Label.POLE)
        front = (place[0] + 0.05 * float(np.cos(heading)), place[1] + 0.05 * float(np.sin(heading)))
        panels.append(upright(builder, front, heading, lights, Label.TRAFFIC_LIGHT, bottom=2.1))
    return panels
