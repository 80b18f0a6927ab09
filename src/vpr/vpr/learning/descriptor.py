"""``vpr train descriptor``: dataset folders in, a calibrated descriptor model out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import distributed

from vpr.config import EmbeddingConfig, FineTuningConfig, SequenceMatchingConfig
from vpr.learning.drives import Drives, read_drives
from vpr.learning.errors import TrainingError
from vpr.learning.features import Features, read_features
from vpr.learning.held_out import calibrated
from vpr.learning.networks import Learner, make_learner
from vpr.learning.trainer import CHECKPOINT_SUFFIX, Outcome, Trainer
from vpr.models.descriptor_model import DescriptorModel
from vpr.models.device import chosen_device
from vpr.models.embedder import Embedder
from vpr.models.impostors import Impostors

EPOCHS_SUFFIX = ".epochs"
HELD_OUT_SHARE = 0.2  # of the drives, when none is named for validation


@dataclass(frozen=True)
class TrainingData:
    """Which folders play which part; each keyframe's drive is its folder's session."""

    training: Sequence[Path]
    validation: Sequence[Path] = ()  # empty: the last drives of the training folders
    calibration: Sequence[Path] = ()  # empty: the validation drives


@dataclass(frozen=True)
class TrainedDescriptor:
    """What a training run made."""

    file: Path
    model: DescriptorModel
    outcome: Outcome
    unreadable: tuple[Path, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)


EpochDone = Callable[[dict[str, float]], None]


def train_descriptor(
    data: TrainingData,
    out: Path,
    embedding: EmbeddingConfig,
    config: FineTuningConfig,
    sequences: SequenceMatchingConfig,
    fresh: bool = False,
    progress: bool = True,
    epoch_done: EpochDone | None = None,
) -> TrainedDescriptor:
    """Learn, validate, calibrate and write ``out``.

    With ``embedding.model`` set, the new head is put behind those of that model. A run that was
    killed goes on from its checkpoint beside ``out`` and comes to the same result. Started by
    torchrun, processes share the work and the first one writes.

    Args:
        sequences: how the robot matches sequences, whose scores are calibrated too.
        fresh: begin anew although there is a checkpoint.
        epoch_done: called with each row of the log.

    Raises:
        DatasetError, TrainingError, EmbeddingError, DescriptorModelError: in words.
    """
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    with _processes(config):
        embedder = Embedder(embedding.model_copy(update={"device": config.device}))
        drives = read_drives([*data.training, *data.validation])
        features = read_features(drives, embedder, progress)
        training, validation = _split(features.drives, data)
        learner = make_learner(features, embedder, config, training)
        trainer = Trainer(learner, features, training, validation, config, out)
        if fresh:
            trainer.clean_up()
        trainer.resume()
        stem = _Stem(embedding, embedder)
        outcome = _run(trainer, stem, learner, config, out, progress, epoch_done)
        model = stem.model(learner)
        impostors = _impostors(data, model, features, training, embedding, config)
        model, notes = _calibrated(
            data,
            replace(model, impostors=impostors),
            features,
            validation,
            embedding,
            config,
            sequences,
        )
        provenance = _provenance(data, config, trainer, features, outcome, notes)
        model = replace(model, provenance=provenance)
        if trainer.writes:
            model.save(out)
        trainer.clean_up()
    return TrainedDescriptor(out, model, outcome, features.unreadable, tuple(notes))


def _run(
    trainer: Trainer,
    stem: _Stem,
    learner: Learner,
    config: FineTuningConfig,
    out: Path,
    progress: bool,
    epoch_done: EpochDone | None,
) -> Outcome:
    """Train with a progress bar, keeping models along the way for the pictures."""
    folder = out.with_suffix(EPOCHS_SUFFIX)

    def snapshot(epoch: int) -> None:
        if config.snapshots and trainer.writes:
            stem.model(learner).save(folder / f"epoch_{epoch:05d}.safetensors")

    with Progress(disable=not (progress and trainer.writes)) as bar:
        task = bar.add_task("training", total=config.epochs, completed=trainer.progress.epoch)

        def done(row: dict[str, float]) -> None:
            said = f"loss {row['loss']:.4f}, validation {row['score']:.3f}"
            bar.update(task, advance=1, description=said)
            if epoch_done is not None:
                epoch_done(row)

        return trainer.run(done, snapshot)


def _calibrated(
    data: TrainingData,
    model: DescriptorModel,
    features: Features,
    validation: NDArray[np.int64],
    embedding: EmbeddingConfig,
    config: FineTuningConfig,
    sequences: SequenceMatchingConfig,
) -> tuple[DescriptorModel, list[str]]:
    """The model calibrated on its calibration drives, and what was left wanting."""
    if data.calibration:
        drives, embeddings = embed_drives(data.calibration, model, embedding)
        return calibrated(model, drives, embeddings, config, sequences)
    if model.trunk:
        folders = [*data.training, *data.validation]
        embeddings = embed_drives(folders, model, embedding)[1][validation]
    else:
        embeddings = model.forward_from(model.names[-2], features.values[validation])
    return calibrated(model, features.drives.subset(validation), embeddings, config, sequences)


def _impostors(
    data: TrainingData,
    model: DescriptorModel,
    features: Features,
    training: NDArray[np.int64],
    embedding: EmbeddingConfig,
    config: FineTuningConfig,
) -> Impostors | None:
    """Places of the training, drawn evenly; the same for the same seed."""
    if config.impostors == 0:
        return None
    rng = np.random.default_rng(config.seed)
    count = min(config.impostors, len(training))
    rows = np.sort(rng.choice(training, count, replace=False))
    if model.trunk:
        folders = [*data.training, *data.validation]
        return Impostors(embed_drives(folders, model, embedding)[1][rows])
    return Impostors(model.forward_from(model.names[-2], features.values[rows]))


def embed_drives(
    folders: Sequence[Path],
    model: DescriptorModel | None,
    embedding: EmbeddingConfig,
    progress: bool = False,
) -> tuple[Drives, NDArray[np.float32]]:
    """Drives of folders and the embeddings (N, d) of their images by a model in memory.

    ``None`` is the descriptor as configured. Features of the trunk come from the folders' caches.

    Raises:
        DatasetError, TrainingError, DescriptorModelError: in words.
    """
    if model is not None:
        embedding = embedding.model_copy(update={"model": ""})
    embedder = Embedder(embedding, model if model is not None and model.trunk else None)
    features = read_features(read_drives(folders), embedder, progress)
    if model is None or model.trunk:
        return features.drives, features.values
    return features.drives, model.forward_from(embedder.model, features.values)


class _Stem:
    """What a new head grows on: the plain descriptor, or a model's heads."""

    def __init__(self, embedding: EmbeddingConfig, embedder: Embedder) -> None:
        self._below = DescriptorModel(embedder.model, ())
        if embedding.model:
            self._below = DescriptorModel.load(Path(embedding.model).expanduser())

    def model(self, learner: Learner) -> DescriptorModel:
        """The model that a learner has come to, apart from later training."""
        trunk = dict(self._below.trunk)
        for path, module in learner.trunk().items():
            trunk |= {f"{path}.{n}": t.detach().clone() for n, t in module.state_dict().items()}
        heads = (*self._below.heads, learner.head.copy())
        return DescriptorModel(self._below.base, heads, trunk)


