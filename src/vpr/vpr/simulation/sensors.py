"""Wheel-and-gyro odometry that drifts, and GPS with noise and gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pymap3d import enu2geodetic

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
    """True motion between neighbouring samples in base_link: (N-1, 2) metres, (N-1,) radians."""
    rotation = drive.poses[:-1, :2, :2]
    moved = np.einsum("nji,nj->ni", rotation, np.diff(drive.poses[:, :2, 3], axis=0))
    ahead = np.einsum("nji,nj->ni", rotation, drive.poses[1:, :2, 0])
    return moved, np.arctan2(ahead[:, 1], ahead[:, 0])


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
    The two biases keep one sign, drawn from the seed, for the whole drive.
    """
    rng = np.random.default_rng([seed, 105])
    moved, turned = _motions(drive)
    length = np.linalg.norm(moved, axis=1)
    steps = length / config.odometry_step
    root = np.sqrt(steps)
    scale_sign, yaw_sign = rng.choice([-1.0, 1.0], 2)
    moved *= 1.0 + scale_sign * config.odometry_scale_bias
    moved += config.odometry_translation_noise * root[:, None] * rng.normal(size=moved.shape)
    turned += yaw_sign * config.odometry_yaw_bias * length
    turned += config.odometry_rotation_noise * root * rng.normal(size=len(turned))
    seconds = np.diff(drive.stamps_ns) * 1e-9
    noise = np.array([config.odometry_translation_noise] * 2 + [config.odometry_rotation_noise])
    twist = np.column_stack([moved, turned]) / seconds[:, None]
    twist_variance = noise**2 * (steps / seconds**2)[:, None]
    reckoned = _summed(moved, turned)
    return Odometry(
        reckoned,
        _grown_variance(reckoned, steps, length, config),
        np.concatenate([twist[:1], twist]),
        np.concatenate([twist_variance[:1], twist_variance]),
    )


def _summed(moved: NDArray[np.float64], turned: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4, 4) poses after each of N-1 motions, the first at the identity."""
    yaw = np.concatenate([[0.0], np.cumsum(turned)])
    cosine, sine = np.cos(yaw), np.sin(yaw)
    poses = np.tile(np.eye(4), (len(yaw), 1, 1))
    poses[:, :2, :2] = np.array([[cosine, -sine], [sine, cosine]]).transpose(2, 0, 1)
    poses[1:, :2, 3] = np.cumsum(np.einsum("nij,nj->ni", poses[:-1, :2, :2], moved), axis=0)
    return poses


def _grown_variance(
    poses: NDArray[np.float64],
    steps: NDArray[np.float64],
    length: NDArray[np.float64],
    config: SimulationConfig,
) -> NDArray[np.float64]:
    """(N, 3) variance of x, y and yaw since the start, to first order.

    A yaw error made at sample k swings the present by the lever between them. The random part
    adds squares of levers, the bias, taken as one unknown of its configured size, their sum;
    both are expanded so that one pass suffices.
    """
    noise_yaw = config.odometry_rotation_noise**2 * np.concatenate([[0.0], steps])
    driven = np.concatenate([[0.0], length])
    own = config.odometry_translation_noise**2 * np.concatenate([[0.0], np.cumsum(steps)])
    variance = np.empty((len(poses), 3))
    for axis, across in ((0, 1), (1, 0)):
        lever, place = poses[:, across, 3], poses[:, axis, 3]
        swing = (
            lever**2 * np.cumsum(noise_yaw)
            - 2 * lever * np.cumsum(noise_yaw * lever)
            + np.cumsum(noise_yaw * lever**2)
        )
        bent = config.odometry_yaw_bias * (lever * np.cumsum(driven) - np.cumsum(driven * lever))
        stretched = config.odometry_scale_bias * place
        variance[:, axis] = own + np.maximum(swing, 0.0) + bent**2 + stretched**2
    bias_yaw = config.odometry_yaw_bias * np.cumsum(driven)
    variance[:, 2] = np.cumsum(noise_yaw) + bias_yaw**2
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
