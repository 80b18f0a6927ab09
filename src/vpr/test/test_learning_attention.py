"""The attention head and the encoder-decoder learn what they are meant to."""

import cv2
import numpy as np
import pytest
import torch

from vpr.config import EmbeddingConfig, SegmentationConfig
from vpr.images.attention import LaplacianOfGaussianAttention
from vpr.learning.attention_head_training import (
    AttentionHeadTrainingConfig,
    DescribedTown,
    train_attention_head,
)
from vpr.learning.attention_network_training import (
    AttentionNetworkTrainingConfig,
    as_network_input,
    train_attention_network,
)
from vpr.models.embedder import Embedder
from vpr.simulation.labels import Label

torch.set_num_threads(1)  # two would wait for each other on a busy machine


def test_the_head_learns_to_look_away_from_what_changes() -> None:
    """On the left a house that stays, on the right cars that are other ones in each session."""
    config = EmbeddingConfig.from_file(
        attention="pooling", weights="none", layers=["_blocks.9"], layer_grids=["1x1"],
        layer_gem_p=[3.0], layer_weights=[1.0],
    )  # fmt: skip
    embedder = Embedder(config)
    generator = torch.Generator().manual_seed(0)
    houses = torch.rand(8, 112, 4, 4, generator=generator)
    maps = [
        {"_blocks.9": torch.cat([houses, torch.rand(8, 112, 4, 4, generator=generator)], dim=3)}
        for _ in range(2)
    ]
    activations = torch.zeros(8, 19, 4, 8)
    activations[:, Label.BUILDING, :, :4] = 1.0
    activations[:, Label.CAR, :, 4:] = 1.0
    similarity = np.eye(8, dtype=np.float32) + 0.2 * np.eye(8, k=1, dtype=np.float32)
    town = DescribedTown(maps[0], maps[1], activations, activations, similarity)
    values = AttentionHeadTrainingConfig(steps=80, pairs=16, learning_rate=2e-2)
    head = train_attention_head(embedder, [town], values)
    with torch.inference_mode():
        attention = head(activations)[0, 0]
    assert attention[:, :3].mean() > 3 * attention[:, 5:].mean()


def test_the_encoder_decoder_learns_the_pipelines_map_from_the_image_alone() -> None:
    rng = np.random.default_rng(0)
    images = np.stack(
        [
            cv2.resize(
                rng.integers(0, 255, (3, 3, 3), np.uint8), (32, 32), interpolation=cv2.INTER_NEAREST
            )
            for _ in range(4)
        ]
    )
    config = SegmentationConfig.from_file(attention_width=32, floor=0.0, diffusion_sigma=1.0)
    maps = np.stack([LaplacianOfGaussianAttention(config)(image) for image in images])
    values = AttentionNetworkTrainingConfig(steps=16, batch=4, crop=32)
    losses: list[float] = []
    network = train_attention_network(images, maps, values, lambda _, loss: losses.append(loss))
    with torch.inference_mode():
        network.train()  # norms of the batch: sixteen steps are too few for running ones
        seen = torch.sigmoid(network(as_network_input(images)))[:, 0].numpy()
    correlation = np.corrcoef(seen.ravel(), maps.ravel())[0, 1]
    assert correlation == pytest.approx(1.0, abs=0.5)
