"""A row of results beside its peer: printed, and written into the README."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vpr.evaluation.marked_tables import rewrite_between

console = Console()


@dataclass(frozen=True)
class Line:
    """One row of the results: what was measured, ours, the peer's, and the wanted value."""

    what: str
    ours: str
    peer: str
    wanted: str


def print_lines(lines: Iterable[Line]) -> None:
    """Show the results as a table."""
    table = Table("figure", "ours", "peer, same run", "wanted", title="results")
    for line in lines:
        table.add_row(line.what, line.ours, line.peer, line.wanted)
    console.print(table)


def write_readme(readme: Path, lines: Iterable[Line], markers: tuple[str, str]) -> None:
    """Replace what stands between the two markers of the README."""
    rows = ["| figure | ours | peer, same run | wanted |", "|---|---|---|---|"]
    rows += [f"| {line.what} | {line.ours} | {line.peer} | {line.wanted} |" for line in lines]
    rewrite_between(readme, markers, lambda _: "\n".join(rows))
