"""Absolute trajectory error and TUM files, by the evo library."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from evo.core.geometry import GeometryException
from evo.core.metrics import APE, PoseRelation
from evo.core.trajectory import PoseTrajectory3D
from numpy.typing import NDArray

from vpr.geometry import PoseTrack, PoseUnavailable, quaternion_of
from vpr.records import Pose


class TrajectoryError(ValueError):
    """Two trajectories that cannot be compared; says why."""


@dataclass(frozen=True)
class StampedPoses:
    """A trajectory: N stamps in ns, ascending, and N poses in one frame."""

    stamps_ns: tuple[int, ...]
    poses: tuple[Pose, ...]

    @property
    def positions(self) -> NDArray[np.float64]:
        """(N, 3) metres."""
        return np.array([pose[:3, 3] for pose in self.poses]).reshape(-1, 3)

    def transformed(self, transform: Pose) -> StampedPoses:
        """The same in another frame: ``transform`` takes this frame's points there."""
        return StampedPoses(self.stamps_ns, tuple(transform @ pose for pose in self.poses))


def sampled(track: PoseTrack, stamps_ns: Sequence[int]) -> StampedPoses:
    """A track at the asked stamps, leaving out those it does not cover."""
    stamps, poses = [], []
    for stamp in stamps_ns:
        try:
            poses.append(track.at(stamp))
        except PoseUnavailable:
            continue
        stamps.append(stamp)
    return StampedPoses(tuple(stamps), tuple(poses))


def alignment(estimate: StampedPoses, truth: StampedPoses) -> Pose:
    """truth_T_estimate: the rigid transform (no scale) of least squared position error (Umeyama).

    Raises:
        TrajectoryError: stamps differ, or fewer than 3 poses, or all on one spot or line.
    """
    if estimate.stamps_ns != truth.stamps_ns:
        raise TrajectoryError("trajectories to compare must have the same stamps")
    if len(estimate.stamps_ns) < 3:
        raise TrajectoryError(f"{len(estimate.stamps_ns)} common poses; alignment needs 3")
    moving = _evo(estimate)
    try:
        rotation, translation, _ = moving.align(_evo(truth))
    except GeometryException as error:
        raise TrajectoryError(f"trajectories cannot be aligned: {error}") from error
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, translation
    return transform


def absolute_trajectory_error(
    estimate: StampedPoses, truth: StampedPoses, align: bool = True
) -> float:
    """RMSE of positions in metres, after rigid alignment (as ``evo_ape tum -a``) or without.

    Raises:
        TrajectoryError: as ``alignment``.
    """
    if align:
        estimate = estimate.transformed(alignment(estimate, truth))
    error = APE(PoseRelation.translation_part)
    error.process_data((_evo(truth), _evo(estimate)))
    return float(np.sqrt(np.mean(np.square(error.error))))


def write_tum(path: Path, trajectory: StampedPoses) -> None:
    """Write ``stamp x y z qx qy qz qw`` lines (seconds, metres) atomically."""
    lines = []
    for stamp, pose in zip(trajectory.stamps_ns, trajectory.poses, strict=True):
        numbers = " ".join(f"{value:.9f}" for value in (*pose[:3, 3], *quaternion_of(pose)))
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} {numbers}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text("".join(lines))
    unfinished.replace(path)


def _evo(trajectory: StampedPoses) -> PoseTrajectory3D:
    return PoseTrajectory3D(
        poses_se3=[copy.copy(pose) for pose in trajectory.poses],
        timestamps=np.array(trajectory.stamps_ns, np.float64) / 1e9,
    )
