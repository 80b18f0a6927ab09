"""The route, and the sensors' noise along it."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from pymap3d import geodetic2enu

from vpr.geometry import yaw_of
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import Drive, plan_drive
from vpr.simulation.sensors import dead_reckon, receive_gps
from vpr.simulation.town import ROAD_HALF_WIDTH, plan_town

CONFIG = SimulationConfig()
UNBIASED = SimulationConfig(odometry_yaw_bias=0.0, odometry_scale_bias=0.0)


def drive_of(seed: int, config: SimulationConfig = CONFIG) -> Drive:
    return plan_drive(seed, plan_town(seed), config)


@pytest.mark.parametrize("seed", range(6))
def test_a_drive_is_two_smooth_laps_on_the_road(seed: int) -> None:
    drive, plan = drive_of(seed), plan_town(seed)
    assert 170.0 < drive.route.closed_length < 250.0
    assert drive.distance[-1] >= 2 * drive.route.closed_length
    steps = np.diff(drive.poses[:, :2, 3], axis=0)
    speed = np.linalg.norm(steps, axis=1) * CONFIG.odometry_rate
    assert speed.max() < 1.25 * CONFIG.speed
    heading = np.unwrap([yaw_of(pose) for pose in drive.poses])
    assert np.abs(np.diff(heading) * CONFIG.odometry_rate).max() < 1.2  # rad/s
    to_street = np.minimum(
        np.abs(drive.poses[:, 0, 3, None] - plan.easts).min(axis=1),
        np.abs(drive.poses[:, 1, 3, None] - plan.norths).min(axis=1),
    )
    assert to_street.max() < ROAD_HALF_WIDTH


def test_images_are_at_most_a_metre_apart_and_have_odometry() -> None:
    drive = drive_of(0)
    at = drive.poses[drive.image_indices, :2, 3]
    assert np.linalg.norm(np.diff(at, axis=0), axis=1).max() <= 1.0
    assert (np.diff(drive.stamps_ns) > 0).all()


def test_the_second_lap_passes_the_same_places_on_another_line() -> None:
    drive = drive_of(3)
    length = drive.route.closed_length
    apart = [
        np.linalg.norm((drive.route.pose_at(s) - drive.route.pose_at(s + length))[:2, 3])
        for s in np.arange(10.0, length - 10.0, 5.0)
    ]
    assert 0.05 < max(apart) < 1.0


def test_heading_is_where_the_car_goes() -> None:
    drive = drive_of(1)
    along = increments(drive.poses)
    assert (np.abs(along[:, 1]) < 0.03 * along[:, 0]).all()


@pytest.mark.parametrize("rate", [6.0, 24.0, 48.0])
def test_odometry_noise_is_the_configured_one_at_any_rate(rate: float) -> None:
    config = UNBIASED.model_copy(update={"odometry_rate": rate})
    drive = drive_of(0, config)
    sums = []
    for seed in range(12):
        error = increments(dead_reckon(seed, drive, config).poses) - increments(drive.poses)
        sums.append((error**2).sum(axis=0))
    path = np.linalg.norm(increments(drive.poses)[:, :2], axis=1).sum()
    per_step = np.mean(sums, axis=0) / (path / config.odometry_step)
    assert np.sqrt(per_step) == pytest.approx([5e-2, 5e-2, 1e-3], rel=0.06)


def increments(poses: np.ndarray) -> np.ndarray:
    """(N-1, 3) x, y and yaw moved from sample to sample."""
    moves = np.linalg.inv(poses[:-1]) @ poses[1:]
    yaw = np.arctan2(moves[:, 1, 0], moves[:, 0, 0])
    return np.column_stack([moves[:, 0, 3], moves[:, 1, 3], yaw])


def test_odometry_covariance_matches_its_scatter() -> None:
    drive = drive_of(2, UNBIASED)
    runs = [dead_reckon(seed, drive, UNBIASED) for seed in range(60)]
    exact = UNBIASED.model_copy(
        update={"odometry_translation_noise": 0.0, "odometry_rotation_noise": 0.0}
    )
    truth = dead_reckon(0, drive, exact).poses
    for at in (500, len(truth) - 1):
        ends = np.array([run.poses[at, :2, 3] - truth[at, :2, 3] for run in runs])
        claimed = runs[0].variance[at, :2].sum()
        assert (ends**2).sum(axis=1).mean() == pytest.approx(claimed, rel=0.5)


def test_odometry_drifts_by_metres_over_the_default_drive() -> None:
    drive = drive_of(4)
    reckoned = dead_reckon(4, drive, CONFIG).poses
    began = drive.poses[0] @ reckoned
    assert np.linalg.norm(began[-1, :2, 3] - drive.poses[-1, :2, 3]) > 2.0
    assert np.allclose(reckoned[0], np.eye(4))


def test_gps_has_the_configured_noise_and_gaps() -> None:
    config = SimulationConfig(gps_rate=5.0, gps_gap_share=0.3)
    drive = drive_of(0, config)
    gps = receive_gps(0, drive, config)
    origin = (config.gps_latitude, config.gps_longitude, config.gps_altitude)
    east, north, _ = geodetic2enu(*gps.geodetic.T, *origin)
    at = np.column_stack(
        [np.interp(gps.stamps_ns, drive.stamps_ns, drive.poses[:, k, 3]) for k in (0, 1)]
    )
    error = np.column_stack([east, north]) - at
    assert error.std() == pytest.approx(config.gps_noise, rel=0.15)
    missing = ~gps.fixed
    assert 0.3 <= missing.mean() < 0.45
    longest = max(len(run) for run in "".join("x" if m else " " for m in missing).split())
    assert longest >= 3.0 * config.gps_rate - 1


def test_rates_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ValidationError, match="whole multiple"):
        SimulationConfig(image_rate=10.0, odometry_rate=24.0)
