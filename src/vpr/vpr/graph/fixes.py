"""GPS fixes in the pose graph: edges from an east-north-up frame, whose place is solved for.

A fix says where a keyframe is, not how it is turned. Its edge has the rotation that the graph knew
already, with a covariance that makes nothing of it.
"""

from __future__ import annotations

import numpy as np
import pymap3d
from numpy.typing import NDArray

from vpr.config import PoseGraphConfig
from vpr.graph.edges import Edge, EdgeKind
from vpr.records import ClosureState, Covariance, GpsFix, Pose

Geodetic = tuple[float, float, float]  # latitude, longitude (degrees), altitude (m, WGS-84)
ANY_ROTATION = 100.0  # rad
ANY_PLACE = 1e4  # m, and any heading: what is known of the ENU frame before the first fix


class FixError(ValueError):
    """A fix that can't be used; ``key`` is short, for counting."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def fix_edge(config: PoseGraphConfig, keyframe_id: int, fix: GpsFix, origin: Geodetic) -> Edge:
    """A fix as an edge from the ENU frame at ``origin`` to a keyframe, not turned yet.

    Both ends are named by the keyframe: the frame is none. The floor ``gps_min_sigma`` is added, as
    errors of GPS outlast many keyframes.

    Raises:
        FixError: no position on earth, a covariance that is none, or too uncertain.
    """
    place = np.array([fix.latitude, fix.longitude, fix.altitude])
    if not np.isfinite(place).all() or abs(place[0]) > 90.0 or abs(place[1]) > 180.0:
        raise FixError("bad_fix", f"fix of keyframe {keyframe_id} is no place on earth: {place}")
    covariance = np.diag([*([config.gps_min_sigma**2] * 3), *([ANY_ROTATION**2] * 3)])
    covariance[:3, :3] += _fix_covariance(config, keyframe_id, fix)
    measured = np.eye(4)
    measured[:3, 3] = pymap3d.geodetic2enu(*place, *origin)
    state = ClosureState.VERIFIED
    return Edge(keyframe_id, keyframe_id, EdgeKind.FIX, state, measured, covariance)


def _fix_covariance(config: PoseGraphConfig, keyframe_id: int, fix: GpsFix) -> NDArray[np.float64]:
    """(3, 3) east north up; the configured one where the receiver tells none."""
    if fix.covariance is None or not fix.covariance.any():
        return np.diag(np.square([config.gps_sigma, config.gps_sigma, 2.0 * config.gps_sigma]))
    if not np.isfinite(fix.covariance).all() or np.linalg.eigvalsh(fix.covariance)[0] < 0.0:
        message = f"fix of keyframe {keyframe_id} has a covariance that is none"
        raise FixError("bad_fix_covariance", message)
    sigma = float(np.sqrt(np.diag(fix.covariance)[:2].max()))
    if sigma > config.gps_max_sigma:
        message = f"fix of keyframe {keyframe_id} is uncertain by {sigma:.1f} m"
        raise FixError("uncertain_fix", message)
    return fix.covariance


def placed_earth(
    positions: NDArray[np.float64], fixes: NDArray[np.float64], spread: float
) -> Pose | None:
    """map_T_enu, level, that takes fixes nearest to positions in the map.

    Args:
        positions: (N, 3) of keyframes in the map, m.
        fixes: (N, 3) of the same in the ENU frame, m.
        spread: m by which they must lie around their middle (RMS) to tell the heading.

    Returns:
        None where they do not.
    """
    middle, centre = positions.mean(axis=0), fixes.mean(axis=0)
    a, b = (fixes - centre)[:, :2], (positions - middle)[:, :2]
    if min((a**2).sum(axis=1).mean(), (b**2).sum(axis=1).mean()) < spread**2:
        return None
    sine = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum())
    cosine = float((a * b).sum())
    yaw = np.arctan2(sine, cosine)
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:3, 3] = middle - pose[:3, :3] @ centre
    return pose


def unplaced_earth(config: PoseGraphConfig) -> Covariance:
    """What is known of the ENU frame without fixes: it is level."""
    tilt = config.gps_tilt_sigma
    return np.diag(np.square([ANY_PLACE, ANY_PLACE, ANY_PLACE, tilt, tilt, np.pi]))


def moved_origin(edge: Edge, before: Geodetic, after: Geodetic) -> Edge:
    """A fix's edge from another ENU frame; the two are taken as parallel, as they nearly are."""
    measured = edge.measured.copy()
    place = pymap3d.enu2geodetic(*measured[:3, 3], *before)
    measured[:3, 3] = pymap3d.geodetic2enu(*place, *after)
    return Edge(
        edge.from_id, edge.to_id, edge.kind, edge.state, measured, edge.covariance, edge.reason
    )
