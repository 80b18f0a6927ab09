"""Panels: the upright textured rectangles that everything above the ground is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vpr.simulation.labels import Label

Point = tuple[float, float]
Colour = tuple[float, float, float]  # BGR factors, 1 leaves the texture as it is

WHITE: Colour = (1.0, 1.0, 1.0)


class Panel(NamedTuple):
    """An upright rectangle over the ground segment start -> end (metres, map frame).

    Seen from its front, start is at the left. ``bottom`` and ``top`` are metres above the ground.
    ``window`` is the part of the texture shown, in texels: left, right, top, bottom; it may run
    over the texture's edge, which then repeats. ``shaded`` is how much the sun's direction
    matters: 1 for a flat wall, 0 for foliage and people.
    """

    start: Point
    end: Point
    bottom: float
    top: float
    texture: int
    window: tuple[float, float, float, float]
    label: Label
    tint: Colour = WHITE
    shaded: float = 1.0


@dataclass(frozen=True)
class PanelSet:
    """N panels as arrays; fields as in :class:`Panel`."""

    ends: NDArray[np.float64]  # (N, 4) start x y, end x y
    heights: NDArray[np.float64]  # (N, 2) bottom, top
    texture: NDArray[np.int64]  # (N,)
    window: NDArray[np.float64]  # (N, 4)
    label: NDArray[np.uint8]  # (N,)
    tint: NDArray[np.float64]  # (N, 3)
    shaded: NDArray[np.float64]  # (N,)

    @classmethod
    def of(cls, panels: Iterable[Panel]) -> PanelSet:
        """Arrays of a list of panels, which may be empty."""
        listed = list(panels)
        count = len(listed)
        return cls(
            np.array([(*p.start, *p.end) for p in listed], np.float64).reshape(count, 4),
            np.array([(p.bottom, p.top) for p in listed], np.float64).reshape(count, 2),
            np.array([p.texture for p in listed], np.int64),
            np.array([p.window for p in listed], np.float64).reshape(count, 4),
            np.array([p.label for p in listed], np.uint8),
            np.array([p.tint for p in listed], np.float64).reshape(count, 3),
            np.array([p.shaded for p in listed], np.float64),
        )

    def __len__(self) -> int:
        return len(self.texture)

    def __add__(self, other: PanelSet) -> PanelSet:
        return PanelSet(
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in self.__dataclass_fields__
            )
        )

    def normals(self) -> NDArray[np.float64]:
        """(N, 2) unit normals in the ground plane, pointing to the front."""
        along = self.ends[:, 2:] - self.ends[:, :2]
        normal = np.column_stack([along[:, 1], -along[:, 0]])
        unit: NDArray[np.float64] = normal / np.linalg.norm(normal, axis=1, keepdims=True)
        return unit
