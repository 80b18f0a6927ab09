"""The pose graph over time that learned loop closures keep in shape (Pillai & Leonard V-B, Fig. 9).

Odometry is the GPS track with the paper's noise a step, closures say no more than "the same
place", and both go through the suite's own pose graph in SE(2).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vpr.config import FineTuningConfig, PoseGraphConfig
from vpr.geometry import pose_from_xy_yaw, relative
from vpr.graph.pose_graph import PoseGraph
from vpr.learning.drives import Drives
from vpr.models.calibration import ReducedMap
from vpr.places.index import make_index
from vpr.records import ClosureState, Keyframe, LoopClosure, Pose

TRANSLATION_NOISE = 5e-2  # m a step
ROTATION_NOISE = 1e-3  # rad a step
YAW_BIAS = 2e-3  # rad a step; white noise of the paper's size alone does not drift visibly
STAGES = (0.25, 0.5, 0.75, 1.0)  # of the drive: t1 < t2 < t3 < T


@dataclass(frozen=True)
class GraphStage:
    """The graph after part of a drive: positions (N, 2) in m, closures (M, 2) rows."""

    share: float
    measured: NDArray[np.float64]
    optimised: NDArray[np.float64]
    truth: NDArray[np.float64]
    closures: NDArray[np.int64]

    @property
    def errors(self) -> tuple[float, float]:
        """RMSE in m of the measured and of the optimised positions, from a common start."""
        return (
            float(np.sqrt(((self.measured - self.truth) ** 2).sum(axis=1).mean())),
            float(np.sqrt(((self.optimised - self.truth) ** 2).sum(axis=1).mean())),
        )


def close_loops(
    embeddings: NDArray[np.float32],
    drives: Drives,
    impostors: NDArray[np.float64],
    calibration: ReducedMap,
    threshold: float,
    config: FineTuningConfig,
    seed: int = 0,
) -> list[GraphStage]:
    """Drive one drive's keyframes with drifting odometry, closing loops below a distance.

    As the paper's robot does (IV-C): keyframes go into an index one by one, and the nearest within
    the distance, of those that were not just seen, is a loop closure.

    Args:
        drives: one drive, in order of time.
        impostors: (N,) impostor distance of each row.
        threshold: reduced distance, see ``calibration``.
    """
    truth = _poses(drives)
    odometry = _drifting(truth, seed)
    remembered = make_index(config.index, embeddings.shape[1])
    graph = PoseGraph(
        PoseGraphConfig.from_file(
            mode="se2", closure_model="weak", odometry_rotation_per_metre=YAW_BIAS
        )
    )
    stages, closed = [], []
    ends = {max(1, round(share * len(drives))): share for share in STAGES}
    for row in range(len(drives)):
        graph.add_keyframe(_keyframe(row, int(drives.stamps_ns[row]), odometry[row]))
        last_old = row - config.exclude_recent_keyframes - 1
        if last_old >= 0:
            remembered.add(embeddings[last_old : last_old + 1])
        near: list[int] = []
        if len(remembered):
            own = (impostors[row] + impostors[: len(remembered)]) / 2.0
            offsets = calibration.reduced(0.0, own, len(remembered))
            found = remembered.within(embeddings[row], threshold - float(offsets.min()))
            reduced = found.distances + offsets[found.rows]
            near = found.rows[reduced <= threshold][:1].tolist()
        closed += [(place, row) for place in near if _accepted(graph, row, place, drives)]
        if row + 1 in ends:
            stages.append(_stage(ends[row + 1], graph, odometry, truth, closed))
    return stages


def _poses(drives: Drives) -> list[Pose]:
    """The true poses, their positions from the first one."""
    views = drives.viewpoints
    return [
        pose_from_xy_yaw(float(x), float(y), float(yaw))
        for (x, y), yaw in zip(views.positions - views.positions[0], views.headings, strict=True)
    ]


def _drifting(truth: list[Pose], seed: int) -> list[Pose]:
    rng = np.random.default_rng(seed)
    poses = [truth[0]]
    for before, after in pairwise(truth):
        x, y = rng.normal(0.0, TRANSLATION_NOISE, 2)
        noise = pose_from_xy_yaw(x, y, float(rng.normal(YAW_BIAS, ROTATION_NOISE)))
        poses.append(poses[-1] @ relative(before, after) @ noise)
    return poses


def _keyframe(row: int, stamp_ns: int, odometry: Pose) -> Keyframe:
    return Keyframe(row, 0, stamp_ns, np.ones(1, np.float32), "evaluated", odometry)


def _accepted(graph: PoseGraph, query: int, reference: int, drives: Drives) -> bool:
    stamps = drives.stamps_ns
    closure = LoopClosure(
        query, 0, int(stamps[query]), reference, 0, int(stamps[reference]),
        ClosureState.VERIFIED, "near in the embedding",
    )  # fmt: skip
    return graph.add_closure(closure).state == ClosureState.VERIFIED


def _stage(
    share: float,
    graph: PoseGraph,
    odometry: list[Pose],
    truth: list[Pose],
    closed: list[tuple[int, int]],
) -> GraphStage:
    nodes = graph.nodes()
    count = len(nodes)
    start = truth[0] @ np.linalg.inv(nodes[0].pose)
    optimised = np.array([(start @ node.pose)[:2, 3] for node in nodes])
    return GraphStage(
        share,
        np.array([pose[:2, 3] for pose in odometry[:count]]),
        optimised,
        np.array([pose[:2, 3] for pose in truth[:count]]),
        np.array(closed, np.int64).reshape(-1, 2),
    )
