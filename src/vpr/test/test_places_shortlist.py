import numpy as np
import pytest

from vpr.config import SequenceMatchingConfig
from vpr.evaluation.places import match_descriptors
from vpr.places.encoded import EncodedPlaces
from vpr.places.encoders import SingleEncoder
from vpr.places.memory import PlaceMemory
from vpr.places.shortlist import Shortlist
from vpr.records import Keyframe


def smooth_walk(count, dimension=32, seed=0):
    steps = np.random.default_rng(seed).normal(size=(count, dimension))
    path = np.stack([steps[max(0, i - 4) : i + 1].sum(axis=0) for i in range(count)])
    return (path / np.linalg.norm(path, axis=1, keepdims=True)).astype(np.float32)


def seen_again(walk, noise, seed=1):
    noisy = walk + noise * np.random.default_rng(seed).normal(size=walk.shape) / np.sqrt(32)
    return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


def config(**settings):
    return SequenceMatchingConfig.from_file(
        sequence_length=5, **({"shortlist_size": 50, "shortlist_clusters": 16} | settings)
    )


def places_of(walk):
    memory = PlaceMemory("net@1", walk.shape[1])
    for index, descriptor in enumerate(walk):
        memory.append(Keyframe(index, 0, index, descriptor, "net@1"))
    return EncodedPlaces(SingleEncoder(), memory)


def test_the_nearest_places_come_first():
    walk = smooth_walk(2000)
    shortlist = Shortlist(places_of(walk), len(walk), config(shortlist_clusters=1000))
    places, similarities = shortlist.nearest(walk[700])
    exact = walk @ walk[700]
    assert places[0] == 700
    np.testing.assert_allclose(similarities, np.sort(exact)[::-1][:50], atol=5e-3)


def test_pruned_matching_answers_as_exact_matching():
    walk = smooth_walk(3000)
    queries = seen_again(walk[500:700], 1.0)
    exact = match_descriptors(walk, queries, config(shortlist_above=0))
    pruned = match_descriptors(walk, queries, config(shortlist_above=1000))
    truth = np.arange(500, 700)
    answers = [[m.candidates[0].reference_id for m in found] for found in (exact, pruned)]
    recalls = [np.mean(np.abs(ids - truth)[5:] <= 2) for ids in answers]
    assert recalls[0] >= 0.95
    assert recalls[1] >= 0.99 * recalls[0]
    scores = [(a.candidates[0].sequence_score, b.candidates[0].sequence_score)
              for a, b in zip(exact, pruned, strict=True)]  # fmt: skip
    differences = np.abs(np.subtract(*np.array(scores[5:]).T))
    assert np.median(differences) < 0.2


@pytest.mark.parametrize("count", [1, 2, 30])
def test_the_smallest_maps_can_be_pruned_too(count):
    walk = smooth_walk(count)
    matches = match_descriptors(walk, walk, config(shortlist_above=1))
    assert [found.candidates[0].reference_id for found in matches] == list(range(count))


def test_places_that_are_added_later_are_found_too():
    walk = smooth_walk(1500)
    shortlist = Shortlist(places_of(walk), 1000, config(shortlist_clusters=1000))
    assert shortlist.nearest(walk[1200])[0][0] != 1200
    shortlist.grow(500)
    assert len(shortlist) == 1500
    assert [shortlist.nearest(walk[row])[0][0] for row in (0, 999, 1200)] == [0, 999, 1200]
