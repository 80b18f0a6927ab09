"""Training a transform of frozen descriptors so that sequences are told apart.

Garg, Vankadari & Milford, "SeqMatchNet", CoRL 2021: a negative is hard, and a loss is suffered,
either by single images or by whole sequences; both come from one distance matrix and its
convolution, computed anew at every step. All four combinations of loss and mining are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from vpr.config import SequenceTrainingConfig
from vpr.models.seqnet import SeqNet
from vpr.places.convolution import centred_sequence_distances, descriptor_distances
from vpr.places.encoders import normalised, standing_still_before

PRINCIPAL_ROWS = 2048  # descriptors, at most, that the principal directions are taken from
SMALLEST_VARIANCE = 1e-3  # of the largest; what is below it is noise that whitening would blow up


class SequenceTrainingError(ValueError):
    """Traverses that cannot be trained on; says which and why."""


@dataclass(frozen=True)
class TraversePair:
    """Two traverses of one route.

    ``truth`` (Q,) holds the reference index of each query's place, -1 where it has none.
    """

    name: str
    references: NDArray[np.float32]  # (N, D)
    queries: NDArray[np.float32]  # (Q, D)
    truth: NDArray[np.int64]

    def check(self, length: int, margin_frames: int) -> None:
        """Raises SequenceTrainingError unless there are positives and negatives to learn from."""
        for kind, descriptors in (("reference", self.references), ("query", self.queries)):
            if not np.isfinite(descriptors).all():
                raise SequenceTrainingError(f"{self.name}: a {kind} descriptor is not finite")
            if len(descriptors) < max(length, 2 * margin_frames + 2):
                raise SequenceTrainingError(
                    f"{self.name}: {len(descriptors)} {kind} frames are too few for sequences of "
                    f"{length} with negatives {margin_frames} frames away"
                )
            if np.ptp(descriptors, axis=0).max() < 1e-6:
                raise SequenceTrainingError(f"{self.name}: all {kind} descriptors are the same")
        if (self.truth < 0).all() or self.truth.max() >= len(self.references):
            raise SequenceTrainingError(f"{self.name}: no query has its place among the references")


@dataclass(frozen=True)
class TrainedSequence:
    """The transform with the mean loss of every epoch."""

    network: SeqNet
    losses: tuple[float, ...]


def train_sequence(
    pairs: Sequence[TraversePair],
    config: SequenceTrainingConfig,
    source: str = "",
    progress: bool = True,
) -> TrainedSequence:
    """Learn from pairs of traverses; the same arguments give the same weights.

    The mean of all descriptors is taken off and stays off. A bias of its own would learn to be what
    all of them share: hard negatives are then as near as the right place, whatever is seen, and
    training ends where everything is alike.

    Args:
        source: the model that made the descriptors.

    Raises:
        SequenceTrainingError: a pair cannot be learned from.
    """
    if not pairs:
        raise SequenceTrainingError("no pair of traverses to learn from")
    for pair in pairs:
        pair.check(config.sequence_length, config.negative_distance)
    rng = np.random.default_rng(config.seed)
    every = np.concatenate([part for pair in pairs for part in (pair.references, pair.queries)])
    mean = every.mean(axis=0)
    network = _started(every - mean, config, source)
    network.training_record["trained_on"] = [f"{p.name}: {len(p.queries)} queries" for p in pairs]
    optimizer = torch.optim.Adam(
        [network.convolution.weight], lr=config.learning_rate, weight_decay=config.weight_decay
    )
    losses = []
    with Progress(disable=not progress) as bar:
        task = bar.add_task(f"{config.loss} loss, {config.mining} mining", total=config.epochs)
        for _ in range(config.epochs):
            spent = []
            for index in rng.permutation(len(pairs)):
                loss = _stretch_loss(network, mean, pairs[index], config, rng)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                spent.append(float(loss.detach()))
            losses.append(float(np.mean(spent)))
            bar.update(task, advance=1, description=f"loss {losses[-1]:.4f}")
    network.take_off(mean)
    return TrainedSequence(network.eval(), tuple(losses))


def _started(centred: NDArray[np.float32], config: SequenceTrainingConfig, source: str) -> SeqNet:
    """A network that begins as the PCA-whitening of descriptors (N, D) around their mean."""
    variances, directions = _principal(centred[:: -(-len(centred) // PRINCIPAL_ROWS)])
    kept = min(config.outputs, int((variances > SMALLEST_VARIANCE * variances[0]).sum()))
    scales = variances[:kept] ** (-0.5 * config.whitening)
    record = {
        "loss": config.loss,
        "mining": config.mining,
        "form": config.form,
        "sequence_length": config.sequence_length,
    }
    network = SeqNet(centred.shape[1], kept, config.window, source, record)
    projection = directions[:kept].T * scales
    projection *= np.sqrt(kept) / np.linalg.norm(projection)
    network.start_as_projection(projection.astype(np.float32))
    return network.train()


def _principal(centred: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances (K,), largest first, and directions (K, D) of rows (N, D) around their mean.

    From the smaller one of the two matrices of their products: there may be thousands of values.
    """
    rows = centred.astype(np.float64)
    if len(rows) >= rows.shape[1]:
        variances, vectors = np.linalg.eigh(rows.T @ rows)
        return variances[::-1], vectors[:, ::-1].T
    variances, weights = np.linalg.eigh(rows @ rows.T)
    directions = (weights.T @ rows)[::-1]  # a product of what is reversed would not be BLAS's
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    return variances[::-1], directions / np.maximum(lengths, 1e-12)


