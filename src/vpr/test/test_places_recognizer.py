from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_part import changed_part, saved_part

from vpr.config import SequenceMatchingConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.maps.folder import PartOutdated
from vpr.models.calibration import Calibration, ReducedMap, SequenceCalibration
from vpr.models.descriptor_model import DescriptorModel, DescriptorModelError
from vpr.models.head import DescriptorHead
from vpr.models.impostors import Impostors
from vpr.places.maxima import distinct_maxima
from vpr.places.memory import TABLE, StateError
from vpr.places.recognizer import DescriptorError, OdometryError, PlaceRecognizer
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


def test_a_loaded_recognizer_answers_like_the_one_saved(tmp_path):
    places, loaded = recognizer(), recognizer()
    walk(places, views(40))
    loaded.load(saved_part(tmp_path / "map", "places", places.save))
    places.begin_session()
    assert loaded.session == places.session == 1
    assert loaded.model == MODEL
    for expected, found in zip(
        walk(places, views(40, noise=0.3)), walk(loaded, views(40, noise=0.3)), strict=True
    ):
        assert found.matches == expected.matches


def test_an_empty_recognizer_is_saved_and_loaded(tmp_path):
    places = recognizer()
    places.load(saved_part(tmp_path / "map", "places", places.save))
    assert (places.places, places.session, places.model) == (0, 0, "")


def test_a_refused_map_changes_nothing(tmp_path):
    places = recognizer()
    walk(places, views(5))
    part = changed_part(
        tmp_path / "map", "places", places.save, TABLE, lambda a: a.update(ids=a["ids"][::-1])
    )
    with pytest.raises(StateError):
        places.load(part)
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


def trained_on(model, dimension=8, calibration=None, of_sequences=None):
    """A trained descriptor whose head turns the descriptors of ``model``."""
    head = DescriptorHead("linear", dimension, 4, normalised=True)
    return DescriptorModel(
        model,
        (head.eval(),),
        calibration=calibration,
        sequence_calibration=of_sequences,
    )


