"""How a command ends: with a table, its rows in a file, or one sentence and exit status 2."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

TABLE_WIDTH = 160  # characters that the widest table needs
T = TypeVar("T")


def fail(message: str, cause: Exception | None = None) -> NoReturn:
    """End the command with one sentence on standard error and exit status 2."""
    Console(stderr=True).print(f"[red]error:[/] {message}", highlight=False, soft_wrap=True)
    raise typer.Exit(2) from cause


@contextmanager
def explained() -> Iterator[None]:
    """A named error of the library, or an unusable file, ends the command with its sentence."""
    try:
        yield
    except (ValueError, OSError) as error:  # every named error of the library is a ValueError
        fail(str(error), error)


def or_fail(work: Callable[[], T]) -> T:
    """What the work gives, its errors explained."""
    with explained():
        return work()


def show_rows(title: str, rows: Sequence[dict[str, Any]], json_out: Path | None = None) -> None:
    """Print rows as a table, a column for each name in any of them, and write them if asked to."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=title)
    for name in names:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(_shown(row.get(name, "")) for name in names))
    Console(width=max(Console().width, TABLE_WIDTH)).print(table)
    write_json(rows, json_out)


def write_json(figures: Any, json_out: Path | None) -> None:
    """Write figures, or a table's rows, if a file was asked for; whole or not at all."""
    if json_out is not None:
        json_out.parent.mkdir(parents=True, exist_ok=True)
        partial = json_out.with_name(json_out.name + ".partial")
        partial.write_text(json.dumps(figures, indent=2) + "\n")
        partial.replace(json_out)


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
