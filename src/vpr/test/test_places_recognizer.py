import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.config import SequenceMatchingConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.places.memory import StateError
from vpr.places.recognizer import (
    DescriptorError,
    OdometryError,
    PlaceRecognizer,
    distinct_maxima,
)
from vpr.records import GpsFix, MatchSource

SECOND = 1_000_000_000
MODEL = "net@1"


def recognizer(**overrides):
    settings = {
        "sequence_length": 5,
        "exclude_recent_time": 5.0,
        "exclude_recent_keyframes": 10,
        "candidate_separation": 5,
    }
    return PlaceRecognizer(SequenceMatchingConfig.from_file(**(settings | overrides)))


def views(count, seed=0, noise=0.0):
    """Descriptors of one walk; the same seed walks the same way, noise changes the light."""
    world = np.random.default_rng(seed).normal(size=(count, 64))
    light = noise * np.random.default_rng(seed + 1000).normal(size=(count, 64))
    seen = (world + light).astype(np.float32)
    return seen / np.linalg.norm(seen, axis=1, keepdims=True)


def walk(places, descriptors, start=0):
    return [
        places.observe((start + index) * SECOND, descriptor, MODEL)
        for index, descriptor in enumerate(descriptors)
    ]


def test_a_second_walk_finds_the_first():
    places = recognizer()
    walk(places, views(60))
    places.begin_session()
    second = walk(places, views(60, noise=0.5), start=100)
    for index, observation in enumerate(second[2:], start=2):
        best = observation.matches.candidates[0]
        assert best.reference_id == index
        assert best.reference_session == 0
        assert best.reference_stamp_ns == index * SECOND
        assert best.source is MatchSource.SEQUENCE
        assert best.probability > 0.5
        assert 0.0 <= best.distance < 0.5


def test_a_loop_in_one_session_is_found_and_the_recent_past_is_not():
    places = recognizer()
    lap = views(40)
    observations = walk(places, np.concatenate([lap, lap]))
    first_lap = [found.matches for found in observations[:10]]
    assert all(not matches.candidates for matches in first_lap)
    assert all(matches.searched == 0 for matches in first_lap)
    for index in range(45, 80):
        assert observations[index].matches.candidates[0].reference_id == index - 40
        assert observations[index].matches.searched == index - 10


def test_exclusion_holds_by_time_and_by_count():
    descriptors = views(30)
    by_time = walk(recognizer(exclude_recent_time=20.0, exclude_recent_keyframes=0), descriptors)
    by_count = walk(recognizer(exclude_recent_time=0.0, exclude_recent_keyframes=12), descriptors)
    assert [found.matches.searched for found in by_time] == [max(0, i - 19) for i in range(30)]
    assert [found.matches.searched for found in by_count] == [max(0, i - 12) for i in range(30)]


def test_keyframes_carry_what_was_observed():
    places = recognizer()
    pose, covariance, fix = pose_from_xy_yaw(1, 2, 3), np.eye(6), GpsFix(48.0, 11.0, 500.0)
    descriptor = views(1)[0]
    observation = places.observe(7 * SECOND, descriptor, MODEL, pose, covariance, fix, "camera")
    kept = observation.keyframe
    assert (kept.id, kept.session, kept.stamp_ns) == (0, 0, 7 * SECOND)
    assert (kept.model, kept.fix, kept.frame_id) == (MODEL, fix, "camera")
    np.testing.assert_array_equal(kept.odometry, pose)
    np.testing.assert_array_equal(kept.descriptor, descriptor)
    assert observation.skipped == ""
    assert observation.matches.explanation == "no loop: no place is old enough to be searched"


def test_a_frame_without_motion_is_skipped_in_words():
    places = recognizer()
    places.observe(0, views(1)[0], MODEL, pose_from_xy_yaw(0, 0, 0))
    observation = places.observe(SECOND, views(1)[0], MODEL, pose_from_xy_yaw(0.01, 0, 0))
    assert observation.keyframe is None
    assert observation.matches is None
    assert observation.skipped.startswith("moved 0.01 m <")
    assert places.places == 1


