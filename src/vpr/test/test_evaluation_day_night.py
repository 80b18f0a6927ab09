from pathlib import Path

import numpy as np
import pytest

from vpr.config import SequenceTrainingConfig
from vpr.evaluation import day_night
from vpr.evaluation.day_night import FROZEN, DayNightRow, DayNightTrial
from vpr.evaluation.sequences import SequenceRow
from vpr.places.encoders import normalised
from vpr.simulation.day_night import DayAndNight, NightCamera, TownError, read_day_and_night


def town(seed):
    """A street of twelve places five metres apart; the night is darker."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 255, (12, 6, 8, 3), np.uint8)
    day = blocks.repeat(8, axis=1).repeat(8, axis=2)
    places = np.stack([5.0 * np.arange(12), np.zeros(12)], axis=1)
    return DayAndNight(day, day // 4, places, places)


@pytest.fixture(autouse=True)
def small_towns(monkeypatch):
    """Without rendering, described by a few of their grey values."""
    monkeypatch.setattr(day_night, "drive_day_and_night", town)
    monkeypatch.setattr(
        day_night,
        "grid_descriptors",
        lambda images: normalised(images[:, ::8, ::8, 0].reshape(len(images), -1) - 100.0),
    )


def test_a_town_is_read_as_it_was_kept(tmp_path):
    kept = town(1)
    kept.save(tmp_path / "town.npz")
    read = read_day_and_night(tmp_path / "town.npz")
    assert all(
        np.array_equal(a, b) for a, b in zip(vars(kept).values(), vars(read).values(), strict=True)
    )
    (tmp_path / "town.npz").write_bytes((tmp_path / "town.npz").read_bytes()[:200])
    with pytest.raises(TownError, match=r"town\.npz"):
        read_day_and_night(tmp_path / "town.npz")


def test_nights_differ_by_their_noise_alone():
    seen = town(1)
    first, again, other = (seen.sensed(NightCamera(20.0), 1, drawing) for drawing in (0, 0, 1))
    assert np.array_equal(first.night, again.night)
    assert not np.array_equal(first.night, other.night)
    unclipped = (seen.night > 40) & (seen.night < 200)
    noise = (first.night.astype(float) - seen.night)[unclipped]
    assert noise.std() == pytest.approx(20.0, rel=0.1)


def test_some_images_of_a_night_are_exposed_too_short():
    seen = town(1)
    night = seen.sensed(NightCamera(2.0, cut_short=0.5), 1).night
    unclipped = (seen.night > 40) & (seen.night < 200)
    noise = np.array(
        [(image.astype(float) - dark)[clear].std()
         for image, dark, clear in zip(night, seen.night, unclipped, strict=True)]
    )  # fmt: skip
    cut = noise > 5.0
    assert 0 < cut.sum() < len(cut)
    assert noise[cut] == pytest.approx(10.0, rel=0.2)
    assert noise[~cut] == pytest.approx(2.0, rel=0.2)


def test_four_rows_are_tried_in_unseen_towns_and_kept(tmp_path, monkeypatch):
    small = SequenceTrainingConfig.from_file(
        epochs=1, outputs=8, negative_distance=2, sequence_length=3
    )
    trial = DayNightTrial(tmp_path, (1,), (2, 3), NightCamera(10.0), drawings=2, trainings=2)
    rows = trial.rows(small)
    assert [(row.loss, row.mining) for row in rows] == [
        (FROZEN, FROZEN), ("single", "single"), ("single", "seqmatch"), ("seqmatch", "single"),
        ("seqmatch", "seqmatch"),
    ]  # fmt: skip
    assert all(len(row.recalls) == len(row.single_recalls) == 2 for row in rows)
    monkeypatch.setattr(day_night, "train_sequence", None)  # all is kept: nothing is done again
    assert DayNightTrial(tmp_path, (1,), (2, 3), NightCamera(10.0), 2, 2).rows(small) == rows


def test_a_row_is_the_mean_of_its_trainings(tmp_path, monkeypatch):
    def seed_as_recall(_compared, method, length, transform="_0"):
        seed = float(Path(transform).stem.rpartition("_")[2])
        return SequenceRow(method, length, (seed, 1.0, 1.0), 12)

    monkeypatch.setattr(day_night, "evaluate_method", seed_as_recall)
    small = SequenceTrainingConfig.from_file(
        epochs=1, outputs=8, negative_distance=2, sequence_length=3, seed=3
    )
    rows = DayNightTrial(tmp_path, (1,), (2, 3), NightCamera(10.0), trainings=2).rows(small)
    assert [row.recalls for row in rows] == [(0.0, 0.0)] + 4 * [(3.5, 3.5)]
    third, fourth = (tmp_path / f"single_single_{seed}.safetensors" for seed in (3, 4))
    assert third.read_bytes() != fourth.read_bytes()


def test_gain_is_paired_by_town():
    first = DayNightRow("single", "single", (0.5, 0.7), (0.2, 0.2))
    better = DayNightRow("seqmatch", "seqmatch", (0.6, 0.9), (0.2, 0.2))
    assert better.gain_over(first) == pytest.approx((0.15, 0.05))
