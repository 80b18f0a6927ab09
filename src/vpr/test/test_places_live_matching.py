"""What the node gets: whole drives through the recognizer, good ones and bad ones."""

import numpy as np
import pytest
from saved_part import saved_part

from vpr.config import SequenceMatchingConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.models.seqnet import SeqNet, save_seqnet
from vpr.models.weights import WeightsError
from vpr.places import encoded
from vpr.places.descriptors import DescriptorRows
from vpr.places.encoded import EncodedPlaces
from vpr.places.encoders import SingleEncoder, delta
from vpr.places.memory import PlaceMemory
from vpr.places.recognizer import DescriptorError, PlaceRecognizer
from vpr.places.shortlist import GROWTH, GrowingShortlist
from vpr.records import Keyframe, MatchSource

SECOND = 1_000_000_000
MODEL = "net@1"
ROUTE = 60


def views(places, noise=0.0, seed=0):
    world = np.random.default_rng(0).normal(size=(2000, 32))
    light = noise * np.random.default_rng(seed + 1).normal(size=(len(places), 32))
    seen = world[list(places)] + light
    return (seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float32)


def recognizer(**settings):
    chosen = {"sequence_length": 5, "exclude_recent_keyframes": 10, "exclude_recent_time": 0.0}
    return PlaceRecognizer(SequenceMatchingConfig.from_file(**(chosen | settings)))


def drive(places, descriptors, start=0, poses=None):
    observed = [
        places.observe((start + i) * SECOND, view, MODEL, None if poses is None else poses[i])
        for i, view in enumerate(descriptors)
    ]
    return [found.matches for found in observed if found.matches is not None]


def best_ids(matches):
    return [found.candidates[0].reference_id if found.candidates else -1 for found in matches]


def memory_of(descriptors, sessions=None):
    memory = PlaceMemory(MODEL, descriptors.shape[1])
    sessions = np.zeros(len(descriptors), int) if sessions is None else sessions
    for index, (descriptor, session) in enumerate(zip(descriptors, sessions, strict=True)):
        memory.append(Keyframe(index, int(session), index, descriptor, MODEL))
    return memory


def test_a_place_is_found_in_whichever_session_it_was_seen():
    places = recognizer()
    drive(places, views(range(40)))
    places.begin_session()
    drive(places, views(range(100, 140), 0.3))
    places.begin_session()
    matches = drive(places, views([*range(10, 20), *range(110, 120)], 0.5))
    sessions = [found.candidates[0].reference_session for found in matches]
    assert sessions[4:10] == [0] * 6
    assert sessions[14:] == [1] * 6
    assert best_ids(matches)[14:] == list(range(54, 60))


def test_a_route_driven_backwards_is_found_where_that_is_searched():
    found = {}
    for search_reverse in (False, True):
        places = recognizer(search_reverse=search_reverse, sequence_length=8)
        drive(places, views(range(ROUTE)))
        places.begin_session()
        backwards = np.arange(ROUTE)[::-1]
        answers = best_ids(drive(places, views(backwards, 1.5)))
        found[search_reverse] = np.mean(np.array(answers[8:]) == backwards[8:])
    assert found[True] >= 0.95
    assert found[True] >= found[False] + 0.2


@pytest.mark.parametrize("frames", [1, 3])
def test_a_drive_shorter_than_the_sequence_is_matched_by_what_there_is(frames):
    places = recognizer(sequence_length=9)
    drive(places, views(range(ROUTE)))
    places.begin_session()
    matches = drive(places, views(range(20, 20 + frames), 0.3))
    assert best_ids(matches) == list(range(20, 20 + frames))
    assert matches[0].candidates[0].source is MatchSource.SINGLE


def test_a_map_of_one_frame_says_little_and_says_so():
    places = recognizer()
    drive(places, views([7]))
    places.begin_session()
    matches = drive(places, views([7, 8, 9]))
    assert [found.searched for found in matches] == [1, 1, 1]
    assert not any(found.candidates for found in matches)
    assert all(found.explanation.startswith("no loop: best candidate") for found in matches)


