"""``vpr eval sequence`` and ``vpr train sequence``: the family of sequence methods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from vpr.config import ConfigError, SequenceTrainingConfig

console = Console()

ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", help="Parameters laid over the shipped ones.")
]
Reference = Annotated[Path, typer.Option(help="Traverse to recognise in.")]
Query = Annotated[Path, typer.Option(help="Traverse to recognise.")]
Kind = Annotated[
    Literal["nordland", "robotcar", "brisbane", "npy"], typer.Option("--format", help="Data set.")
]
Model = Annotated[
    Literal["network", "gradients"],
    typer.Option(help="The embedding node's descriptor, or gradients for very small images."),
]
Frames = Annotated[str, typer.Option(help="first:last of both traverses, as in Python.")]
Within = Annotated[float, typer.Option("--tolerance", help="Frames, or metres with positions.")]
Spacing = Annotated[float, typer.Option(help="Thin traverses with positions to this, m; 0: not.")]


@contextmanager
def _explained() -> Iterator[None]:
    """Errors that are somebody's data as one sentence and exit status 2."""
    from vpr.evaluation.places import EvaluationError
    from vpr.learning.sequence_training import SequenceTrainingError
    from vpr.models.weights import WeightsError

    try:
        yield
    except (ConfigError, EvaluationError, SequenceTrainingError, WeightsError) as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(2) from error


def eval_sequence(
    reference: Reference,
    query: Query,
    tolerance: Within = 1.0,
    kind: Kind = "nordland",
    model: Model = "network",
    sequence_length: Annotated[int, typer.Option(help="Frames matched together.", min=1)] = 11,
    frames: Frames = ":",
    spacing: Spacing = 0.0,
    darkest: Annotated[
        float, typer.Option(help="Queries of a mean grey value up to this do not count.")
    ] = 0.0,
    transform: Annotated[
        list[Path] | None, typer.Option(help="Of 'vpr train sequence', one frame; repeat.")
    ] = None,
    shortlister: Annotated[
        list[Path] | None, typer.Option(help="Of 'vpr train sequence', several frames; repeat.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="All methods, not one alone.")] = False,
    curve: Annotated[
        Path | None, typer.Option(help="Draw recall against sequence length here (PNG).")
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the rows.")] = None,
    params_file: ParamsFile = None,
) -> None:
    """Recall@1/5/20 of the family of sequence methods between two traverses."""
    from vpr.evaluation.sequences import RANKS, evaluate_family, evaluate_method

    with _explained():
        compared = _comparison(
            reference, query, kind, model, tolerance, frames, spacing, darkest, params_file
        )
        transforms, shortlisters = transform or [], shortlister or []
        if table:
            rows = evaluate_family(compared, sequence_length, transforms, shortlisters)
        elif transforms:
            best = {"transform": str(transforms[-1])}
            rows = [evaluate_method(compared, "seqmatchnet", sequence_length, **best)]
        else:
            rows = [evaluate_method(compared, "sequence_matching", sequence_length)]
        if curve is not None:
            _draw_curve(curve, compared, transforms)
    shown = Table("method", "frames", *(f"recall@{k}" for k in RANKS), "queries")
    shown.title = f"{query.name} in {reference.name}, tolerance {compared.tolerance}"
    for row in rows:
        recalls = (f"{value:.3f}" for value in row.recalls)
        shown.add_row(row.method, str(row.sequence_length), *recalls, str(row.queries))
    console.print(shown)
    if json_out is not None:
        json_out.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "tolerance": str(compared.tolerance),
            "rows": [row.to_json() for row in rows],
        }
        json_out.write_text(json.dumps(document, indent=2) + "\n")


def _comparison(
    reference: Path,
    query: Path,
    kind: Any,
    model: str,
    tolerance: float,
    frames: str,
    spacing: float,
    darkest: float,
    params_file: Path | None,
) -> Any:
    from vpr.evaluation.sequences import Comparison, describe, model_name, without_dark
    from vpr.evaluation.traverses import Tolerance, cut, read_traverse, same_places, thinned

    drives = [cut(read_traverse(path, kind), frames) for path in (reference, query)]
    if spacing > 0.0:
        drives = [thinned(drive, spacing) for drive in drives]
    within = Tolerance(tolerance, "frames" if drives[0].positions is None else "m")
    correct = same_places(drives[0], drives[1], within)
    if darkest > 0.0:
        correct = without_dark(drives[0], drives[1], correct, darkest)
    described = [describe(drive, model, params_file) for drive in drives]
    name = model_name(drives[0], model)
    return Comparison(described[0], described[1], correct, within, name)


def _draw_curve(file: Path, compared: Any, transforms: list[Path]) -> None:
    from vpr.evaluation.sequences import draw_recall_by_length, evaluate_method

    lengths = (1, 2, 3, 5, 7, 9, 11, 15, 21)
    curves = {}
    for name in ("sequence_matching", "smoothing"):
        rows = [evaluate_method(compared, name, length) for length in lengths]
        curves[name.replace("_", " ")] = [(row.sequence_length, row.recalls[0]) for row in rows]
    if transforms:
        path = str(transforms[-1])
        rows = [evaluate_method(compared, "seqmatchnet", n, transform=path) for n in lengths]
        curves["SeqMatchNet"] = [(row.sequence_length, row.recalls[0]) for row in rows]
    draw_recall_by_length(file, curves, compared.tolerance)


def train_sequence(
    reference: Reference,
    query: Query,
    out: Annotated[Path, typer.Option(help="File to write (safetensors).")],
    kind: Kind = "nordland",
    model: Model = "network",
    tolerance: Within = 1.0,
    frames: Frames = ":",
    spacing: Spacing = 0.0,
    loss: Annotated[str | None, typer.Option(help="single | seqmatch")] = None,
    mining: Annotated[str | None, typer.Option(help="single | seqmatch")] = None,
    window: Annotated[int | None, typer.Option(help="Frames of a descriptor.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Steps over the traverses.")] = None,
    params_file: ParamsFile = None,
) -> None:
    """Learn a transform of frozen descriptors from two traverses of one route."""
    import numpy as np

    from vpr.evaluation.sequences import describe, model_name
    from vpr.evaluation.traverses import Tolerance, cut, read_traverse, same_places, thinned
    from vpr.learning import sequence_training as training
    from vpr.models.seqnet import save_seqnet

    given = {"loss": loss, "mining": mining, "window": window, "epochs": epochs}
    with _explained():
        config = SequenceTrainingConfig.from_file(
            params_file, **{name: value for name, value in given.items() if value is not None}
        )
        drives = [cut(read_traverse(path, kind), frames) for path in (reference, query)]
        if spacing > 0.0:
            drives = [thinned(drive, spacing) for drive in drives]
        unit: Any = "frames" if drives[0].positions is None else "m"
        correct = same_places(drives[0], drives[1], Tolerance(tolerance, unit))
        middle = [int(np.median(list(places))) if places else -1 for places in correct]
        described = [describe(drive, model, params_file) for drive in drives]
        name = f"{query.name} in {reference.name}, frames {frames}"
        pair = training.TraversePair(name, described[0], described[1], np.array(middle, np.int64))
        trained = training.train_sequence([pair], config, model_name(drives[0], model))
        save_seqnet(trained.network, out)
    console.print(
        f"{out}: {trained.network.model}, loss {trained.losses[0]:.4f} -> {trained.losses[-1]:.4f}"
    )


def add_to(train_app: typer.Typer, eval_app: typer.Typer) -> None:
    """Put the commands of sequences beside the others."""
    train_app.command("sequence")(train_sequence)
    eval_app.command("sequence")(eval_sequence)
