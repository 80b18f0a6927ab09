"""What odometry and GPS allow: evidence beyond the images that two keyframes can be one place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pymap3d

from vpr.config import LoopClosureConfig
from vpr.geometry import relative, rotation_angle, translation_norm
from vpr.records import Keyframe
from vpr.verification.relative_pose import RelativePose


@dataclass(frozen=True)
class Pair:
    """A query and a reference keyframe, with the distance driven until each in its session, m."""

    query: Keyframe
    reference: Keyframe
    query_path: float
    reference_path: float

    @property
    def driven(self) -> float:
        """Metres driven between the two; only within one session."""
        return abs(self.query_path - self.reference_path)


def is_checkable(pair: Pair) -> bool:
    """Whether odometry within one session or GPS at both ends can confirm or forbid a pair."""
    query, reference = pair.query, pair.reference
    by_odometry = (
        query.session == reference.session
        and query.odometry is not None
        and reference.odometry is not None
    )
    return by_odometry or (query.fix is not None and reference.fix is not None)


def odometry_forbids(pair: Pair, config: LoopClosureConfig) -> str:
    """Why odometry can't be wrong enough for the two to be one place, in words; else empty.

    Only within one session: between sessions odometry frames have nothing in common.
    """
    query, reference = pair.query.odometry, pair.reference.odometry
    if pair.query.session != pair.reference.session or query is None or reference is None:
        return ""
    apart = translation_norm(relative(reference, query))
    allowed = _drift(pair, config) + config.max_translation
    if apart <= allowed:
        return ""
    return _too_far(apart, pair, allowed)


def odometry_contradicts(pair: Pair, measured: RelativePose, config: LoopClosureConfig) -> str:
    """Why odometry can't be wrong enough for a measured metric pose, in words; else empty."""
    query, reference = pair.query.odometry, pair.reference.odometry
    if pair.query.session != pair.reference.session or query is None or reference is None:
        return ""
    if not measured.metric:
        return ""
    predicted = relative(reference, query)
    apart = float(np.linalg.norm(predicted[:3, 3] - measured.pose[:3, 3]))
    allowed = _drift(pair, config)
    if apart > allowed:
        return _too_far(apart, pair, allowed)
    turned = rotation_angle(relative(predicted, measured.pose))
    allowed_turn = config.drift_rotation_floor + config.drift_rotation * pair.driven
    if turned <= allowed_turn:
        return ""
    return (
        f"odometry says it is turned {np.degrees(turned):.0f} degrees from that; drift "
        f"explains {np.degrees(allowed_turn):.0f}"
    )


def _drift(pair: Pair, config: LoopClosureConfig) -> float:
    return config.drift_translation_floor + config.drift_translation * pair.driven


def _too_far(apart: float, pair: Pair, allowed: float) -> str:
    return (
        f"odometry puts it {apart:.1f} m away; after {pair.driven:.0f} m driven, drift "
        f"explains {allowed:.1f} m"
    )


def gps_forbids(pair: Pair, config: LoopClosureConfig) -> str:
    """Why two GPS fixes cannot be of one place, in words; empty when they can, or are missing."""
    query, reference = pair.query.fix, pair.reference.fix
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
