"""The town plan: a grid of streets around blocks. Metres, map frame, x east and y north."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ROAD_HALF_WIDTH = 4.4
PAVEMENT_WIDTH = 2.6
STREET_HALF_WIDTH = ROAD_HALF_WIDTH + PAVEMENT_WIDTH
LANE_OFFSET = 1.4  # driving on the right, beside the parked cars
LOOP_LENGTH = 232.0  # m along the street centres; bends cut it shorter
MARGIN = 30.0  # m of town outside the outermost streets


@dataclass(frozen=True)
class Block:
    """Ground between streets, where houses stand: an axis-parallel rectangle."""

    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True)
class TownPlan:
    """Centre lines of the streets: ``easts`` of those running north, ``norths`` of those east."""

    easts: NDArray[np.float64]
    norths: NDArray[np.float64]
    loop: NDArray[np.float64]  # (K, 2) street crossings the route turns at, in driving order

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """West, south, east and north edge of everything drawn."""
        return (
            float(self.easts[0] - MARGIN),
            float(self.norths[0] - MARGIN),
            float(self.easts[-1] + MARGIN),
            float(self.norths[-1] + MARGIN),
        )

    def blocks(self) -> list[Block]:
        """All blocks, those outside the outermost streets included."""
        west, south, east, north = self.extent
        xs = np.concatenate([[west - STREET_HALF_WIDTH], self.easts, [east + STREET_HALF_WIDTH]])
        ys = np.concatenate([[south - STREET_HALF_WIDTH], self.norths, [north + STREET_HALF_WIDTH]])
        half = STREET_HALF_WIDTH
        return [
            Block(x0 + half, y0 + half, x1 - half, y1 - half)
            for x0, x1 in pairwise(xs)
            for y0, y1 in pairwise(ys)
        ]


def plan_town(seed: int) -> TownPlan:
    """Streets 27 to 42 m apart and a loop of about 200 m around two or three blocks."""
    rng = np.random.default_rng([seed, 101])
    if rng.random() < 0.5:  # around two blocks
        corners = [(0, 0), (2, 0), (2, 1), (0, 1)]
        spacing = LOOP_LENGTH / 6
    else:  # around three, in an L
        corners = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
        spacing = LOOP_LENGTH / 8
    easts = np.cumsum(np.concatenate([[0.0], spacing * rng.uniform(0.9, 1.1, 3)]))
    norths = np.cumsum(np.concatenate([[0.0], spacing * rng.uniform(0.9, 1.1, 2)]))
    if rng.random() < 0.5:
        corners.reverse()
    start, column = int(rng.integers(len(corners))), int(rng.integers(2))
    loop = [(easts[i + column], norths[j]) for i, j in corners[start:] + corners[:start]]
    return TownPlan(easts, norths, np.array(loop))
