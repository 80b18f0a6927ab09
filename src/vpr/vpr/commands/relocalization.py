"""``vpr dataset from-level`` and ``vpr eval overlap``: RGB-D views and what they share."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

console = Console()


def dataset_from_level(
    level: Annotated[str, typer.Argument(help="Of Freedoom, map01 to map32.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    views: Annotated[int, typer.Option(help="Views a lap; there are three.", min=20)] = 120,
    seed: Annotated[int, typer.Option(help="Of the tour.", min=0)] = 0,
) -> None:
    """Drive three laps through an indoor level, the last reversed, as an RGB-D folder."""
    from vpr.relocalization.rgbd import RgbdError, write_realsense
    from vpr.simulation.doom_levels import record_level

    try:
        sequence = record_level(level, views, seed)
    except RgbdError as error:
        _fail(error)
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
    from vpr.relocalization.rgbd import RgbdError, load_rgbd

    try:
        sequence = load_rgbd(data, stride)
        started = time.perf_counter()
        matrix = similarity_matrix(sequence, sequence)
        seconds = time.perf_counter() - started
    except RgbdError as error:
        _fail(error)
    picture = out / f"{data.resolve().name}.png"
    draw_similarity(picture, matrix, sequence.laps)
    figures = {"views": len(sequence), "pairs_per_second": matrix.size / seconds}
    console.print(f"{picture}: {len(sequence)} views, {matrix.size / seconds:.0f} pairs a second")
    if json_out is not None:
        json_out.parent.mkdir(parents=True, exist_ok=True)
        json_out.write_text(json.dumps(figures, indent=2) + "\n")


def add_to(dataset_app: typer.Typer, eval_app: typer.Typer) -> None:
    """Put the commands beside the others."""
    dataset_app.command("from-level")(dataset_from_level)
    eval_app.command("overlap")(eval_overlap)


def _fail(error: Exception) -> NoReturn:
    Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False)
    raise typer.Exit(2) from error
