"""The training loop: pairs in, the epoch with the best validation out."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from vpr.config import FineTuningConfig
from vpr.learning.checkpoint import Progress, load_checkpoint, save_checkpoint
from vpr.learning.errors import TrainingError
from vpr.learning.features import Features
from vpr.learning.loss import contrastive_loss
from vpr.learning.networks import Learner
from vpr.learning.prefetch import one_ahead
from vpr.learning.retrieval import RetrievalFigures, figures_of, look_up
from vpr.learning.sampling import PairSampler

CHECKPOINT_SUFFIX = ".checkpoint.safetensors"
LOG_SUFFIX = ".csv"
EpochDone = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Outcome:
    """What a run came to; the learner holds the weights of ``best_epoch``."""

    before: RetrievalFigures
    after: RetrievalFigures
    best_epoch: int
    epochs: int
    pairs_per_second: float


@dataclass(frozen=True)
class PreparedBatch:
    """What a step needs: each row once, and where in them anchors, positives, negatives are."""

    inputs: Tensor
    index: Tensor  # anchors, then positives, then negatives anchor by anchor
    anchors: int
    pairs: int  # of all processes


class Trainer:
    """Trains a learner on some rows and validates it on others, in this process or several.

    Under torchrun each process takes its share of every batch and gradients are averaged; the
    first process alone writes.

    Args:
        training, validation: rows of the features. Validation rows are looked up among all rows.
        out: file of the model to be; checkpoint and log go beside it.

    Raises:
        TrainingError: too few positives, or validation drives that revisit nothing.
    """

    def __init__(
        self,
        learner: Learner,
        features: Features,
        training: NDArray[np.int64],
        validation: NDArray[np.int64],
        config: FineTuningConfig,
        out: Path,
    ) -> None:
        self._learner, self._features, self._config = learner, features, config
        self._training, self._validation = training, validation
        self._checkpoint = out.with_suffix(CHECKPOINT_SUFFIX)
        self._log_file = out.with_suffix(LOG_SUFFIX)
        drives = features.drives
        self.sampler = PairSampler(
            features.values[training], drives.viewpoints[training], drives.drive[training], config
        )
        self._margin = config.normalised_margin if config.normalised else config.margin
        self._module, self._rank, self._processes = _distributed(learner.module)
        trunk = [p for module in learner.trunk().values() for p in module.parameters()]
        self._optimizer = torch.optim.Adam(
            [
                {"params": list(learner.head.parameters()), "lr": config.learning_rate},
                {"params": trunk, "lr": config.trunk_learning_rate},
            ]
        )
        self._anchor = [p.detach().clone() for p in learner.head.parameters()]
        self.progress = Progress(self._fingerprint())
        self._best = self.weights()

    def weights(self) -> dict[str, Tensor]:
        """Copies of all that is trained: the head's by their names, the trunk's by path."""
        found = {f"head.{n}": t for n, t in self._learner.head.state_dict().items()}
        for path, module in self._learner.trunk().items():
            found |= {f"trunk.{path}.{n}": t for n, t in module.state_dict().items()}
        return {name: tensor.detach().clone() for name, tensor in found.items()}

    def resume(self) -> bool:
        """Go on where a killed run with the same drives and values was; False if there is none.

        Raises:
            TrainingError, DescriptorModelError: the checkpoint is of another run, or damaged.
        """
        if not self._checkpoint.exists():
            return False
        self.progress, weights, self._best = load_checkpoint(
            self._checkpoint, self.progress.fingerprint, self._optimizer
        )
        self._put(weights)
        return True

    def run(self, done: EpochDone, snapshot: Callable[[int], None]) -> Outcome:
        """Train until ``epochs`` are done or ``patience`` runs out; the best weights are put back.

        Args:
            done: called with the log's row after every epoch.
            snapshot: called with the epoch whenever a model is to be kept for the pictures.

        Raises:
            TrainingError: the loss is not finite.
            DescriptorModelError: the disk refuses; what was written before is whole.
        """
        config, progress = self._config, self.progress
        kept = _snapshot_epochs(config.epochs, config.snapshots)
        if progress.epoch == 0:
            progress.before = self._figures_of(self._features.values).to_json()
            begun = self.validate()
            progress.best_score = begun.score
            progress.log = [
                {"epoch": 0, "loss": 0.0, "pairs_per_s": 0.0}
                | begun.to_json()
                | {"score": begun.score}
            ]
            snapshot(0)
        while progress.epoch < config.epochs and not self._exhausted():
            row = self._epoch(progress.epoch + 1)
            progress.log.append(row)
            progress.epoch += 1
            if row["score"] > progress.best_score:
                progress.best_score, progress.best_epoch = row["score"], progress.epoch
                self._best = self.weights()
            if progress.epoch in kept:
                snapshot(progress.epoch)
            if self._rank == 0:
                self._write()
            done(row)
        self._put(self._best)
        return self._outcome()

    def validate(self) -> RetrievalFigures:
        """The validation rows looked up among all rows, with the weights as they are.

        Raises:
            TrainingError: nothing to validate on.
        """
        return self._figures_of(self._learner.embeddings())

    def _figures_of(self, embeddings: NDArray[np.float32]) -> RetrievalFigures:
        drives = self._features.drives
        matches = look_up(
            embeddings,
            drives.viewpoints,
            drives.drive,
            self._validation,
            self._config,
        )
        if not matches.revisits.any():
            raise TrainingError(
                "the validation drives never come back to a place seen before: hold out a drive "
                "that repeats another one, or itself"
            )
        return figures_of(matches)

    def clean_up(self) -> None:
        """Remove the checkpoint of a run that is over."""
        if self._rank == 0:
            self._checkpoint.unlink(missing_ok=True)

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes."""
        return self._rank == 0

    def batches(self, epoch: int) -> Iterator[PreparedBatch]:
        """This process's share of an epoch's batches, read and on the device."""
        share = slice(self._rank, None, self._processes)
        for batch in self.sampler.epoch(epoch, self._config.batch_positives):
            anchors, positives = batch.anchors[share], batch.positives[share]
            wanted = np.concatenate([anchors, positives, batch.negatives[share].ravel()])
            rows, index = np.unique(wanted, return_inverse=True)
            inputs = self._learner.inputs(self._training[rows])
            pairs = batch.positives.size + batch.negatives.size
            yield PreparedBatch(inputs, torch.from_numpy(index), len(anchors), pairs)

    def learn(self, batch: PreparedBatch) -> float:
        """One step down the loss; returns the loss before it, which may be NaN: then no step."""
        device = batch.inputs.device.type
        mixed = self._config.mixed_precision and device == "cuda"
        with torch.autocast(device, dtype=torch.bfloat16, enabled=mixed):
            embedded = self._module(batch.inputs)
        embedded = embedded.float()[batch.index.to(batch.inputs.device)]
        count = batch.anchors
        loss = contrastive_loss(
            embedded[:count],
            embedded[count : 2 * count],
            embedded[2 * count :].view(count, -1, embedded.shape[1]),
            self._margin,
        )
        if bool(torch.isfinite(loss)):
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._pull_back()
        return float(loss.detach())

    def _epoch(self, number: int) -> dict[str, float]:
        losses, pairs, started = [], 0, time.perf_counter()
        self._learner.head.train()
        for batch in one_ahead(self.batches(number)):
            losses.append(self.learn(batch))
            pairs += batch.pairs
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss is not finite in epoch {number}: lower learning_rate "
                    f"({self._config.learning_rate:g}); the checkpoint before it is kept"
                )
        self._learner.head.eval()
        seconds = time.perf_counter() - started
        figures = self.validate()
        return {
            "epoch": number,
            "loss": float(np.mean(losses)),
            "pairs_per_s": pairs / seconds,
            **figures.to_json(),
            "score": figures.score,
        }

    @torch.no_grad()
    def _pull_back(self) -> None:
        """Decoupled decay towards the weights it began with, which were not bad."""
        rate = self._config.learning_rate * self._config.weight_decay
        for parameter, start in zip(self._learner.head.parameters(), self._anchor, strict=True):
            parameter.lerp_(start, rate)

    def _exhausted(self) -> bool:
        return self.progress.epoch - self.progress.best_epoch >= self._config.patience

    def _put(self, weights: dict[str, Tensor]) -> None:
        head = {n.removeprefix("head."): t for n, t in weights.items() if n.startswith("head.")}
        self._learner.head.load_state_dict(head)
        for path, module in self._learner.trunk().items():
            prefix = f"trunk.{path}."
            module.load_state_dict(
                {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
            )

    def _write(self) -> None:
        save_checkpoint(
            self._checkpoint, self.progress, self.weights(), self._best, self._optimizer
        )
        text = io.StringIO()
        columns = list(self.progress.log[-1])
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.progress.log)
        partial = self._log_file.with_name(f".{self._log_file.name}.partial")
        partial.write_text(text.getvalue())
        partial.replace(self._log_file)

    def _outcome(self) -> Outcome:
        log, best = self.progress.log, self.progress.best_epoch
        rates = [row["pairs_per_s"] for row in log[1:]]
        return Outcome(
            before=_figures(self.progress.before),
            after=_figures(log[best]),
            best_epoch=best,
            epochs=self.progress.epoch,
            pairs_per_second=float(np.median(rates)) if rates else 0.0,
        )

    def _fingerprint(self) -> str:
        """Of everything that decides the result; epochs and patience may be raised later."""
        values = self._config.model_dump(
            exclude={"epochs", "patience", "snapshots", "threads", "autostart", "device"}
        )
        digest = hashlib.sha256(repr(sorted(values.items())).encode())
        for array in (self._features.values, self._training, self._validation):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(self._features.drives.viewpoints.positions.tobytes())
        return digest.hexdigest()


def _figures(row: dict[str, float]) -> RetrievalFigures:
    return RetrievalFigures(
        row["recall@1"],
        row["recall_at_100_precision"],
        row["average_precision"],
        int(row["queries"]),
        int(row["revisits"]),
    )


def _snapshot_epochs(epochs: int, count: int) -> frozenset[int]:
    """Epochs to keep, closer together at the beginning, where most happens."""
    if count < 2:
        return frozenset()
    return frozenset(np.rint(np.geomspace(1, epochs, count - 1)).astype(int).tolist())


def _distributed(module: nn.Module) -> tuple[nn.Module, int, int]:
    """The module to train with, this process's number and how many there are."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return module, 0, 1
    wrapped = nn.parallel.DistributedDataParallel(module)
    return wrapped, distributed.get_rank(), distributed.get_world_size()
