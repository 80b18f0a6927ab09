"""Evidence beyond the images: what odometry allows, and whether closures tell one story."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pymap3d

from vpr.config import LoopClosureConfig
from vpr.geometry import inverse, relative, rotation_angle, translation_norm
from vpr.records import Keyframe, Pose
from vpr.verification.relative_pose import RelativePose


@dataclass(frozen=True)
class Sighting:
    """A geometrically good pair: two keyframes, their measured relative pose, and odometers.

    ``*_path`` is the distance driven until each keyframe in its session, metres.
    """

    query: Keyframe
    reference: Keyframe
    measured: RelativePose
    query_path: float
    reference_path: float


def contradicts_odometry(sighting: Sighting, config: LoopClosureConfig) -> str:
    """Why odometry cannot be that wrong, in words; empty when it can, or where there is none.

    Only within one session: between sessions odometry frames have nothing in common.
    """
    query, reference = sighting.query, sighting.reference
    if query.session != reference.session or query.odometry is None or reference.odometry is None:
        return ""
    driven = abs(sighting.query_path - sighting.reference_path)
    predicted = relative(reference.odometry, query.odometry)
    allowed = config.drift_translation_floor + config.drift_translation * driven
    if not sighting.measured.metric:
        allowed += config.max_translation
    apart = float(np.linalg.norm(predicted[:3, 3] - sighting.measured.pose[:3, 3]))
    if apart > allowed:
        return (
            f"odometry puts it {apart:.1f} m away; after {driven:.0f} m driven, drift "
            f"explains {allowed:.1f} m"
        )
    if not sighting.measured.metric:
        return ""
    turned = rotation_angle(relative(predicted, sighting.measured.pose))
    allowed_turn = config.drift_rotation_floor + config.drift_rotation * driven
    if turned > allowed_turn:
        return (
            f"odometry says it is turned {np.degrees(turned):.0f} degrees from that; drift "
            f"explains {np.degrees(allowed_turn):.0f}"
        )
    return ""


def contradicts_gps(sighting: Sighting, config: LoopClosureConfig) -> str:
    """Why two GPS fixes cannot be of one place, in words; empty when they can, or are missing."""
    query, reference = sighting.query.fix, sighting.reference.fix
    if query is None or reference is None:
        return ""
    origin = (reference.latitude, reference.longitude, reference.altitude)
    east, north, _ = pymap3d.geodetic2enu(query.latitude, query.longitude, query.altitude, *origin)
    apart = float(np.hypot(east, north))
    allowed = config.max_translation + config.gps_tolerance
    for fix in (query, reference):
        if fix.covariance is not None:
            allowed += 3.0 * float(np.sqrt(max(fix.covariance[0, 0], fix.covariance[1, 1])))
    if apart <= allowed:
        return ""
    return f"GPS puts it {apart:.0f} m away, {allowed:.0f} m at most are its own error"


def agree(a: Sighting, b: Sighting, config: LoopClosureConfig) -> bool:
    """Whether two closures of different queries and one pair of sessions tell the same story.

    With odometry at all four ends the two must put the query session at the same place in the
    reference session's frame; without it, the matched reference must have advanced with the
    query, in order and at a comparable pace.
    """
    if a.query.id == b.query.id:
        return False
    if (a.query.session, a.reference.session) != (b.query.session, b.reference.session):
        return False
    offsets = [_session_offset(a), _session_offset(b)]
    if offsets[0] is None or offsets[1] is None or b.query.odometry is None:
        return _advance_together(a, b)
    by_a, by_b = offsets[0] @ b.query.odometry, offsets[1] @ b.query.odometry
    difference = relative(by_a, by_b)
    between = abs(a.query_path - b.query_path) + abs(a.reference_path - b.reference_path)
    allowed = config.agreement_translation + config.drift_translation * between
    allowed_turn = config.agreement_rotation + config.drift_rotation * between
    if not (a.measured.metric and b.measured.metric):
        allowed += config.max_translation
        allowed_turn += config.max_rotation
    return translation_norm(difference) <= allowed and rotation_angle(difference) <= allowed_turn


def _session_offset(sighting: Sighting) -> Pose | None:
    """reference_odom_T_query_odom that the closure implies."""
    query, reference = sighting.query.odometry, sighting.reference.odometry
    if query is None or reference is None:
        return None
    return reference @ sighting.measured.pose @ inverse(query)


PACE = 3  # reference keyframes for each query keyframe, at most
SLACK = 2  # keyframes


def _advance_together(a: Sighting, b: Sighting) -> bool:
    first, second = (a, b) if a.query.id < b.query.id else (b, a)
    queries = second.query.id - first.query.id
    references = second.reference.id - first.reference.id
    return -SLACK <= references <= PACE * queries + SLACK
