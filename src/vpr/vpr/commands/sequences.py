"""``vpr eval sequence`` and ``vpr train sequence``: the family of sequence methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from vpr.commands.outcome import explained, show_rows, write_json
from vpr.config import ConfigError, SequenceMatchingConfig, SequenceTrainingConfig

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
    Literal["network", "gradients", "grid"],
    typer.Option(
        help="The embedding node's descriptor; for steady viewpoints early features on a grid, or "
        "gradients for very small images."
    ),
]
Frames = Annotated[str, typer.Option(help="first:last of both traverses, as in Python.")]
Within = Annotated[float, typer.Option("--tolerance", help="Frames, or metres with positions.")]
Spacing = Annotated[float, typer.Option(help="Thin traverses with positions to this, m; 0: not.")]


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
    stillness: Annotated[
        float,
        typer.Option(
            help="Frames that differ less from the last one, grey levels, are a stop and have the "
            "answer of the last one; 0: none is."
        ),
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
    from vpr.evaluation.sequences import FROZEN, RANKS, evaluate_method, learned_family

    with explained():
        compared = _comparison(
            reference,
            query,
            kind,
            model,
            tolerance,
            frames,
            spacing,
            darkest,
            stillness,
            params_file,
        )
        transforms, shortlisters = transform or [], shortlister or []
        if table:
            members = [*FROZEN, *learned_family(transforms, shortlisters)]
            rows = [member.evaluate(compared, sequence_length) for member in members]
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
    document = {"tolerance": str(compared.tolerance), "rows": [row.to_json() for row in rows]}
    write_json(document, json_out)


def _comparison(
    reference: Path,
    query: Path,
    kind: Any,
    model: str,
    tolerance: float,
    frames: str,
    spacing: float,
    darkest: float,
    stillness: float,
    params_file: Path | None,
) -> Any:
    from vpr.evaluation.sequences import Comparison, describe, model_name, without_dark
    from vpr.evaluation.traverses import (
        Tolerance,
        cut,
        read_traverse,
        same_places,
        thinned,
        without_stops,
    )

    drives = [cut(read_traverse(path, kind), frames) for path in (reference, query)]
    if spacing > 0.0:
        drives = [thinned(drive, spacing) for drive in drives]
    within = Tolerance(tolerance, "frames" if drives[0].positions is None else "m")
    correct = same_places(drives[0], drives[1], within)
    if darkest > 0.0:
        correct = without_dark(drives[0], drives[1], correct, darkest)
    driven = without_stops(drives[0], drives[1], correct, stillness)
    described, asked = (
        describe(drive, model, params_file) for drive in (driven.references, driven.queries)
    )
    name = model_name(drives[0], model)
    return Comparison(described, asked, driven.correct, within, name, driven.answers)


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
    with explained():
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


def eval_nordland(
    data: Annotated[Path, typer.Argument(help="Folder with winter and summer.")],
    out: Annotated[Path, typer.Option(help="Folder for rows, transforms and picture.")],
    epochs: Annotated[int | None, typer.Option(help="Of every training.")] = None,
) -> None:
    """Train on one stretch of Nordland, test on the next: the whole family and the curve.

    A run that was cut short goes on where it was.
    """
    import numpy as np

    from vpr.evaluation.nordland import LENGTH, TOLERANCE, StretchRow, nordland_table
    from vpr.evaluation.sequences import RANKS

    def tell(each: StretchRow) -> None:
        recall = f"{each.row.recalls[0]:.3f}"
        console.print(f"{each.tested:>8} {each.row.method}: {recall}", highlight=False)

    with explained():
        made = nordland_table(data, out, tell, epochs=epochs)
    shown = Table("method", *(f"recall@{k}" for k in RANKS), "recall@1 by stretch")
    shown.title = f"winter in summer, {LENGTH} frames, tolerance {TOLERANCE}, mean over stretches"
    for method, rows in made.by_method().items():
        recalls = np.array([each.row.recalls for each in rows])
        means = (f"{value:.3f}" for value in recalls.mean(axis=0))
        shown.add_row(method, *means, " ".join(f"{value:.3f}" for value in recalls[:, 0]))
    console.print(shown)
    for name, points in made.curves.items():
        console.print(name, " ".join(f"{length}: {recall:.3f}" for length, recall in points))
    console.print(f"{made.picture}", highlight=False)


def eval_day_night(
    out: Annotated[Path, typer.Option(help="Folder for towns, transforms and rows.")],
    epochs: Annotated[int | None, typer.Option(help="Of every training.")] = None,
    learned: Annotated[
        str, typer.Option(help="first:last of towns learned, as in Python.")
    ] = "1:3",
    unseen: Annotated[str, typer.Option(help="The same of towns tried.")] = "11:16",
    night_noise: Annotated[
        float, typer.Option(help="Grey levels; the more, the harder the nights.", min=0)
    ] = 6.0,
    cut_short: Annotated[
        float, typer.Option(help="Share of nightly images exposed a fifth as long.", min=0, max=1)
    ] = 0.0,
    drawings: Annotated[
        int, typer.Option(help="Nights of each learned town, with other noise.", min=1)
    ] = 1,
    trainings: Annotated[
        int, typer.Option(help="Of each row, with other seeds; recalls are means.", min=1)
    ] = 1,
    model: Annotated[
        Literal["network", "grid"],
        typer.Option(help="The embedding node's descriptor, or early features on a grid."),
    ] = "grid",
    sequence_length: Annotated[int, typer.Option(help="Frames matched in the test.", min=1)] = 5,
    params_file: ParamsFile = None,
) -> None:
    """Simulated night found in day, in towns that were not trained on: the four rows.

    A run that was cut short goes on where it was.
    """
    from vpr.evaluation.day_night import TOLERANCE, DayNightTrial
    from vpr.simulation.day_night import NightCamera

    given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    with explained():
        towns, camera = (_seeds(learned), _seeds(unseen)), NightCamera(night_noise, cut_short)
        trial = DayNightTrial(out, *towns, camera, drawings, trainings, model, sequence_length)
        rows = trial.rows(SequenceTrainingConfig.from_file(params_file, **given))
    shown = Table("loss", "mining", "single image", f"{sequence_length} frames", "gain", "spread")
    shown.title = f"recall@1, mean over {len(rows[0].recalls)} unseen towns, tolerance {TOLERANCE}"
    for row in rows:
        gain, spread = row.gain_over(rows[1])
        figures = [sum(part) / len(part) for part in (row.single_recalls, row.recalls)]
        cells = [f"{mean:.3f}" for mean in figures] + [f"{gain:+.3f}", f"{spread:.3f}"]
        shown.add_row(row.loss, row.mining, *cells)
    console.print(shown)


def _seeds(towns: str) -> range:
    """Raises ConfigError for what are not ``first:last`` with a town between them."""
    try:
        first, last = (int(word) for word in towns.split(":"))
    except ValueError as error:
        raise ConfigError(f"towns '{towns}' are not first:last") from error
    if not 0 <= first < last:
        raise ConfigError(f"towns {towns} are none")
    return range(first, last)


def eval_sequence_cost(
    places: Annotated[list[int] | None, typer.Option(help="In the map; repeat.", min=1000)] = None,
    sequence_length: Annotated[
        list[int] | None, typer.Option(help="Frames matched together; repeat.", min=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for walks, maps and figures; kept to go on there.")
    ] = None,
    every_peer: Annotated[
        bool, typer.Option("--every-peer", help="Also those that take long in a large map.")
    ] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the rows.")] = None,
) -> None:
    """What a live matching step costs beside FAISS, the convolution and a loop, on one core.

    With --out a run that was cut short goes on behind the last figure.
    """
    from vpr.evaluation.sequence_cost import LENGTHS, SIZES, matching_costs

    with explained():
        costs = matching_costs(places or SIZES, sequence_length or LENGTHS, out, every_peer)
    rows = [cost.to_row() for cost in costs]
    show_rows("one matching step, median milliseconds", rows, json_out)


def eval_candidates(
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Bags with a ground_truth topic.")
    ] = None,
    folders: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option(help="Also reference images, query images and their truth (CSV)."),
    ] = None,
    fitted_on: Annotated[
        int | None, typer.Option(help="Fit on the first so many drives; on all by default.", min=1)
    ] = None,
    params_file: ParamsFile = None,
) -> None:
    """How well candidates' probabilities are calibrated, and the curves that fit best.

    The folders are the first drive, where they are given.
    """
    from vpr.evaluation import candidates

    drives = []
    with explained():
        if folders is not None:
            drives.append(candidates.judged_in_folders(*folders, params_file))
        drives += [candidates.judged_in_recording(b, params_file) for b in recordings or []]
        if not drives:
            raise ConfigError("neither a recording nor --folders is given")
        curves = candidates.configured_curves(SequenceMatchingConfig.from_file(params_file))
        for kind, configured in zip(("best", "further"), curves, strict=True):
            judged = [drive.best() if kind == "best" else drive.further() for drive in drives]
            curve = candidates.fitted_curve(judged[:fitted_on])
            shown = Table("drive", "candidates", "right", "error", "error of the fitted curve")
            shown.title = (
                f"{kind} candidates: midpoint {configured.midpoint:.2f}, width "
                f"{configured.width:.2f}; fitted {curve.midpoint:.2f}, {curve.width:.2f}"
            )
            for drive in judged:
                errors = (f"{c.expected_error(drive):.3f}" for c in (configured, curve))
                share = f"{drive.right.mean():.2f}"
                shown.add_row(drive.name, str(len(drive.right)), share, *errors)
            console.print(shown)


def add_to(train_app: typer.Typer, eval_app: typer.Typer) -> None:
    """Put the commands of sequences beside the others."""
    train_app.command("sequence")(train_sequence)
    eval_app.command("sequence")(eval_sequence)
    eval_app.command("nordland")(eval_nordland)
    eval_app.command("day-night")(eval_day_night)
    eval_app.command("sequence-cost")(eval_sequence_cost)
    eval_app.command("candidates")(eval_candidates)
