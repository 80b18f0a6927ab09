"""What a closure costs the live pose graph on a drive of KITTI, fed as its node feeds it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gtsam
import numpy as np

from vpr.config import PoseGraphConfig
from vpr.evaluation.made_graphs import MEASURED_SIGMA, drive_graph
from vpr.geometry import pose_from_xy_yaw
from vpr.graph.g2o import Measurement
from vpr.graph.pose_graph import PoseGraph
from vpr.records import ClosureState, Keyframe, LoopClosure, Pose

FRAME_NS = 10**8  # KITTI's 10 frames a second
DESCRIPTOR = np.zeros(1, np.float32)  # the graph does not look at it


def live_row(name: str, truth: Sequence[gtsam.Pose2], seed: int = 1) -> dict[str, Any]:
    """Times of a keyframe and of a closure, map -> odom included, and what became of closures.

    The gate and the vote at the door are part of a closure's time; every frame is a keyframe.
    """
    made = drive_graph(truth, "measured", seed)
    closures = {m.to_id: m for m in map(made.graph.measurements.__getitem__, made.graph.closures)}
    graph = PoseGraph(PoseGraphConfig.from_file())
    keyframe_ms, closure_ms = [], []
    for number in made.graph.order:
        odometry = _pose(made.graph.initial[number])
        keyframe = Keyframe(number, 0, number * FRAME_NS, DESCRIPTOR, "", odometry=odometry)
        started = time.perf_counter()
        graph.add_keyframe(keyframe)
        graph.map_to_odom(0)
        keyframe_ms.append(1e3 * (time.perf_counter() - started))
        if number in closures:
            closure = _closure(closures[number])
            started = time.perf_counter()
            graph.add_closure(closure)
            graph.map_to_odom(0)
            closure_ms.append(1e3 * (time.perf_counter() - started))
    return {
        "graph": name,
        "keyframes": len(keyframe_ms),
        "closures": len(closure_ms),
        "verified": graph.counters["closures"],
        "keyframe_p50_ms": float(np.percentile(keyframe_ms, 50)),
        "closure_p50_ms": float(np.percentile(closure_ms, 50)),
        "closure_p95_ms": float(np.percentile(closure_ms, 95)),
    }


def _pose(element: gtsam.Pose2) -> Pose:
    return pose_from_xy_yaw(element.x(), element.y(), element.theta())


def _closure(measurement: Measurement) -> LoopClosure:
    query, reference = measurement.to_id, measurement.from_id
    translation, _, rotation = MEASURED_SIGMA
    return LoopClosure(
        query,
        0,
        query * FRAME_NS,
        reference,
        0,
        reference * FRAME_NS,
        ClosureState.VERIFIED,
        "a true revisit",
        relative_pose=_pose(measurement.measured),
        covariance=np.diag(np.square([translation] * 3 + [rotation] * 3)),
    )
