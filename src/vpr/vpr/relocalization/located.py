"""From verdicts on an image's candidates to its pose in the map, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpr.config import RelocalizationConfig
from vpr.geometry import relative, rotation_angle, translation_norm
from vpr.records import ClosureState, Covariance, LoopClosure, Pose
from vpr.uncertain_pose import between


class NotLocated(ValueError):
    """No pose can be told; the message says why, for a person."""


@dataclass(frozen=True)
class Relocalization:
    """Where in the map an image was taken.

    Attributes:
        pose: map_T_base.
        covariance: of the pose in the map's axes, geometry_msgs order; the keyframe's own place
            counts as exact.
        probability: P(same place) of the keyframe by its embedding, before images were compared.
        reason: how the pose was found, in words.
    """

    pose: Pose
    covariance: Covariance
    probability: float
    keyframe_id: int
    session: int
    inliers: int
    reason: str


def in_map(closure: LoopClosure, map_T_reference: Pose) -> Relocalization:
    """The query's pose by a verified closure and its reference's place in the map.

    Raises:
        NotLocated: a closure without a pose or covariance.
    """
    if closure.relative_pose is None or closure.covariance is None:
        raise NotLocated(f"keyframe {closure.reference_id}: {closure.reason}")
    pose, covariance = between(
        map_T_reference, closure.relative_pose, closure.covariance, np.eye(4)
    )
    return Relocalization(
        pose=pose,
        covariance=covariance,
        probability=closure.probability,
        keyframe_id=closure.reference_id,
        session=closure.reference_session,
        inliers=closure.inliers,
        reason=f"keyframe {closure.reference_id}: {closure.reason}",
    )


def located(
    closures: Sequence[LoopClosure], places: Mapping[int, Pose], config: RelocalizationConfig
) -> Relocalization:
    """The pose that most local features agree with, unless another place has nearly as many.

    Args:
        closures: the verdicts on all candidates.
        places: map_T_base of the keyframes that have a place in the map.

    Raises:
        NotLocated: no candidate was verified, none of them has a place in the map, or two places
            look alike.
    """
    verified = [c for c in closures if c.state is ClosureState.VERIFIED]
    if not verified:
        raise NotLocated(_why_none(closures))
    found = [in_map(c, places[c.reference_id]) for c in verified if c.reference_id in places]
    if not found:
        names = ", ".join(str(c.reference_id) for c in verified)
        raise NotLocated(f"keyframe {names} fits, but has no place in the map yet")
    found.sort(key=lambda one: -one.inliers)
    for other in found[1:]:
        if other.inliers >= config.rival_share * found[0].inliers and _apart(
            found[0], other, config
        ):
            raise NotLocated(
                f"two places look alike: keyframe {found[0].keyframe_id} with {found[0].inliers} "
                f"inliers and keyframe {other.keyframe_id} with {other.inliers}"
            )
    return found[0]


def _apart(one: Relocalization, other: Relocalization, config: RelocalizationConfig) -> bool:
    """Whether two answers differ by more than tolerance and what they say they don't know."""
    difference = relative(one.pose, other.pose)
    sigmas = np.sqrt(np.diag(one.covariance) + np.diag(other.covariance))
    allowed = config.same_place_translation + 2.0 * float(np.linalg.norm(sigmas[:3]))
    allowed_turn = config.same_place_rotation + 2.0 * float(np.linalg.norm(sigmas[3:]))
    return translation_norm(difference) > allowed or rotation_angle(difference) > allowed_turn


def _why_none(closures: Sequence[LoopClosure]) -> str:
    if not closures:
        return "no candidate was compared"
    nearest = max(closures, key=lambda one: one.inliers)
    return (
        f"none of {len(closures)} candidates passed; the nearest was keyframe "
        f"{nearest.reference_id}: {nearest.reason}"
    )
