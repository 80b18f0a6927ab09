"""Training the S3E encoder and its graph network on RGB-D sequences with loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress
from torch import Tensor, nn

from vpr.config import NonNegative, Positive
from vpr.relocalization.encoders import EncoderInput
from vpr.relocalization.graph_network import chain
from vpr.relocalization.loss import graph_query_loss, predicted_similarity, shrinkage_loss
from vpr.relocalization.model import S3eModel
from vpr.relocalization.query import distribution, inverse_cross_entropy
from vpr.relocalization.reprojection import similarity_matrix
from vpr.relocalization.rgbd import RgbdError, RgbdSequence

Log = Callable[[int, float], None]  # epoch, mean loss


class S3eTrainingConfig(BaseModel):
    """Recipe of ``vpr train s3e`` and ``vpr train gnn``; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=140, ge=1)
    epoch_pairs: int = Field(default=512, ge=2, description="pairs of views drawn an epoch")
    batch_pairs: int = Field(default=32, ge=2)
    learning_rate: Positive = 1e-3
    highest_rate: Positive = 0.1  # of the cyclic schedule
    graph_rate: Positive = 1e-5  # of the graph network, "since the network prone to diverge"
    weight_decay: NonNegative = 1e-5
    momentum: NonNegative = 0.95
    loop_similarity: Positive = 0.1  # IoU above which a pair counts as a loop, half of all drawn
    query_length: int = Field(default=5, ge=1, description="successive keyframes of a query")
    sharpness: Positive = 20.0  # of the softmax over equation 2
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Views:
    """One sequence as training sees it: patches, and the (N, N) symmetric IoU of its views."""

    given: EncoderInput
    similarity: NDArray[np.float32]
    laps: NDArray[np.int64]


def prepare(model: S3eModel, sequence: RgbdSequence) -> Views:
    """Cut the patches of a sequence and label its pairs.

    Raises:
        RgbdError, PatchError: views without depth, or without patches.
    """
    matrix = similarity_matrix(sequence, sequence)
    patches = [model.patches(image) for image in sequence.images]
    symmetric = np.asarray((matrix + matrix.T) / 2.0, np.float32)
    return Views(EncoderInput.of(patches), symmetric, sequence.laps)


def train_encoder(
    model: S3eModel, scenes: Sequence[Views], config: S3eTrainingConfig, log: Log
) -> None:
    """Fit cosine similarities to reprojection IoU by the shrinkage loss (III-A), in place.

    Half of the pairs are loops, and every second pair is mirrored.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    steps = -(-config.epoch_pairs // config.batch_pairs)
    optimizer = _sgd(model.encoder, config.learning_rate, config)
    schedule = torch.optim.lr_scheduler.CyclicLR(
        optimizer, config.learning_rate, config.highest_rate,
        step_size_up=max(1, config.epochs * steps // 8), cycle_momentum=False,
    )  # fmt: skip
    model.encoder.train()
    with Progress() as bar:
        for epoch in bar.track(range(config.epochs), description="encoder"):
            losses = []
            for _ in range(steps):
                scene = scenes[int(rng.integers(len(scenes)))]
                rows, columns = balanced_pairs(
                    rng, scene.similarity, config.loop_similarity, config.batch_pairs
                )
                given = _rows(scene.given, np.concatenate([rows, columns]))
                given = given.flipped() if rng.random() < 0.5 else given
                one, other = model.encoder(given).chunk(2)
                truth = torch.from_numpy(scene.similarity[rows, columns])
                loss = shrinkage_loss(predicted_similarity(one, other), truth)
                losses.append(_step(optimizer, model.encoder, loss))
                schedule.step()
            log(epoch + 1, float(np.mean(losses)))
    model.encoder.eval()


def train_graph(
    model: S3eModel, scenes: Sequence[Views], config: S3eTrainingConfig, log: Log
) -> None:
    """Fit equation 2 over the first lap to rows of the IoU matrix (III-B), in place.

    Raises:
        RgbdError: a sequence of a single lap, or laps shorter than a query.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    laps = [_laps(model, scene, config) for scene in scenes]
    optimizer = _sgd(model.graph, config.graph_rate, config)
    model.graph.train()
    with Progress() as bar:
        for epoch in bar.track(range(config.epochs), description="graph network"):
            losses = []
            for reference, query, truth in laps:
                first = int(rng.integers(len(query) - config.query_length + 1))
                part = slice(first, first + config.query_length)
                nodes = distribution(model.graph(reference, chain(len(reference))))
                asked = distribution(model.graph(query[part], chain(config.query_length)))
                own = inverse_cross_entropy(asked, asked).diagonal()[:, None]
                scores = config.sharpness * inverse_cross_entropy(asked, nodes) / own
                losses.append(_step(optimizer, model.graph, graph_query_loss(scores, truth[part])))
            log(epoch + 1, float(np.mean(losses)))
    model.graph.eval()


def balanced_pairs(
    rng: np.random.Generator, similarity: NDArray[np.float32], loop: float, count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(count,) rows and columns: half of them loops, where there are both kinds."""
    loops = similarity > loop
    np.fill_diagonal(loops, False)
    others = similarity <= loop
    kinds = [np.argwhere(kind) for kind in (loops, others) if kind.any()]
    shares = [
        count // len(kinds) + (count % len(kinds) if i == 0 else 0) for i in range(len(kinds))
    ]
    drawn = [kind[rng.integers(len(kind), size=n)] for kind, n in zip(kinds, shares, strict=True)]
    pairs = np.concatenate(drawn)
    return pairs[:, 0], pairs[:, 1]


def _laps(
    model: S3eModel, scene: Views, config: S3eTrainingConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of the first lap and of the others, and the others' rows of the IoU matrix."""
    first = scene.laps == scene.laps.min()
    if int((~first).sum()) < config.query_length:
        raise RgbdError("a graph network needs a second lap through the same place to learn from")
    with torch.no_grad():
        embedded = nn.functional.normalize(model.encoder.eval()(scene.given), dim=1)
    truth = torch.from_numpy(scene.similarity[np.ix_(~first, first)])
    return embedded[torch.from_numpy(first)], embedded[torch.from_numpy(~first)], truth


def _sgd(network: nn.Module, rate: float, config: S3eTrainingConfig) -> torch.optim.SGD:
    return torch.optim.SGD(
        network.parameters(), rate, momentum=config.momentum, weight_decay=config.weight_decay
    )


def _step(optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _rows(given: EncoderInput, rows: NDArray[np.intp]) -> EncoderInput:
    chosen = torch.from_numpy(rows)
    return EncoderInput(given.pixels[chosen], given.places[chosen], given.cells[chosen])
