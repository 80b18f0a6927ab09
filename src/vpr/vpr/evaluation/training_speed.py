"""How fast a descriptor trains, against how fast its network could if data cost nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import cycle, islice

from vpr.learning.prefetch import one_ahead
from vpr.learning.trainer import Trainer

WARM_UP = 2  # steps


@dataclass(frozen=True)
class TrainingSpeed:
    """Pairs a second: of training as it is, and of forward and backward passes alone."""

    training: float
    limit: float


def training_speed(trainer: Trainer, steps: int = 30) -> TrainingSpeed:
    """Time steps with everything, then the same steps on batches that are ready in memory."""
    for batch in islice(trainer.batches(0), WARM_UP):
        trainer.learn(batch)
    started, pairs = time.perf_counter(), 0
    for batch in one_ahead(islice(trainer.batches(1), steps)):
        trainer.learn(batch)
        pairs += batch.pairs
    training = pairs / (time.perf_counter() - started)
    ready = list(islice(trainer.batches(2), 4))
    started, pairs = time.perf_counter(), 0
    for batch in islice(cycle(ready), steps):
        trainer.learn(batch)
        pairs += batch.pairs
    return TrainingSpeed(training, pairs / (time.perf_counter() - started))
