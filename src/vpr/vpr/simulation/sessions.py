"""Two sessions in one town, under another light and among other cars and people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.records import Image
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import plan_drive
from vpr.simulation.recording import take_shot
from vpr.simulation.world import build_world
from vpr.supervision.overlap import Viewpoints2D

SAME_PLACE = 5.0  # m
SAME_VIEW = np.radians(30.0)
IMAGE_SIZE = (320, 240)  # px
STRIDE = 3  # images of the drive from one place to the next: about 2.4 m


@dataclass(frozen=True)
class TwoSessions:
    """One town driven through twice; poses (N, 4, 4) are map_T_base."""

    references: list[Image]
    reference_poses: NDArray[np.float64]
    queries: list[Image]
    query_poses: NDArray[np.float64]

    @property
    def reference_views(self) -> Viewpoints2D:
        """Where the first session's camera stood and looked."""
        return _views(self.reference_poses)

    @property
    def query_views(self) -> Viewpoints2D:
        """Where the second session's camera stood and looked."""
        return _views(self.query_poses)

    @property
    def correct(self) -> list[frozenset[int]]:
        """The references of each query within ``SAME_PLACE`` and ``SAME_VIEW`` of it."""
        near = same_place(self.query_poses, self.reference_poses)
        return [frozenset(np.flatnonzero(row).tolist()) for row in near]


def drive_twice(seed: int, stride: int = STRIDE) -> TwoSessions:
    """Render both sessions of a town; the same seed gives the same images."""
    config = SimulationConfig(image_width=IMAGE_SIZE[0], image_height=IMAGE_SIZE[1])
    world = build_world(seed, config.camera(), config.camera_height)
    drive = plan_drive(seed, world.plan, config)
    chosen = drive.image_indices[::stride]
    sessions = [chosen[drive.lap[chosen] == lap] for lap in (0, 1)]
    images = [[take_shot(world, drive, int(i), config).image for i in rows] for rows in sessions]
    poses = [drive.poses[rows] for rows in sessions]
    return TwoSessions(images[0], poses[0], images[1], poses[1])


def same_place(queries: NDArray[np.float64], references: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, M) whether poses (N, 4, 4) and (M, 4, 4) lie and look as near as a revisit must."""
    apart = queries[:, None, :2, 3] - references[None, :, :2, 3]
    cosine = np.einsum("qi,ri->qr", queries[:, :2, 0], references[:, :2, 0])
    near = np.hypot(apart[..., 0], apart[..., 1]) <= SAME_PLACE
    return np.asarray(near & (cosine >= np.cos(SAME_VIEW)))


def _views(poses: NDArray[np.float64]) -> Viewpoints2D:
    return Viewpoints2D(poses[:, :2, 3], np.arctan2(poses[:, 1, 0], poses[:, 0, 0]))
