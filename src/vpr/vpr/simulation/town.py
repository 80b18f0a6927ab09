"""The town plan: a grid of streets around blocks. Metres, map frame, x east and y north."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROAD_HALF_WIDTH = 4.4
PAVEMENT_WIDTH = 2.6
STREET_HALF_WIDTH = ROAD_HALF_WIDTH + PAVEMENT_WIDTH
LANE_OFFSET = 1.4  # driving on the right, beside the parked cars
MARGIN = 34.0  # m of town outside the outermost streets


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
            for x0, x1 in zip(xs[:-1], xs[1:], strict=True)
            for y0, y1 in zip(ys[:-1], ys[1:], strict=True)
        ]


def plan_town(seed: int) -> TownPlan:
    """Streets 30 to 37 m apart and a loop of about 190 to 270 m around two or three blocks."""
    rng = np.random.default_rng([seed, 101])
    easts = np.cumsum(np.concatenate([[0.0], rng.uniform(30.0, 37.0, 3)]))
    norths = np.cumsum(np.concatenate([[0.0], rng.uniform(30.0, 37.0, 2)]))
    if rng.random() < 0.5:  # around two blocks
        column = int(rng.integers(2))
        corners = [(column, 0), (column + 2, 0), (column + 2, 1), (column, 1)]
    else:  # around three, in an L
        column = int(rng.integers(2))
        corners = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
        corners = [(column + i, j) for i, j in corners]
    if rng.random() < 0.5:
        corners.reverse()
    start = int(rng.integers(len(corners)))
    corners = corners[start:] + corners[:start]
    return TownPlan(easts, norths, np.array([(easts[i], norths[j]) for i, j in corners]))
