"""The main job from end to end: a bag through the real nodes, then everything there is to see."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vpr.bags.reader import BagReader
from vpr.evaluation.run import evaluate_run
from vpr.simulation.recording import record_drive
from vpr_bringup.processes import (
    IMAGE_LISTENERS,
    ODOMETRY_LISTENERS,
    NodeProcesses,
    NodeStopped,
    RosOptions,
)

REPOSITORY = Path(__file__).resolve().parents[3]
MORE_LISTENERS = 2  # gps_image_sync, which has a folder to fill here, and the recorder
START_PATIENCE = 60.0  # s until every node listens to the camera
OVERTIME = 60.0  # s that playing may take longer than the bag on a busy machine
DRAIN = 3.0  # s after the last image for the verdicts on it
console = Console()


class DemoError(RuntimeError):
    """The demo cannot run; the message says what to do."""


@dataclass(frozen=True)
class DemoOptions:
    """What to play and where the results go."""

    out: Path
    bag: Path | None = None  # None: the shipped bag, or the world of ``seed``
    seed: int | None = None
    rate: float = 1.0
    composed: bool = False
    params_file: Path | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def run_demo(options: DemoOptions) -> dict[str, Any]:
    """Play, evaluate, draw; returns the summary that is also in ``summary.json``.

    Raises:
        DemoError: no bag, or a node that did not start.
        BagError: the bag is missing, damaged, or has no images.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    bag = _choose_bag(options)
    recording = options.out / "recording"
    shutil.rmtree(recording, ignore_errors=True)
    play_through(bag, recording, options)
    summary = evaluate_run(bag, recording, options.out, options.params_file)
    _print(summary, options.out)
    return summary


def _choose_bag(options: DemoOptions) -> Path:
    if options.bag is not None:
        return options.bag
    if options.seed is not None:
        path = options.out / f"world_{options.seed}"
        if not path.exists():
            record_drive(path, options.seed)
        return path
    for root in (REPOSITORY, *REPOSITORY.parents, Path.cwd()):
        if (root / "bags" / "demo" / "metadata.yaml").exists():
            return root / "bags" / "demo"
    raise DemoError("the shipped bag (bags/demo) is not here: name one with --bag, or a --seed")


def play_through(bag: Path, recording: Path, options: DemoOptions) -> None:
    """Start all nodes, play the bag, and record everything that is published.

    Raises:
        DemoError: a node ended by itself; says which and its last words.
    """
    with BagReader(bag) as source:
        seconds = source.duration_ns / 1e9 / options.rate
        has_depth = any(topic.endswith("camera/depth/image_raw") for topic in source.topics)
    dataset = options.out / "dataset"
    shutil.rmtree(dataset, ignore_errors=True)
    parameters = {
        "gps_image_sync.dataset": str(dataset.resolve()),
        "loop_closure.depth_topic_used": has_depth,
    }
    suite = RosOptions(
        options.params_file, use_sim_time=True, parameters=parameters | dict(options.parameters)
    )
    try:
        with NodeProcesses(options.out / "logs", domain_id=_domain_id()) as nodes:
            nodes.start_suite(suite, options.composed)
            nodes.start("bag_recorder", RosOptions(parameters={"bag": str(recording.resolve())}))
            playing = {
                "bag": str(bag.resolve()),
                "rate": options.rate,
                "listeners": IMAGE_LISTENERS + MORE_LISTENERS,
                "odometry_listeners": ODOMETRY_LISTENERS + MORE_LISTENERS,
                "listener_timeout": START_PATIENCE,
            }
            nodes.start("bag_player", RosOptions(parameters=playing))
            _wait_for_the_end(nodes, seconds)
            time.sleep(DRAIN)
            nodes.check()
            nodes.stop_one("bag_recorder")
    except NodeStopped as stopped:
        raise DemoError(str(stopped)) from stopped
    if not recording.exists():
        raise DemoError(f"nothing was recorded; the nodes' last words are in {options.out}/logs")


def _domain_id() -> int:
    """The user's domain if one is set; else one of our own, away from other robots' traffic."""
    given = os.environ.get("ROS_DOMAIN_ID")
    return int(given) if given else 1 + os.getpid() % 100


def _wait_for_the_end(nodes: NodeProcesses, seconds: float) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        bar.add_task(f"playing {seconds:.0f} s through the nodes")
        deadline = time.monotonic() + seconds + START_PATIENCE + OVERTIME
        while nodes.running("bag_player"):
            nodes.check()
            if time.monotonic() > deadline:
                raise DemoError("the bag player did not come to its end; see logs/bag_player.log")
            time.sleep(0.2)
    nodes.check()


def _print(summary: dict[str, Any], out: Path) -> None:
    names = (
        "verified_precision", "revisit_recall", "naive_precision", "ate_before_m", "ate_after_m",
        "keyframes", "keyframes_lost", "closures_verified", "closures_rejected",
    )  # fmt: skip
    for name in names:
        value = summary.get(name)
        shown = "n/a" if value is None else f"{value:.3f}" if isinstance(value, float) else value
        console.print(f"{name:>20}  [bold]{shown}[/]", highlight=False)
    console.print(f"open [bold]{out / 'report.html'}[/]; figures in {out / 'summary.json'}")