def test_silence_is_explained():
    places = recognizer(min_probability=0.8)
    walk(places, views(40, seed=1))
    places.begin_session()
    matches = walk(places, views(1, seed=2), start=100)[0].matches
    assert matches.candidates == ()
    assert matches.explanation.startswith("no loop: best candidate 0.")
    assert matches.explanation.endswith("< 0.80, 40 places searched")


def test_a_stamp_far_back_begins_a_session_and_loses_nothing():
    places = recognizer()
    walk(places, views(30))
    again = walk(places, views(30))
    assert [found.keyframe.session for found in again] == [1] * 30
    assert [found.keyframe.id for found in again] == list(range(30, 60))
    assert again[10].matches.candidates[0].reference_id == 10


def test_a_stamp_a_little_back_or_repeated_is_skipped():
    places = recognizer(time_jump_tolerance=1.0)
    walk(places, views(3))
    late = places.observe(2 * SECOND - SECOND // 2, views(1)[0], MODEL)
    assert late.skipped == "stamp is 0.500 s before the last keyframe's"
    assert places.observe(2 * SECOND, views(1)[0], MODEL).skipped == "stamp seen before"
    assert places.session == 0
    assert places.places == 3


def test_a_session_without_keyframes_leaves_no_gap():
    places = recognizer()
    assert places.begin_session() == 0
    walk(places, views(2))
    assert places.begin_session() == 1
    assert places.begin_session() == 1


@pytest.mark.parametrize(
    ("descriptor", "model", "message"),
    [
        (views(1)[0], "other@2", "of model other@2, the remembered places are of net@1"),
        (np.ones(4, np.float32) / 2, MODEL, "has 4 values"),
        (np.full(64, np.nan, np.float32), MODEL, "not finite"),
        (2 * views(1)[0], MODEL, "not L2-normalised: its length is 2"),
        (np.zeros(64, np.float32), MODEL, "not L2-normalised"),
        (np.ones((1, 64), np.float32), MODEL, "a vector"),
    ],
)
def test_a_descriptor_that_cannot_be_compared_is_refused(descriptor, model, message):
    places = recognizer()
    walk(places, views(3))
    with pytest.raises(DescriptorError, match=message):
        places.observe(10 * SECOND, descriptor, model)
    assert places.places == 3


def test_odometry_that_is_not_finite_is_refused():
    with pytest.raises(OdometryError):
        recognizer().observe(0, views(1)[0], MODEL, np.full((4, 4), np.nan))


def test_a_restored_recognizer_answers_like_the_one_saved():
    places, restored = recognizer(), recognizer()
    walk(places, views(40))
    arrays, metadata = places.state()
    restored.restore(arrays, json.loads(json.dumps(metadata)))
    places.begin_session()
    assert restored.session == places.session == 1
    assert restored.model == MODEL
    for expected, found in zip(
        walk(places, views(40, noise=0.3)), walk(restored, views(40, noise=0.3)), strict=True
    ):
        assert found.matches == expected.matches


def test_the_state_of_an_empty_recognizer_restores_to_an_empty_one():
    places = recognizer()
    places.restore(*places.state())
    assert (places.places, places.session, places.model) == (0, 0, "")


def test_a_refused_state_changes_nothing():
    places = recognizer()
    walk(places, views(5))
    arrays, metadata = places.state()
    arrays["ids"] = arrays["ids"][::-1]
    with pytest.raises(StateError):
        places.restore(arrays, metadata)
    assert places.places == 5


@settings(deadline=None)
@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=60),
    st.integers(1, 6),
    st.integers(1, 8),
)
def test_candidates_are_the_best_places_that_are_apart(values, count, separation):
    scores = np.array(values, np.float32)
    best = distinct_maxima(scores, count, separation, np.arange(len(scores)))
    assert best[0] == scores.argmax()
    assert (np.diff(scores[best]) <= 0).all()
    gaps = np.abs(best[:, None] - best[None]) + separation * np.eye(len(best), dtype=int)
    assert (gaps >= separation).all()
    if len(best) < count:  # nothing is left that is apart from all of them
        left = np.abs(np.arange(len(scores))[:, None] - best[None]).min(axis=1)
        assert (left < separation).all()
    np.testing.assert_array_equal(scores, np.array(values, np.float32))
