"""Cars and people: other ones on each lap, some parked, some moving with time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from vpr.records import Pose
from vpr.simulation import props
from vpr.simulation.atlas import AtlasBuilder
from vpr.simulation.furniture import upright
from vpr.simulation.labels import Label
from vpr.simulation.panels import Panel, PanelSet, Point
from vpr.simulation.town import LANE_OFFSET, ROAD_HALF_WIDTH, STREET_HALF_WIDTH, TownPlan

CARS, PEOPLE = 90, 16
PARKED_OFFSET = ROAD_HALF_WIDTH - 0.95  # m from the centre line to a parked car's middle
BONNET_SLICES, BOOT_SLICES = (
    (0.23, 0.27, 0.31, 0.35, 0.39, 0.43, 0.46),
    (-0.35, -0.38, -0.41, -0.44, -0.46),
)  # car lengths
PERSONAL_SPACE = 3.5  # m; nothing that moves is drawn nearer to the camera than this
LEADER_GAP = (8.0, 50.0)  # m, nearest and farthest the car ahead is
LEADER_PERIOD = 26.0  # s after which another one drives ahead


@dataclass(frozen=True)
class CarTextures:
    """A painted car from its right side, from the front and from behind."""

    side: int
    front: int
    back: int


@dataclass(frozen=True)
class Mover:
    """Something that goes up and down one straight line for ever (metres, seconds)."""

    start: Point
    direction: Point
    length: float
    speed: float
    phase: float
    car: CarTextures | None  # None for a person
    person: int = 0

    def at(self, time: float) -> Point:
        """Where it is; at the end of its line it starts over."""
        along = (self.phase + self.speed * time) % self.length
        return (
            self.start[0] + along * self.direction[0],
            self.start[1] + along * self.direction[1],
        )


@dataclass(frozen=True)
class Traffic:
    """Everything of one lap that is not there on the next."""

    builder: AtlasBuilder
    parked: PanelSet
    movers: tuple[Mover, ...]
    leaders: tuple[CarTextures, ...]  # driving ahead in turns; may be empty

    def panels(self, time: float, camera: Pose, ahead: Pose | None) -> PanelSet:
        """Parked and moving things at a time; ``ahead`` is where the leading car drives."""
        panels: list[Panel] = []
        eye = camera[:2, 3]
        for mover in self.movers:
            place = mover.at(time)
            if np.hypot(place[0] - eye[0], place[1] - eye[1]) < PERSONAL_SPACE:
                continue
            if mover.car is not None:
                heading = float(np.arctan2(mover.direction[1], mover.direction[0]))
                panels += car_panels(self.builder, place, heading, mover.car)
            else:
                towards = float(np.arctan2(eye[1] - place[1], eye[0] - place[0]))
                panels.append(upright(self.builder, place, towards, mover.person, Label.PERSON))
        if self.leaders and ahead is not None:
            leader = self.leaders[int(time / LEADER_PERIOD) % len(self.leaders)]
            heading = float(np.arctan2(ahead[1, 0], ahead[0, 0]))
            place = (float(ahead[0, 3]), float(ahead[1, 3]))
            panels += car_panels(self.builder, place, heading, leader)
        return self.parked + PanelSet.of(panels)


def leader_gap(time: float) -> float:
    """How far ahead along the route the leading car is, metres; farthest when cars change."""
    near, far = LEADER_GAP
    return near + (far - near) * (0.5 + 0.5 * float(np.cos(2 * np.pi * time / LEADER_PERIOD)))


def car_panels(
    builder: AtlasBuilder, place: Point, heading: float, car: CarTextures
) -> list[Panel]:
    """A car that faces ``heading``: two sides, two ends, each end's cabin part further in.

    Bonnet and boot have no surface of their own; slices close together stand in for it.
    """
    (length, height), (width, _) = builder.metres[car.side], builder.metres[car.front]
    texels, rows = builder.texels_of(car.front)
    waist = props.CAR_WAIST * rows  # texture row of the lower window edge
    paint = (0.5 * texels, 0.5 * texels + 1.0, waist + 2.0, waist + 3.0)
    ahead = np.array([np.cos(heading), np.sin(heading)])
    left = 0.47 * width * np.array([-ahead[1], ahead[0]])
    sides = [
        upright(builder, _moved(place, way * left), heading + way * np.pi / 2, car.side, Label.CAR)
        for way in (-1, 1)
    ]
    start, end, top, bottom = sides[1].window
    sides[1] = sides[1]._replace(window=(end, start, top, bottom))  # the right side, mirrored
    waist_height = height * (1.0 - props.CAR_WAIST)
    panels = [side._replace(shaded=0.5) for side in sides]
    for reach, texture, window, low, high in (
        (0.48, car.front, (0.0, texels, waist, rows), 0.0, waist_height),
        (0.19, car.front, (0.0, texels, 0.0, waist), waist_height, height),
        (-0.31, car.back, (0.0, texels, 0.0, waist), waist_height, height),
        (-0.48, car.back, (0.0, texels, waist, rows), 0.0, waist_height),
        *((at, car.front, paint, 0.3, 0.78) for at in BONNET_SLICES),
        *((at, car.back, paint, 0.3, 0.78) for at in BOOT_SLICES),
    ):
        way = 1.0 if texture == car.front else -1.0
        middle = _moved(place, reach * length * ahead)
        ends = _moved(middle, -way * left), _moved(middle, way * left)
        shown = (float(window[0]), float(window[1]), float(window[2]), float(window[3]))
        panels.append(Panel(*ends, low, high, texture, shown, Label.CAR, shaded=0.5))
    return panels


def _moved(place: Point, by: NDArray[np.float64]) -> Point:
    return place[0] + float(by[0]), place[1] + float(by[1])


@dataclass(frozen=True)
class TrafficStock:
    """Textures of cars and people. No car stands in two places while there are others left."""

    builder: AtlasBuilder
    cars: list[CarTextures]
    people: list[int]
    used: Iterator[int]

    def next_car(self) -> CarTextures:
        """A car that has not been used for as long as possible."""
        return self.cars[next(self.used) % len(self.cars)]


def make_traffic_stock(rng: np.random.Generator, builder: AtlasBuilder) -> TrafficStock:
    """Paint the cars and dress the people."""
    cars = []
    for _ in range(CARS):
        grey, colourful = float(rng.uniform(30, 215)), float(rng.uniform(0, 90))
        shift = np.clip(grey + colourful * rng.uniform(-1, 1, 3), 15, 235)
        paint = (float(shift[0]), float(shift[1]), float(shift[2]))
        scale = props.SCALE / float(rng.uniform(0.9, 1.12))  # small cars and large ones
        cars.append(
            CarTextures(
                builder.add(props.car_side(rng, paint), scale),
                builder.add(props.car_end(rng, paint, front=True), scale),
                builder.add(props.car_end(rng, paint, front=False), scale),
            )
        )
    people = [builder.add(props.person(rng), props.SCALE) for _ in range(PEOPLE)]
    return TrafficStock(builder, cars, people, count())


def make_traffic(seed: int, lap: int, plan: TownPlan, stock: TrafficStock) -> Traffic:
    """The cars and people of one lap."""
    rng = np.random.default_rng([seed, 103, lap])
    parked: list[Panel] = []
    movers: list[Mover] = []
    for start, direction, length, crossings in _streets(plan):
        parked += _parked(rng, stock, start, direction, length, crossings)
        movers += _moving(rng, stock, start, direction, length)
    leaders = tuple(stock.next_car() for _ in range(4)) if lap > 0 else ()
    return Traffic(stock.builder, PanelSet.of(parked), tuple(movers), leaders)


def _streets(plan: TownPlan) -> list[tuple[Point, Point, float, NDArray[np.float64]]]:
    """Start, direction, length of each street and where along it the crossings are."""
    west, south, east, north = plan.extent
    streets: list[tuple[Point, Point, float, NDArray[np.float64]]] = []
    for x in plan.easts:
        streets.append(((float(x), south), (0.0, 1.0), north - south, plan.norths - south))
    for y in plan.norths:
        streets.append(((west, float(y)), (1.0, 0.0), east - west, plan.easts - west))
    return streets


def _parked(
    rng: np.random.Generator,
    stock: TrafficStock,
    start: Point,
    direction: Point,
    length: float,
    crossings: NDArray[np.float64],
) -> list[Panel]:
    panels: list[Panel] = []
    heading = float(np.arctan2(direction[1], direction[0]))
    right = (direction[1], -direction[0])
    for side in (-1, 1):
        for along in np.arange(4.0, length - 4.0, 5.6):
            along += float(rng.uniform(-0.5, 0.5))
            if np.abs(crossings - along).min() < STREET_HALF_WIDTH + 5.5 or rng.random() > 0.4:
                continue
            offset = side * (PARKED_OFFSET + float(rng.uniform(-0.12, 0.12)))
            place = (
                float(start[0] + along * direction[0] + offset * right[0]),
                float(start[1] + along * direction[1] + offset * right[1]),
            )
            facing = heading if side > 0 else heading + np.pi
            car = stock.next_car()
            panels += car_panels(stock.builder, place, facing, car)
    return panels


def _moving(
    rng: np.random.Generator, stock: TrafficStock, start: Point, direction: Point, length: float
) -> list[Mover]:
    """One or two cars each way and people on both pavements."""
    right = (direction[1], -direction[0])
    movers = []
    for number in range(10):
        forward = bool(rng.random() < 0.5)
        car = number < 2
        across = LANE_OFFSET if car else ROAD_HALF_WIDTH + float(rng.uniform(0.9, 2.3))
        side = 1.0 if (forward if car else rng.random() < 0.5) else -1.0
        origin = (start[0] + side * across * right[0], start[1] + side * across * right[1])
        way = direction
        if not forward:
            origin = (origin[0] + length * direction[0], origin[1] + length * direction[1])
            way = (-direction[0], -direction[1])
        movers.append(
            Mover(
                origin,
                way,
                length,
                float(rng.uniform(5.0, 8.0) if car else rng.uniform(0.6, 1.6)),
                float(rng.uniform(0.0, length)),
                stock.next_car() if car else None,
                stock.people[int(rng.integers(len(stock.people)))],
            )
        )
    return movers
