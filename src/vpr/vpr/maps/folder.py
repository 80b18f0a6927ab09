"""The map on disk: a folder of tables that grow, and one small manifest that says what counts.

::

    map/
      manifest.json             schema, model, and how much of which table counts
      000001/                   a revision; only the one in the manifest counts
        places.keyframes.ids      one file a column, see ``vpr.maps.table``
        places.keyframes.journal
        graph.nodes.poses
        ...

Each stage of the suite writes a part (places, features, graph) of one or more tables. A save adds
rows behind those that count and then replaces the manifest in one step; a save that dies anywhere
before that leaves the map as it was. Where rows would have to change or go, all is written to a
new revision, and the old one is removed once the manifest no longer speaks of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from vpr.maps.table import (
    Arrays,
    Checked,
    MapError,
    Natural,
    Table,
    TableDigest,
    TableWriter,
    flush,
)

SCHEMA = 2
MANIFEST = "manifest.json"
LOCK = "lock"
_NAME = re.compile(r"[a-z][a-z_]*")
_REVISION = re.compile(r"\d{6}")


class PartOutdated(MapError):
    """What a map has of a part changed since it was saved; only a new revision can hold it."""


class PartDigest(Checked):
    """One written part; small enough to travel between processes as JSON."""

    name: Annotated[str, Field(pattern="^[a-z][a-z_]*$")]
    count: Natural  # of what the part keeps: places, keyframes, ...
    tables: dict[Annotated[str, Field(pattern="^[a-z][a-z_]*$")], TableDigest]
    metadata: dict[str, Any]


class Manifest(Checked):
    """What a map consists of."""

    format: Literal["vpr-map"]
    schema_version: int
    identity: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]  # new with every revision
    saves: Annotated[int, Field(ge=1)]  # of this revision
    revision: Annotated[str, Field(pattern=r"^\d{6}$")]
    model: str  # name@weights-hash of the descriptors; empty for a map without places
    parts: tuple[PartDigest, ...]

    def part(self, name: str) -> PartDigest:
        """Digest of a part.

        Raises:
            MapError: the map has no such part.
        """
        for digest in self.parts:
            if digest.name == name:
                return digest
        known = ", ".join(digest.name for digest in self.parts) or "none"
        raise MapError(f"map has no part '{name}' (it has: {known})")

    def has(self, name: str) -> bool:
        """Whether there is such a part."""
        return any(digest.name == name for digest in self.parts)

    def is_state_of(self, other: Manifest | None) -> bool:
        """Whether both speak of the same map after the same save."""
        return other is not None and (self.identity, self.saves) == (other.identity, other.saves)


class Part:
    """One part of a map, opened for reading: its tables and its JSON-able metadata."""

    def __init__(self, folder: Path, manifest: Manifest, name: str) -> None:
        self._digest = manifest.part(name)
        self.model, self.metadata = manifest.model, self._digest.metadata
        self.count = self._digest.count
        self.tables = {
            table: Table(folder / manifest.revision, f"{name}.{table}", digest)
            for table, digest in self._digest.tables.items()
        }

    def table(self, name: str) -> Table:
        """A table of the part.

        Raises:
            MapError: the part has no such table.
        """
        if name not in self.tables:
            raise MapError(f"part '{self._digest.name}' of the map has no table '{name}'")
        return self.tables[name]


class PartWriter:
    """Writes one part into a revision: behind what counts there, or from the start if nothing does.

    A context manager that lets go of the files; only what ``finish`` returned can be committed.

    Raises:
        MapError: a wrong name or revision, another process that is at it, or a disk that refuses.
    """

    def __init__(self, folder: Path, revision: str, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise MapError(f"'{name}' is not a name for a part of a map")
        if not _REVISION.fullmatch(revision) or not (folder / revision).is_dir():
            raise MapError(f"{folder} has no revision '{revision}'")
        self._folder, self._name = folder / revision, name
        self._before = _committed(folder, revision, name)
        self._writers: dict[str, TableWriter] = {}
        self._lock = _locked(self._folder / f"{name}.{LOCK}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for writer in self._writers.values():
            writer.close()
        os.close(self._lock)

    def saved(self, table: str) -> int:
        """Rows of a table that are in the map already."""
        if self._before is None or table not in self._before.tables:
            return 0
        return self._before.tables[table].rows

    def saved_part(self) -> Part | None:
        """What is in the map already, for reading; None when nothing is."""
        if self._before is None:
            return None
        return Part(self._folder.parent, read_manifest(self._folder.parent), self._name)

    def append(self, table: str, arrays: Arrays) -> None:
        """Add rows to a table.

        Raises:
            MapError: columns that don't fit the table, or a disk that refuses.
        """
        try:
            self._writer(table).append(arrays)
        except OSError as error:
            raise MapError(f"cannot write {self._folder}: {error.strerror}") from error

    def finish(self, count: int, metadata: Mapping[str, Any]) -> PartDigest:
        """Bring all to the disk.

        Args:
            count: how many things the part keeps, for people and for ``LoadMap``.
            metadata: JSON-able, small, and the whole of it: it is replaced.

        Raises:
            MapError: a disk that refuses.
        """
        tables = {} if self._before is None else dict(self._before.tables)
        try:
            tables |= {name: writer.finish() for name, writer in self._writers.items()}
        except OSError as error:
            raise MapError(f"cannot write {self._folder}: {error.strerror}") from error
        return PartDigest(name=self._name, count=count, tables=tables, metadata=dict(metadata))

    def _writer(self, table: str) -> TableWriter:
        if table not in self._writers:
            digest = None if self._before is None else self._before.tables.get(table)
            self._writers[table] = TableWriter(self._folder, f"{self._name}.{table}", digest)
        return self._writers[table]


def begin_revision(folder: Path) -> str:
    """Make an empty revision to write a whole map to, and the map folder if need be.

    Revisions that an interrupted save left behind are removed.

    Raises:
        MapError: the folder can't be made, or holds something that is no map.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries = {entry.name for entry in folder.iterdir()}
        strange = sorted(name for name in entries if not _belongs(name))
        if strange:
            raise MapError(f"{folder} is not a map: it holds '{strange[0]}'; choose another folder")
        current = read_manifest(folder).revision if MANIFEST in entries else ""
        _remove_revisions(folder, keep=current)
        revision = f"{int(current or 0) + 1:06d}"
        (folder / revision).mkdir()
    except OSError as error:
        raise MapError(f"cannot write a map to {folder}: {error.strerror}") from error
    return revision


