"""One lap round a simulated town by day and one by night, with the place of every image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.records import Image
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import plan_drive
from vpr.simulation.lighting import night, sunny_morning
from vpr.simulation.recording import take_shot
from vpr.simulation.world import build_world

NIGHT_NOISE = 6.0  # grey levels of a sensor at its highest gain; a night's mean is about 20


@dataclass(frozen=True)
class DayAndNight:
    """Images of the two laps and where they were taken, (N, 2) metres."""

    day: list[Image]
    night: list[Image]
    day_positions: NDArray[np.float64]
    night_positions: NDArray[np.float64]

    def nearest(self) -> NDArray[np.int64]:
        """(nights,) the day image taken nearest to each night image."""
        between = self.night_positions[:, None] - self.day_positions[None]
        return np.asarray(np.linalg.norm(between, axis=2).argmin(axis=1), np.int64)


def drive_day_and_night(
    seed: int, config: SimulationConfig | None = None, night_noise: float = NIGHT_NOISE
) -> DayAndNight:
    """Drive both laps in the town of a seed; small images every couple of metres.

    Args:
        night_noise: standard deviation, grey levels; the more, the harder the night.
    """
    config = config or SimulationConfig(
        image_width=160, image_height=120, image_rate=3.0, tail=0.0, laps=2
    )
    lights = (sunny_morning, night)
    world = build_world(seed, config.camera(), config.camera_height, lights)
    drive = plan_drive(seed, world.plan, config)
    noisy = config.model_copy(update={"image_noise": night_noise})
    laps: tuple[list[Image], list[Image]] = ([], [])
    positions: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for index in drive.image_indices.tolist():
        lap = min(int(drive.lap[index]), 1)
        shot = take_shot(world, drive, index, noisy if lap else config)
        laps[lap].append(shot.image)
        positions[lap].append(drive.poses[index, :2, 3])
    return DayAndNight(*laps, np.array(positions[0]), np.array(positions[1]))
