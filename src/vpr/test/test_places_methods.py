import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.config import ConfigError, SequenceMatchingConfig
from vpr.evaluation.places import match_descriptors
from vpr.models.seqnet import SeqNet, read_seqnet, save_seqnet
from vpr.models.weights import WeightsError
from vpr.places.encoders import LiveEncoder, TraverseLengthError, delta, learned, smoothing
from vpr.places.methods import make_method
from vpr.places.recognizer import PlaceRecognizer


def walk(count=60, noise=0.0, seed=0, dimension=32):
    world = np.random.default_rng(seed).normal(size=(count, dimension))
    seen = world + noise * np.random.default_rng(seed + 1).normal(size=world.shape)
    return (seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def transforms(tmp_path):
    """Files of an S1 and an S5 that keep the descriptors as they are."""
    files = []
    for window in (1, 5):
        network = SeqNet(32, 32, window, "net@1")
        network.start_as_projection(np.eye(32, dtype=np.float32))
        files.append(tmp_path / f"s{window}.safetensors")
        save_seqnet(network, files[-1])
    return {"transform": str(files[0]), "shortlister": str(files[1])}


@pytest.mark.parametrize(
    "method",
    ["single", "smoothing", "delta", "sequence_matching", "seqnet_single", "seqmatchnet", "hvpr"],
)
def test_every_method_of_the_family_recognises_a_second_walk(method, transforms):
    config = SequenceMatchingConfig.from_file(
        method=method, sequence_length=4, hierarchy_size=10, **transforms
    )
    matches = match_descriptors(walk(), walk(noise=0.3), config)
    found = [match.candidates[0].reference_id for match in matches]
    assert np.mean(np.array(found[4:]) == np.arange(4, 60)) > 0.95


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 9), st.booleans())
def test_live_descriptors_equal_those_of_the_whole_traverse(count, length, changes):
    encoder = delta(length) if changes else smoothing(length)
    descriptors = walk(count)
    live = LiveEncoder(encoder)
    np.testing.assert_allclose(
        [live(descriptor) for descriptor in descriptors], encoder(descriptors), atol=1e-6
    )


def test_smoothing_and_delta_are_what_they_say():
    descriptors = walk(10)
    mean = descriptors[2:6].mean(axis=0)
    np.testing.assert_allclose(smoothing(4)(descriptors)[5], mean / np.linalg.norm(mean), rtol=1e-5)
    change = descriptors[4:6].sum(axis=0) - descriptors[2:4].sum(axis=0)
    expected = change / np.linalg.norm(change)
    np.testing.assert_allclose(delta(4)(descriptors)[5], expected, atol=1e-6)


def test_a_place_where_nothing_changes_resembles_nothing():
    still = np.repeat(walk(1), 6, axis=0)
    np.testing.assert_array_equal(delta(4)(still), np.zeros_like(still))


def test_hierarchy_answers_only_what_was_shortlisted(transforms):
    config = SequenceMatchingConfig.from_file(
        method="hvpr", sequence_length=4, hierarchy_size=3, **transforms
    )
    found = match_descriptors(walk(), walk(noise=0.3), config)[-1].candidates
    assert len(found) == 3


def test_learned_methods_need_a_file():
    with pytest.raises(ConfigError, match="transform = ''"):
        make_method(SequenceMatchingConfig.from_file(method="seqmatchnet"))


def test_a_transform_survives_its_file(tmp_path):
    network = SeqNet(8, 4, 3, "net@1", {"loss": "seqmatch"}).eval()
    save_seqnet(network, tmp_path / "a.safetensors")
    again = read_seqnet(tmp_path / "a.safetensors")
    assert (again.model, again.source, again.window) == (network.model, "net@1", 3)
    assert again.training_record == {"loss": "seqmatch"}
    np.testing.assert_array_equal(
        again.encode(walk(9, dimension=8)), network.encode(walk(9, dimension=8))
    )


def test_what_is_no_transform_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="corrupt"):
        read_seqnet(file)


def test_a_transform_of_another_model_is_refused_with_both_names(transforms):
    config = SequenceMatchingConfig.from_file(method="seqmatchnet", **transforms)
    with pytest.raises(WeightsError, match=r"descriptors of net@1, these are of other@2"):
        PlaceRecognizer(config).observe(0, walk(1)[0], "other@2")
    with pytest.raises(WeightsError, match="32 values"):
        PlaceRecognizer(config).observe(0, walk(1, dimension=16)[0], "net@1")


def test_a_traverse_without_frames_is_refused(transforms):
    with pytest.raises(TraverseLengthError):
        learned(transforms["shortlister"])(np.zeros((0, 32), np.float32))


@pytest.mark.parametrize("method", ["sequence_matching", "delta", "hvpr"])
def test_dull_traverses_do_no_harm(method, transforms):
    """A map of one frame, duplicated frames, descriptors that are all the same."""
    config = SequenceMatchingConfig.from_file(method=method, sequence_length=5, **transforms)
    for references in (walk(1), np.repeat(walk(5), 3, axis=0), np.repeat(walk(1), 20, axis=0)):
        for matches in match_descriptors(references, np.repeat(walk(3), 2, axis=0), config):
            assert matches.searched == len(references)
            assert all(np.isfinite(match.sequence_score) for match in matches.candidates)
