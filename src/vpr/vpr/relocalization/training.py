"""Training the S3E encoder and its graph network on RGB-D sequences with loops.

What is validated is kept: the weights of the epoch that did best on sequences not learnt from. A
run that is given a checkpoint goes on from it to the same end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress as Bar
from torch import Tensor, nn

from vpr.config import Fraction, NonNegative, Positive
from vpr.learning.checkpoint import Progress, load_checkpoint, save_checkpoint
from vpr.learning.errors import TrainingError
from vpr.relocalization.encoders import EncoderInput
from vpr.relocalization.graph_network import chain, chains
from vpr.relocalization.loss import graph_query_loss, shrinkage
from vpr.relocalization.model import S3eModel
from vpr.relocalization.patches import PatchExtractor
from vpr.relocalization.query import distribution, inverse_cross_entropy
from vpr.relocalization.reprojection import mutual, similarity_matrix
from vpr.relocalization.rgbd import RgbdError, RgbdSequence

Log = Callable[[int, float, float], None]  # epoch, mean loss, score on validation (NaN: none)
CYCLES = 4  # of the learning rate in a whole run
WARM_UP = 0.15  # of a run with AdamW
GAINS, INVERTED, SHIFT = (0.7, 1.3), 0.25, 0.1  # of a painted sequence's channels, -1..1
EMBEDDED_AT_ONCE = 64  # views


class S3eTrainingConfig(BaseModel):
    """Recipe of ``vpr train s3e`` and ``vpr train gnn``; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=140, ge=1)
    epoch_batches: int = Field(default=16, ge=1, description="steps an epoch")
    batch_views: int = Field(default=72, ge=2, description="compared with each other in a step")
    batch_sequences: int = Field(default=3, ge=1, description="that these come from")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 1e-3
    highest_rate: Positive = 0.1  # of the cyclic schedule, with SGD
    graph_rate: Positive = 1e-5  # of the graph network, "since the network prone to diverge"
    weight_decay: NonNegative = 1e-5
    momentum: NonNegative = 0.95
    loop_similarity: Positive = 0.1  # IoU above which a pair counts as a loop
    loop_share: Fraction = 0.5  # of the loss that loops have, however few they are
    foreign_share: Fraction = 0.25  # of the rest that pairs of two sequences have
    painted: Fraction = 0.0  # of the sequences drawn, whose colours are mixed anew
    drawings: int = Field(default=2, ge=1, description="sets of patches cut of each view")
    query_length: int = Field(default=5, ge=1, description="most successive keyframes of a query")
    sharpness: Positive = 20.0  # of the softmax over equation 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixed_precision: Literal["auto", "on", "off"] = "auto"
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Views:
    """One sequence as training sees it.

    Attributes:
        drawings: its patches, drawn one or several times from its keypoints.
        similarity: (N, N) mutual IoU of its views.
        laps: (N,) which run each view belongs to.
    """

    drawings: tuple[EncoderInput, ...]
    similarity: NDArray[np.float32]
    laps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.laps)


def prepare(
    model: S3eModel, sequence: RgbdSequence, drawings: int = 1, cache: Path | None = None
) -> Views:
    """Cut the patches of a sequence and label its pairs.

    Args:
        cache: folder that keeps IoU matrices from run to run.

    Raises:
        RgbdError, PatchError: views without depth, or without patches.
    """
    matrix = _cached_similarity(sequence, cache)
    own = model.patches
    extractors = [own, *(PatchExtractor(own.patch_size, own.count, i) for i in range(1, drawings))]
    given = tuple(EncoderInput.of([cut(image) for image in sequence.images]) for cut in extractors)
    return Views(given, mutual(matrix), sequence.laps)


def predicted_similarities(model: S3eModel, given: EncoderInput) -> NDArray[np.float32]:
    """(N, N) similarities that the encoder gives to every pair of views, in 0..1."""
    embedded = _embedded(model, given)
    return np.asarray((embedded @ embedded.T).clamp(min=0.0).cpu().numpy(), np.float32)


