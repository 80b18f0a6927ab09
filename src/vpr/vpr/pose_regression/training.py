"""Training VLocNet++: first each task by itself, then all together.

A run is a folder: ``checkpoint.safetensors`` to go on from, ``log.csv``, and at the end
``model.safetensors``. A run that was killed goes on to the same result.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Callable, Mapping
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

from vpr.config import LearningRate, NonNegative
from vpr.geometry import quaternion_of
from vpr.learning.checkpoint import Progress, load_checkpoint, save_checkpoint
from vpr.learning.errors import TrainingError
from vpr.models.device import chosen_device
from vpr.models.efficientnet_lite0 import embedded_weights_file
from vpr.models.vlocnet import Prediction, Task, VLocNet, VLocNetConfig, begin_with
from vpr.models.weights import read_state_dict
from vpr.pose_regression.calibration import calibrated, learnt_deviations
from vpr.pose_regression.frames import CAMERA_TOLERANCE, PosedFrames, other_camera
from vpr.pose_regression.loss import LossWeights, Truth, window_losses
from vpr.pose_regression.model import PoseModel, distances, known_frames
from vpr.pose_regression.prediction import as_network_input, predict, true_motions
from vpr.pose_regression.turned_views import random_turns, turned_images, turned_truth

CHECKPOINT, LOG, MODEL = "checkpoint.safetensors", "log.csv", "model.safetensors"
EMBEDDED = "embedded"  # ImageNet weights inside an installed package
MULTITASK_LOSSES = ("loc", "vo", "seg")

Log = Callable[[dict[str, float]], None]


class VLocNetTrainingConfig(BaseModel):
    """What can be chosen about ``vpr train vlocnet``; every value has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    single_steps: int = Field(default=600, ge=0)  # steps of single tasks, taken in turn
    steps: int = Field(default=1200, ge=0)  # multitask steps after them
    schedule: Literal["alternate", "joint"] = "alternate"  # one task a multitask step, or all
    geometric_consistency: bool = True  # equation 5; False is the plain Euclidean loss
    batch: int = Field(default=8, ge=2)  # runs of consecutive frames a forward pass
    # frames of a run: of three on, equation 5 compares answers that both had a frame before them
    window: int = Field(default=3, ge=2)
    # share of the steps with statistics of the batch, whose noise limits small ones; then those of
    # the images so far
    batch_statistics: float = Field(default=0.5, ge=0.0, le=1.0)
    accumulate: int = Field(default=1, ge=1)  # forward passes a step of the optimizer
    learning_rate: LearningRate = 1e-3  # at the start of a cosine
    weight_decay: NonNegative = 1e-4
    light: NonNegative = 0.2  # share by which brightness and contrast are varied
    turn: NonNegative = 0.0  # degrees about each axis by which the camera is turned where it stood
    held_out: float = Field(default=0.25, gt=0.0, lt=0.9)  # share of drives to calibrate on
    initial_weights: str = ""  # a torchvision ResNet-50's file, or EMBEDDED for EfficientNet-Lite0
    # Res1 to this one of the pose and odometry streams stay as ``initial_weights`` has them
    frozen_blocks: int = Field(default=0, ge=0, le=4)
    log_every: int = Field(default=20, ge=1)  # steps
    checkpoint_every: int = Field(default=200, ge=1)  # steps
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixed_precision: Literal["auto", "on", "off"] = "auto"  # bfloat16; auto is on CUDA only

    @property
    def total_steps(self) -> int:
        """Single-task and multitask."""
        return self.single_steps + self.steps


@dataclass
class _Run:
    network: VLocNet
    weights: LossWeights
    optimizer: torch.optim.Optimizer
    progress: Progress  # its epochs are steps here
    device: torch.device


def train(
    frames: PosedFrames,
    network: VLocNetConfig,
    config: VLocNetTrainingConfig,
    out: Path | None = None,
    fresh: bool = False,
    log: Log = lambda _: None,
    others: PosedFrames | None = None,
) -> PoseModel:
    """Train, calibrate on ``others``, and write the run to ``out``.

    The same frames, values and seed give the same model, however often the run was interrupted.

    Args:
        others: drives that are not learnt from; None holds some of ``frames`` out.

    Raises:
        TrainingError, WeightsError: see ``learn``; or another camera took ``others``.
    """
    if others is None:
        held = frames.held_out(config.held_out)
        frames, others = frames.subset(~held), frames.subset(held)
    if remark := other_camera(others.camera, frames.camera, CAMERA_TOLERANCE):
        raise TrainingError(f"cannot calibrate: {remark}")
    trained, weights = learn(frames, network, config, out, fresh, log)
    known = known_frames(predict(trained, frames).embeddings)
    answers = predict(trained, others)
    strangeness = distances(answers.embeddings, known)
    certainty = calibrated(learnt_deviations(weights), others, answers, strangeness)
    provenance = {"frames": str(len(frames)), "run": _fingerprint(frames, network, config)[:12]}
    model = PoseModel(trained, certainty, known, provenance)
    if out is not None:
        model.save(out / MODEL)
    return model


