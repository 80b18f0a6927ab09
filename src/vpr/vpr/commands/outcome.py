"""How a command ends: with its rows in a file, or with one sentence and exit status 2."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console

T = TypeVar("T")


def or_fail(work: Callable[[], T]) -> T:
    """What the work gives; a named error of the library ends the command with its sentence."""
    try:
        return work()
    except ValueError as error:  # every named error of the library is one
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(2) from error


def write_rows(rows: Sequence[dict[str, Any]], json_out: Path | None) -> None:
    """Write a table's rows as JSON, if a file was asked for."""
    if json_out is not None:
        json_out.parent.mkdir(parents=True, exist_ok=True)
        json_out.write_text(json.dumps(rows, indent=2) + "\n")
