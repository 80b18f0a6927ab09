"""Training the attention head behind the descriptor that the robot uses, which stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from vpr.config import EmbeddingConfig, LearningRate, NonNegative, Positive, SegmentationConfig
from vpr.learning.descent import Log, adam_with_cosine, descend, unheard
from vpr.learning.graded import GradedPairs, generalised_contrastive_loss
from vpr.models.attention_head import AttentionHead
from vpr.models.embedder import Embedder
from vpr.records import Image
from vpr.semantics.segmenter import NetworkSegmenter, Segmenter
from vpr.simulation.sessions import drive_twice


class AttentionHeadTrainingConfig(BaseModel):
    """What can be chosen about ``vpr train attention-head``; every value has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_seed: int = Field(default=5100, ge=0, description="of the towns learnt from")
    towns: int = Field(default=6, ge=1)
    steps: int = Field(default=400, ge=1)
    pairs: int = Field(default=32, ge=2, description="in a batch, of one town each")
    learning_rate: LearningRate = 5e-3
    weight_decay: NonNegative = 1e-2
    margin: Positive = 1.2  # of centred descriptors, which are sqrt(2) apart when unrelated
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class DescribedTown:
    """What the head learns from: feature maps and activations of both sessions of one town."""

    query_maps: dict[str, Tensor]  # layer to (N, C, h, w)
    reference_maps: dict[str, Tensor]
    query_activations: Tensor  # (N, 19, h, w)
    reference_activations: Tensor
    similarity: NDArray[np.float32]  # (N, M)


def describe_town(
    embedder: Embedder,
    segmenter: Segmenter,
    references: Sequence[Image],
    queries: Sequence[Image],
    similarity: NDArray[np.float32],
) -> DescribedTown:
    """Everything of a town that does not change while the head learns."""
    maps, activations = [], []
    for images in (queries, references):
        seen = [embedder.feature_maps([image]) for image in track(images, transient=True)]
        maps.append({layer: torch.cat([one[layer] for one in seen]) for layer in seen[0]})
        found = [segmenter(image).activations for image in images]
        activations.append(torch.from_numpy(np.stack(found)))
    return DescribedTown(maps[0], maps[1], activations[0], activations[1], similarity)


def train_attention_head(
    embedder: Embedder,
    towns: Sequence[DescribedTown],
    config: AttentionHeadTrainingConfig,
    log: Log = unheard,
) -> AttentionHead:
    """Learn what to weigh from graded pairs; the same towns and seed give the same head.

    Raises:
        GradedPairsError: a kind of pair does not occur in a town.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    head = AttentionHead()
    pairs = [GradedPairs(town.similarity) for town in towns]

    def loss_of_a_batch() -> Tensor:
        which = int(rng.integers(len(towns)))
        query, reference, similarity = pairs[which].draw(rng, config.pairs)
        town = towns[which]
        first, second = _centred(
            _described(embedder, head, town.query_maps, town.query_activations, query),
            _described(embedder, head, town.reference_maps, town.reference_activations, reference),
        )
        return generalised_contrastive_loss(
            first, second, torch.from_numpy(similarity), config.margin
        )

    descent = adam_with_cosine(
        head.parameters(), config.learning_rate, config.weight_decay, config.steps
    )
    descend(loss_of_a_batch, *descent, config.steps, log)
    return head.eval()


def _centred(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Descriptors without what all of a town have in common, of unit length again.

    The network stays as it is, and its descriptors of one town lie close together; without this
    the margin would reward whatever spreads them.
    """
    common = torch.cat([first, second]).mean(dim=0, keepdim=True).detach()
    return functional.normalize(first - common), functional.normalize(second - common)


def _described(
    embedder: Embedder,
    head: AttentionHead,
    maps: dict[str, Tensor],
    activations: Tensor,
    rows: NDArray[np.intp],
) -> Tensor:
    chosen = torch.from_numpy(rows)
    attention = head(activations[chosen])
    return embedder.pooled({layer: values[chosen] for layer, values in maps.items()}, attention)


def learn_attention_head(
    config: AttentionHeadTrainingConfig,
    params_file: Path | None = None,
    log: Log = unheard,
) -> AttentionHead:
    """Drive twice through simulated towns and train behind the configured descriptor."""
    embedder = Embedder(EmbeddingConfig.from_file(params_file, attention="pooling"))
    segmenter = NetworkSegmenter(SegmentationConfig.from_file(params_file))
    towns = []
    for seed in range(config.first_seed, config.first_seed + config.towns):
        town = drive_twice(seed)
        sessions = town.references, town.queries
        towns.append(describe_town(embedder, segmenter, *sessions, town.overlap()))
    return train_attention_head(embedder, towns, config, log)