@pytest.mark.parametrize("pace", [[1.0], [0.25, 1.0, 2.0]])
def test_a_changing_frame_rate_does_not_break_sequences_by_distance(pace):
    """On a path where a metre is a place, frames come every ``pace`` metres, part by part."""
    places = recognizer(alignment_step=1.0, keyframe_translation=0.0, sequence_length=8)
    drive(places, views(range(ROUTE)), 0, [pose_from_xy_yaw(x, 0.0, 0.0) for x in range(ROUTE)])
    places.begin_session()
    bounds = np.linspace(0, ROUTE - 1, len(pace) + 1)
    metres = [np.arange(*ends, step) for step, *ends in zip(pace, bounds, bounds[1:], strict=False)]
    driven = np.concatenate(metres)
    poses = [pose_from_xy_yaw(x, 0.0, 0.0) for x in driven]
    answers = best_ids(drive(places, views(driven.astype(int), 1.5), 100, poses))
    assert np.mean(np.abs(np.array(answers[8:]) - driven[8:]) <= 1.0) >= 0.9


def test_frames_that_come_twice_count_once():
    places = recognizer()
    drive(places, views(range(ROUTE)))
    places.begin_session()
    seen = [places.observe(s * SECOND, view, MODEL) for s in range(20) for view in views([s])]
    again = places.observe(19 * SECOND, views([19])[0], MODEL)
    assert (again.keyframe, again.skipped) == (None, "stamp seen before")
    assert seen[-1].matches.candidates[0].reference_id == 19


def test_when_all_looks_the_same_nothing_is_recognised():
    places = recognizer()
    drive(places, np.repeat(views([0]), ROUTE, axis=0))
    places.begin_session()
    matches = drive(places, np.repeat(views([0]), 20, axis=0))
    assert not any(found.candidates for found in matches)
    assert all("no loop" in found.explanation for found in matches)


def test_a_view_that_is_not_finite_is_refused_and_leaves_no_trace():
    places = recognizer()
    drive(places, views(range(ROUTE)))
    places.begin_session()
    broken = views([5])[0]
    broken[3] = np.nan
    with pytest.raises(DescriptorError, match="not finite"):
        places.observe(0, broken, MODEL)
    assert best_ids(drive(places, views(range(9), 0.3)))[4:] == list(range(4, 9))


def test_a_view_of_another_model_than_the_map_is_refused_with_both_names(tmp_path):
    before = recognizer()
    drive(before, views(range(9)))
    places = recognizer()
    places.load(saved_part(tmp_path, "places", before.save))
    with pytest.raises(DescriptorError, match=r"of model other@2, .* places are of net@1"):
        places.observe(0, views([0])[0], "other@2")


def test_a_map_that_the_transform_was_not_made_for_is_refused_and_changes_nothing(tmp_path):
    network = SeqNet(32, 32, 1, "other@2")
    network.start_as_projection(np.eye(32, dtype=np.float32))
    save_seqnet(network, tmp_path / "s1.safetensors")
    before = recognizer()
    drive(before, views(range(9)))
    places = recognizer(method="seqmatchnet", transform=str(tmp_path / "s1.safetensors"))
    with pytest.raises(WeightsError, match=r"descriptors of other@2, these are of net@1"):
        places.load(saved_part(tmp_path / "map", "places", before.save))
    assert (places.places, places.model) == (0, "")


@pytest.mark.parametrize("settings", [{"method": "delta"}, {"alignment_step": 1.0}, {}])
def test_a_loaded_map_is_searched_as_if_it_had_just_been_driven(tmp_path, settings):
    poses = [pose_from_xy_yaw(0.6 * i, 0.0, 0.0) for i in range(ROUTE)]
    driven, loaded = recognizer(**settings), recognizer(**settings)
    drive(driven, views(range(ROUTE)), 0, poses)
    loaded.load(saved_part(tmp_path, "places", driven.save))
    driven.begin_session()
    answers = [
        [[c.sequence_score for c in found.candidates] for found in
         drive(places, views(range(20, 40), 0.3), 100, poses[20:40])]
        for places in (driven, loaded)
    ]  # fmt: skip
    for one, other in zip(*answers, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-2)


