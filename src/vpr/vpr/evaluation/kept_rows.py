"""Rows of a long evaluation, kept on disk as they come: a run cut short goes on behind the last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class KeptRowsError(ValueError):
    """A file of rows that cannot be read or was made with other settings; says which."""


class KeptRows:
    """Rows by name; those of an earlier run with the same settings are not computed again.

    Args:
        path: JSON file, written whole after every row; None keeps nothing.
        settings: all that a row depends on besides its name, as JSON has it.

    Raises:
        KeptRowsError: the file is none of ours, or of other settings.
    """

    def __init__(self, path: Path | None = None, settings: Row | None = None) -> None:
        self._path = path
        self._settings: Row = json.loads(json.dumps(settings or {}))
        self._rows: dict[str, Row] = {}
        if path is not None and path.exists():
            self._rows = self._read(path)

    def row(self, name: str, compute: Callable[[], Row]) -> Row:
        """The row of this name, computed if it is not there yet."""
        if name not in self._rows:
            self._rows[name] = compute()
            self._write()
        return self._rows[name]

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def _read(self, path: Path) -> dict[str, Row]:
        try:
            found = json.loads(path.read_text())
            settings, rows = found["settings"], dict(found["rows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeptRowsError(f"{path} holds no rows of an evaluation: {error}") from error
        for key in sorted(settings.keys() | self._settings.keys()):
            theirs, ours = settings.get(key), self._settings.get(key)
            if theirs != ours:
                raise KeptRowsError(
                    f"{path} was made with {key} {theirs}, not {ours}: name another file"
                )
        return rows

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".partial")
        kept = {"settings": self._settings, "rows": self._rows}
        partial.write_text(json.dumps(kept, indent=1) + "\n")
        partial.replace(self._path)
