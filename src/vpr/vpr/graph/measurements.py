"""How certain an edge is: odometry steps and loop closures as edges with their covariance."""

from __future__ import annotations

import numpy as np

from vpr.config import PoseGraphConfig
from vpr.geometry import rotation_angle, translation_norm
from vpr.graph.edges import Edge, EdgeKind, covariance_problem, pose_problem
from vpr.graph.lie_group import LieGroup
from vpr.records import ClosureState, Covariance, LoopClosure, Pose


class ClosureError(ValueError):
    """A closure that can't become an edge; ``key`` is short, for counting."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _diagonal(translation_sigma: float, rotation_sigma: float) -> Covariance:
    return np.diag(np.square([translation_sigma] * 3 + [rotation_sigma] * 3))


def odometry_edge(config: PoseGraphConfig, from_id: int, to_id: int, step: Pose) -> Edge:
    """A step of odometry: a floor, and a part that grows with how far the robot went and turned.

    The absolute covariance of an odometry message says nothing about a single step, so it is not
    used.
    """
    distance, angle = translation_norm(step), rotation_angle(step)
    translation_sigma = np.hypot(
        config.odometry_translation_sigma, config.odometry_translation_per_metre * distance
    )
    rotation_sigma = np.linalg.norm(
        [
            config.odometry_rotation_sigma,
            config.odometry_rotation_per_metre * distance,
            config.odometry_rotation_per_radian * angle,
        ]
    )
    covariance = _diagonal(float(translation_sigma), float(rotation_sigma))
    return Edge(from_id, to_id, EdgeKind.ODOMETRY, ClosureState.VERIFIED, step, covariance)


def constant_position_edge(config: PoseGraphConfig, from_id: int, to_id: int, reason: str) -> Edge:
    """What is known of a step without odometry: that it is not huge."""
    covariance = _diagonal(
        config.missing_odometry_translation_sigma, config.missing_odometry_rotation_sigma
    )
    kind, state = EdgeKind.CONSTANT_POSITION, ClosureState.VERIFIED
    return Edge(from_id, to_id, kind, state, np.eye(4), covariance, reason)


def closure_edge(config: PoseGraphConfig, group: LieGroup, closure: LoopClosure) -> Edge:
    """A verified closure as an edge from the reference to the query.

    With ``closure_model`` "weak" the relative pose is not used: the two are at the same place
    within 3 m and 0.3 rad (Pillai & Leonard V-B).

    Raises:
        ClosureError: no relative pose, or numbers that can't be used.
    """
    if config.closure_model == "weak":
        measured = np.eye(4)
        covariance = _diagonal(config.weak_translation_sigma, config.weak_rotation_sigma)
    else:
        measured, covariance = _measurement(closure)
        floor = _diagonal(config.closure_translation_sigma, config.closure_rotation_sigma)
        measured, covariance = group.pose(group.element(measured)), covariance + floor
    ids = closure.reference_id, closure.query_id
    return Edge(*ids, EdgeKind.CLOSURE, ClosureState.VERIFIED, measured, covariance, closure.reason)


def _measurement(closure: LoopClosure) -> tuple[Pose, Covariance]:
    if closure.relative_pose is None:
        raise ClosureError("no_relative_pose", "closure has no relative pose")
    if closure.covariance is None:
        raise ClosureError("bad_covariance", "closure has no covariance")
    if problem := pose_problem(closure.relative_pose):
        raise ClosureError("bad_pose", f"relative {problem}")
    if problem := covariance_problem(closure.covariance):
        raise ClosureError("bad_covariance", problem)
    return closure.relative_pose, closure.covariance