def test_adopting_a_model_brings_the_places_and_late_descriptors_forward(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    recognizer = PlaceRecognizer(SequenceMatchingConfig.from_file())
    for i, row in enumerate(rows[:4]):
        recognizer.observe((i + 1) * 10**9, row, "net@base")
    trained = trained_on("net@base")
    assert recognizer.adopt(trained) == 4
    assert recognizer.model == trained.name
    late = recognizer.observe(5 * 10**9, rows[4], "net@base")  # made before the switch
    new = trained.heads[0].apply_to(rows[5:6])[0]
    recognizer.observe(6 * 10**9, new, trained.name)
    part = saved_part(tmp_path / "map", "places", recognizer.save)
    assert part.metadata["model"] == late.keyframe.model == trained.name
    expected = trained.heads[0].apply_to(rows)
    kept = part.table(TABLE).arrays()["descriptors"]
    np.testing.assert_allclose(kept, expected, atol=2e-3)  # in half precision


def test_places_of_a_map_are_brought_forward_when_it_is_loaded(tmp_path):
    rows = np.eye(8, dtype=np.float32)
    before = PlaceRecognizer(SequenceMatchingConfig.from_file())
    for i, row in enumerate(rows[:4]):
        before.observe((i + 1) * 10**9, row, "net@base")
    part = saved_part(tmp_path / "map", "places", before.save)
    trained = trained_on("net@base")
    adopted_after, adopted_first = (
        PlaceRecognizer(SequenceMatchingConfig.from_file()) for _ in range(2)
    )
    adopted_after.load(part)
    adopted_after.observe(5 * 10**9, rows[4], "net@base")  # in memory, the others on disk
    assert adopted_after.adopt(trained) == 5
    adopted_first.adopt(trained)
    adopted_first.load(part)
    adopted_first.observe(5 * 10**9, rows[4], "net@base")
    expected = trained.heads[0].apply_to(rows[:5])
    for name, recognizer in (("after", adopted_after), ("first", adopted_first)):
        assert recognizer.model == trained.name
        with pytest.raises(PartOutdated, match=f"by net@base, those here by {trained.name}"):
            saved_part(tmp_path / "map", "places", recognizer.save)
        table = saved_part(tmp_path / name, "places", recognizer.save).table(TABLE).arrays()
        np.testing.assert_allclose(table["descriptors"], expected, atol=2e-3)
        assert table["sessions"].tolist() == [0, 0, 0, 0, 1]


def test_a_model_built_on_another_one_is_not_adopted():
    recognizer = PlaceRecognizer(SequenceMatchingConfig.from_file())
    recognizer.observe(10**9, np.eye(8, dtype=np.float32)[0], "net@base")
    with pytest.raises(DescriptorModelError, match="without their images"):
        recognizer.adopt(trained_on("net@other"))
    assert recognizer.model == "net@base"


def test_single_images_get_the_probability_that_the_model_was_calibrated_to():
    falling = ReducedMap(distances=(0.0, 2.0), probabilities=(0.9, 0.1))
    calibration = Calibration(best=falling, further=falling)
    config = SequenceMatchingConfig.from_file(
        sequence_length=1, exclude_recent_keyframes=0, exclude_recent_time=0.0, top_k=1
    )
    recognizer = PlaceRecognizer(config)
    trained = trained_on("net@base", calibration=calibration)
    recognizer.adopt(trained)
    rows = np.eye(8, dtype=np.float32)[[0, 1, 2, 0]]
    for i, row in enumerate(rows):
        observation = recognizer.observe((i + 1) * 10**9, row, "net@base")
    match = observation.matches.candidates[0]
    assert match.reference_id == 0
    assert match.distance == pytest.approx(0.0, abs=1e-3)  # in half precision
    assert match.probability == pytest.approx(0.9, abs=0.02)


def test_a_view_as_near_to_impostors_is_less_probable():
    falling = ReducedMap(distances=(-1.0, 0.0), probabilities=(0.9, 0.1), impostor_weight=1.0)
    calibration = Calibration(best=falling, further=falling)
    config = SequenceMatchingConfig.from_file(
        sequence_length=1, exclude_recent_keyframes=0, exclude_recent_time=0.0, top_k=1
    )
    rows = np.eye(8, dtype=np.float32)[[0, 1, 2, 0]]
    probabilities = {}
    for name, impostor in (("common", rows[:1]), ("rare", -rows[:1])):
        recognizer = PlaceRecognizer(config)
        torch.manual_seed(0)
        trained = trained_on("net@base", calibration=calibration)
        turned = Impostors(trained.heads[0].apply_to(impostor))
        recognizer.adopt(replace(trained, impostors=turned))
        for i, row in enumerate(rows):
            observation = recognizer.observe((i + 1) * 10**9, row, "net@base")
        probabilities[name] = observation.matches.candidates[0].probability
    assert probabilities["common"] == pytest.approx(0.1, abs=0.02)
    assert probabilities["rare"] > 0.5


@pytest.mark.parametrize(
    ("step", "alignment", "located", "calibrated"),
    [
        (5.0, 0.0, True, True),
        (0.5, 0.0, True, True),  # denser: compared in steps of 5 m
        (0.5, 5.0, True, True),
        (0.5, 1.0, True, False),  # sequences of another length are wanted
        (5.0, 0.0, False, False),  # nobody knows how long they are
        (9.0, 0.0, True, False),
    ],
)
def test_sequences_get_the_probability_of_the_model_where_they_are_as_long(
    step, alignment, located, calibrated
):
    recognizer = PlaceRecognizer(
        SequenceMatchingConfig.from_file(
            sequence_length=3,
            keyframe_translation=min(step, 8.0),
            alignment_step=alignment,
            exclude_recent_keyframes=0,
            exclude_recent_time=0.0,
            min_probability=0.0,
            top_k=1,
        )
    )
    recognizer.adopt(trained_on("net@base", of_sequences=sequences_at(5.0)))
    rows = np.eye(8, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2]]
    for i, row in enumerate(rows):
        pose = pose_from_xy_yaw(1.01 * step * i, 0.0, 0.0) if located else None
        observation = recognizer.observe((i + 1) * 10**9, row, "net@base", pose)
    probability = observation.matches.candidates[0].probability
    assert (probability == pytest.approx(0.77)) == calibrated


