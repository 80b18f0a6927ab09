import numpy as np
import pytest
import torch

from vpr.config import SequenceTrainingConfig
from vpr.learning.sequence_training import (
    SequenceTrainingError,
    TraversePair,
    sequence_loss,
    train_sequence,
)


def config(**settings):
    given = {"epochs": 15, "outputs": 16, "learning_rate": 0.003, "negatives": 4}
    return SequenceTrainingConfig.from_file(
        **(given | {"negative_distance": 2, "sequence_length": 3} | settings)
    )


def seasons(seed, count=80):
    """Two walks: the place in 24 values, and a season in 24 that change slowly, louder."""
    generator = np.random.default_rng(seed)
    mixing = np.linalg.qr(np.random.default_rng(99).normal(size=(48, 48)))[0]
    place = generator.normal(size=(count, 24))

    def seen():
        weather = 2.5 * generator.normal(size=(count, 24))
        values = np.concatenate([place + 0.3 * generator.normal(size=place.shape), weather], 1)
        mixed = values @ mixing
        return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)

    return TraversePair(f"seasons {seed}", seen(), seen(), np.arange(count))


def recall(network, pair):
    similarities = network.encode(pair.queries) @ network.encode(pair.references).T
    return float((similarities.argmax(axis=1) == pair.truth).mean())


@pytest.mark.parametrize("loss", ["single", "seqmatch"])
@pytest.mark.parametrize("mining", ["single", "seqmatch"])
def test_all_four_rows_learn_what_tells_places_apart(loss, mining):
    trained = train_sequence(
        [seasons(0), seasons(1)], config(loss=loss, mining=mining, outputs=48), progress=False
    )
    unseen = seasons(7)
    before = (unseen.queries @ unseen.references.T).argmax(axis=1) == unseen.truth
    assert recall(trained.network, unseen) >= before.mean() + 0.1
    assert trained.losses[-1] < trained.losses[0]
    assert trained.network.training_record["mining"] == mining


@pytest.mark.parametrize("window", [1, 3])
def test_what_all_descriptors_share_is_taken_off_and_stays_off(window):
    pair = seasons(0)
    pair = TraversePair(pair.name, pair.references + 0.5, pair.queries + 0.5, pair.truth)
    network = train_sequence([pair], config(window=window), progress=False).network
    mean = np.concatenate([pair.references, pair.queries]).mean(axis=0)
    with torch.no_grad():
        of_mean = network.convolution(torch.from_numpy(mean)[None, :, None].expand(-1, -1, window))
        of_one = network.convolution(torch.from_numpy(pair.references[:window]).T[None])
    assert of_mean.norm() < 1e-3 * of_one.norm()


def test_training_is_repeatable():
    first, second = (
        train_sequence([seasons(0)], config(epochs=3), "net@1", progress=False) for _ in range(2)
    )
    assert first.network.model == second.network.model
    assert first.network.source == "net@1"


@pytest.mark.parametrize("form", ["triplet", "contrastive"])
def test_loss_vanishes_only_when_places_are_told_apart(form):
    truth = torch.arange(8)
    apart = 1.0 - torch.eye(8)
    chosen = config(form=form, margin=0.5, negative_distance=0, negatives=3)
    assert sequence_loss(apart, apart, truth, chosen) == 0.0
    assert sequence_loss(1.0 - apart, apart, truth, chosen) > 0.1


def test_negatives_are_those_that_mining_calls_hard():
    distances = torch.full((1, 6), 1.0)
    distances[0, 0], distances[0, 3], distances[0, 5] = 0.2, 0.1, 0.9
    hard = torch.ones(1, 6)
    hard[0, 5] = 0.0
    chosen = config(negatives=1, margin=0.1, negative_distance=1)
    assert sequence_loss(distances, hard, torch.tensor([0]), chosen) == 0.0
    by_itself = sequence_loss(distances, distances, torch.tensor([0]), chosen)
    torch.testing.assert_close(by_itself, torch.tensor(0.2))


def test_queries_without_a_place_are_passed_over():
    distances = torch.rand(3, 9)
    loss = sequence_loss(distances, distances, torch.tensor([-1, -1, -1]), config())
    assert loss == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pair: {"queries": pair.queries[:2], "truth": pair.truth[:2]}, "2 query frames"),
        (lambda pair: {"references": np.repeat(pair.references[:1], 80, 0)}, "are the same"),
        (lambda pair: {"queries": np.full_like(pair.queries, np.nan)}, "not finite"),
        (lambda pair: {"truth": np.full(80, -1)}, "no query has its place"),
    ],
)
def test_traverses_that_teach_nothing_are_refused(change, message):
    pair = seasons(0)
    fields = {
        "name": "bad", "references": pair.references, "queries": pair.queries, "truth": pair.truth
    }  # fmt: skip
    with pytest.raises(SequenceTrainingError, match=f"bad.*{message}"):
        train_sequence([TraversePair(**(fields | change(pair)))], config(), progress=False)
