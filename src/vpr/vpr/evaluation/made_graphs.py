"""Pose graphs with known truth: real drives with made-up noise, and worlds made up whole.

Drives are in the plane, as in Pillai & Leonard (2018, V-B): each step of odometry and each revisit
is the true relative pose with Gaussian noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gtsam
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vpr.graph.g2o import G2oGraph, Matrix, Measurement, assembled

ODOMETRY_SIGMA = (0.05, 0.05, 1e-3)  # m, m, rad a step (Pillai & Leonard V-B)
MEASURED_SIGMA = (0.2, 0.2, 0.02)  # of a closure whose relative pose was measured
WEAK_SIGMA = (3.0, 3.0, 0.3)  # of one that says "the same place" (Pillai & Leonard V-B)
REVISIT_RADIUS = 3.0  # m
REVISIT_ANGLE = 0.3  # rad
REVISIT_GAP = 100  # frames at least between two views of a place for a revisit
REVISIT_EVERY = 5  # frames at which revisits are looked for


@dataclass(frozen=True)
class MadeGraph:
    """A pose graph and the true poses of its vertices."""

    graph: G2oGraph
    truth: Mapping[int, Any]


def read_kitti_poses(path: Path) -> list[gtsam.Pose2]:
    """Planar poses (x forward, y left at the start) of a KITTI odometry ground truth file.

    Raises:
        ValueError: not rows of 12 finite numbers.
    """
    rows = np.loadtxt(path, ndmin=2)
    if rows.shape[1] != 12 or not np.isfinite(rows).all():
        raise ValueError(f"{path}: a KITTI pose file has 12 finite numbers a line")
    cameras = rows.reshape(-1, 3, 4)  # x right, y down, z forward
    yaws = np.arctan2(-cameras[:, 0, 2], cameras[:, 2, 2])
    return [
        gtsam.Pose2(z, -x, yaw)
        for x, z, yaw in zip(cameras[:, 0, 3], cameras[:, 2, 3], yaws, strict=True)
    ]


def drive_graph(truth: Sequence[gtsam.Pose2], model: str, seed: int) -> MadeGraph:
    """A drive with drifting odometry and its revisits as closures, one every few frames.

    Args:
        model: ``measured`` closures carry the relative pose with noise; ``weak`` ones say "here"
            within 3 m and 0.3 rad.
    """
    rng = np.random.default_rng(seed)
    steps = [(i, i + 1) for i in range(len(truth) - 1)]
    measurements = _measured(truth, steps, ODOMETRY_SIGMA, rng)
    pairs = revisits(truth)
    if model == "measured":
        measurements += _measured(truth, pairs, MEASURED_SIGMA, rng)
    else:
        information = np.diag(1.0 / np.square(WEAK_SIGMA))
        measurements += [Measurement(one, two, gtsam.Pose2(), information) for one, two in pairs]
    return MadeGraph(assembled(3, measurements, {}), dict(enumerate(truth)))


def revisits(truth: Sequence[gtsam.Pose2]) -> list[tuple[int, int]]:
    """(earlier, later) views of one place in one direction, the nearest earlier for each later."""
    positions = np.array([[pose.x(), pose.y()] for pose in truth])
    yaws = np.array([pose.theta() for pose in truth])
    tree, pairs = cKDTree(positions), []
    for later in range(0, len(truth), REVISIT_EVERY):
        near = np.array(tree.query_ball_point(positions[later], REVISIT_RADIUS))
        near = near[near <= later - REVISIT_GAP]
        turned = np.abs(np.angle(np.exp(1j * (yaws[near] - yaws[later]))))
        near = near[turned <= REVISIT_ANGLE]
        if len(near):
            distances = np.linalg.norm(positions[near] - positions[later], axis=1)
            pairs.append((int(near[np.argmin(distances)]), later))
    return pairs


def city_graph(vertices: int, seed: int) -> MadeGraph:
    """A walk at random on a grid of streets in the plane, closed where it meets itself."""
    rng = np.random.default_rng(seed)
    side = max(3, round(np.sqrt(vertices / 8.0)))
    cell, heading = np.array([side // 2, side // 2]), 0
    directions = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
    seen: dict[tuple[int, int], list[int]] = {}
    truth, pairs = [], []
    for vertex in range(vertices):
        truth.append(gtsam.Pose2(float(cell[0]), float(cell[1]), heading * np.pi / 2))
        visits = seen.setdefault((int(cell[0]), int(cell[1])), [])
        pairs += [(one, vertex) for one in visits[-1:] if vertex - one > 10]
        visits.append(vertex)
        choices = [
            turn
            for turn in (0, 0, 0, 1, -1)
            if ((cell + directions[(heading + turn) % 4]) >= 0).all()
            and ((cell + directions[(heading + turn) % 4]) < side).all()
        ]
        heading = (heading + (int(rng.choice(choices)) if choices else 1)) % 4
        if choices:
            cell = cell + directions[heading]
    sigmas = (0.03, 0.03, 0.01)
    steps = [(i, i + 1) for i in range(vertices - 1)]
    measurements = _measured(truth, [*steps, *pairs], sigmas, rng)
    return MadeGraph(assembled(3, measurements, {}), dict(enumerate(truth)))


def sphere_graph(rings: int, a_ring: int, seed: int) -> MadeGraph:
    """A spiral up a sphere in space, tied to the ring below at every vertex."""
    rng = np.random.default_rng(seed)
    count, radius = rings * a_ring, a_ring / (2 * np.pi)
    truth = []
    for i in range(count):
        around, up = 2 * np.pi * i / a_ring, np.pi * (0.05 + 0.9 * i / count)
        outward = np.array([np.sin(up) * np.cos(around), np.sin(up) * np.sin(around), -np.cos(up)])
        along = np.array([-np.sin(around), np.cos(around), 0.0])
        axes = np.column_stack([along, np.cross(outward, along), outward])
        truth.append(gtsam.Pose3(gtsam.Rot3(axes), radius * outward))
    steps = [(i, i + 1) for i in range(count - 1)]
    below = [(i - a_ring, i) for i in range(a_ring, count)]
    sigmas = (0.01, 0.01, 0.01, 0.05, 0.05, 0.05)
    measurements = _measured(truth, [*steps, *below], sigmas, rng)
    return MadeGraph(assembled(6, measurements, {}), dict(enumerate(truth)))


def _measured(
    truth: Sequence[Any],
    pairs: Iterable[tuple[int, int]],
    sigmas: Sequence[float],
    rng: np.random.Generator,
) -> list[Measurement]:
    information: Matrix = np.diag(1.0 / np.square(sigmas))
    return [
        Measurement(
            one, two, truth[one].between(truth[two]).retract(rng.normal(0.0, sigmas)), information
        )
        for one, two in pairs
    ]


def positions_of(poses: Mapping[int, Any], vertices: Iterable[int]) -> NDArray[np.float64]:
    """(N, 3) positions in metres; a planar pose lies at height 0."""
    found = []
    for vertex in vertices:
        pose = poses[vertex]
        found.append([*pose.translation(), 0.0][:3])
    return np.array(found)