def learn(
    frames: PosedFrames,
    network: VLocNetConfig,
    config: VLocNetTrainingConfig,
    out: Path | None = None,
    fresh: bool = False,
    log: Log = lambda _: None,
) -> tuple[VLocNet, LossWeights]:
    """Learn from all of ``frames``, by way of checkpoints in ``out``.

    Raises:
        TrainingError: too few frames, a missing truth, a loss that is not finite, or a checkpoint
            of another run.
        WeightsError: ``initial_weights`` cannot be read.
    """
    _check(frames, network, config)
    run = _begin(frames, network, config)
    if out is not None and (out / CHECKPOINT).is_file() and not fresh:
        _go_on(run, out / CHECKPOINT)
    with Bar(transient=True) as bar:
        task = bar.add_task("training", total=config.total_steps, completed=run.progress.epoch)
        _learn(run, _Data(frames, config), config, out, log, lambda: bar.advance(task))
    return run.network.eval(), run.weights


def _check(frames: PosedFrames, network: VLocNetConfig, config: VLocNetTrainingConfig) -> None:
    if not len(frames.last_of_runs(config.window)):
        raise TrainingError(
            f"{len(frames)} frames to learn from are too few, or no {config.window} of them "
            "follow each other"
        )
    if "segmentation" in network.tasks and frames.labels is None:
        raise TrainingError(
            "the frames have no labels to learn segmentation from: leave that task out"
        )


def _begin(frames: PosedFrames, config: VLocNetConfig, training: VLocNetTrainingConfig) -> _Run:
    device = chosen_device(training.device)
    torch.manual_seed(training.seed)
    network = VLocNet(config)
    if training.initial_weights:
        begin_with(network, _classifier(training.initial_weights, config))
    network.camera.copy_(torch.from_numpy(frames.camera))
    _place_regressors(network, frames)
    network.to(device).train()
    for block in _first_blocks(network, training.frozen_blocks):
        block.requires_grad_(False).eval()
    weights = LossWeights().to(device)
    optimizer = torch.optim.AdamW(
        [*network.parameters(), *weights.parameters()],
        training.learning_rate,
        weight_decay=training.weight_decay,
    )
    progress = Progress(_fingerprint(frames, config, training))
    return _Run(network, weights, optimizer, progress, device)


def _first_blocks(network: VLocNet, count: int) -> list[nn.Module]:
    """Res1 to Res``count`` of the pose and odometry streams."""
    names = {f"res{number}" for number in range(1, count + 1)}
    streams = (network.trunk, network.pose, network.odometry)
    children = [child for s in streams if s is not None for child in s.named_children()]
    return [block for name, block in children if name in names]


def _classifier(weights: str, config: VLocNetConfig) -> dict[str, Tensor]:
    if weights != EMBEDDED:
        return read_state_dict(Path(weights).expanduser())
    if config.backbone != "efficientnet_lite0":
        raise TrainingError("only EfficientNet-Lite0 has embedded weights: name a file")
    return read_state_dict(embedded_weights_file())


def _place_regressors(network: VLocNet, frames: PosedFrames) -> None:
    """Let fc2 begin in the middle of the poses, and speak in their spread."""
    positions = torch.from_numpy(frames.poses[:, :3, 3]).float()
    if network.pose is not None:
        network.pose.regressor.offset.copy_(positions.mean(dim=0))
        network.pose.regressor.scale.copy_(positions.std(dim=0).norm().clamp(min=1e-3))
    if network.odometry is not None:
        steps = np.linalg.norm(true_motions(frames)[frames.follows][:, :3, 3], axis=1)
        network.odometry.regressor.scale.fill_(max(float(np.sqrt(np.mean(steps**2))), 1e-3))


def _fingerprint(
    frames: PosedFrames, network: VLocNetConfig, training: VLocNetTrainingConfig
) -> str:
    digest = hashlib.sha256(network.model_dump_json().encode())
    digest.update(training.model_dump_json(exclude={"device", "checkpoint_every"}).encode())
    for array in (frames.images, frames.poses, frames.follows):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _go_on(run: _Run, checkpoint: Path) -> None:
    run.progress, tensors, weights = load_checkpoint(
        checkpoint, run.progress.fingerprint, run.optimizer
    )
    run.network.load_state_dict(tensors)
    run.weights.load_state_dict(weights)


def _learn(
    run: _Run,
    data: _Data,
    config: VLocNetTrainingConfig,
    out: Path | None,
    log: Log,
    advance: Callable[[], None],
) -> None:
    """Steps from where the run stands to its end; a row of the log is a mean over its steps."""
    rows: list[dict[str, float]] = []
    for step in range(run.progress.epoch, config.total_steps):
        rate = 0.5 * config.learning_rate * (1.0 + math.cos(math.pi * step / config.total_steps))
        rows.append(_step(run, data, config, step, rate))
        advance()
        done = step + 1
        last = done == config.total_steps
        saving = out is not None and (done % config.checkpoint_every == 0 or last)
        if done % config.log_every == 0 or last or saving:
            run.progress.log.append({"step": float(done), "rate": rate} | _means(rows))
            log(run.progress.log[-1])
            rows.clear()
        if saving and out is not None:
            _save(run, done, out)


