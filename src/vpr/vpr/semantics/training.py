"""Training the light segmenter in simulated towns.

The encoder starts from its ImageNet weights. Colours, contrast and sharpness are varied well
beyond what the towns show, because what is learnt there is meant to be used elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from vpr.config import NonNegative, Positive
from vpr.learning.descent import Log, descend, unheard
from vpr.models.efficientnet_lite0 import EfficientNetLite0, embedded_weights_file
from vpr.models.light_segmenter import LightSegmenter
from vpr.models.weights import load_weights, read_state_dict
from vpr.records import Image
from vpr.semantics.accuracy import Confusion
from vpr.semantics.classes import CLASS_COUNT, UNLABELLED
from vpr.semantics.labelled_views import LabelledViews, render_views

LABEL_STRIDE = 2  # px; labels are compared at half the crop's size, twice the network's


class SegmentationTrainingConfig(BaseModel):
    """What can be chosen about ``vpr train segmentation``; every value has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_seed: int = Field(default=5000, ge=0, description="of the towns learnt from")
    towns: int = Field(default=24, ge=1)
    views_per_town: int = Field(default=56, ge=1)
    steps: int = Field(default=900, ge=1)
    batch: int = Field(default=8, ge=2)
    crop_width: int = Field(default=288, ge=64, multiple_of=32, description="px")
    crop_height: int = Field(default=224, ge=64, multiple_of=32, description="px")
    learning_rate: Positive = 2e-3  # of the decoder, the highest of a one-cycle schedule
    encoder_share: Positive = 0.25  # of that for the encoder, which knows much already
    weight_decay: NonNegative = 1e-4
    seed: int = Field(default=0, ge=0)


def train_segmentation(
    config: SegmentationTrainingConfig,
    views: LabelledViews | None = None,
    log: Log = unheard,
) -> LightSegmenter:
    """Render the towns (unless ``views`` are given) and train; the same seed, the same weights."""
    seeds = range(config.first_seed, config.first_seed + config.towns)
    views = views or render_views(seeds, config.views_per_town)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = LightSegmenter(CLASS_COUNT)
    encoder = EfficientNetLite0()
    load_weights(encoder, read_state_dict(embedded_weights_file()), "ImageNet weights")
    network.take_encoder(encoder)
    network.train()
    weights = class_weights(views.labels)

    def loss_of_a_batch() -> Tensor:
        images, labels = _batch(rng, views, config)
        return _loss(network(images), labels, weights)

    descend(loss_of_a_batch, *_descent(network, config), config.steps, log)
    return network.eval()


def judge_segmentation(
    predict: Callable[[Image], NDArray[np.uint8]], views: LabelledViews
) -> Confusion:
    """Compare the labels that ``predict`` gives each image, at its size, with the true ones."""
    confusion = Confusion.empty()
    for image, truth in zip(views.images, views.labels, strict=True):
        confusion.add(truth, predict(image))
    return confusion


def save_weights(network: nn.Module, path: Path) -> None:
    """Write half-precision ``.safetensors``; an older file is replaced only by a whole one."""
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(state, partial)
    partial.replace(path)


def class_weights(labels: NDArray[np.uint8]) -> Tensor:
    """(19,) weights in the loss: the inverse root of a class's share, so that poles count too."""
    share = np.bincount(labels.ravel(), minlength=256)[:CLASS_COUNT] / labels.size
    weights = 1.0 / np.sqrt(np.maximum(share, 1e-4))
    weights[share == 0.0] = 0.0
    return torch.tensor(weights / weights[share > 0.0].mean(), dtype=torch.float32)


def _descent(
    network: LightSegmenter, config: SegmentationTrainingConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    encoder = [p for name, p in network.named_parameters() if name.startswith("_")]
    decoder = [p for name, p in network.named_parameters() if not name.startswith("_")]
    rates = [config.learning_rate * config.encoder_share, config.learning_rate]
    groups = [{"params": encoder, "lr": rates[0]}, {"params": decoder, "lr": rates[1]}]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=config.steps)
    return optimizer, schedule


def _loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    fine = functional.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    return functional.cross_entropy(fine, labels, weights, ignore_index=UNLABELLED)


def _batch(
    rng: np.random.Generator, views: LabelledViews, config: SegmentationTrainingConfig
) -> tuple[Tensor, Tensor]:
    chosen = rng.integers(len(views), size=config.batch)
    size = (config.crop_width, config.crop_height)
    pairs = [_varied(rng, views.images[i], views.labels[i], size) for i in chosen]
    rgb = np.stack([image[..., ::-1] for image, _ in pairs])
    labels = np.stack([label[::LABEL_STRIDE, ::LABEL_STRIDE] for _, label in pairs])
    images = torch.from_numpy(rgb.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return images, torch.from_numpy(labels.astype(np.int64))


def _varied(
    rng: np.random.Generator, image: Image, labels: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[Image, NDArray[np.uint8]]:
    """Another crop, scale, side, light and colour of a labelled image, at ``size``."""
    rows, columns = labels.shape
    share = float(rng.uniform(0.5, 1.0))
    height, width = int(rows * share), int(columns * share)
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    window = np.s_[top : top + height, left : left + width]
    image = np.asarray(cv2.resize(image[window], size, interpolation=cv2.INTER_LINEAR), np.uint8)
    labels = np.asarray(cv2.resize(labels[window], size, interpolation=cv2.INTER_NEAREST), np.uint8)
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return _relit(rng, np.ascontiguousarray(image)), labels


def _relit(rng: np.random.Generator, image: Image) -> Image:
    pixels = image.astype(np.float32)
    if rng.random() < 0.25:
        pixels[:] = pixels.mean(axis=2, keepdims=True)  # grey cameras
    pixels *= rng.uniform(0.8, 1.25, 3).astype(np.float32)  # white balance
    mean = pixels.mean()
    pixels = (pixels - mean) * rng.uniform(0.6, 1.5) + mean * rng.uniform(0.6, 1.4)
    pixels = 255.0 * np.clip(pixels / 255.0, 0.0, 1.0) ** rng.uniform(0.7, 1.4)
    if rng.random() < 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.6)))
    pixels += rng.normal(0.0, rng.uniform(0.0, 8.0), pixels.shape)
    return np.asarray(np.clip(pixels, 0.0, 255.0), np.uint8)
