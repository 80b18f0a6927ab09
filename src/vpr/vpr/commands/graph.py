"""``vpr graph``: pose graphs in files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vpr.commands.outcome import fail, write_json

app = typer.Typer(no_args_is_help=True, help="Pose graphs in g2o files.")


class Robust(StrEnum):
    """How closures are judged."""

    NONE = "none"
    GNC = "gnc"
    PCM = "pcm"


@app.callback()
def _group() -> None:
    """Pose graphs in g2o files."""


@app.command()
def optimize(
    file: Annotated[Path, typer.Argument(help="2-D or 3-D pose graph, g2o text.")],
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Vertex by vertex, as a robot would.")
    ] = False,
    robust: Annotated[
        Robust, typer.Option(help="none: believe every closure; gnc | pcm: judge them.")
    ] = Robust.NONE,
    outliers: Annotated[
        float,
        typer.Option(
            help="Lay in false closures: their share of all, 0.3 or 30 (%).", min=0.0, max=99.0
        ),
    ] = 0.0,
    outlier_group: Annotated[
        int, typer.Option(help="False closures that agree with each other, a group.", min=1)
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of the false closures.", min=0)] = 0,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the optimized graph here, kept closures only.")
    ] = None,
) -> None:
    """Optimize a pose graph and print its final factor-graph error."""
    from vpr.graph.g2o import G2oError, read_g2o, write_g2o
    from vpr.graph.optimization import optimize as optimized
    from vpr.graph.outliers import with_false_closures
    from vpr.graph.solution import UnsolvableGraph

    share = outliers / 100.0 if outliers >= 1.0 else outliers
    try:
        graph, false = with_false_closures(read_g2o(file), share, seed, outlier_group)
    except G2oError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{file}: {error.strerror or error}")
    except ValueError as error:
        fail(f"{file}: {error}")
    try:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"optimizing {len(graph.order)} vertices", total=None)
            result = optimized(
                graph,
                robust.value,
                incremental,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
    except UnsolvableGraph as error:
        fail(f"{file}: {error}")
    figures = _figures(graph, result)
    if false:
        figures |= _against_truth(result, false)
    try:
        if output is not None:
            write_g2o(output, graph, result.poses, set(result.kept | graph.trusted))
        write_json(figures, json_out)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    _print(file, figures)


def _figures(graph: Any, result: Any) -> dict[str, Any]:
    steps = 1e3 * np.array(result.steps or (0.0,))
    return {
        "final_error": result.error,
        "step_ms": {
            "p50": float(np.percentile(steps, 50)),
            "p95": float(np.percentile(steps, 95)),
            "max": float(steps.max()),
        },
        "closures_kept": len(result.kept),
        "closures_retracted": len(result.retracted),
        "vertices": len(graph.order),
        "edges": len(graph.measurements),
        "settling_ms": 1e3 * result.settling,
        "retrials_ms": [1e3 * seconds for seconds in result.retrials],
    }


def _against_truth(result: Any, false: frozenset[int]) -> dict[str, float]:
    """Precision and recall of the kept closures; those of the file count as true."""
    true_kept = len(result.kept - false)
    true = true_kept + len(result.retracted - false)
    return {
        "closures_false": len(false),
        "precision": true_kept / len(result.kept) if result.kept else 1.0,
        "recall": true_kept / true,
    }


def _print(file: Path, figures: dict[str, Any]) -> None:
    table = Table("figure", "value", title=file.name)
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part:.3f}" for key, part in value.items())
        elif isinstance(value, list):
            value = ", ".join(f"{part:.0f}" for part in value)
        table.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    Console().print(table)
