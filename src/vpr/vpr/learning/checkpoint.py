"""A training run on disk, from which a killed run goes on to the same end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpr.learning.errors import TrainingError
from vpr.models.descriptor_model import read_tensors, write_tensors

STATE = "run"


@dataclass
class Progress:
    """How far a run has come; ``log`` has one row an epoch."""

    fingerprint: str  # of data and values: a run goes on only with the same
    epoch: int = 0  # epochs done
    best_epoch: int = 0
    best_score: float = -1.0
    before: dict[str, float] = field(default_factory=dict)  # figures of the descriptor as it was
    log: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    progress: Progress,
    weights: dict[str, Tensor],
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write all that is needed to go on; the file before is replaced only by a whole one.

    Raises:
        DescriptorModelError: the disk refuses.
    """
    tensors = {f"weights.{n}": t.detach().cpu().clone() for n, t in weights.items()}
    tensors |= {f"best.{n}": t.detach().cpu().clone() for n, t in best.items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value).detach().cpu().clone()
    write_tensors(path, tensors, {STATE: json.dumps(asdict(progress))})


def load_checkpoint(
    path: Path, fingerprint: str, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor], dict[str, Tensor]]:
    """Progress, weights and best weights; the optimizer's state is put back.

    Raises:
        DescriptorModelError: the file can't be read.
        TrainingError: it belongs to another run.
    """
    tensors, metadata = read_tensors(path)
    try:
        progress = Progress(**json.loads(metadata[STATE]))
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is no checkpoint: {error}") from error
    if progress.fingerprint != fingerprint:
        raise TrainingError(
            f"{path} is of a run with other drives or values; train with --fresh to begin anew, "
            "or give another --out"
        )
    _restore(optimizer, _with_prefix(tensors, "optimizer."))
    return progress, _with_prefix(tensors, "weights."), _with_prefix(tensors, "best.")


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _restore(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
