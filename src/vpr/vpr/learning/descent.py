"""Gradient descent on one loss: what every training in steps has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

Log = Callable[[int, float], None]  # step, mean loss since the last one told of


def unheard(_step: int, _loss: float) -> None:
    """A log that nobody reads."""


def adam_with_cosine(
    parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW whose rate falls along a cosine to 0 in ``steps``."""
    optimizer = torch.optim.AdamW(parameters, learning_rate, weight_decay=weight_decay)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def descend(
    loss_of_a_batch: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
    steps: int,
    log: Log = unheard,
    log_every: int = 25,
) -> None:
    """Take ``steps`` steps down the loss of one batch after another, with a progress bar.

    Args:
        loss_of_a_batch: draws a batch and gives its loss, a scalar with gradients.
        schedule: of the learning rate, once a step; None keeps it.
        log_every: steps between two calls of ``log``.
    """
    losses: list[float] = []
    with Progress(transient=True) as bar:
        for step in bar.track(range(1, steps + 1), description="training"):
            loss: Any = loss_of_a_batch()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            losses.append(float(loss.detach()))
            if step % log_every == 0:
                log(step, float(np.mean(losses[-log_every:])))