def similarity_error(predicted: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Mean absolute error over all pairs of two different views."""
    apart = ~np.eye(len(truth), dtype=bool)
    return float(np.abs(predicted - truth)[apart].mean())


def train_encoder(
    model: S3eModel,
    scenes: Sequence[Views],
    config: S3eTrainingConfig,
    log: Log,
    validation: Sequence[Views] = (),
    checkpoint: Path | None = None,
) -> None:
    """Fit cosine similarities to reprojection IoU by the shrinkage loss (III-A), in place.

    Every step compares all pairs of some views of a few sequences: views of two sequences share
    nothing. Half of the sequences are mirrored, and some are painted in other colours.

    Raises:
        TrainingError: no CUDA where it is asked for, or a checkpoint of another run.
    """
    device = _device(config)
    model.encoder.to(device)

    def loss(rng: np.random.Generator) -> Tensor:
        given, truth, of = _drawn(scenes, config, rng)
        embedded = nn.functional.normalize(model.encoder(given.to(device)).float(), dim=1)
        return balanced_loss(embedded @ embedded.T, truth.to(device), of.to(device), config)

    def score() -> float:
        errors = [
            similarity_error(predicted_similarities(model, views.drawings[0]), views.similarity)
            for views in validation
        ]
        return -float(np.mean(errors))

    fit = _Fit(model.encoder, config.learning_rate, loss, score if validation else None)
    _fit(fit, config, device, log, checkpoint, _fingerprint(model, scenes, config, "encoder"))


def train_graph(
    model: S3eModel,
    scenes: Sequence[Views],
    config: S3eTrainingConfig,
    log: Log,
    validation: Sequence[Views] = (),
    checkpoint: Path | None = None,
) -> None:
    """Fit equation 2 over one lap to rows of the IoU matrix (III-B), in place.

    A step asks with windows of another lap, one to ``query_length`` keyframes long.

    Raises:
        RgbdError: a sequence of a single lap, or laps shorter than a query.
        TrainingError: as ``train_encoder``.
    """
    device = _device(config)
    model.encoder.to(device)
    model.graph.to(device)
    laps = [_laps(model, scene, config) for scene in scenes]
    held = [_laps(model, scene, config) for scene in validation]

    def loss(rng: np.random.Generator) -> Tensor:
        lap = laps[int(rng.integers(len(laps)))]
        kinds = rng.permutation(np.unique(lap.laps))[:2]
        length = int(rng.integers(1, config.query_length + 1))
        return graph_query_loss(*lap.asked(model, kinds[0], kinds[1], length, config, rng))

    def score() -> float:
        return float(np.mean([_answered(model, lap, config) for lap in held]))

    fit = _Fit(model.graph, config.graph_rate, loss, score if validation else None)
    _fit(fit, config, device, log, checkpoint, _fingerprint(model, scenes, config, "graph"))


def _drawn(
    scenes: Sequence[Views], config: S3eTrainingConfig, rng: np.random.Generator
) -> tuple[EncoderInput, Tensor, Tensor]:
    """A batch of N views, their (N, N) IoU, and (N,) which sequence each is of."""
    chosen = rng.permutation(len(scenes))[: config.batch_sequences]
    count = config.batch_views // len(chosen)
    parts, blocks = [], []
    for scene in (scenes[int(i)] for i in chosen):
        rows = rng.permutation(len(scene))[:count]
        given = scene.drawings[int(rng.integers(len(scene.drawings)))].rows(rows)
        given = given.flipped() if rng.random() < 0.5 else given
        parts.append(_painted(given, rng) if rng.random() < config.painted else given)
        blocks.append(torch.from_numpy(scene.similarity[np.ix_(rows, rows)]))
    of = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))
    similarity = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return EncoderInput.joined(parts), similarity, of


def _painted(given: EncoderInput, rng: np.random.Generator) -> EncoderInput:
    """Channels in another order, some inverted, with other gains and shifts."""
    gains = rng.uniform(*GAINS, 3) * np.where(rng.random(3) < INVERTED, -1.0, 1.0)
    mixing = np.eye(3)[rng.permutation(3)] * gains[:, None]
    shift = rng.normal(0.0, SHIFT, 3)
    return given.painted(torch.from_numpy(mixing).float(), torch.from_numpy(shift).float())


def balanced_loss(
    predicted: Tensor, truth: Tensor, sequences: Tensor, config: S3eTrainingConfig
) -> Tensor:
    """Shrinkage loss of all pairs of N views, however few of them are loops.

    Args:
        predicted, truth: (N, N). sequences: (N,) which one each view is of.
    """
    apart = ~torch.eye(len(truth), dtype=torch.bool, device=truth.device)
    loops = (truth > config.loop_similarity) & apart
    same = (sequences[:, None] == sequences) & apart
    rest = 1.0 - config.loop_share
    shares = [
        (loops, config.loop_share),
        (same & ~loops, rest * (1.0 - config.foreign_share)),
        (apart & ~same, rest * config.foreign_share),
    ]
    values = shrinkage(predicted, truth)
    present = [(values[mask].mean(), share) for mask, share in shares if bool(mask.any())]
    total = max(sum(share for _, share in present), 1e-9)
    return torch.stack([mean * (share / total) for mean, share in present]).sum()


@dataclass(frozen=True)
class _Laps:
    """Embeddings (N, D) of a sequence, one set a drawing, its IoU (N, N) and its laps (N,)."""

    embedded: tuple[Tensor, ...]
    truth: Tensor
    laps: NDArray[np.int64]

    def asked(
        self,
        model: S3eModel,
        reference: int,
        query: int,
        length: int,
        config: S3eTrainingConfig,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Scores (Q, R) of windows of one lap on the nodes of another, and rows of the IoU."""
        drawn = [self.embedded[int(rng.integers(len(self.embedded)))] for _ in range(2)]
        rows = np.flatnonzero(self.laps == reference)
        ends = np.flatnonzero(self.laps == query)[length - 1 :]
        windows = ends[:, None] + np.arange(1 - length, 1)
        nodes = model.graph(drawn[0][rows], chain(len(rows)).to(drawn[0].device))
        asking = model.graph(
            drawn[1][windows.reshape(-1)], chains(len(ends), length).to(drawn[1].device)
        )
        newest = distribution(asking.reshape(len(ends), length, -1)[:, -1])
        own = inverse_cross_entropy(newest, newest).diagonal()[:, None]
        scores = config.sharpness * inverse_cross_entropy(newest, distribution(nodes)) / own
        return scores, self.truth[ends][:, rows]


def _laps(model: S3eModel, scene: Views, config: S3eTrainingConfig) -> _Laps:
    kinds, counts = np.unique(scene.laps, return_counts=True)
    if len(kinds) < 2 or counts.min() < config.query_length:
        raise RgbdError("a graph network needs a second lap through the same place to learn from")
    embedded = tuple(_embedded(model, given) for given in scene.drawings)
    return _Laps(embedded, torch.from_numpy(scene.similarity).to(embedded[0].device), scene.laps)


@torch.no_grad()
def _answered(model: S3eModel, lap: _Laps, config: S3eTrainingConfig) -> float:
    """Mean IoU of later laps' views and the node of the first that is answered."""
    first, *later = np.unique(lap.laps).tolist()
    rng = np.random.default_rng(0)
    seen = []
    for query in later:
        scores, truth = lap.asked(model, first, query, config.query_length, config, rng)
        seen.append(truth.gather(1, scores.argmax(dim=1, keepdim=True)))
    return float(torch.cat(seen).mean())


@torch.no_grad()
def _embedded(model: S3eModel, given: EncoderInput) -> Tensor:
    """(N, D) embeddings of unit length, on the encoder's device."""
    encoder = model.encoder.eval()
    device = next(encoder.parameters()).device
    parts = [
        encoder(given.rows(np.arange(first, min(first + EMBEDDED_AT_ONCE, len(given)))).to(device))
        for first in range(0, len(given), EMBEDDED_AT_ONCE)
    ]
    return nn.functional.normalize(torch.cat(parts), dim=1)


@dataclass(frozen=True)
class _Fit:
    """What differs between the two networks: a step's loss, and what is better."""

    network: nn.Module
    rate: float
    loss: Callable[[np.random.Generator], Tensor]
    score: Callable[[], float] | None


def _fit(
    fit: _Fit,
    config: S3eTrainingConfig,
    device: torch.device,
    log: Log,
    checkpoint: Path | None,
    fingerprint: str,
) -> None:
    torch.manual_seed(config.seed)
    optimizer = _optimizer(fit, config)
    progress, best = Progress(fingerprint), dict(fit.network.state_dict())
    if checkpoint is not None and checkpoint.is_file():
        progress, weights, best = load_checkpoint(checkpoint, fingerprint, optimizer)
        fit.network.load_state_dict(weights)
    with Bar() as bar:
        task = bar.add_task("training", total=config.epochs, completed=progress.epoch)
        for epoch in range(progress.epoch, config.epochs):
            loss = _epoch(fit, optimizer, config, device, epoch)
            score = _scored(fit, device, config)
            if fit.score is None or score > progress.best_score:
                progress.best_epoch, progress.best_score = epoch + 1, score
                best = {name: value.clone() for name, value in fit.network.state_dict().items()}
            progress.epoch = epoch + 1
            if checkpoint is not None:
                save_checkpoint(checkpoint, progress, fit.network.state_dict(), best, optimizer)
            log(epoch + 1, loss, score)
            bar.advance(task)
    fit.network.load_state_dict(best)
    fit.network.eval()


def _epoch(
    fit: _Fit,
    optimizer: torch.optim.Optimizer,
    config: S3eTrainingConfig,
    device: torch.device,
    epoch: int,
) -> float:
    """Mean loss of one epoch's steps."""
    rng = np.random.default_rng([config.seed, epoch])
    total, losses = config.epochs * config.epoch_batches, []
    fit.network.train()
    for step in range(config.epoch_batches):
        for group in optimizer.param_groups:
            group["lr"] = _rate(fit, config, epoch * config.epoch_batches + step, total)
        with _autocast(device, config):
            loss = fit.loss(rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(fit.network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def _scored(fit: _Fit, device: torch.device, config: S3eTrainingConfig) -> float:
    fit.network.eval()
    with _autocast(device, config):
        return float("nan") if fit.score is None else fit.score()


def _rate(fit: _Fit, config: S3eTrainingConfig, step: int, total: int) -> float:
    """Learning rate of a step: triangular cycles with SGD, a warm-up and a cosine with AdamW."""
    share = step / total
    if config.optimizer == "adamw":
        if share < WARM_UP:
            return fit.rate * max(share / WARM_UP, 0.04)
        return fit.rate * 0.5 * (1.0 + float(np.cos(np.pi * (share - WARM_UP) / (1.0 - WARM_UP))))
    if fit.rate >= config.highest_rate or fit.rate == config.graph_rate:
        return fit.rate
    rising = 1.0 - abs(2.0 * ((share * CYCLES) % 1.0) - 1.0)
    return fit.rate + (config.highest_rate - fit.rate) * rising


def _optimizer(fit: _Fit, config: S3eTrainingConfig) -> torch.optim.Optimizer:
    given = fit.network.parameters()
    if config.optimizer == "adamw":
        return torch.optim.AdamW(given, fit.rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        given, fit.rate, momentum=config.momentum, weight_decay=config.weight_decay
    )


def _device(config: S3eTrainingConfig) -> torch.device:
    cuda = torch.cuda.is_available() and config.device != "cpu"
    if config.device == "cuda" and not cuda:
        raise TrainingError("device is cuda, but there is none")
    return torch.device("cuda" if cuda else "cpu")


def _autocast(device: torch.device, config: S3eTrainingConfig) -> AbstractContextManager[None]:
    on = config.mixed_precision == "on" or (
        config.mixed_precision == "auto" and device.type == "cuda"
    )
    return torch.autocast(device.type, torch.bfloat16, enabled=on)


def _fingerprint(
    model: S3eModel, scenes: Sequence[Views], config: S3eTrainingConfig, part: str
) -> str:
    shape = f"{part} {model.kind} {model.patches.patch_size} {model.patches.count}"
    digest = hashlib.sha256(f"{shape} {model.dimension}".encode())
    digest.update(config.model_dump_json(exclude={"device"}).encode())
    for scene in scenes:
        digest.update(np.ascontiguousarray(scene.similarity).tobytes())
    return digest.hexdigest()


def _cached_similarity(sequence: RgbdSequence, cache: Path | None) -> NDArray[np.float32]:
    """The (N, N) IoU of a sequence's views, read where it was computed before."""
    if cache is None:
        return similarity_matrix(sequence, sequence)
    digest = hashlib.sha256(sequence.camera.matrix.tobytes())
    for array in (sequence.depths, sequence.poses):
        digest.update(np.ascontiguousarray(array).tobytes())
    file = cache / f"{sequence.name}-{digest.hexdigest()[:16]}.npy"
    if file.is_file():
        return np.asarray(np.load(file, allow_pickle=False), np.float32)
    matrix = similarity_matrix(sequence, sequence)
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with partial.open("wb") as written:
        np.save(written, matrix)
    partial.replace(file)
    return matrix