def test_dense_keyframes_are_compared_over_the_metres_that_a_model_was_calibrated_for():
    """Views change each 5 m; of two like the last one, the metres before tell which it is."""
    streets = [0, 1, 2, 3, 4, 5, 1, 6, 7, 8]  # 5 m each; the second and the seventh look alike
    second_visit = streets[4:7]
    scores = {}
    for adopted in (False, True):
        recognizer = PlaceRecognizer(
            SequenceMatchingConfig.from_file(
                sequence_length=3, exclude_recent_keyframes=60, exclude_recent_time=0.0,
                min_probability=0.0, top_k=2, candidate_separation=3 if adopted else 25,
            )
        )  # fmt: skip
        if adopted:
            recognizer.adopt(
                DescriptorModel("net@base", (), sequence_calibration=sequences_at(5.0))
            )
        for first_ns, path in ((0, streets), (10**12, second_visit)):
            recognizer.begin_session()
            for i, street in enumerate(np.repeat(path, 20)):  # a keyframe each 0.25 m
                pose = pose_from_xy_yaw(0.25 * i, 0.0, 0.0)
                view = one_hot(street)
                seen = recognizer.observe(first_ns + (i + 1) * 10**9, view, "net@base", pose)
        best, other = seen.matches.candidates
        scores[adopted] = best.sequence_score - other.sequence_score
        if adopted:
            assert 120 <= best.reference_id < 140
            assert not 105 < other.reference_id < 155  # three steps of 5 m, not three keyframes
            assert best.probability == pytest.approx(0.77)
    assert scores[True] > 0.5 > scores[False]


def sequences_at(spacing):
    """A calibration of three frames so far apart that says 0.77 of any score."""
    part = ReducedMap(distances=(-9.0, 9.0), probabilities=(0.77, 0.77))
    return SequenceCalibration(
        best=part, further=part, method="sequence_matching", sequence_length=3, spacing=spacing
    )


def drive(recognizer, stamps, places, odometry=lambda stamp: None):
    return [
        recognizer.observe(stamp, one_hot(place), "net@1", odometry=odometry(stamp))
        for stamp, place in zip(stamps, places, strict=True)
    ]


def one_hot(place):
    values = np.zeros(64, np.float32)
    values[place] = 1.0
    return values


def test_odometry_that_jumps_begins_a_session_and_goes_on_in_the_same_places():
    recognizer = PlaceRecognizer(SequenceMatchingConfig.from_file())

    def odometry(stamp):
        pose = np.eye(4)
        pose[0, 3] = stamp / 1e9 + (1000.0 if stamp >= 20 * 10**9 else 0.0)
        return pose

    stamps = [10**9 * i for i in range(32)]
    seen = drive(recognizer, stamps, [*range(20), *range(12)], odometry)
    assert [s.keyframe.session for s in seen] == [0] * 20 + [1] * 12
    assert "odometry jumped 1001.0 m in 1.00 s" in recognizer.session_reason
    assert seen[-1].matches.candidates[0].reference_id == 11


def test_nothing_is_matched_with_a_forgotten_session_also_after_a_save(tmp_path):
    recognizer = PlaceRecognizer(SequenceMatchingConfig.from_file())
    for session in range(2):
        drive(recognizer, [10**9 * i for i in range(12)], range(12))
        recognizer.begin_session()
        if session == 0:
            with pytest.raises(StateError, match="session 1 is being driven"):
                recognizer.forget_session(1)
            with pytest.raises(StateError, match="no places of session 5"):
                recognizer.forget_session(5)
    recognizer.forget_session(0)
    again = PlaceRecognizer(SequenceMatchingConfig.from_file())
    again.load(saved_part(tmp_path / "map", "places", recognizer.save))
    for engine in (recognizer, again):
        found = drive(engine, [10**9 * i for i in range(12)], range(12))[-1].matches
        assert {c.reference_session for c in found.candidates} == {1}
        engine.forget_session(1)
        nothing = drive(engine, [10**9 * 12], [12])[-1].matches
        assert not nothing.candidates
