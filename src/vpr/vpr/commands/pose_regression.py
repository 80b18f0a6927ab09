"""``vpr train vlocnet | vlocnet-certainty``, ``vpr eval vlocnet | vlocnet-ablation | -latency``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from vpr.commands.outcome import or_fail, show_rows, write_json

if TYPE_CHECKING:
    from vpr.models.vlocnet import VLocNetConfig
    from vpr.pose_regression.frames import PosedFrames

console = Console()

MAPS = 8  # activation maps in a picture

Data = Annotated[
    str,
    typer.Option("--data", help="7scenes:DIR | deeploc:DIR | world:SEED:DRIVES, as world:3:1,2"),
]
Part = Annotated[
    str, typer.Option("--frames", help="Only these, as :125 (the first) or 125: (the rest).")
]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]
ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", help="Parameters laid over the shipped ones.")
]


def train_vlocnet(
    out: Annotated[Path, typer.Argument(help="Folder of the run; goes on where it stopped.")],
    data: Data,
    part: Part = "",
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task", help="pose, odometry, segmentation; repeat. Default: all there are."
        ),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small/--whole", help="For a CPU, or ResNet-50 as in the paper.")
    ] = True,
    calibrate_on: Annotated[
        str,
        typer.Option(
            help="Drives as --data, of the same world, that tell how sure the poses are; "
            "without, some of --data are held out for that."
        ),
    ] = "",
    backbone: Annotated[
        str, typer.Option(help="residual, as in the paper; or efficientnet_lite0.")
    ] = "residual",
    single_steps: Annotated[int, typer.Option(help="Steps of single tasks first.", min=0)] = 600,
    steps: Annotated[int, typer.Option(help="Steps of all tasks then.", min=0)] = 1200,
    schedule: Annotated[
        str, typer.Option(help="alternate: one task a step; or joint")
    ] = "alternate",
    batch: Annotated[int, typer.Option(help="Runs of frames a pass.", min=2)] = 8,
    window: Annotated[int, typer.Option(help="Consecutive frames of a run.", min=2)] = 3,
    batch_statistics: Annotated[
        float,
        typer.Option(help="Share of the steps with statistics of the batch.", min=0.0, max=1.0),
    ] = 0.5,
    accumulate: Annotated[int, typer.Option(help="Passes a step.", min=1)] = 1,
    learning_rate: Annotated[float, typer.Option(min=1e-9)] = 1e-3,
    initial_weights: Annotated[
        str,
        typer.Option(
            help="Begin with this file of a torchvision ResNet-50 (--whole), "
            "or with embedded (--backbone efficientnet_lite0)."
        ),
    ] = "",
    frozen_blocks: Annotated[
        int, typer.Option(help="Leave Res1 to so many as those weights have them.", min=0, max=4)
    ] = 0,
    turn: Annotated[
        float, typer.Option(help="Also learn views turned by up to so many degrees.", min=0.0)
    ] = 0.0,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda")] = "auto",
    mixed_precision: Annotated[str, typer.Option(help="auto (on CUDA) | on | off")] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    fresh: Annotated[bool, typer.Option(help="Begin anew over an older run.")] = False,
) -> None:
    """Train VLocNet++ in one world: single tasks in turn, then all of them."""
    from vpr.pose_regression.training import MODEL, VLocNetTrainingConfig, train

    def learn() -> None:
        values = {
            "single_steps": single_steps, "steps": steps, "schedule": schedule, "batch": batch,
            "accumulate": accumulate, "learning_rate": learning_rate, "seed": seed,
            "initial_weights": initial_weights, "device": device,
            "mixed_precision": mixed_precision, "turn": turn, "frozen_blocks": frozen_blocks,
            "window": window, "batch_statistics": batch_statistics,
        }  # fmt: skip
        config = VLocNetTrainingConfig.model_validate(values)
        network = _network(data, tasks, small, backbone)
        frames = _frames(data, "train", part, network)
        others = _frames(calibrate_on, "train", "", network) if calibrate_on else None
        certainty = train(frames, network, config, out, fresh, _tell, others).certainty
        console.print(certainty.summary)

    or_fail(learn)
    console.print(f"{out / MODEL}: judge it by vpr eval vlocnet, run it by vpr run --pose-model")


def train_vlocnet_certainty(
    model: Annotated[Path, typer.Argument(help="model.safetensors of a run; written anew.")],
    data: Data,
    part: Part = "",
) -> None:
    """Tell a trained VLocNet++ how sure it may be, on drives that it did not learn from."""
    from vpr.pose_regression.model import PoseModel

    def calibrate() -> str:
        trained = PoseModel.load(model)
        frames = _frames(data, "train", part, trained.network.config)
        again = trained.calibrated_on(frames)
        again.save(model)
        return again.certainty.summary

    console.print(or_fail(calibrate))


def eval_vlocnet(
    model: Annotated[Path, typer.Argument(help="model.safetensors of a run.")],
    data: Data,
    part: Part = "",
    learnt_part: Annotated[
        str,
        typer.Option(
            "--learnt-frames", help="What it learnt from, : for all: also judge a baseline."
        ),
    ] = "",
    maps: Annotated[Path | None, typer.Option(help="Picture of activation maps to draw.")] = None,
    params_file: ParamsFile = None,
    json_out: JsonOut = None,
) -> None:
    """Errors of pose, odometry and segmentation on frames it did not learn from.

    With --learnt-frames the nearest of those frames is judged beside it.
    """
    from vpr.evaluation.pose_regression import comparison_rows, trust_figures
    from vpr.pose_regression.activation_maps import draw_activation_maps
    from vpr.pose_regression.frames import CAMERA_TOLERANCE, other_camera
    from vpr.pose_regression.model import PoseModel
    from vpr.pose_regression.prediction import figures, predict

    def judge() -> list[dict[str, object]]:
        trained = PoseModel.load(model)
        config = trained.network.config
        frames = _frames(data, "test", part, config)
        if remark := other_camera(frames.camera, trained.camera, CAMERA_TOLERANCE):
            console.print(f"[yellow]{remark}[/yellow]: the figures say little")
        answers = predict(trained.network, frames)
        rows: list[dict[str, object]] = [dict(figures(answers, frames))]
        show_rows(f"{model} on {data} {part}", rows)
        if "pose" in config.tasks:
            rows.append(dict(trust_figures(trained, answers, frames)))
            show_rows("what it says of its own certainty", rows[-1:])
        if learnt_part:
            learnt = _frames(data, "train", learnt_part, config)
            rows += comparison_rows(answers, frames, learnt, params_file)
            show_rows("beside the nearest keyframe", rows[2:])
        if maps is not None:
            chosen = np.unique(np.linspace(0, len(frames) - 1, MAPS).astype(int))
            draw_activation_maps(trained.network, frames.images[chosen], maps)
        return rows

    write_json(or_fail(judge), json_out)


def eval_vlocnet_ablation(
    out: Annotated[Path, typer.Argument(help="Folder of the runs; goes on where it stopped.")],
    learnt: Annotated[str | None, typer.Option(help="Drives to learn from, as --data.")] = None,
    calibrate_on: Annotated[
        str | None, typer.Option(help="Drives that tell how sure the poses are.")
    ] = None,
    tested: Annotated[str | None, typer.Option(help="Drives to be judged on.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each variant.", min=1)] = 3,
    steps: Annotated[int | None, typer.Option(help="Of each training.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Runs of frames a step.", min=2)] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda")] = "auto",
    json_out: JsonOut = None,
) -> None:
    """Multitask, Geometric Consistency and adaptive fusion, each with and without, reduced."""
    from vpr.evaluation.pose_regression import REDUCED_TRAINING, Sources, ablation

    drives = {"learnt": learnt, "others": calibrate_on, "tested": tested}
    sources = Sources(**{name: given for name, given in drives.items() if given})
    values = {"steps": steps, "batch": batch, "device": device}
    chosen = {name: value for name, value in values.items() if value is not None}
    training = REDUCED_TRAINING.model_copy(update=chosen)
    rows = or_fail(lambda: ablation(sources, range(seeds), training, out, console.print))
    show_rows(f"reduced network, {sources.tested} after {sources.learnt}", rows, json_out)


def eval_vlocnet_latency(
    device: Annotated[str, typer.Option(help="auto | cpu | cuda")] = "cpu",
    frames: Annotated[int, typer.Option(help="Frames that are timed.", min=2)] = 30,
    json_out: JsonOut = None,
) -> None:
    """Time a frame, beside a bare ResNet-50 forward."""
    from vpr.evaluation.pose_regression_latency import latency_rows
    from vpr.models.device import chosen_device

    rows = or_fail(lambda: latency_rows(chosen_device(device).type, frames))
    show_rows("one frame at a time", rows, json_out)


def add_to(train_app: typer.Typer, eval_app: typer.Typer) -> None:
    """Put the commands beside the others."""
    train_app.command("vlocnet")(train_vlocnet)
    train_app.command("vlocnet-certainty")(train_vlocnet_certainty)
    eval_app.command("vlocnet")(eval_vlocnet)
    eval_app.command("vlocnet-ablation")(eval_vlocnet_ablation)
    eval_app.command("vlocnet-latency")(eval_vlocnet_latency)


def _network(data: str, tasks: list[str] | None, small: bool, backbone: str) -> VLocNetConfig:
    """Of the data's classes and, unless tasks are named, of all tasks it has truth for."""
    from vpr.models.vlocnet import SMALL, TASKS, VLocNetConfig
    from vpr.pose_regression.sources import DEEPLOC_CLASSES
    from vpr.semantics.classes import CLASS_COUNT

    labelled = not data.startswith("7scenes")
    classes = DEEPLOC_CLASSES if data.startswith("deeploc") else CLASS_COUNT
    chosen = tasks or [task for task in TASKS if labelled or task != "segmentation"]
    base = SMALL if small else VLocNetConfig()
    chosen_values = {"tasks": tuple(chosen), "classes": classes, "backbone": backbone}
    values = base.model_dump() | chosen_values
    return VLocNetConfig.model_validate(values)


def _frames(data: str, split: str, part: str, config: VLocNetConfig) -> PosedFrames:
    from vpr.pose_regression.frames import FramesError
    from vpr.pose_regression.sources import frames_of

    frames = frames_of(data, split, config)
    if not part:
        return frames
    begin, colon, end = part.partition(":")
    if not colon or not all(word == "" or word.isdigit() for word in (begin, end)):
        raise FramesError(f"--frames {part} is no range such as :125, 125: or 10:20")
    rows = np.arange(len(frames))
    chosen = (rows >= int(begin or 0)) & (rows < int(end or len(frames)))
    if not chosen.any():
        raise FramesError(f"--frames {part} leaves none of the {len(frames)} frames")
    return frames.subset(chosen)


def _tell(row: dict[str, float]) -> None:
    console.print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