def _stretch_loss(
    network: SeqNet,
    mean: NDArray[np.float32],
    pair: TraversePair,
    config: SequenceTrainingConfig,
    rng: np.random.Generator,
) -> Tensor:
    """Loss over one stretch of the query traverse against all references."""
    first = int(rng.integers(0, max(1, len(pair.queries) - config.stretch + 1)))
    chosen = slice(first, first + config.stretch)
    queries = _encoded(network, mean, pair.queries[chosen], config.noise, rng)
    references = _encoded(network, mean, pair.references, config.noise, rng)
    single = descriptor_distances(queries, references)
    sequence = centred_sequence_distances(single, config.sequence_length)
    by = {"single": single, "seqmatch": sequence}
    truth = torch.from_numpy(pair.truth[chosen])
    return sequence_loss(by[config.loss], by[config.mining].detach(), truth, config)


def _encoded(
    network: SeqNet,
    mean: NDArray[np.float32],
    descriptors: NDArray[np.float32],
    noise: float,
    rng: np.random.Generator,
) -> Tensor:
    """(N, D') of a traverse less a mean, its descriptors disturbed a little so that they aren't
    learned by heart."""
    if noise > 0.0:
        scale = noise / np.sqrt(descriptors.shape[1])
        disturbed = rng.standard_normal(descriptors.shape, dtype=np.float32) * np.float32(scale)
        descriptors = normalised(descriptors + disturbed)
    padded = standing_still_before(descriptors - mean, network.window)
    encoded: Tensor = network(torch.from_numpy(padded)[None])[0]
    return encoded


def sequence_loss(
    distances: Tensor, mined_from: Tensor, truth: Tensor, config: SequenceTrainingConfig
) -> Tensor:
    """Triplet or contrastive loss with each query's hardest negatives.

    Args:
        distances: (Q, N) that the loss is made of.
        mined_from: (Q, N) in which small means hard.
        truth: (Q,) reference index, -1 for queries without a place, which are passed over.
    """
    rows = torch.nonzero(truth >= 0)[:, 0]
    if len(rows) == 0:
        return distances.sum() * 0.0
    places = torch.arange(distances.shape[1])
    near = (places[None] - truth[rows, None]).abs() <= config.negative_distance
    hardness = mined_from[rows].masked_fill(near, torch.inf)
    negatives = hardness.topk(config.negatives, largest=False).indices
    positive = distances[rows, truth[rows]]
    negative = distances[rows[:, None], negatives]
    if config.form == "triplet":
        return functional.relu(config.margin + positive[:, None] - negative).mean()
    return positive.square().mean() + functional.relu(config.margin - negative).square().mean()
