"""How certain an edge is: odometry steps and loop closures as edges with their covariance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpr.config import PoseGraphConfig
from vpr.geometry import rotation_angle, translation_norm
from vpr.graph.edges import Edge, EdgeKind, covariance_problem, pose_problem
from vpr.graph.lie_group import LieGroup, Matrix, diagonal
from vpr.records import ClosureState, Covariance, LoopClosure, Pose


@dataclass(frozen=True)
class Step:
    """An edge from one keyframe of a session to a later one, also in the terms of a group.

    ``element`` is its measured from_T_to, ``covariance`` (d, d) in the tangent space at that.
    """

    edge: Edge
    element: Any
    covariance: Matrix

    @classmethod
    def of(cls, group: LieGroup, edge: Edge) -> Step:
        """The step of an edge."""
        covariance = group.tangent_covariance(edge.covariance, edge.measured)
        return cls(edge, group.element(edge.measured), covariance)


class ClosureError(ValueError):
    """A closure that can't become an edge; ``key`` is short, for counting."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _diagonal(translation_sigma: float, rotation_sigma: float) -> Covariance:
    return diagonal([translation_sigma**2] * 3 + [rotation_sigma**2] * 3)


def odometry_step(
    config: PoseGraphConfig, group: LieGroup, from_id: int, to_id: int, element: Any
) -> Step:
    """A step of odometry: a floor, and a part that grows with how far the robot went and turned.

    The absolute covariance of an odometry message says nothing about a single step, so it is not
    used.
    """
    measured = group.pose(element)
    distance, angle = translation_norm(measured), rotation_angle(measured)
    translation_sigma = math.hypot(
        config.odometry_translation_sigma, config.odometry_translation_per_metre * distance
    )
    rotation_sigma = math.hypot(
        config.odometry_rotation_sigma,
        config.odometry_rotation_per_metre * distance,
        config.odometry_rotation_per_radian * angle,
    )
    covariance = _diagonal(translation_sigma, rotation_sigma)
    kind, state = EdgeKind.ODOMETRY, ClosureState.VERIFIED
    edge = Edge(from_id, to_id, kind, state, measured, covariance)
    tangent = diagonal(group.tangent(translation_sigma, rotation_sigma) ** 2)  # the same all round
    return Step(edge, element, tangent)


def constant_position_step(
    config: PoseGraphConfig, group: LieGroup, from_id: int, to_id: int, reason: str
) -> Step:
    """What is known of a step without odometry: that it is not huge."""
    covariance = _diagonal(
        config.missing_odometry_translation_sigma, config.missing_odometry_rotation_sigma
    )
    kind, state = EdgeKind.CONSTANT_POSITION, ClosureState.VERIFIED
    return Step.of(group, Edge(from_id, to_id, kind, state, np.eye(4), covariance, reason))


def closure_edge(
    config: PoseGraphConfig, group: LieGroup, closure: LoopClosure, expected: Pose | None = None
) -> Edge:
    """A verified closure as an edge from the reference to the query, by ``closure_model``.

    Args:
        expected: reference_T_query by the graph so far, which knows distances from odometry; None
            where the two are not tied yet.

    Raises:
        ClosureError: no relative pose, or numbers that can't be used.
    """
    measured, covariance = _MODELS[config.closure_model](config, closure, expected)
    measured = group.pose(group.element(measured))
    ids = closure.reference_id, closure.query_id
    return Edge(*ids, EdgeKind.CLOSURE, ClosureState.VERIFIED, measured, covariance, closure.reason)


def _measured(
    config: PoseGraphConfig, closure: LoopClosure, _: Pose | None
) -> tuple[Pose, Covariance]:
    """The relative pose as verified, with its own covariance and a floor."""
    floor = _diagonal(config.closure_translation_sigma, config.closure_rotation_sigma)
    return _relative_pose(closure), _covariance(closure) + floor


def _weak(
    config: PoseGraphConfig, _closure: LoopClosure, _: Pose | None
) -> tuple[Pose, Covariance]:
    """The two are at the same place within 3 m and 0.3 rad (Pillai & Leonard V-B)."""
    return np.eye(4), _diagonal(config.weak_translation_sigma, config.weak_rotation_sigma)


def _by_similarity(
    config: PoseGraphConfig, closure: LoopClosure, _: Pose | None
) -> tuple[Pose, Covariance]:
    """The relative pose, its information the similarity times the identity (S3E-GNN, eq. 3 and 4).

    The similarity comes as the closure's probability, in which it is calibrated.
    """
    if not 0.0 < closure.probability <= 1.0:
        message = f"similarity {closure.probability:.3g} of the closure is not in (0, 1]"
        raise ClosureError("no_similarity", message)
    unit = _diagonal(config.similarity_translation_sigma, config.similarity_rotation_sigma)
    return _relative_pose(closure), unit / closure.probability


def _by_direction(
    config: PoseGraphConfig, closure: LoopClosure, expected: Pose | None
) -> tuple[Pose, Covariance]:
    """Rotation and direction of a pose without scale; the distance is the one odometry gives.

    Along its direction the translation is as uncertain as a weak closure's; and so it is all round
    where nothing tells the distance, or it is too short to have a direction.
    """
    measured, covariance = _relative_pose(closure).copy(), _covariance(closure)
    length = translation_norm(measured)
    distance = 0.0 if expected is None else translation_norm(expected)
    floor = _diagonal(config.closure_translation_sigma, config.closure_rotation_sigma)
    floor[3:, 3:] += covariance[3:, 3:]
    along = np.eye(3)
    if length > 0.0 and distance > config.closure_translation_sigma:
        direction = measured[:3, 3] / length
        along = np.outer(direction, direction)
        across = np.trace((np.eye(3) - along) @ covariance[:3, :3]) / 2.0 / length**2  # rad^2
        floor[:3, :3] += min(across, 1.0) * distance**2 * (np.eye(3) - along)
        measured[:3, 3] = direction * distance
    else:
        measured[:3, 3] = 0.0
    floor[:3, :3] += config.weak_translation_sigma**2 * along
    return measured, floor


_MODELS: dict[str, Callable[..., tuple[Pose, Covariance]]] = {
    "measured": _measured,
    "weak": _weak,
    "similarity": _by_similarity,
    "direction": _by_direction,
}


def _relative_pose(closure: LoopClosure) -> Pose:
    if closure.relative_pose is None:
        raise ClosureError("no_relative_pose", "closure has no relative pose")
    if problem := pose_problem(closure.relative_pose):
        raise ClosureError("bad_pose", f"relative {problem}")
    return closure.relative_pose


def _covariance(closure: LoopClosure) -> Covariance:
    if closure.covariance is None:
        raise ClosureError("bad_covariance", "closure has no covariance")
    if problem := covariance_problem(closure.covariance):
        raise ClosureError("bad_covariance", problem)
    return closure.covariance
