"""Tables that stand between two marks of a text file, put there by what measured them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class MarksError(ValueError):
    """A file without the marks of its table."""


def rewrite_between(file: Path, marks: tuple[str, str], rewritten: Callable[[str], str]) -> None:
    """Put what is made of the old table between the marks; the file appears whole or not at all.

    Raises:
        MarksError: a mark is missing.
    """
    begin, end = marks
    head, found, rest = file.read_text().partition(begin)
    old, closed, tail = rest.partition(end)
    if not (found and closed):
        raise MarksError(f"{file} has no marks {begin} … {end}")
    partial = file.with_name(f".{file.name}.unfinished")
    partial.write_text(f"{head}{begin}\n{rewritten(old.strip())}\n{end}{tail}")
    partial.replace(file)