def _split(drives: Drives, data: TrainingData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows to validate on, never of the same drive."""
    if data.validation:
        own = read_drives(data.training)
        first = len(own.names)
    else:
        first = len(drives.names) - max(1, round(HELD_OUT_SHARE * len(drives.names)))
    if first < 1:
        raise TrainingError(
            "one drive can't be both learnt from and held out: record another one, or name one "
            "with --validation"
        )
    training = drives.rows_of(range(first))
    validation = drives.rows_of(range(first, len(drives.names)))
    if len(training) == 0 or len(validation) == 0:
        raise TrainingError("no readable image in the training drives or in the held-out ones")
    return training, validation


def _provenance(
    data: TrainingData,
    config: FineTuningConfig,
    trainer: Trainer,
    features: Features,
    outcome: Outcome,
    notes: list[str],
) -> dict[str, Any]:
    return {
        "training": [Path(folder).name for folder in data.training],
        "validation": [Path(folder).name for folder in data.validation],
        "calibration": [Path(folder).name for folder in data.calibration],
        "config": config.model_dump(),
        "keyframes": len(features.drives),
        "unreadable_images": len(features.unreadable),
        "positive_pairs": len(trainer.sampler.pairs),
        "revisit_pairs": trainer.sampler.revisits,
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        "validation_before": outcome.before.to_json(),
        "validation_after": outcome.after.to_json(),
        "notes": notes,
    }


@contextmanager
def _processes(config: FineTuningConfig) -> Iterator[None]:
    """Together with the other processes where torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    cuda = chosen_device(config.device).type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


__all__ = ["CHECKPOINT_SUFFIX", "TrainedDescriptor", "TrainingData", "train_descriptor"]
