"""RGB-D sequences, what their views share, and the training of S3E-GNN on them."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from vpr.commands.outcome import or_fail, write_json
from vpr.commands.relocalization_figures import eval_s3e, eval_s3e_cost

if TYPE_CHECKING:
    from vpr.relocalization.model import S3eModel
    from vpr.relocalization.training import S3eTrainingConfig
    from vpr.relocalization.views import Views

console = Console()


def dataset_from_level(
    level: Annotated[str, typer.Argument(help="Of Freedoom, map01 to map32.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    views: Annotated[int, typer.Option(help="Views a lap; there are three.", min=20)] = 120,
    seed: Annotated[int, typer.Option(help="Of the tour.", min=0)] = 0,
) -> None:
    """Drive three laps through an indoor level, the last reversed, as an RGB-D folder."""
    from vpr.relocalization.rgbd import write_realsense
    from vpr.simulation.doom_levels import record_level

    sequence = or_fail(lambda: record_level(level, views, seed))
    write_realsense(out, sequence)
    console.print(f"{out}: {len(sequence)} views")


def eval_overlap(
    data: Annotated[Path, typer.Argument(help="A 7-Scenes, TUM RGB-D or RealSense folder.")],
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("out/overlap"),
    stride: Annotated[int, typer.Option(help="Every n-th view.", min=1)] = 1,
    json_out: Annotated[Path | None, typer.Option("--json", help="Figures here too.")] = None,
) -> None:
    """Reprojection IoU of every pair of views, as a picture, and pairs a second."""
    from vpr.evaluation.overlap_pictures import draw_similarity
    from vpr.relocalization.reprojection import similarity_matrix
    from vpr.relocalization.rgbd import load_rgbd

    sequence = or_fail(lambda: load_rgbd(data, stride))
    started = time.perf_counter()
    matrix = or_fail(lambda: similarity_matrix(sequence, sequence))
    seconds = time.perf_counter() - started
    picture = out / f"{data.resolve().name}.png"
    draw_similarity(picture, matrix, sequence.laps)
    figures = {"views": len(sequence), "pairs_per_second": matrix.size / seconds}
    console.print(f"{picture}: {len(sequence)} views, {matrix.size / seconds:.0f} pairs a second")
    write_json(figures, json_out)


Scenes = Annotated[list[Path], typer.Option("--data", help="RGB-D folder; repeat for several.")]
Validation = Annotated[
    list[Path] | None,
    typer.Option("--validation", help="RGB-D folder that decides which epoch is kept; repeatable."),
]
ModelFile = Annotated[Path, typer.Option("--out", help="Model to write, .safetensors.")]
Epochs = Annotated[int, typer.Option(help="The paper's are 140.", min=1)]
Patience = Annotated[
    int, typer.Option(help="Epochs without a gain in validation that end it; 0: none do.", min=0)
]
Optimizer = Annotated[str, typer.Option(help="sgd as in the paper | adamw")]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps patches and labels.")]
Device = Annotated[str, typer.Option(help="auto | cpu | cuda")]


def train_s3e(
    data: Scenes,
    out: ModelFile,
    validation: Validation = None,
    encoder: Annotated[str, typer.Option(help="vit | sparse")] = "vit",
    patch_size: Annotated[int, typer.Option(help="16 | 32 | 64 px")] = 32,
    epochs: Epochs = 140,
    patience: Patience = 0,
    optimizer: Optimizer = "sgd",
    learning_rate: Annotated[float, typer.Option(min=1e-9)] = 1e-3,
    sees: Annotated[
        str,
        typer.Option(help="features of a pre-trained backbone in the patches | pixels (paper)"),
    ] = "features",
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Train an encoder on the reprojection IoU of views; its graph network stays untrained.

    A run that was stopped goes on.
    """
    import torch

    from vpr.relocalization.model import S3eModel
    from vpr.relocalization.training import S3eTrainingConfig, train_encoder

    def work() -> None:
        config = S3eTrainingConfig.model_validate(
            {"epochs": epochs, "patience": patience, "optimizer": optimizer,
             "learning_rate": learning_rate, "device": device}
        )  # fmt: skip
        torch.manual_seed(config.seed)
        model = S3eModel(encoder, patch_size, sees=sees)
        scenes, held = _scenes(model, data, config, cache), _held(model, validation, cache)
        train_encoder(model, scenes, config, _print_epoch, held, _checkpoint(out))
        model.save(out)

    or_fail(work)


