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

from vpr.config import Fraction, LearningRate, NonNegative, Positive
from vpr.learning.checkpoint import Progress, load_checkpoint, save_checkpoint
from vpr.learning.errors import TrainingError
from vpr.relocalization.encoders import EncoderInput
from vpr.relocalization.graph_network import chain, chains
from vpr.relocalization.loss import graph_query_loss, shrinkage
from vpr.relocalization.model import S3eModel
from vpr.relocalization.query import distribution, inverse_cross_entropy
from vpr.relocalization.rgbd import RgbdError
from vpr.relocalization.similarity_scale import centred_cosines
from vpr.relocalization.views import Views

Log = Callable[[int, float, float], None]  # epoch, mean loss, score on validation (NaN: none)
CYCLES = 4  # of the learning rate in a whole run
WARM_UP = 0.15  # of a run with AdamW
EMBEDDED_AT_ONCE = 64  # views
BEGUN_WITH_EVERY = 6  # views of the training, that a patch projection's components are taken of


class S3eTrainingConfig(BaseModel):
    """Recipe of ``vpr train s3e`` and ``vpr train gnn``; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=140, ge=1)
    patience: int = Field(default=0, ge=0, description="epochs without a gain that end it; 0: none")
    epoch_batches: int = Field(default=16, ge=1, description="steps an epoch")
    batch_views: int = Field(default=72, ge=2, description="compared with each other in a step")
    batch_sequences: int = Field(default=3, ge=1, description="that these come from")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: LearningRate = 1e-3
    highest_rate: LearningRate = 0.1  # of the cyclic schedule, with SGD
    graph_rate: LearningRate = 1e-5  # of the graph network, "since the network prone to diverge"
    weight_decay: NonNegative = 1e-5
    momentum: NonNegative = 0.95
    loop_similarity: Positive = 0.1  # IoU above which a pair counts as a loop
    loop_share: Fraction = 0.5  # of the loss that loops have, however few they are
    foreign_share: Fraction = 0.25  # of the rest that pairs of two sequences have
    drawings: int = Field(default=2, ge=1, description="sets of patches of each view, see prepare")
    query_length: int = Field(default=5, ge=1, description="most successive keyframes of a query")
    sharpness: Positive = 100.0  # of the softmax over equation 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixed_precision: Literal["auto", "on", "off"] = "auto"
    seed: int = Field(default=0, ge=0)


def predicted_similarities(
    model: S3eModel, given: EncoderInput, laps: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(N, N) IoU that the model expects of every pair of views, in 0..1; the first lap is the map.

    Args:
        laps: (N,) which run each view belongs to.
    """
    return np.asarray(model.scale(cosines(model, given, laps)), np.float32)


def fit_scale(model: S3eModel, validation: Sequence[Views]) -> None:
    """Fit the map from cosines to IoU on sequences that the encoder did not learn from."""
    pairs = [
        (cosines(model, views.drawings[0], views.laps)[apart], views.similarity[apart])
        for views in validation
        for apart in [~np.eye(len(views), dtype=bool)]
    ]
    alike, truth = (np.concatenate(values) for values in zip(*pairs, strict=True))
    model.scale.fit(alike, truth)


def cosines(model: S3eModel, given: EncoderInput, laps: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, N) of the views' embeddings, less the mean of the first lap, the map."""
    embedded = _embedded(model, given).cpu()
    centred = centred_cosines(embedded, torch.from_numpy(laps == laps.min()))
    return np.asarray(centred.numpy(), np.float32)


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
    nothing. With ``validation``, the best epoch's map from cosines to IoU is fitted there.

    Raises:
        TrainingError: no CUDA where it is asked for, or a checkpoint of another run.
    """
    device = _device(config)
    begin_encoder(model, scenes)
    model.encoder.to(device)

    def loss(rng: np.random.Generator) -> Tensor:
        given, truth, of = _drawn(scenes, config, rng)
        embedded = nn.functional.normalize(model.encoder(given.to(device)).float(), dim=1)
        sequences = [embedded[of == sequence] for sequence in range(int(of.max()) + 1)]
        aside = torch.cat([part - part.mean(dim=0) for part in sequences])
        aside = nn.functional.normalize(aside, dim=1)
        return balanced_loss(aside @ aside.T, truth.to(device), of.to(device), config)

    def score() -> float:
        fit_scale(model, validation)
        errors = [
            similarity_error(
                predicted_similarities(model, views.drawings[0], views.laps), views.similarity
            )
            for views in validation
        ]
        return -float(np.mean(errors))

    fit = _Fit(model.encoder, config.learning_rate, loss, score if validation else None)
    _fit(fit, config, device, log, checkpoint, _fingerprint(model, scenes, config, "encoder"))
    if validation:
        fit_scale(model, validation)


def begin_encoder(model: S3eModel, scenes: Sequence[Views]) -> None:
    """Start an encoder from the principal components of what it will learn from, in place.

    Its batch norms then count over the same views, so that it can be judged before any step.
    """
    some = [scene.drawings[0].rows(np.arange(0, len(scene), BEGUN_WITH_EVERY)) for scene in scenes]
    given = EncoderInput.joined(some)
    model.encoder.patch.begin(given.values)
    norms = [norm for norm in model.encoder.modules() if isinstance(norm, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain average over the batches
    rows = np.random.default_rng(0).permutation(len(given))
    model.encoder.train()
    with torch.no_grad():
        for chosen in np.array_split(rows, max(1, len(rows) // EMBEDDED_AT_ONCE)):
            model.encoder(given.rows(chosen))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.encoder.eval()


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
        parts.append(scene.drawings[int(rng.integers(len(scene.drawings)))].rows(rows))
        blocks.append(torch.from_numpy(scene.similarity[np.ix_(rows, rows)]))
    of = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))
    similarity = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return EncoderInput.joined(parts), similarity, of


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
    start = _scored(fit, device, config)
    progress, best = Progress(fingerprint, best_score=start), _copied(fit.network)
    if checkpoint is not None and checkpoint.is_file():
        progress, weights, best = load_checkpoint(checkpoint, fingerprint, optimizer)
        fit.network.load_state_dict(weights)
    with Bar() as bar:
        task = bar.add_task("training", total=config.epochs, completed=progress.epoch)
        for epoch in range(progress.epoch, config.epochs):
            if 0 < config.patience <= progress.epoch - progress.best_epoch:
                break
            loss = _epoch(fit, optimizer, config, device, epoch)
            score = _scored(fit, device, config)
            if fit.score is None or score > progress.best_score:
                progress.best_epoch, progress.best_score = epoch + 1, score
                best = _copied(fit.network)
            progress.epoch = epoch + 1
            if checkpoint is not None:
                save_checkpoint(checkpoint, progress, fit.network.state_dict(), best, optimizer)
            log(epoch + 1, loss, score)
            bar.advance(task)
    fit.network.load_state_dict(best)
    fit.network.eval()


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


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
    shape = f"{part} {model.kind} {model.sees} {model.patches.patch_size} {model.patches.count}"
    digest = hashlib.sha256(f"{shape} {model.dimension}".encode())
    digest.update(config.model_dump_json(exclude={"device"}).encode())
    for scene in scenes:
        digest.update(np.ascontiguousarray(scene.similarity).tobytes())
    return digest.hexdigest()