def _step(
    run: _Run, data: _Data, config: VLocNetTrainingConfig, step: int, rate: float
) -> dict[str, float]:
    tasks, fused = _active(run.network.config.tasks, config, step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    if step >= config.batch_statistics * config.total_steps:
        _keep_statistics(run.network)
    run.optimizer.zero_grad(set_to_none=True)
    parts: list[dict[str, float]] = []
    for part in range(config.accumulate):
        images, truths = data.batch([config.seed, step, part], run.device)
        with _autocast(run.device, config.mixed_precision):
            predictions = _forward(run.network, images, fused)
        losses = window_losses(
            predictions, truths, run.weights, tasks, config.geometric_consistency
        )
        total = _total(losses, run.weights, together=fused and len(run.network.config.tasks) > 1)
        if not bool(torch.isfinite(total)):
            raise TrainingError(
                f"the loss of step {step + 1} is not finite: lower learning_rate "
                f"({config.learning_rate:g})"
            )
        (total / config.accumulate).backward()  # type: ignore[no-untyped-call]
        parts.append({"loss": float(total.detach())} | _values(losses))
    run.optimizer.step()
    return _means(parts)


def _keep_statistics(network: VLocNet) -> None:
    """Let the batch norms answer as they will behind the training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _active(
    tasks: tuple[Task, ...], config: VLocNetTrainingConfig, step: int
) -> tuple[tuple[Task, ...], bool]:
    """The tasks of a step, and whether the streams are fused."""
    if step < config.single_steps:
        return (tasks[step % len(tasks)],), False
    if config.schedule == "joint":
        return tasks, True
    return (tasks[step % len(tasks)],), True


def _forward(network: VLocNet, images: list[Tensor], fused: bool) -> list[Prediction]:
    predictions, memory = [], None
    for image in images:
        prediction, memory = network.step(image, memory, fused)
        predictions.append(prediction)
    return predictions


def _total(losses: dict[str, Tensor], weights: LossWeights, together: bool) -> Tensor:
    """Equation 8, or a single task's own loss; the depth branch learns beside, from depth alone."""
    ours = {name: losses[name] for name in MULTITASK_LOSSES if name in losses}
    total = weights.multitask(ours) if together else torch.stack(list(ours.values())).sum()
    return total + losses["depth"] if "depth" in losses else total


def _autocast(device: torch.device, choice: str) -> AbstractContextManager[None]:
    on = choice == "on" or (choice == "auto" and device.type == "cuda")
    # bfloat16 has float32's range: no loss scaling, nothing more to keep in a checkpoint
    return torch.autocast(device.type, torch.bfloat16, enabled=on)


class _Data:
    """Frames as tensors, drawn in runs of consecutive ones."""

    def __init__(self, frames: PosedFrames, config: VLocNetTrainingConfig) -> None:
        self._frames = frames
        self._config = config
        self._lasts = frames.last_of_runs(config.window)
        self._positions = torch.from_numpy(frames.poses[:, :3, 3]).float()
        rotations = np.stack([quaternion_of(pose) for pose in frames.poses])
        self._rotations = torch.from_numpy(rotations).float()
        self._camera = torch.from_numpy(frames.camera).float()

    def batch(self, seed: list[int], device: torch.device) -> tuple[list[Tensor], list[Truth]]:
        """Images and truths of the runs' first frames, of their second ones, and so on."""
        rng = np.random.default_rng(seed)
        chosen = rng.choice(self._lasts, self._config.batch)
        size = (self._config.batch, 1, 1, 1)
        light = self._config.light
        gain = torch.from_numpy(1.0 + rng.uniform(-light, light, size)).float()
        shift = torch.from_numpy(rng.uniform(-light, light, size)).float()
        turns = random_turns(rng, self._config.batch, self._config.turn)
        images, truths = [], []
        for rows in (chosen - back for back in reversed(range(self._config.window))):
            pixels, truth = as_network_input(self._frames.images[rows]), self._truth(rows)
            if self._config.turn > 0.0:
                pixels = turned_images(pixels, turns, self._camera)
                truth = turned_truth(truth, turns, self._camera)
            images.append((pixels * gain + shift).clamp(-1.0, 1.0).to(device))
            truths.append(truth.to(device))
        return images, truths

    def _truth(self, rows: NDArray[np.int64]) -> Truth:
        labels, depth = self._frames.labels, self._frames.depth
        return Truth(
            self._positions[rows],
            self._rotations[rows],
            None if labels is None else torch.from_numpy(labels[rows].astype(np.int64)),
            None if depth is None else torch.from_numpy(depth[rows][:, None]),
        )


def _save(run: _Run, done: int, out: Path) -> None:
    run.progress.epoch = done
    save_checkpoint(
        out / CHECKPOINT,
        run.progress,
        dict(run.network.state_dict()),
        dict(run.weights.state_dict()),
        run.optimizer,
    )
    names = list(dict.fromkeys(name for row in run.progress.log for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(run.progress.log)
    partial = out / f".{LOG}.partial"
    partial.write_text(text.getvalue())
    partial.replace(out / LOG)


def _values(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each value over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
