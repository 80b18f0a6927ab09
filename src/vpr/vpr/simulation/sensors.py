"""Wheel-and-gyro odometry that drifts, and GPS with noise and gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pymap3d import enu2geodetic

from vpr.geometry import pose_from_xy_yaw, relative, yaw_of
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import Drive


@dataclass(frozen=True)
class Odometry:
    """Dead reckoning at the drive's stamps, odom_T_base; the odom frame is where it began.

    ``variance`` (N, 3) is that of x, y (m^2, odom frame) and yaw (rad^2), grown since the start;
    ``twist`` (N, 3) is forward, sideways (m/s) and turning (rad/s) speed in base_link with
    ``twist_variance``.
    """

    poses: NDArray[np.float64]  # (N, 4, 4)
    variance: NDArray[np.float64]
    twist: NDArray[np.float64]
    twist_variance: NDArray[np.float64]


def _motions(drive: Drive) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True motion between neighbouring samples: (N-1, 2) metres and (N-1,) radians."""
    motions = [relative(a, b) for a, b in zip(drive.poses[:-1], drive.poses[1:], strict=True)]
    return np.array([m[:2, 3] for m in motions]), np.array([yaw_of(m) for m in motions])


def true_velocity(drive: Drive) -> NDArray[np.float64]:
    """(N, 3) forward, sideways (m/s) and turning (rad/s) speed in base_link."""
    moved, turned = _motions(drive)
    seconds = np.diff(drive.stamps_ns) * 1e-9
    velocity = np.column_stack([moved, turned]) / seconds[:, None]
    return np.concatenate([velocity[:1], velocity])


def dead_reckon(seed: int, drive: Drive, config: SimulationConfig) -> Odometry:
    """Sum up true motions with noise.

    A step of noise (Pillai & Leonard, "Self-supervised visual place recognition", V-B) is
    ``odometry_step`` metres of driving; between samples it grows as a random walk, with the root
    of the share of a step, so the drift does not depend on the rate and stops at a standstill.
    """
    rng = np.random.default_rng([seed, 105])
    moved, turned = _motions(drive)
    length = np.linalg.norm(moved, axis=1)
    steps = length / config.odometry_step
    root = np.sqrt(steps)
    moved *= 1.0 + config.odometry_scale_bias
    moved += config.odometry_translation_noise * root[:, None] * rng.normal(size=moved.shape)
    turned += config.odometry_yaw_bias * length
    turned += config.odometry_rotation_noise * root * rng.normal(size=len(turned))
    poses = [np.eye(4)]
    for (x, y), yaw in zip(moved, turned, strict=True):
        poses.append(poses[-1] @ pose_from_xy_yaw(x, y, yaw))
    seconds = np.diff(drive.stamps_ns) * 1e-9
    noise = np.array([config.odometry_translation_noise] * 2 + [config.odometry_rotation_noise])
    twist = np.column_stack([moved, turned]) / seconds[:, None]
    twist_variance = noise**2 * (steps / seconds**2)[:, None]
    reckoned = np.array(poses)
    return Odometry(
        reckoned,
        _grown_variance(reckoned, steps, config),
        np.concatenate([twist[:1], twist]),
        np.concatenate([twist_variance[:1], twist_variance]),
    )


def _grown_variance(
    poses: NDArray[np.float64], steps: NDArray[np.float64], config: SimulationConfig
) -> NDArray[np.float64]:
    """Variance of x, y, yaw since the start: own noise plus what past turns swing the path by.

    To first order the yaw error made at sample k displaces the present by the lever between
    them; both sums over k are expanded so that they need one pass.
    """
    rotation = config.odometry_rotation_noise**2 * np.concatenate([[0.0], steps])
    yaw = np.cumsum(rotation)
    own = config.odometry_translation_noise**2 * np.concatenate([[0.0], np.cumsum(steps)])
    variance = np.empty((len(poses), 3))
    for axis, lever in ((0, 1), (1, 0)):
        p = poses[:, lever, 3]
        swing = p**2 * yaw - 2 * p * np.cumsum(rotation * p) + np.cumsum(rotation * p**2)
        variance[:, axis] = own + np.maximum(swing, 0.0)
    variance[:, 2] = yaw
    return variance


@dataclass(frozen=True)
class GpsSamples:
    """GPS at its own stamps; where ``fixed`` is False the receiver has no fix."""

    stamps_ns: NDArray[np.int64]  # (M,)
    geodetic: NDArray[np.float64]  # (M, 3) latitude, longitude (degrees), altitude (m)
    variance: NDArray[np.float64]  # (M, 3) east, north, up, m^2
    fixed: NDArray[np.bool_]  # (M,)


def receive_gps(seed: int, drive: Drive, config: SimulationConfig) -> GpsSamples:
    """Noisy positions of the drive, missing in stretches of a few seconds."""
    rng = np.random.default_rng([seed, 106])
    duration = drive.seconds(len(drive.stamps_ns) - 1)
    times = np.arange(0.13, duration, 1.0 / config.gps_rate)
    seconds = (drive.stamps_ns - drive.stamps_ns[0]) * 1e-9
    true = np.column_stack([np.interp(times, seconds, drive.poses[:, k, 3]) for k in (0, 1, 2)])
    spread = config.gps_noise * np.array([1.0, 1.0, 2.0])
    enu = true + spread * rng.normal(size=true.shape)
    geodetic = np.column_stack(
        enu2geodetic(*enu.T, config.gps_latitude, config.gps_longitude, config.gps_altitude)
    )
    fixed = ~_gaps(rng, times, duration, config.gps_gap_share)
    stamps = drive.stamps_ns[0] + np.round(times * 1e9).astype(np.int64)
    return GpsSamples(stamps, geodetic, np.tile(spread**2, (len(times), 1)), fixed)


def _gaps(
    rng: np.random.Generator, times: NDArray[np.float64], duration: float, share: float
) -> NDArray[np.bool_]:
    """Which samples fall into stretches of 3 to 8 s that add up to about ``share``."""
    missing = np.zeros(len(times), np.bool_)
    while len(times) and missing.mean() < share:
        start, length = rng.uniform(0.0, duration), rng.uniform(3.0, 8.0)
        missing |= (times >= start) & (times < start + length)
    return missing
