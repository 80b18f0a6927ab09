"""Training with graded similarity: what learns, what doesn't, and that it learns."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vpr.config import EmbeddingConfig, SegmentationConfig
from vpr.evaluation.graded import JudgedPlaces, graded_rows
from vpr.learning.graded import generalised_contrastive_loss
from vpr.learning.graded_training import (
    GradedPlaces,
    GradedTrainingConfig,
    describe_images,
    make_place_network,
    train_places,
)
from vpr.learning.semantic_images import CachedImages, ImagesInMemory
from vpr.models.embedder import Embedder
from vpr.models.place_network import Integration
from vpr.semantics.mask_cache import cache_masks
from vpr.semantics.training import save_weights

torch.set_num_threads(1)  # two would wait for each other on a busy machine

PLACES = 6
CONFIG = GradedTrainingConfig(steps=3, pairs=4)


def images(seed: int) -> ImagesInMemory:
    """Places of one pattern each, under another light in each session."""
    patterns = np.random.default_rng(0).integers(0, 255, (PLACES, 4, 4, 3), np.uint8)
    rng = np.random.default_rng(seed)
    rgb = np.stack([cv2.resize(p, (32, 32), interpolation=cv2.INTER_NEAREST) for p in patterns])
    light = rng.uniform(0.5, 1.0, (PLACES, 1, 1, 1))
    mask = rng.integers(100, 255, (PLACES, 32, 32), np.uint8)
    activations = rng.integers(0, 255, (PLACES, 19, 32, 32), np.uint8)
    return ImagesInMemory((rgb * light).astype(np.uint8), mask, activations)


@pytest.fixture(scope="module")
def places() -> GradedPlaces:
    similarity = np.eye(PLACES, dtype=np.float32) + 0.3 * np.eye(PLACES, k=1, dtype=np.float32)
    return GradedPlaces(images(1), images(2), similarity)


def test_only_the_layers_of_the_scheme_change(places: GradedPlaces) -> None:
    before = make_place_network(CONFIG).state_dict()
    after = train_places([places], CONFIG).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("_conv_head" in name or "_blocks.15." in name for name in changed)


def test_the_same_seed_gives_the_same_network(places: GradedPlaces) -> None:
    first, second = (train_places([places], CONFIG).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_lowers_the_loss_over_all_pairs(places: GradedPlaces) -> None:
    def loss(steps: int) -> float:
        config = CONFIG.model_copy(update={"steps": steps, "learning_rate": 3e-4})
        network = train_places([places], config)
        queries, references = (
            torch.from_numpy(describe_images(network, side))
            for side in (places.queries, places.references)
        )
        rows, columns = torch.meshgrid(*[torch.arange(PLACES)] * 2, indexing="ij")
        similarity = torch.from_numpy(places.similarity).flatten()
        first, second = queries[rows.flatten()], references[columns.flatten()]
        return float(generalised_contrastive_loss(first, second, similarity, CONFIG.margin))

    assert loss(25) < 0.7 * loss(0)


def test_new_input_channels_learn_and_a_head_learns_alone(places: GradedPlaces) -> None:
    channels = CONFIG.model_copy(
        update={"scheme": "1-0", "integration": Integration.ACTIVATION_CHANNELS}
    )
    stem = train_places([places], channels).state_dict()["network._conv_stem.weight"]
    assert stem.shape[1] == 22
    assert stem[:, 3:].abs().max() > 0.0
    head = CONFIG.model_copy(update={"scheme": "0-0", "integration": Integration.LEARNED})
    before, after = make_place_network(head).state_dict(), train_places([places], head).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_the_table_has_every_scheme_with_and_without_mask_and_both_controls(
    places: GradedPlaces,
) -> None:
    correct = [frozenset({row}) for row in range(PLACES)]
    judged = [JudgedPlaces(places.queries, places.references, correct)]
    config = CONFIG.model_copy(update={"steps": 1})
    rows = graded_rows([places], judged, config, schemes=["0-1", "All"])
    assert [row["method"] for row in rows] == [
        "Normal-0-1",
        "Normal-All",
        "Masked-0-1",
        "Masked-All",
        "Masked-All, shuffled mask",
        "Masked-All, constant mask",
    ]
    for row in rows:
        assert row["recall@1"] == row["map@1"]
        assert row["recall@1"] <= row["recall@5"] <= row["recall@20"] == 1.0


def test_controls_keep_the_images_and_change_the_masks() -> None:
    whole = images(1)
    other = whole.shuffled(np.random.default_rng(0))
    np.testing.assert_array_equal(other.rgb, whole.rgb)
    assert {mask.tobytes() for mask in other.mask} == {mask.tobytes() for mask in whole.mask}
    assert (other.mask != whole.mask).any(axis=(1, 2)).all()
    constant = whole.constant()
    assert (constant.mask == constant.mask[0]).all()
    assert constant.mask.mean() == pytest.approx(whole.mask.mean(), abs=1.0)


def test_images_on_disk_give_the_same_batches_and_controls(tmp_path: Path) -> None:
    files = []
    for index, rgb in enumerate(images(1).rgb[:3]):
        files.append(tmp_path / f"view{index}.png")
        cv2.imwrite(str(files[-1]), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    config = SegmentationConfig.from_file(network_width=64)
    cache = cache_masks(tmp_path / "cache", files, config)
    cached = CachedImages.of(tuple(files), cache, (32, 32))
    batch = cached.batch([2, 0])
    torch.testing.assert_close(
        batch.rgb[1], torch.from_numpy(images(1).rgb[0]).permute(2, 0, 1) * 1.0
    )
    own = torch.from_numpy(cache.mask("view2", (32, 32))) / 255.0
    torch.testing.assert_close(batch.mask[0, 0], own)
    shuffled = cached.shuffled(np.random.default_rng(1))
    assert sorted(shuffled.semantics) == sorted(cached.semantics)
    pairs = zip(shuffled.semantics, cached.semantics, strict=True)
    assert all(mine != own for mine, own in pairs)
    constant = cached.constant().batch([0, 1]).mask
    torch.testing.assert_close(constant[0], constant[1])


@pytest.mark.parametrize("integration", [Integration.NONE, Integration.MASK_CHANNEL])
def test_a_trained_network_is_what_the_robot_loads(
    places: GradedPlaces, tmp_path: Path, integration: Integration
) -> None:
    config = CONFIG.model_copy(update={"scheme": "1-1", "integration": integration})
    network = train_places([places], config)
    save_weights(network.network, tmp_path / "places.safetensors")
    descriptor = {
        "layers": ["last"],
        "layer_grids": ["1x1"],
        "layer_gem_p": [3.0],
        "layer_weights": [1.0],
        "image_width": 32,
        "image_height": 32,
    }
    weights = str(tmp_path / "places.safetensors")
    robot = Embedder(
        EmbeddingConfig.from_file(weights=weights, attention=integration.value, **descriptor)
    )
    images = [cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) for rgb in places.queries.rgb]
    found = robot.embed(images, list(places.queries.mask))
    trained = describe_images(network, places.queries)
    similar = (found * trained).sum(axis=1)
    assert similar.min() > 0.97  # half-precision weights, the mask by way of a smaller map
