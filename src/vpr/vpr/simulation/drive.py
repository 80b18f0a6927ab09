"""The route round the town and the true pose at every odometry stamp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from vpr.geometry import pose_from_xy_yaw
from vpr.records import Pose
from vpr.simulation.config import SimulationConfig
from vpr.simulation.town import LANE_OFFSET, TownPlan
from vpr.simulation.traffic import LEADER_GAP

SPACING = 0.05  # m between points of a route
BEND_RADIUS = 7.0  # m
COMFORT = 2.2  # m/s^2, sideways in bends and lengthways before and after them


@dataclass(frozen=True)
class Route:
    """A path on the ground, one point each ``SPACING`` metres of its centre line.

    ``closed_length`` is the length of one lap; lap n begins at point n * closed_length / SPACING.
    """

    points: NDArray[np.float64]  # (N, 2)
    heading: NDArray[np.float64]  # (N,) unwrapped
    closed_length: float

    def pose_at(self, distance: float) -> Pose:
        """map_T_base after ``distance`` metres along the centre line, clamped to the route."""
        at = np.clip(distance / SPACING, 0, len(self.points) - 1)
        index = np.arange(len(self.points))
        x, y = (float(np.interp(at, index, self.points[:, k])) for k in (0, 1))
        return pose_from_xy_yaw(x, y, float(np.interp(at, index, self.heading)))


@dataclass(frozen=True)
class Drive:
    """True poses at all odometry stamps; every ``image_stride``-th of them has an image."""

    route: Route
    stamps_ns: NDArray[np.int64]  # (N,)
    distance: NDArray[np.float64]  # (N,) m along the route
    poses: NDArray[np.float64]  # (N, 4, 4) map_T_base
    lap: NDArray[np.int64]  # (N,) from 0
    image_stride: int

    def seconds(self, index: int) -> float:
        """Time since the drive began."""
        return float(self.stamps_ns[index] - self.stamps_ns[0]) * 1e-9

    @property
    def image_indices(self) -> NDArray[np.int64]:
        """Samples at which an image is taken."""
        return np.arange(0, len(self.stamps_ns), self.image_stride)


def plan_drive(seed: int, plan: TownPlan, config: SimulationConfig) -> Drive:
    """Laps round the plan's loop, each on its own line and at its own speed."""
    rng = np.random.default_rng([seed, 104])
    centre = _centre_line(plan.loop)
    laps = [_sway(rng, centre, config.lateral_sway) for _ in range(config.laps + 1)]
    tail = round((config.tail + LEADER_GAP[1]) / SPACING)  # the car ahead needs road as well
    offsets = np.concatenate([*laps[:-1], laps[-1][:tail]])
    offsets = gaussian_filter1d(offsets, 4.0 / SPACING)  # change lines over a few metres
    repeated = np.concatenate([centre] * config.laps + [centre[:tail]])
    route = _shifted(repeated, offsets, len(centre) * SPACING)
    speed = _speed_profile(route, config.speed)
    factor = np.concatenate(
        [np.full(len(centre), f) for f in 1.0 + rng.uniform(-0.1, 0.1, config.laps + 1)]
    )[: len(speed)]
    return _timed(route, speed * gaussian_filter1d(factor, 4.0 / SPACING), config)


def _centre_line(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Closed polyline through the right-hand lane, bends rounded."""
    points = []
    count = len(corners)
    for i in range(count):
        before, at, after = corners[i - 1], corners[i], corners[(i + 1) % count]
        into = (at - before) / np.linalg.norm(at - before)
        out = (after - at) / np.linalg.norm(after - at)
        right_in, right_out = np.array([into[1], -into[0]]), np.array([out[1], -out[0]])
        corner = at + LANE_OFFSET * (right_in + right_out)
        centre = corner - BEND_RADIUS * into + BEND_RADIUS * out
        angle = np.linspace(0.0, np.pi / 2, 200)[:, None]
        points.append(centre - BEND_RADIUS * (np.cos(angle) * out - np.sin(angle) * into))
    outline = np.concatenate([*points, points[0][:1]])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    along = np.linspace(0.0, length[-1], round(length[-1] / SPACING) + 1)[:-1]
    line = np.column_stack([np.interp(along, length, outline[:, k]) for k in (0, 1)])
    return np.asarray(gaussian_filter1d(line, 1.2 / SPACING, axis=0, mode="wrap"))


def _sway(
    rng: np.random.Generator, centre: NDArray[np.float64], amplitude: float
) -> NDArray[np.float64]:
    """Slowly varying sideways offset of one lap, metres to the left."""
    turns = np.linspace(0.0, 2 * np.pi, len(centre), endpoint=False)
    waves = np.sin(turns * rng.integers(2, 5) + rng.uniform(0, 2 * np.pi))
    return np.asarray(amplitude * (0.5 * waves + rng.uniform(-0.5, 0.5)))


def _shifted(
    centre: NDArray[np.float64], offsets: NDArray[np.float64], closed_length: float
) -> Route:
    step = np.gradient(centre, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    points = centre + offsets[:, None] * np.column_stack([-step[:, 1], step[:, 0]])
    step = np.gradient(points, axis=0)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    return Route(points, heading, closed_length)


def _speed_profile(route: Route, speed: float) -> NDArray[np.float64]:
    """Speed at each point: slower where the route bends, changing within ``COMFORT``."""
    bend = np.abs(np.gradient(route.heading, SPACING))
    limit = np.minimum(speed, np.sqrt(COMFORT / np.maximum(bend, 1e-6)))
    for order in (range(1, len(limit)), range(len(limit) - 2, -1, -1)):
        for i in order:
            neighbour = limit[i - 1] if order.step > 0 else limit[i + 1]
            limit[i] = min(limit[i], np.sqrt(neighbour**2 + 2 * COMFORT * SPACING))
    return np.asarray(limit)


def _timed(route: Route, speed: NDArray[np.float64], config: SimulationConfig) -> Drive:
    time = np.concatenate([[0.0], np.cumsum(SPACING / speed[:-1])])
    end = time[round((config.laps * route.closed_length + config.tail) / SPACING)]
    count = int(end * config.odometry_rate) + 1
    ticks = np.arange(count) / config.odometry_rate
    distance = np.interp(ticks, time, np.arange(len(time)) * SPACING)
    poses = np.array([route.pose_at(d) for d in distance])
    stamps = config.start_ns + np.round(ticks * 1e9).astype(np.int64)
    lap = (distance / route.closed_length).astype(np.int64)
    return Drive(route, stamps, distance, poses, lap, config.odometry_per_image)
