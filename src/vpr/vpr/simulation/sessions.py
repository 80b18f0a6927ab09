"""Two sessions in one town, under another light and among other cars and people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.records import CameraModel, Image
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import plan_drive
from vpr.simulation.recording import take_shot
from vpr.simulation.world import build_world
from vpr.supervision.overlap import (
    DepthViews,
    Viewpoints2D,
    depth_overlaps,
    field_of_view_overlap,
)

SAME_PLACE = 5.0  # m
SAME_VIEW = np.radians(30.0)
IMAGE_SIZE = (320, 240)  # px
REACH = 20.0  # m; in a street what is further says little about where one stands
STRIDE = 3  # images of the drive from one place to the next: about 2.4 m

BASE_T_CAMERA = np.eye(4)  # the optical frame: its z is the base's x; height cancels between views
BASE_T_CAMERA[:3, :3] = [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]


@dataclass(frozen=True)
class TwoSessions:
    """One town driven through twice; poses (N, 4, 4) are map_T_base."""

    references: list[Image]
    reference_poses: NDArray[np.float64]
    queries: list[Image]
    query_poses: NDArray[np.float64]
    reference_depths: list[NDArray[np.float32]]  # (H, W) metres
    query_depths: list[NDArray[np.float32]]
    camera: CameraModel

    @property
    def reference_views(self) -> Viewpoints2D:
        """Where the first session's camera stood and looked."""
        return _views(self.reference_poses)

    @property
    def query_views(self) -> Viewpoints2D:
        """Where the second session's camera stood and looked."""
        return _views(self.query_poses)

    def overlap(self, by_depth: bool = False) -> NDArray[np.float32]:
        """(N, M) how much queries and references see of the same, 0..1.

        Args:
            by_depth: by what is in view instead of by sectors on the ground.
        """
        if by_depth:
            queries = DepthViews(self.query_depths, self.query_poses @ BASE_T_CAMERA, self.camera)
            references = DepthViews(
                self.reference_depths, self.reference_poses @ BASE_T_CAMERA, self.camera
            )
            return depth_overlaps(queries, references, REACH)
        field_of_view = 2.0 * np.arctan2(0.5 * self.camera.width, self.camera.matrix[0, 0])
        return field_of_view_overlap(
            self.query_views, self.reference_views, float(field_of_view), REACH
        )

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
    first, second = (
        [take_shot(world, drive, int(index), config) for index in rows] for rows in sessions
    )
    return TwoSessions(
        references=[shot.image for shot in first],
        reference_poses=drive.poses[sessions[0]],
        queries=[shot.image for shot in second],
        query_poses=drive.poses[sessions[1]],
        reference_depths=[shot.depth for shot in first],
        query_depths=[shot.depth for shot in second],
        camera=config.camera(),
    )


def same_place(queries: NDArray[np.float64], references: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, M) whether poses (N, 4, 4) and (M, 4, 4) lie and look as near as a revisit must."""
    apart = queries[:, None, :2, 3] - references[None, :, :2, 3]
    cosine = np.einsum("qi,ri->qr", queries[:, :2, 0], references[:, :2, 0])
    near = np.hypot(apart[..., 0], apart[..., 1]) <= SAME_PLACE
    return np.asarray(near & (cosine >= np.cos(SAME_VIEW)))


def _views(poses: NDArray[np.float64]) -> Viewpoints2D:
    return Viewpoints2D(poses[:, :2, 3], np.arctan2(poses[:, 1, 0], poses[:, 0, 0]))