def commit(
    folder: Path,
    revision: str,
    digests: Iterable[PartDigest],
    model: str,
    after: Manifest | None = None,
) -> Manifest:
    """Make what was written the map, in one step.

    Args:
        digests: all parts of the map.
        after: the manifest whose map was added to; None for a new revision, which makes the
            others go.

    Raises:
        MapError: a part is not there as its digest says, somebody else saved in the meantime, or
            a disk that refuses.
    """
    parts = tuple(sorted(digests, key=lambda digest: digest.name))
    if len({digest.name for digest in parts}) != len(parts):
        raise MapError("a part of the map was written twice")
    manifest = Manifest(
        format="vpr-map",
        schema_version=SCHEMA,
        identity=uuid.uuid4().hex if after is None else after.identity,
        saves=1 if after is None else after.saves + 1,
        revision=revision,
        model=model,
        parts=parts,
    )
    for digest in parts:
        Part(folder, manifest, digest.name)
    try:
        with _exclusive(folder):
            if after is not None and not read_manifest(folder).is_state_of(after):
                raise MapError(f"{folder} was saved to by another process: nothing was added")
            _write_manifest(folder, manifest)
            if after is None:
                _remove_revisions(folder, keep=revision)
    except OSError as error:
        raise MapError(f"cannot commit the map in {folder}: {error.strerror}") from error
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """What a map folder holds; the parts themselves are not looked at.

    Raises:
        MapError: no map there, not one of ours, damaged, or written by another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MapError(f"{folder} is not a map: it has no {MANIFEST}")
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise MapError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MapError(f"{path} is damaged: {error}") from error
    if not isinstance(document, dict) or document.get("format") != "vpr-map":
        raise MapError(f"{path} is not the manifest of a vpr map, or is damaged")
    _check_version(path, document.get("schema_version"))
    checksum = document.pop("checksum", None)
    if checksum != _checksum(document):
        raise MapError(f"{path} is damaged: its checksum does not fit its content")
    try:
        return Manifest.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise MapError(f"{path}: {place}: {problem['msg']}") from error


def open_part(folder: Path, name: str, model: str | None = None) -> Part:
    """One part of the map.

    Its files are looked at, their rows are checked when they are read: opening costs the same
    for any size.

    Args:
        model: refuse a map whose descriptors are of another model; None takes any.

    Raises:
        MapError: as ``read_manifest``; a part that is missing, cut short or of another table; or
            a map of another model.
    """
    manifest = read_manifest(folder)
    if model is not None and manifest.model != model:
        raise MapError(
            f"{folder} was made with model '{manifest.model}', not with '{model}': "
            "their descriptors can't be compared"
        )
    return Part(folder, manifest, name)


def _check_version(path: Path, version: Any) -> None:
    if isinstance(version, int) and version > SCHEMA:
        raise MapError(
            f"{path} has schema version {version}; this program reads version {SCHEMA}: "
            "the map was made by a newer version, or the file is damaged"
        )
    if isinstance(version, int) and 0 < version < SCHEMA:
        raise MapError(
            f"{path} has schema version {version}; this program reads version {SCHEMA}: "
            "the map was made by an older version; drive it again, or use that version"
        )


def _committed(folder: Path, revision: str, name: str) -> PartDigest | None:
    """What counts of a part of this very revision."""
    if not (folder / MANIFEST).exists():
        return None
    manifest = read_manifest(folder)
    if manifest.revision != revision:
        return None
    return next((digest for digest in manifest.parts if digest.name == name), None)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    document = manifest.model_dump(mode="json")
    document["checksum"] = _checksum(document)
    _flush_folder(folder / manifest.revision)
    unfinished = folder / f"{MANIFEST}.unfinished"
    with unfinished.open("wb") as file:
        file.write(json.dumps(document, indent=1).encode() + b"\n")
        flush(file)
    unfinished.replace(folder / MANIFEST)
    _flush_folder(folder)


def _belongs(name: str) -> bool:
    return name in (MANIFEST, f"{MANIFEST}.unfinished", LOCK) or bool(_REVISION.fullmatch(name))


def _remove_revisions(folder: Path, keep: str) -> None:
    for entry in folder.iterdir():
        if _REVISION.fullmatch(entry.name) and entry.name != keep:
            shutil.rmtree(entry)


def _checksum(document: Mapping[str, Any]) -> str:
    content = json.dumps(document, sort_keys=True).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    handle = _locked(folder / LOCK)
    try:
        yield
    finally:
        os.close(handle)


def _locked(path: Path) -> int:
    """A handle that holds the lock until it is closed, or its process ends.

    Raises:
        MapError: somebody else holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise MapError(f"{path.parent} is being saved to by another process") from error
    return handle


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
