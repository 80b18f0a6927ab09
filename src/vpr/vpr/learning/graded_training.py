"""Training a place network with the Generalised Contrastive Loss under a freezing scheme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vpr.config import LearningRate, NonNegative, Positive
from vpr.learning.descent import descend
from vpr.learning.freezing import freeze
from vpr.learning.graded import GradedPairs, generalised_contrastive_loss
from vpr.learning.semantic_images import SemanticImages
from vpr.models.backbone import make_backbone
from vpr.models.place_network import Integration, PlaceNetwork

DESCRIBED_AT_ONCE = 16  # images


class GradedTrainingConfig(BaseModel):
    """What can be chosen about training with graded similarity; every value has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = "efficientnet_lite0"  # torchvision:resnet50 is the paper's
    weights: str = "embedded"  # library for the paper's
    scheme: str = "0-2"  # X first and Y last layers learn, or All
    integration: Integration = Integration.NONE
    steps: int = Field(default=60, ge=0)
    pairs: int = Field(default=8, ge=2, description="in a batch")
    learning_rate: LearningRate = 1e-4
    head_learning_rate: LearningRate = 1e-2
    weight_decay: NonNegative = 1e-4
    margin: Positive = 0.5
    gem_p: float = Field(default=3.0, ge=1.0)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class GradedPlaces:
    """Query and reference images and how much they see of the same, (N, M) in 0..1."""

    queries: SemanticImages
    references: SemanticImages
    similarity: NDArray[np.float32]


def make_place_network(config: GradedTrainingConfig) -> PlaceNetwork:
    """The network before training; only the scheme's layers will learn.

    Raises:
        BackboneError, WeightsError, FreezingError, InflationError: for what is wrong there.
    """
    backbone = make_backbone(config.backbone, config.weights)
    network = PlaceNetwork(backbone, config.integration, config.gem_p)
    freeze(network.network, config.scheme)
    return network


def train_places(towns: Sequence[GradedPlaces], config: GradedTrainingConfig) -> PlaceNetwork:
    """Train on graded pairs of one town (or city) after another, drawn at random.

    The same places, values and seed give the same weights.

    Raises:
        GradedPairsError: a kind of pair does not occur.
        BackboneError, WeightsError, FreezingError, InflationError: for what is wrong there.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = make_place_network(config)
    pairs = [GradedPairs(places.similarity) for places in towns]
    groups = _parameter_groups(network, config)
    if not groups:
        return network.eval()
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    network.eval()  # normalisations keep their statistics: batches are small

    def loss_of_a_batch() -> Tensor:
        which = int(rng.integers(len(towns)))
        places = towns[which]
        query, reference, similarity = pairs[which].draw(rng, config.pairs)
        return generalised_contrastive_loss(
            network(*places.queries.batch(query.tolist())),
            network(*places.references.batch(reference.tolist())),
            torch.from_numpy(similarity),
            config.margin,
        )

    descend(loss_of_a_batch, optimizer, None, config.steps)
    return network


def describe_images(network: PlaceNetwork, images: SemanticImages) -> NDArray[np.float32]:
    """Descriptors (N, D) of all images."""
    described = []
    with torch.inference_mode():
        for start in range(0, len(images), DESCRIBED_AT_ONCE):
            rows = range(start, min(start + DESCRIBED_AT_ONCE, len(images)))
            described.append(network(*images.batch(rows)).numpy())
    return np.concatenate(described)


def _parameter_groups(
    network: PlaceNetwork, config: GradedTrainingConfig
) -> list[dict[str, object]]:
    learning = [p for p in network.network.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = []
    if learning:
        groups.append({"params": learning, "lr": config.learning_rate})
    if network.head is not None:
        head = list(network.head.parameters())
        groups.append({"params": head, "lr": config.head_learning_rate})
    return groups
