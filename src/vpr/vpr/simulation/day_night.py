"""One lap round a simulated town by day and one by night, with the place of every image.

A town is rendered once, as a camera without noise would see it; what its sensor adds is drawn as
often as wanted, so that one town gives many nights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import plan_drive
from vpr.simulation.lighting import night, sunny_morning
from vpr.simulation.recording import take_shot
from vpr.simulation.world import build_world

DAY_NOISE = 1.0  # grey levels
NIGHT_NOISE = 6.0  # of a sensor at its highest gain; a night's mean is about 20
SHORT_EXPOSURE = 0.2  # of the usual one: signal over noise is as much less

Images = NDArray[np.uint8]  # (N, H, W, 3), BGR


@dataclass(frozen=True)
class NightCamera:
    """How a camera sees by night.

    Attributes:
        noise: standard deviation, grey levels; the more, the harder the night.
        cut_short: share of images whose exposure headlights cut to ``SHORT_EXPOSURE``, amplified
            to the brightness of the others with all their noise.
    """

    noise: float = NIGHT_NOISE
    cut_short: float = 0.0

    def noises(self, images: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Standard deviation of each image's noise."""
        cut = rng.random(images) < self.cut_short
        return np.where(cut, self.noise / SHORT_EXPOSURE, self.noise)


class TownError(ValueError):
    """A file that holds no town by day and by night."""


@dataclass(frozen=True)
class DayAndNight:
    """Images of the two laps and where they were taken, (N, 2) metres."""

    day: Images
    night: Images
    day_positions: NDArray[np.float64]
    night_positions: NDArray[np.float64]

    def nearest(self) -> NDArray[np.int64]:
        """(nights,) the day image taken nearest to each night image."""
        between = self.night_positions[:, None] - self.day_positions[None]
        return np.asarray(np.linalg.norm(between, axis=2).argmin(axis=1), np.int64)

    def sensed(self, camera: NightCamera, seed: int, drawing: int = 0) -> DayAndNight:
        """The same laps as a noisy sensor sees them.

        Args:
            seed, drawing: of the noise; the same ones give the same.
        """
        rng = np.random.default_rng([seed, drawing])
        exposures = np.random.default_rng([seed, drawing, 1])
        day = _with_noise(self.day, np.full(len(self.day), DAY_NOISE), rng)
        dark = _with_noise(self.night, camera.noises(len(self.night), exposures), rng)
        return replace(self, day=day, night=dark)

    def save(self, path: Path) -> None:
        """Write a file that ``read_day_and_night`` reads, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, **vars(self))
        unfinished.replace(path)


def read_day_and_night(path: Path) -> DayAndNight:
    """A town as ``DayAndNight.save`` wrote it.

    Raises:
        TownError: it is none, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            return DayAndNight(**{name: held[name] for name in held.files})
    except (OSError, ValueError, TypeError, BadZipFile) as error:
        raise TownError(f"{path} holds no town by day and by night: {error}") from error


def drive_day_and_night(seed: int, config: SimulationConfig | None = None) -> DayAndNight:
    """Drive both laps in the town of a seed, without noise; small images every couple of metres."""
    config = config or SimulationConfig(
        image_width=160, image_height=120, image_rate=3.0, tail=0.0, laps=2, image_noise=0.0
    )
    lights = (sunny_morning, night)
    world = build_world(seed, config.camera(), config.camera_height, lights)
    drive = plan_drive(seed, world.plan, config)
    laps: tuple[list[Images], list[Images]] = ([], [])
    positions: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for index in drive.image_indices.tolist():
        lap = min(int(drive.lap[index]), 1)
        laps[lap].append(take_shot(world, drive, index, config).image)
        positions[lap].append(drive.poses[index, :2, 3])
    day, dark = (np.stack(images) for images in laps)
    return DayAndNight(day, dark, np.array(positions[0]), np.array(positions[1]))


def _with_noise(images: Images, noises: NDArray[np.float64], rng: np.random.Generator) -> Images:
    seen = np.empty_like(images)
    for image, noise, sensed in zip(images, noises, seen, strict=True):
        added = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(noise)
        sensed[:] = np.rint(np.clip(image + added, 0.0, 255.0))
    return seen
