"""Distances to probabilities, and thresholds that hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.learning.calibrating import (
    JudgedMatches,
    assured_share,
    choose_threshold,
    drives_needed,
    fit_falling_map,
    fit_reduced_map,
    precision_held,
    reliability,
)
from vpr.learning.errors import TrainingError
from vpr.models.calibration import Calibration, FallingMap, ReducedMap, SequenceCalibration


def drawn(seed, drives=20, each=200, spread=0.0):
    """Matches whose chance to be right falls with distance; drives differ by ``spread``."""
    rng = np.random.default_rng(seed)
    drive = np.repeat(np.arange(drives), each)
    distances = rng.uniform(0.2, 1.4, drives * each)
    shift = rng.normal(0.0, spread, drives)[drive]
    chance = 1.0 / (1.0 + np.exp((distances + shift - 0.8) / 0.06))
    return judged(distances, rng.random(len(chance)) < chance, drive)


def judged(distances, correct, drive=None, impostors=None, places=None):
    """Matches of which nothing else is told."""
    count = len(distances)
    return JudgedMatches(
        distances,
        correct,
        np.zeros(count, int) if drive is None else drive,
        np.zeros(count) if impostors is None else impostors,
        np.ones(count, int) if places is None else places,
    )


def crowded(seed, places, count=4000):
    """The nearest of n places: the right one, where no impostor is nearer; some views are common.

    Impostors are independent and their distances have an exponential tail.
    """
    rng = np.random.default_rng(seed)
    common = rng.normal(1.0, 0.05, count)
    right = rng.normal(0.7, 0.1, count)
    impostor = common + 0.05 * np.log(rng.exponential(size=count) / places)
    nearest, correct = np.minimum(right, impostor), right < impostor
    return judged(nearest, correct, impostors=common, places=np.full(count, places))


def test_a_fit_is_calibrated_on_matches_it_has_not_seen():
    calibration = fit_falling_map(drawn(0))
    fresh = drawn(1)
    diagram = reliability(calibration(fresh.distances), fresh.correct)
    assert diagram.expected_error < 0.02
    assert diagram.counts.sum() == len(fresh.correct)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_probability_falls_with_distance_and_stays_within_bounds(seed):
    calibration = fit_falling_map(drawn(seed, drives=3))
    probabilities = calibration(np.linspace(-1.0, 3.0, 200))
    assert (np.diff(probabilities) <= 1e-12).all()
    assert 0.0 < probabilities.min() < probabilities.max() < 1.0


def test_a_calibration_survives_json():
    calibration = fit_reduced_map(drawn(0))
    both = Calibration(best=calibration, further=calibration)
    assert Calibration.model_validate_json(both.model_dump_json()) == both


def test_a_fit_in_small_and_large_memories_holds_in_those_between():
    """With the size of the memory and common views weighed; without either it does not."""
    calibration = fit_reduced_map(JudgedMatches.together([crowded(0, 30), crowded(1, 3000)]))
    assert calibration.places_weight > 0.0
    assert calibration.impostor_weight > 0.0
    fresh = crowded(2, 300)
    probabilities = calibration(fresh.reduced_by(calibration).distances)
    assert reliability(probabilities, fresh.correct).expected_error < 0.06
    plain = fit_falling_map(crowded(1, 3000))
    small = crowded(3, 30)
    assert reliability(plain(small.distances), small.correct).expected_error > 0.1


def test_more_places_and_nearer_impostors_make_a_distance_say_less():
    plain = ReducedMap(
        distances=(0.0, 2.0), probabilities=(1.0, 0.0), impostor_weight=1.0, places_weight=0.1
    )
    few, many = plain.reduced([0.5], [0.9], 10), plain.reduced([0.5], [0.9], 1000)
    rare, common = plain.reduced([0.5], [0.9], 10), plain.reduced([0.5], [0.6], 10)
    assert plain(few) > plain(many)
    assert plain(rare) > plain(common)


@pytest.mark.parametrize(
    ("method", "length", "spacing", "holds"),
    [
        ("sequence_matching", 7, 5.0, True),
        ("sequence_matching", 7, 6.0, True),
        ("sequence_matching", 7, 0.2, False),
        ("sequence_matching", 7, None, False),
        ("sequence_matching", 5, 5.0, False),
        ("delta", 7, 5.0, False),
    ],
)
def test_probabilities_of_sequences_hold_for_sequences_like_those_calibrated(
    method, length, spacing, holds
):
    part = ReducedMap(distances=(0.0,), probabilities=(0.5,))
    calibration = SequenceCalibration(
        best=part, further=part, method="sequence_matching", sequence_length=7, spacing=5.0
    )
    assert calibration.holds_for(method, length, spacing) == holds


def test_the_nearest_candidate_has_a_map_of_its_own():
    sure = ReducedMap(distances=(0.0, 2.0), probabilities=(0.9, 0.9))
    unsure = ReducedMap(distances=(0.0, 2.0), probabilities=(0.2, 0.2))
    calibration = Calibration(best=sure, further=unsure)
    np.testing.assert_allclose(calibration([0.5, 0.6, 0.7], 0.0, 1), [0.9, 0.2, 0.2])


@pytest.mark.parametrize("probabilities", [(0.2, 0.8), (0.5,), (1.2, 0.1)])
def test_a_calibration_that_is_none_is_refused(probabilities):
    with pytest.raises(ValueError, match=r"calibration|FallingMap"):
        FallingMap(distances=(0.1, 0.5), probabilities=probabilities)


def test_too_few_matches_are_refused_with_the_number_needed():
    matches = judged(np.linspace(0, 1, 200), np.ones(200, bool))
    with pytest.raises(TrainingError, match=r"200 right and 0 wrong .* 10 of each kind"):
        fit_reduced_map(matches)


def test_candidates_that_were_never_right_are_said_to_be_improbable():
    never = fit_reduced_map(judged(np.linspace(0, 1, 200), np.zeros(200, bool)), min_of_each=0)
    assert (never.impostor_weight, never.places_weight) == (0.0, 0.0)
    assert 0.0 < never([0.5])[0] < 0.01


def test_the_threshold_holds_on_nearly_all_new_drives_though_drives_differ():
    shares = []
    for seed in range(40):
        calibration = drawn(seed, drives=59, each=60, spread=0.05)
        chosen = choose_threshold(calibration, 0.95, 0.95, 0.95)
        assert chosen.assured_drives >= 0.95
        new = drawn(100 + seed, drives=400, each=60, spread=0.05)
        shares.append(precision_held(new, chosen.distance, 0.95).mean())
    assert np.mean(np.array(shares) >= 0.95) >= 0.9  # 0.95 is what was asked for


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(59, 120))
def test_on_its_own_drives_no_more_fail_than_the_bound_allows(seed, drives):
    matches = drawn(seed, drives=drives, each=40, spread=0.05)
    chosen = choose_threshold(matches, 0.9, 0.95, 0.95)
    failing = int((~precision_held(matches, chosen.distance, 0.9)).sum())
    assert assured_share(drives, np.array(failing), 0.95) >= chosen.assured_drives >= 0.95


def test_one_threshold_for_all_pooled_matches_would_not_hold():
    """What the drive-wise limit is for: the pooled precision hides the bad drives."""
    held = []
    for seed in range(20):
        matches = drawn(seed, spread=0.05)
        order = np.argsort(matches.distances)
        precision = np.cumsum(matches.correct[order]) / np.arange(1, len(order) + 1)
        pooled = matches.distances[order][np.flatnonzero(precision >= 0.95)[-1]]
        held.append(precision_held(drawn(100 + seed, spread=0.05), pooled, 0.95))
    assert np.mean(held) < 0.9


def test_few_drives_are_said_to_assure_little():
    chosen = choose_threshold(drawn(0, drives=3), 0.9, 0.95, 0.95)
    assert chosen.assured_drives == pytest.approx(0.05 ** (1 / 3))
    assert chosen.drives == 3


def test_the_bound_is_clopper_and_pearsons():
    shares = assured_share(100, np.array([0, 2]), 0.95)
    np.testing.assert_allclose(shares, [0.05**0.01, 0.93844], atol=1e-4)


def test_with_as_many_drives_as_are_needed_the_share_is_assured():
    needed = drives_needed(0.95, 0.95)
    assert needed == 59
    assert assured_share(needed, np.array(0), 0.95) >= 0.95
    assert assured_share(needed - 1, np.array(0), 0.95) < 0.95
