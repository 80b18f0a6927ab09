"""Figures of VLocNet++, reduced to what a CPU trains in minutes; a command of its own.

``python -m vpr_bringup.bench_pose_regression OUT [--data DIR]``: the three ablations in a simulated
town, redkitchen from ``DIR`` beside the nearest keyframe, and the time of a frame.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from vpr.evaluation.pose_regression import (
    REDUCED,
    ablation_rows,
    ablation_summary,
    comparison_rows,
    trust_figures,
)
from vpr.evaluation.pose_regression_latency import latency_rows
from vpr.models.vlocnet import SMALL
from vpr.pose_regression.prediction import figures, predict
from vpr.pose_regression.sources import frames_of, seven_scenes
from vpr.pose_regression.training import VLocNetTrainingConfig, train

SEEDS = range(3)
TOWN = VLocNetTrainingConfig(steps=400, batch=8)
LEARNT_DRIVES, JUDGED_DRIVE = "world:3:1,2,3", "world:3:11"
KITCHEN = VLocNetTrainingConfig(single_steps=100, steps=600, schedule="joint", batch=8)
LEARNT_FRAMES = 125  # the first half of redkitchen
LATENCY_FRAMES = 30

console = Console()
Rows = list[dict[str, object]]


def town_rows() -> Rows:
    """Each idea of the paper with and without, over all seeds."""
    frames = [frames_of(LEARNT_DRIVES, "train", REDUCED), frames_of(JUDGED_DRIVE, "test", REDUCED)]
    return ablation_summary(ablation_rows(frames[0], frames[1], SEEDS, REDUCED, TOWN))


def kitchen_rows(folder: Path) -> Rows:
    """Learn from the first part of redkitchen, judge on the rest beside the nearest keyframe."""
    network = SMALL.model_copy(update={"tasks": ("pose", "odometry")})
    frames = seven_scenes(folder, "all", network)
    first = np.arange(len(frames)) < LEARNT_FRAMES
    learnt, rest = frames.subset(first), frames.subset(~first)
    model = train(learnt, network, KITCHEN)
    answers = predict(model.network, rest)
    own = figures(answers, rest) | trust_figures(model, answers, rest)
    return [*comparison_rows(answers, rest, learnt), dict(own)]


def main() -> None:
    """Measure everything and write ``pose_regression.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the real data sets")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Rows] = {
        "latency": latency_rows(device, LATENCY_FRAMES),
        "town": town_rows(),
    }
    if arguments.data is not None:
        found["kitchen"] = kitchen_rows(arguments.data / "redkitchen")
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "pose_regression.json").write_text(json.dumps(found, indent=2) + "\n")
    console.print_json(data=found)


if __name__ == "__main__":
    main()
