"""Which pairs are drawn to learn from."""

import numpy as np
import pytest
from made_up_drives import small_training

from vpr.learning.errors import TrainingError
from vpr.learning.sampling import InverseDensity, PairSampler, kernel_of, positive_pairs
from vpr.supervision.kernel import Viewpoints


def street(drives=2, places=40, spacing=4.0):
    """Drives along one street; unit features that vary along it."""
    along = np.tile(np.arange(places) * spacing, drives)
    views = Viewpoints(np.stack([along, np.zeros_like(along)], axis=1), np.zeros(len(along)))
    rng = np.random.default_rng(0)
    features = rng.standard_normal((len(along), 16)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, views, np.repeat(np.arange(drives), places)


def sampler(config=None, **arguments):
    return PairSampler(*street(**arguments), config or small_training())


def test_positives_are_the_pairs_above_the_threshold():
    config = small_training()
    _, views, _ = street()
    similarity = kernel_of(config).matrices(views, views).Rt
    expected = np.argwhere(np.triu(similarity > config.positive_similarity, 1))
    found = positive_pairs(views, config)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))


def test_negatives_are_below_the_threshold_ten_for_each_positive():
    config = small_training(negative_pool=40)
    _, views, _ = street()
    kernel = kernel_of(config)
    batches = list(sampler(config).epoch(1, 16))
    assert sum(len(batch.anchors) for batch in batches) == config.epoch_positives
    for batch in batches:
        assert batch.negatives.shape == (len(batch.anchors), 10)
        together = kernel.of_pairs(views[batch.anchors], views[batch.positives])
        apart = kernel.of_pairs(views[batch.anchors[:, None]], views[batch.negatives])
        assert together.min() > config.positive_similarity
        assert apart.max() < config.negative_similarity


def test_half_of_the_positives_are_seen_in_two_drives():
    config = small_training(epoch_positives=4000, seen_distance=20.0)  # neighbours are alike too
    _, _, drive = street()
    across = [
        drive[batch.anchors] != drive[batch.positives] for batch in sampler(config).epoch(1, 500)
    ]
    assert np.mean(across) == pytest.approx(0.5, abs=0.03)


def test_an_epoch_is_the_same_again_and_the_next_one_is_not():
    made = sampler()
    first, again, other = (list(made.epoch(n, 16)) for n in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.negatives, b.negatives)
    assert any((a.anchors != b.anchors).any() for a, b in zip(first, other, strict=True))


def test_inverse_density_makes_rare_distances_as_frequent_as_common_ones():
    rng = np.random.default_rng(0)
    distances = np.clip(rng.normal(1.2, 0.1, 20_000), 0.9, 1.5).astype(np.float32)
    weights = InverseDensity(distances)(distances)
    drawn = rng.choice(distances, 20_000, p=weights / weights.sum())
    middle = (0.99, 1.41)  # inside, where the density is not cut off
    before, _ = np.histogram(distances, 6, middle)
    after, _ = np.histogram(drawn, 6, middle)
    assert before.max() / before.min() > 4.0
    assert after.max() / after.min() < 2.0


def test_too_few_positives_are_refused_with_the_number_needed():
    with pytest.raises(TrainingError, match=r"0 pairs of keyframes .* 10 are needed"):
        sampler(drives=1, spacing=30.0)


def test_places_that_are_all_one_place_have_no_negatives():
    with pytest.raises(TrainingError, match="record a longer drive"):
        next(sampler(spacing=0.01).epoch(1, 16))
