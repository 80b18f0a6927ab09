"""What loops found by a retrieval method do for the pose graph (S3E-GNN Tables I and II)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig, PoseGraphConfig
from vpr.evaluation.loop_search import Closing, Loop, Overlaid, OverlaidViews, by_features
from vpr.evaluation.trajectory import StampedPoses, absolute_trajectory_error
from vpr.evaluation.view_search import Search
from vpr.evaluation.view_verification import ViewVerifier
from vpr.geometry import relative, rotation_from_vector
from vpr.graph.pose_graph import PoseGraph
from vpr.records import ClosureState, Keyframe, LoopClosure, Pose
from vpr.relocalization.rgbd import RgbdSequence

TRANSLATION_NOISE = 0.02  # of the way, each axis, standard deviation
ROTATION_NOISE = 0.01  # rad a step about each axis
YAW_BIAS = 0.004  # rad a step, of either sign, standard deviation over drives
TRANSLATION_SIGMA, ROTATION_SIGMA = 0.01, 0.015  # m and rad a step: what the graph is told of it
NO_LOOPS, OVERLAID = "no loops", "views laid over"

Row = dict[str, object]


def loop_methods(searches: Iterable[str]) -> list[str]:
    """Names of the rows: none, and both ways of ``loop_search`` by each retrieval method."""
    return [NO_LOOPS, *(name + way for name in searches for way in ("", f", {OVERLAID}"))]


class LoopDrives:
    """A pose graph over all laps of a sequence, driven in one go under a drifting odometry.

    All methods have the same odometry of a seed and the same back end.
    """

    def __init__(
        self, sequence: RgbdSequence, searches: Mapping[str, Search], verify: ViewVerifier
    ) -> None:
        self._sequence, self._searches, self._verify = sequence, searches, verify
        self._ways: dict[str, Closing] = {NO_LOOPS: lambda _query, _believed: []}
        self._views: OverlaidViews | None = None

    def row(self, method: str, seed: int) -> Row:
        """ATE (m) of a method, see ``loop_methods``, how many loops it found and how many held."""
        if method not in self._ways:
            self._ways[method] = self._way(method)
        odometry = drifting(self._sequence.poses, seed)
        figures = _driven(self._sequence, odometry, self._ways[method])
        return {"level": self._sequence.name, "method": method, "seed": seed, **figures}

    def _way(self, method: str) -> Closing:
        name = method.removesuffix(f", {OVERLAID}")
        found = self._searches[name](self._sequence)
        if name == method:
            return by_features(found, self._verify)
        if self._views is None:
            config = LoopClosureConfig.from_file()
            self._views = OverlaidViews(self._sequence, self._verify, config)
        return Overlaid(found, self._views)


def loop_summary(rows: Sequence[Row]) -> list[Row]:
    """Mean ATE over levels and seeds of each method, its spread over seeds, and what it saves."""
    result: list[Row] = []
    errors = {
        name: np.array([row["ate_m"] for row in rows if row["method"] == name], np.float64)
        for name in dict.fromkeys(str(row["method"]) for row in rows)
    }
    for name, values in errors.items():
        own = [row for row in rows if row["method"] == name]
        result.append(
            {
                "method": name,
                "runs": len(values),
                "ate_m": float(values.mean()),
                "ate_spread_m": float(values.std()),
                "loops_taken": float(np.mean([int(str(row["loops_taken"])) for row in own])),
                "below_no_loops": 1.0 - float(values.mean() / errors[NO_LOOPS].mean()),
            }
        )
    return result


def drifting(poses: NDArray[np.float64], seed: int) -> list[Pose]:
    """Odometry of a drive through ``poses`` (N, 4, 4): noise on every step and a bias in yaw."""
    rng = np.random.default_rng(seed)
    bias = rng.normal(0.0, YAW_BIAS)
    result = [poses[0]]
    for before, after in pairwise(poses):
        step = relative(before, after)
        length = float(np.linalg.norm(step[:3, 3]))
        turn = rng.normal(0.0, ROTATION_NOISE, 3)
        turn[1] += bias  # the camera's y axis points down
        noise = np.eye(4)
        noise[:3, :3] = rotation_from_vector(turn)
        noise[:3, 3] = rng.normal(0.0, TRANSLATION_NOISE * length, 3)
        result.append(result[-1] @ step @ noise)
    return result


def _driven(sequence: RgbdSequence, odometry: list[Pose], close: Closing) -> Row:
    """ATE in m, how many loops were found, and how many of these the graph took."""
    graph = PoseGraph(
        PoseGraphConfig.from_file(
            odometry_translation_sigma=TRANSLATION_SIGMA, odometry_rotation_sigma=ROTATION_SIGMA
        )
    )
    descriptor = np.ones(1, np.float32)
    stamps = [int(stamp) for stamp in sequence.stamps_ns]
    found = taken = 0
    for row, pose in enumerate(odometry):
        graph.add_keyframe(Keyframe(row, 0, stamps[row], descriptor, "evaluated", pose))
        for loop in close(row, lambda: [node.pose for node in graph.nodes()]):
            verdict = graph.add_closure(_closure(loop, stamps))
            found, taken = found + 1, taken + (verdict.state is ClosureState.VERIFIED)
    graph.settle()
    measured = StampedPoses(tuple(stamps), tuple(node.pose for node in graph.nodes()))
    truth = StampedPoses(tuple(stamps), tuple(sequence.poses))
    ate = absolute_trajectory_error(measured, truth)
    return {"ate_m": ate, "loops": found, "loops_taken": int(taken)}


def _closure(loop: Loop, stamps: Sequence[int]) -> LoopClosure:
    return LoopClosure(
        loop.query, 0, stamps[loop.query], loop.reference, 0, stamps[loop.reference],
        ClosureState.VERIFIED, "verified",
        inliers=loop.motion.inliers,
        relative_pose=loop.motion.pose,
        covariance=loop.motion.covariance,
    )  # fmt: skip
