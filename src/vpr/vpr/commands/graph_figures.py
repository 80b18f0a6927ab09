"""``vpr eval graph``: the pose graph beside gtsam, and under false closures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from vpr.commands.outcome import explained, fail
from vpr.evaluation.marked_tables import rewrite_between

GROWTH = ("<!-- graph growth: begin (vpr eval graph) -->", "<!-- graph growth: end -->")
OUTLIERS = ("<!-- graph outliers: begin (vpr eval graph) -->", "<!-- graph outliers: end -->")


def eval_graph(
    out: Annotated[Path, typer.Option(help="Where rows, tables and pictures go.")] = Path(
        "out/graph"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Folder with g2o/ and kitti_poses/; without, made-up only.")
    ] = None,
    only: Annotated[str, typer.Option(help="Only rows whose name has this in it.")] = "",
    seeds: Annotated[int, typer.Option(help="Runs of each case of false closures.", min=1)] = 3,
    readme: Annotated[
        Path | None,
        typer.Option(help="Also put the rows into the two tables of this file; others stay there."),
    ] = None,
) -> None:
    """Growth beside gtsam's iSAM2 and batch; false closures beside batch and plain GNC.

    Goes on where a stopped run was; everything takes some hours.
    """
    from vpr.evaluation.graph_figures import graph_tasks, judged_rows, kept_rows, measure

    if data is not None and not ((data / "g2o").is_dir() and (data / "kitti_poses").is_dir()):
        fail(f"{data} has no g2o/ and kitti_poses/ in it")
    tasks = [task for task in graph_tasks(data, tuple(range(1, seeds + 1))) if only in task[0]]
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(tasks))
        rows = measure(tasks, out, lambda name: bar.update(task, advance=1, description=name))
    _report(
        [row for name, row in rows.items() if name.startswith("growth")],
        judged_rows(rows, kept_rows(out)),
        out,
        readme,
    )


def _report(
    growth: list[dict[str, Any]],
    outliers: list[dict[str, Any]],
    out: Path,
    readme: Path | None,
) -> None:
    from vpr.evaluation.graph_report import (
        draw_growth,
        draw_outliers,
        growth_table,
        outlier_table,
    )

    for rows, table, marks in (
        (growth, growth_table, GROWTH),
        (outliers, outlier_table, OUTLIERS),
    ):
        if rows:
            Console().print(table(rows), soft_wrap=True, highlight=False, markup=False)
            if readme is not None:
                with explained():
                    rewrite_between(readme, marks, partial(_merged, table=table(rows)))
    for row in growth:
        draw_growth(out / f"growth_{row['graph'].replace(', ', '_').replace(' ', '_')}.png", row)
    if outliers:
        draw_outliers(out / "outliers.png", outliers)


def _merged(old: str, table: str) -> str:
    """A line that is there, and that the table has none for, stays: the graph of that line was not
    measured this time."""
    new = _by_graph(table)
    lines = [new.pop(name, line) for name, line in _by_graph(old).items()]
    return "\n".join([*lines, *new.values()])


def _by_graph(table: str) -> dict[str, str]:
    """Lines of a table by their first cell."""
    return {line.split("|")[1].strip(): line for line in table.splitlines()}