@pytest.mark.parametrize("encoder", [SingleEncoder(), delta(5)])
def test_places_are_encoded_session_by_session_in_pieces(encoder, monkeypatch):
    monkeypatch.setattr(encoded, "ENCODED_ROWS", 7)
    descriptors = views(range(50))
    memory = memory_of(descriptors, np.arange(50) >= 20)
    expected = np.concatenate([encoder(descriptors[:20]), encoder(descriptors[20:])])
    found = EncodedPlaces(encoder, memory)
    np.testing.assert_allclose(found.descriptors(np.arange(50)), expected, atol=1e-3)
    view = expected[30]
    np.testing.assert_allclose(found.similarities(view), expected @ view, atol=2e-3)


def test_descriptors_of_a_map_and_new_ones_are_one(tmp_path):
    memory = memory_of(views(range(30)))
    part = saved_part(tmp_path, "places", lambda writer: writer.finish(30, memory.save(writer)))
    rows = DescriptorRows(32, part.table("keyframes").column("descriptors", "<f2", (None,)))
    rows.extend(views(range(30, 40)))
    expected = views(range(40))
    chosen = np.array([35, 2, 2, 29, 30])
    np.testing.assert_allclose(rows.at(chosen), expected[chosen], atol=1e-3)
    np.testing.assert_allclose(rows.similarities(expected[3]), expected @ expected[3], atol=2e-3)
    assert rows.at(np.empty(0, np.int64)).shape == (0, 32)


def shortlist_of(memory, above=100):
    config = SequenceMatchingConfig.from_file(shortlist_above=above, shortlist_size=5)
    return GrowingShortlist(EncodedPlaces(SingleEncoder(), memory), config)


def test_few_places_are_never_pruned():
    growing = shortlist_of(memory_of(views(range(99))))
    growing.settle(99)
    assert growing.of_first(99, []) is None


def test_a_shortlist_grows_with_the_drive_and_never_runs_ahead_of_it():
    descriptors = views(range(300 + GROWTH))
    growing = shortlist_of(memory_of(descriptors))
    growing.settle(300)
    assert growing.of_first(299, []) is None
    assert len(growing.of_first(300 + GROWTH - 1, [])) == 300
    grown = growing.of_first(300 + GROWTH, [])
    assert len(grown) == 300 + GROWTH
    assert grown.nearest(descriptors[400])[0][0] == 400


def test_an_outgrown_shortlist_is_clustered_anew_in_the_background():
    growing = shortlist_of(memory_of(views(range(400))))
    growing.settle(150)
    growing.of_first(400, [])
    growing.settle(400)
    assert growing.of_first(400, []).clustered == 400


def test_forgotten_places_are_not_shortlisted():
    descriptors = views(range(200))
    growing = shortlist_of(memory_of(descriptors))
    growing.settle(200)
    near, _ = growing.of_first(200, [slice(40, 60)]).nearest(descriptors[50])
    assert len(near) == 5
    assert not ((near >= 40) & (near < 60)).any()


def test_a_pruned_drive_forgets_sessions_and_goes_on():
    places = recognizer(shortlist_above=50, min_probability=0.0)
    for _ in range(2):
        drive(places, views(range(ROUTE)))
        places.begin_session()
    places.settle()
    assert best_ids(drive(places, views(range(20), 0.3)))[5] in (5, ROUTE + 5)
    places.begin_session()
    places.forget_session(0)
    matches = drive(places, views(range(20), 0.3))
    expected = range(2 * ROUTE + 4, 2 * ROUTE + 20)  # the last drive saw just the same
    assert best_ids(matches)[4:] == list(expected)
    places.begin_session()
    for session in (1, 2, 3):
        places.forget_session(session)
    silent = drive(places, views([20], 0.3))[0]
    assert not silent.candidates
    assert silent.explanation == "no loop: the sessions that could be searched are forgotten"