def train_gnn(
    model: Annotated[Path, typer.Argument(help="Made by vpr train s3e.")],
    data: Scenes,
    out: ModelFile,
    validation: Validation = None,
    epochs: Epochs = 140,
    patience: Patience = 0,
    optimizer: Optimizer = "sgd",
    learning_rate: Annotated[float, typer.Option(min=1e-9)] = 1e-5,
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Train a model's graph network on sequences of two laps or more.

    A run that was stopped goes on.
    """
    from vpr.relocalization.model import S3eModel
    from vpr.relocalization.training import S3eTrainingConfig, train_graph

    def work() -> None:
        config = S3eTrainingConfig.model_validate(
            {"epochs": epochs, "patience": patience, "optimizer": optimizer,
             "graph_rate": learning_rate, "device": device}
        )  # fmt: skip
        net = S3eModel.load(model)
        scenes, held = _scenes(net, data, config, cache), _held(net, validation, cache)
        train_graph(net, scenes, config, _print_epoch, held, _checkpoint(out))
        net.save(out)

    or_fail(work)


def train_virtual_views(
    model: Annotated[Path, typer.Argument(help="Made by vpr train s3e or gnn.")],
    data: Scenes,
    out: ModelFile,
    cache: Cache = None,
) -> None:
    """Learn how a view of a later lap differs from what the first would show of its place.

    It takes sequences of two laps or more, and seconds each once their patches are cut.
    """
    from vpr.relocalization.model import S3eModel
    from vpr.relocalization.rgbd import load_rgbd
    from vpr.relocalization.views import prepare
    from vpr.relocalization.virtual_views import appearance_differences

    def work() -> None:
        net = S3eModel.load(model)
        differences = []
        for folder in track(data, description="sequences"):
            sequence = load_rgbd(folder)
            given = prepare(net, sequence, 1, cache).drawings[0]
            differences.append(appearance_differences(net, sequence, given))
        net.appearance.fit(differences)
        net.save(out)

    or_fail(work)


def add_to(dataset_app: typer.Typer, train_app: typer.Typer, eval_app: typer.Typer) -> None:
    """Put the commands beside the others."""
    train_app.command("s3e")(train_s3e)
    train_app.command("gnn")(train_gnn)
    train_app.command("virtual-views")(train_virtual_views)
    dataset_app.command("from-level")(dataset_from_level)
    eval_app.command("overlap")(eval_overlap)
    eval_app.command("s3e")(eval_s3e)
    eval_app.command("s3e-cost")(eval_s3e_cost)


def _scenes(
    model: S3eModel, folders: list[Path], config: S3eTrainingConfig, cache: Path | None
) -> list[Views]:
    from vpr.relocalization.rgbd import load_rgbd
    from vpr.relocalization.views import prepare

    known = track(folders, description="patches and labels")
    return [prepare(model, load_rgbd(folder), config.drawings, cache) for folder in known]


def _held(model: S3eModel, folders: list[Path] | None, cache: Path | None) -> list[Views]:
    from vpr.relocalization.rgbd import load_rgbd
    from vpr.relocalization.views import prepare

    known = track(folders or [], description="validation")
    return [prepare(model, load_rgbd(folder), 1, cache) for folder in known]


def _checkpoint(out: Path) -> Path:
    return out.with_suffix(".checkpoint.safetensors")


def _print_epoch(epoch: int, loss: float, score: float) -> None:
    held = "" if math.isnan(score) else f", validation {score:.4f}"
    console.print(f"epoch {epoch}: loss {loss:.4f}{held}")
