"""Training the encoder-decoder without labels: it learns what the unsupervised pipeline computes.

The pipeline's map is a boundary map fused with inverse depth; the network sees the image alone, and
so has to learn from appearance which boundaries are near.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from vpr.config import LearningRate, NonNegative, SegmentationConfig
from vpr.images.attention import LaplacianOfGaussianAttention
from vpr.learning.descent import Log, adam_with_cosine, descend, unheard
from vpr.models.attention_network import INPUT_SIZE, AttentionEncoderDecoder
from vpr.records import Image
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import plan_drive
from vpr.simulation.recording import take_shot
from vpr.simulation.world import build_world


class AttentionNetworkTrainingConfig(BaseModel):
    """What can be chosen about ``vpr train attention-network``; every value has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_seed: int = Field(default=5200, ge=0, description="of the towns learnt from")
    towns: int = Field(default=6, ge=1)
    views_per_town: int = Field(default=40, ge=1)
    steps: int = Field(default=400, ge=1)
    batch: int = Field(default=4, ge=2)
    crop: int = Field(
        default=64,
        ge=32,
        le=INPUT_SIZE,
        multiple_of=16,
        description="px, square, cut out of the input, for the sake of time",
    )
    learning_rate: LearningRate = 1e-3  # the appendix's, as is the next
    weight_decay: NonNegative = 1e-3
    seed: int = Field(default=0, ge=0)


def learn_attention_network(
    config: AttentionNetworkTrainingConfig,
    params_file: Path | None = None,
    log: Log = unheard,
) -> AttentionEncoderDecoder:
    """Render towns with depth, compute the pipeline's maps, and train towards them."""
    # the floor is laid under what the network says, not learnt
    pipeline = LaplacianOfGaussianAttention(SegmentationConfig.from_file(params_file, floor=0.0))
    pairs = [(_square(image), _square(pipeline(image, depth))) for image, depth in _views(config)]
    return train_attention_network(
        np.stack([image for image, _ in pairs]), np.stack([map_ for _, map_ in pairs]), config, log
    )


def train_attention_network(
    images: NDArray[np.uint8],
    maps: NDArray[np.uint8],
    config: AttentionNetworkTrainingConfig,
    log: Log = unheard,
) -> AttentionEncoderDecoder:
    """Train on images (N, s, s, 3) BGR and their attention (N, s, s); same seed, same weights."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = AttentionEncoderDecoder()

    def loss_of_a_batch() -> Tensor:
        chosen = rng.integers(len(images), size=config.batch)
        top, left = rng.integers(images.shape[1] - config.crop + 1, size=2)
        window = np.s_[chosen, top : top + config.crop, left : left + config.crop]
        wanted = torch.from_numpy(maps[window][:, None]).float() / 255.0
        logits = network(as_network_input(images[window]))
        return functional.binary_cross_entropy_with_logits(logits, wanted)

    descent = adam_with_cosine(
        network.parameters(), config.learning_rate, config.weight_decay, config.steps
    )
    descend(loss_of_a_batch, *descent, config.steps, log)
    return network.eval()


def as_network_input(images: NDArray[np.uint8]) -> Tensor:
    """BGR (N, s, s, 3) as RGB (N, 3, s, s) in -1..1."""
    rgb = torch.from_numpy(np.ascontiguousarray(images[..., ::-1]))
    return rgb.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _views(
    config: AttentionNetworkTrainingConfig,
) -> Iterator[tuple[Image, NDArray[np.float32]]]:
    camera = SimulationConfig(image_width=320, image_height=240)
    seeds = range(config.first_seed, config.first_seed + config.towns)
    for seed in track(seeds, description="rendering towns", transient=True):
        world = build_world(seed, camera.camera(), camera.camera_height)
        drive = plan_drive(seed, world.plan, camera)
        for index in np.linspace(0, len(drive.stamps_ns) - 1, config.views_per_town).astype(int):
            shot = take_shot(world, drive, int(index), camera)
            yield shot.image, shot.depth


def _square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (INPUT_SIZE, INPUT_SIZE)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
