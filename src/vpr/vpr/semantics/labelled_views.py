"""Labelled images of simulated towns to learn segmentation from, and to be judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from vpr.records import Image
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import plan_drive
from vpr.simulation.recording import take_shot
from vpr.simulation.world import build_world

WIDTH, HEIGHT = 320, 240  # px
FIELD_OF_VIEW = (60.0, 100.0)  # degrees, drawn for each town: robots carry different cameras
CAMERA_HEIGHT = (0.8, 2.2)  # m, drawn as well


@dataclass(frozen=True)
class LabelledViews:
    """N images with the class of each pixel (Cityscapes train ids)."""

    images: NDArray[np.uint8]  # (N, H, W, 3) BGR
    labels: NDArray[np.uint8]  # (N, H, W)

    def __len__(self) -> int:
        return len(self.images)


def render_views(seeds: Sequence[int], views_per_town: int) -> LabelledViews:
    """Views spread evenly over the drive of each town, of morning and evening."""
    shots = [
        shot
        for seed in track(seeds, description="rendering towns", transient=True)
        for shot in _views_of_town(seed, views_per_town)
    ]
    return LabelledViews(
        np.stack([image for image, _ in shots]), np.stack([labels for _, labels in shots])
    )


def _views_of_town(seed: int, count: int) -> Iterator[tuple[Image, NDArray[np.uint8]]]:
    rng = np.random.default_rng([seed, 501])
    config = SimulationConfig(
        image_width=WIDTH,
        image_height=HEIGHT,
        horizontal_fov=float(rng.uniform(*FIELD_OF_VIEW)),
        camera_height=float(rng.uniform(*CAMERA_HEIGHT)),
    )
    world = build_world(seed, config.camera(), config.camera_height)
    drive = plan_drive(seed, world.plan, config)
    for index in np.linspace(0, len(drive.stamps_ns) - 1, count).astype(int):
        shot = take_shot(world, drive, int(index), config)
        yield shot.image, shot.labels
