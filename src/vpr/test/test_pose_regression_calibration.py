"""Certainty holds on drives that were not learnt from, and says so only as far as it can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_room import room
from scipy.spatial.transform import Rotation

from vpr.pose_regression.calibration import (
    COVERAGE,
    Deviations,
    Distances,
    calibrated,
    conformal_quantile,
    inflation,
    learnt_deviations,
    quantile_over_drives,
)
from vpr.pose_regression.frames import FramesError, PosedFrames
from vpr.pose_regression.loss import LossWeights
from vpr.pose_regression.prediction import Answers, true_motions

LEARNT = Deviations(translation=1.0, rotation=0.1, motion_translation=0.3, motion_rotation=0.2)


def drives_of(count: int, each: int) -> PosedFrames:
    """``count`` drives of ``each`` frames."""
    frames = room(count * each)
    frames.drives[:] = np.repeat(np.arange(count), each)
    frames.follows[::each] = False
    return frames


def answers(frames: PosedFrames, metres: np.ndarray, degrees: float = 0.0) -> Answers:
    """Poses that are wrong by normal errors of ``metres`` (N,) an axis, and no motions."""
    rng = np.random.default_rng(0)
    poses = frames.poses.copy()
    poses[:, :3, 3] += metres[:, None] * rng.normal(size=(len(frames), 3))
    vectors = np.radians(degrees) * rng.normal(size=(len(frames), 3))
    poses[:, :3, :3] = poses[:, :3, :3] @ Rotation.from_rotvec(vectors).as_matrix()
    return Answers(poses, np.full_like(poses, np.nan), None, np.ones((len(frames), 4), np.float32))


def alike(frames: PosedFrames) -> np.ndarray:
    return np.full(len(frames), 0.1, np.float32)


def test_normal_errors_give_their_deviations_back() -> None:
    frames = drives_of(1, 2000)
    found = calibrated(
        LEARNT, frames, answers(frames, np.full(2000, 0.2), degrees=3.0), alike(frames)
    )
    assert found.deviations.translation == pytest.approx(0.2, rel=0.06)
    assert np.degrees(found.deviations.rotation) == pytest.approx(3.0, rel=0.06)
    assert found.deviations.motion_translation == LEARNT.motion_translation  # nothing to judge by
    assert found.transferred is None
    assert (found.drives, found.held_out) == (1, 2000)


def test_the_worst_drive_decides_and_leaving_it_out_shows() -> None:
    frames = drives_of(3, 200)
    metres = np.repeat([0.1, 0.1, 1.0], 200)
    found = calibrated(LEARNT, frames, answers(frames, metres), alike(frames))
    assert found.deviations.translation == pytest.approx(1.0, rel=0.15)
    assert found.transferred is not None
    assert found.transferred < 0.2
    same = calibrated(LEARNT, frames, answers(frames, np.full(600, 0.1)), alike(frames))
    assert same.transferred is not None
    assert same.transferred > 0.9


def test_a_next_drive_of_the_same_kind_is_covered() -> None:
    """Drives differ in how hard they are; what holds of all of them but one holds of it mostly."""
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(40):
        scores = np.abs(rng.normal(size=(6, 100))) * rng.lognormal(0.0, 0.4, (6, 1))
        drives = np.repeat(np.arange(5), 100)
        limit = quantile_over_drives(scores[:5].ravel(), drives, COVERAGE)
        shares.append(np.mean(scores[5] <= limit))
    assert np.mean(np.array(shares) >= COVERAGE - 0.03) >= 5 / 6 - 0.1
    assert np.mean(shares) >= COVERAGE


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=60))
def test_the_quantile_is_one_of_the_scores_and_covers_its_share(values: list[float]) -> None:
    scores = np.array(values)
    limit = conformal_quantile(scores, COVERAGE)
    assert limit in scores
    assert np.mean(scores <= limit) >= min(COVERAGE, len(values) / (len(values) + 1))


def test_few_frames_give_their_largest_error() -> None:
    assert conformal_quantile(np.arange(10.0), COVERAGE) == 9.0
    assert conformal_quantile(np.arange(100.0), COVERAGE) == 95.0  # the 96th of 100


def test_strange_images_may_err_more_without_widening_the_others() -> None:
    frames = drives_of(1, 1000)
    strangeness = np.tile(np.array([0.1, 0.4], np.float32), 500)
    metres = np.where(strangeness > 0.2, 0.8, 0.2)
    found = calibrated(LEARNT, frames, answers(frames, metres), strangeness)
    plain = calibrated(LEARNT, frames, answers(frames, metres), alike(frames))
    assert found.deviations.translation < 0.7 * plain.deviations.translation
    small, large = found.covariance(0.05)[0, 0], found.covariance(2.0 * found.typical)[0, 0]
    assert large == pytest.approx(4.0 * small)
    assert found.motion_covariance()[0, 0] == pytest.approx(LEARNT.motion_translation**2)


@given(st.floats(0.0, 2.0), st.floats(0.0, 2.0), st.floats(1e-3, 1.0))
def test_inflation_never_narrows(a: float, b: float, typical: float) -> None:
    low, high = inflation(np.array(sorted((a, b)), np.float32), typical)
    assert 1.0 <= low <= high


def test_the_odometry_is_calibrated_too() -> None:
    frames = drives_of(2, 50)
    given_motions = true_motions(frames)
    given_motions[:, 0, 3] += 0.5
    found = calibrated(
        LEARNT,
        frames,
        Answers(frames.poses, given_motions, None, np.ones((100, 4), np.float32)),
        alike(frames),
    )
    off = 0.5 / found.deviations.motion_translation
    distances = Distances.of(np.array([0.5]), np.zeros(1), found.deviations.motion_translation, 1.0)
    assert off == pytest.approx(distances.translation[0])
    assert distances.covered()["translation"].all()
    assert found.deviations.motion_translation == pytest.approx(0.5 / 2.795, rel=0.01)


def test_nothing_to_calibrate_on_is_refused() -> None:
    none = room(10).subset(np.zeros(10, bool))
    with pytest.raises(FramesError, match="no frame is held out"):
        calibrated(LEARNT, none, answers(room(10), np.zeros(10)), np.zeros(0, np.float32))


def test_learnt_deviations_are_of_an_axis() -> None:
    found = learnt_deviations(LossWeights())
    assert found.translation == pytest.approx(1.0 / np.sqrt(3.0))
    assert found.rotation == pytest.approx(2.0 * np.exp(-3.0) / np.sqrt(3.0))
