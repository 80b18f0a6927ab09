"""Figures of VLocNet++, reduced to what a CPU trains in minutes; a command of its own.

``python -m vpr_bringup.bench_pose_regression OUT [--part latency town kitchen] [--data DIR]
[--device auto]``: the time of a frame; the three ablations in a simulated town, with how far the
claimed certainty holds; and redkitchen from ``DIR`` beside the nearest keyframe. Runs lie in OUT,
and one that was stopped goes on behind its last row.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from vpr.evaluation.pose_regression import (
    REDUCED_TRAINING,
    Sources,
    ablation,
    comparison_rows,
    trust_figures,
)
from vpr.evaluation.pose_regression_latency import latency_rows
from vpr.models.device import DEVICES, DeviceError, chosen_device
from vpr.models.vlocnet import SMALL
from vpr.pose_regression.prediction import figures, predict
from vpr.pose_regression.sources import seven_scenes
from vpr.pose_regression.training import EMBEDDED, VLocNetTrainingConfig, train

SEEDS = range(3)
KITCHEN_NETWORK = SMALL.model_copy(
    update={"tasks": ("pose", "odometry"), "backbone": "efficientnet_lite0"}
)
KITCHEN = VLocNetTrainingConfig(
    single_steps=0, steps=300, schedule="joint", batch=8,
    initial_weights=EMBEDDED, frozen_blocks=4, turn=15.0,
)  # fmt: skip
LEARNT_FRAMES = 125  # the first half of redkitchen
LATENCY_FRAMES = 30
FIGURES = "pose_regression.json"

console = Console()
Rows = list[dict[str, object]]


def kitchen_rows(folder: Path, out: Path, device: str) -> Rows:
    """Learn from the first part of redkitchen, judge on the rest beside the nearest keyframe."""
    frames = seven_scenes(folder, "all", KITCHEN_NETWORK)
    first = np.arange(len(frames)) < LEARNT_FRAMES
    learnt, rest = frames.subset(first), frames.subset(~first)
    model = train(learnt, KITCHEN_NETWORK, KITCHEN.model_copy(update={"device": device}), out)
    answers = predict(model.network, rest)
    own = figures(answers, rest) | trust_figures(model, answers, rest)
    return [*comparison_rows(answers, rest, learnt), dict(own)]


def main() -> None:
    """Measure the parts and write ``pose_regression.json`` after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", nargs="+", choices=["latency", "town", "kitchen"])
    parser.add_argument(
        "--steps", type=int, default=REDUCED_TRAINING.steps, help="of a training in town"
    )
    parser.add_argument("--data", type=Path, help="folder of the real data sets")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    arguments = parser.parse_args()
    out: Path = arguments.out
    try:
        device = chosen_device(arguments.device).type
    except DeviceError as error:
        parser.error(str(error))
    training = REDUCED_TRAINING.model_copy(update={"steps": arguments.steps, "device": device})
    parts: dict[str, Callable[[], Rows]] = {
        "latency": lambda: latency_rows(device, LATENCY_FRAMES),
        "town": lambda: ablation(Sources(), SEEDS, training, out / "town", console.print),
    }
    if arguments.data is not None:
        folder = arguments.data / "redkitchen"
        parts["kitchen"] = lambda: kitchen_rows(folder, out / "kitchen", device)
    out.mkdir(parents=True, exist_ok=True)
    file = out / FIGURES
    found: dict[str, Rows] = json.loads(file.read_text()) if file.is_file() else {}
    for part in arguments.part or parts:
        if part not in parts:
            parser.error(f"{part} needs --data")
        found[part] = parts[part]()
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(found, indent=2) + "\n")
        partial.replace(file)
        console.print_json(data={part: found[part]})


if __name__ == "__main__":
    main()
