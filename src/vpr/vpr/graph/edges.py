"""Nodes, edges and verdicts of the pose graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from vpr.records import ClosureState, Covariance, Pose


class EdgeKind(IntEnum):
    """What an edge was measured by."""

    ODOMETRY = 0
    CONSTANT_POSITION = 1  # no odometry for this step: only that the robot is not far away
    CLOSURE = 2
    FIX = 3  # GPS: from the east-north-up frame; both ends are named by the keyframe


@dataclass(frozen=True)
class Edge:
    """A measured from_T_to between two keyframes.

    ``covariance`` is in geometry_msgs order about the axes of the from frame. A REJECTED
    edge is remembered, with its reason, and takes no part in the solution.
    """

    from_id: int
    to_id: int
    kind: EdgeKind
    state: ClosureState
    measured: Pose
    covariance: Covariance
    reason: str = ""
    chi2: float = float("nan")  # of the consistency check; NaN where there was nothing to check

    @property
    def is_step(self) -> bool:
        """Whether it ties a keyframe to one before it in its session."""
        return self.kind in (EdgeKind.ODOMETRY, EdgeKind.CONSTANT_POSITION)


@dataclass(frozen=True)
class GraphNode:
    """A keyframe's place in the graph.

    ``pose`` is map_T_base where ``anchored``; else it is in the odometry frame of the first
    session of the drive that is not yet tied to the map.
    """

    id: int
    session: int
    stamp_ns: int
    pose: Pose
    anchored: bool


@dataclass(frozen=True)
class EdgeVerdict:
    """What the graph made of a closure.

    ``correction_translation`` (m) and ``correction_rotation`` (rad) say how far the closure moved
    the newest pose of the query's session in the map: the step that map->odom takes. They are
    zero when the closure was refused, and when the session had no place in the map before.
    """

    state: ClosureState
    reason: str
    rejected_by: str = ""  # short key for counting; empty when verified
    chi2: float = float("nan")
    gate: float = float("nan")  # chi2 above this is refused
    correction_translation: float = 0.0
    correction_rotation: float = 0.0
    anchored_sessions: tuple[int, ...] = ()  # sessions this closure tied to the map


class PoseGraphError(ValueError):
    """A keyframe or a saved graph that the pose graph cannot take; the message says why."""


def covariance_problem(covariance: Covariance) -> str:
    """Why a (6, 6) covariance can't be used, in words; empty when it can."""
    if covariance.shape != (6, 6):
        return f"covariance has shape {covariance.shape}, not (6, 6)"
    if not np.isfinite(covariance).all():
        return "covariance has a value that is not finite"
    if (np.abs(covariance - covariance.T) > 1e-12 + 1e-6 * np.abs(covariance)).any():
        return "covariance is not symmetric"
    if not covariance.any():
        return "covariance is all zero: unknown, not perfect"
    smallest = float(np.linalg.eigvalsh(covariance)[0])
    if smallest < -1e-9 * float(np.trace(covariance)):
        return f"covariance is not positive semi-definite (eigenvalue {smallest:.3g})"
    return ""


def pose_problem(pose: Pose) -> str:
    """Why a (4, 4) pose can't be used, in words; empty when it can."""
    if pose.shape != (4, 4):
        return f"pose has shape {pose.shape}, not (4, 4)"
    values = pose.ravel().tolist()  # by numpy it costs five times as much
    if not all(map(math.isfinite, values)):
        return "pose has a value that is not finite"
    a, b, c, _, d, e, f, _, g, h, i, *_ = values
    lengths = a * a + b * b + c * c, d * d + e * e + f * f, g * g + h * h + i * i
    products = a * d + b * e + c * f, a * g + b * h + c * i, d * g + e * h + f * i
    skew = max(*(abs(length - 1.0) for length in lengths), *map(abs, products))
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if skew > 1e-4 or determinant < 0.0:
        return "pose has no proper rotation"
    return ""
