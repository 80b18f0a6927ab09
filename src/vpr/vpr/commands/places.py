"""``vpr eval places``, ``vpr eval verification`` and ``vpr train whitening``: on image folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vpr.commands.outcome import explained, write_json

console = Console()

WHITENED = 256  # values, where no other number is asked for

ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", help="Parameters laid over the shipped ones.")
]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]


def eval_places(
    reference: Annotated[Path, typer.Option(help="Folder of reference images.")],
    query: Annotated[Path, typer.Option(help="Folder of query images.")],
    ground_truth: Annotated[
        Path, typer.Option(help="CSV 'query,references' with space-separated indices.")
    ],
    sequence_length: Annotated[
        int | None, typer.Option(help="Frames matched together; 1 is single-image.", min=1)
    ] = None,
    json_out: JsonOut = None,
    params_file: ParamsFile = None,
) -> None:
    """Recall, recall at 100 % precision and average precision over two image folders."""
    from vpr.evaluation.places import evaluate_places

    with explained():
        result = evaluate_places(
            reference, query, ground_truth, sequence_length, params_file=params_file
        )
    values = result.to_json()
    _print_figures(f"{query.name} in {reference.name}", values)
    write_json(values, json_out)


def eval_verification(
    reference: Annotated[Path, typer.Option(help="Folder of reference images.")],
    query: Annotated[Path, typer.Option(help="Folder of query images.")],
    ground_truth: Annotated[
        Path, typer.Option(help="CSV 'query,references' with space-separated indices.")
    ],
    every: Annotated[int, typer.Option(help="Judge every so-many-th query.", min=1)] = 6,
    json_out: JsonOut = None,
    params_file: ParamsFile = None,
) -> None:
    """What ORB, XFeat and LightGlue tell apart by two images alone, and what they cost."""
    from vpr.evaluation.places import image_files
    from vpr.evaluation.verification import CHOICES, evaluate_verification

    table = Table(
        "features", "matcher", "one place passes", "inliers", "two places pass", "most inliers",
        "ms an image", "ms a pair", title=f"{query.name} in {reference.name}",
    )  # fmt: skip
    rows = []
    with explained():
        queries = -(-len(image_files(query)) // every)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("pairs", total=len(CHOICES) * queries)
            for choice in CHOICES:
                found = evaluate_verification(
                    reference, query, ground_truth, choice, every, params_file,
                    progress=lambda: progress.advance(task),
                )  # fmt: skip
                rows.append(asdict(found))
                table.add_row(
                    found.features, found.matcher, f"{found.right_passed:.0%}",
                    f"{found.right_inliers:.0f}", f"{found.wrong_passed} of {found.wrong}",
                    str(found.wrong_inliers), f"{found.extraction_ms:.1f}",
                    f"{found.matching_ms:.1f}",
                )  # fmt: skip
    console.print(table)
    write_json({"rows": rows}, json_out)


def train_whitening(
    images: Annotated[Path, typer.Argument(help="Folder of images, as of the drive mapped.")],
    out: Annotated[Path, typer.Option(help="File to write (safetensors).")],
    dimension: Annotated[
        int | None, typer.Option(help="Values kept; by default 256, or what there are.", min=1)
    ] = None,
    shrinkage: Annotated[
        float, typer.Option(help="Added to each variance, share of the largest.", min=0.0)
    ] = 0.1,
    params_file: ParamsFile = None,
) -> None:
    """Learn from unlabelled images what all places of a world share, so that it counts less.

    The file is for ``embedding.whitening``.
    """
    from vpr.evaluation.places import embed_files, image_files
    from vpr.models.whitening import fit_whitening

    with explained():
        files = image_files(images)
        with console.status(f"{len(files)} images"):
            descriptors = embed_files(files, params_file, whitening="")
        kept = dimension or min(WHITENED, len(files) - 1, descriptors.shape[1])
        fit_whitening(descriptors, kept, shrinkage).save(out)
    console.print(f"{out}: {descriptors.shape[1]} values to {kept}, from {len(files)} images")


def _print_figures(title: str, values: dict[str, Any]) -> None:
    table = Table("figure", "value", title=title)
    for name, value in values.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    console.print(table)


def add_to(train_app: typer.Typer, eval_app: typer.Typer) -> None:
    """Put the commands of places beside the others."""
    train_app.command("whitening")(train_whitening)
    eval_app.command("places")(eval_places)
    eval_app.command("verification")(eval_verification)
