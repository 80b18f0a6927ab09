"""The map on disk: one folder, one manifest, and parts that each stage writes for itself.

::

    map/
      manifest.json               schema, model, and size and SHA-256 of each part
      000002/places.safetensors   a revision; only the one in the manifest counts
      000002/features.safetensors
      000002/graph.safetensors

Every save goes to a fresh revision; ``commit`` replaces the manifest in one step and removes what
the old one held. A save that dies anywhere before that leaves the old map as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

SCHEMA = 1
MANIFEST = "manifest.json"
_METADATA_KEY = "vpr"  # safetensors holds words only; ours are one JSON document under this key
_NAME = re.compile(r"[a-z][a-z_]*")
_REVISION = re.compile(r"\d{6}")

Arrays = dict[str, NDArray[Any]]


class MapError(ValueError):
    """A map that can't be written or read; the message names the place and the cause."""


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PartDigest(_Checked):
    """One written part; small enough to travel between processes as JSON."""

    name: str
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    count: Annotated[int, Field(ge=0)]  # of what the part keeps: places, keyframes, ...


class Manifest(_Checked):
    """What a map consists of."""

    format: Literal["vpr-map"]
    schema_version: int
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


def begin_revision(folder: Path) -> str:
    """Make an empty revision to write parts to, and the map folder if need be.

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


def write_part(
    folder: Path,
    revision: str,
    name: str,
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    count: int,
) -> PartDigest:
    """Write one part into a revision, atomically.

    Args:
        arrays: any shapes and dtypes that safetensors knows.
        metadata: JSON-able.
        count: how many things the part keeps, for people and for ``LoadMap``.

    Raises:
        MapError: a wrong name or revision, or a disk that refuses.
    """
    if not _NAME.fullmatch(name):
        raise MapError(f"'{name}' is not a name for a part of a map")
    if not _REVISION.fullmatch(revision) or not (folder / revision).is_dir():
        raise MapError(f"{folder} has no revision '{revision}'")
    path = _part_path(folder, revision, name)
    unfinished = path.with_name(path.name + ".unfinished")
    contiguous = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    try:
        save_file(contiguous, unfinished, metadata={_METADATA_KEY: json.dumps(dict(metadata))})
        _flush(unfinished)
        digest = PartDigest(
            name=name,
            bytes=unfinished.stat().st_size,
            sha256=_sha256_of_file(unfinished),
            count=count,
        )
        unfinished.replace(path)
    except OSError as error:
        raise MapError(f"cannot write {path}: {error.strerror}") from error
    except SafetensorError as error:
        raise MapError(f"cannot write {path}: {error}") from error
    return digest


def commit(folder: Path, revision: str, digests: Iterable[PartDigest], model: str) -> Manifest:
    """Make a written revision the map, in one step, and remove older ones.

    Raises:
        MapError: a part is not there as its digest says, or a disk that refuses.
    """
    parts = tuple(sorted(digests, key=lambda digest: digest.name))
    if len({digest.name for digest in parts}) != len(parts):
        raise MapError("a part of the map was written twice")
    for digest in parts:
        path = _part_path(folder, revision, digest.name)
        if not path.is_file() or path.stat().st_size != digest.bytes:
            raise MapError(f"{path} is not there as it was written; the map was not changed")
    manifest = Manifest(
        format="vpr-map", schema_version=SCHEMA, revision=revision, model=model, parts=parts
    )
    document = manifest.model_dump(mode="json")
    document["checksum"] = _checksum(document)
    unfinished = folder / f"{MANIFEST}.unfinished"
    try:
        unfinished.write_text(json.dumps(document, indent=2) + "\n")
        _flush(unfinished)
        unfinished.replace(folder / MANIFEST)
        _flush(folder)
        _remove_revisions(folder, keep=revision)
    except OSError as error:
        raise MapError(f"cannot commit the map in {folder}: {error.strerror}") from error
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """What a map folder holds; the parts themselves are not looked at.

    Raises:
        MapError: no map there, not one of ours, damaged, or written by a newer version.
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
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA:
        raise MapError(
            f"{path} has schema version {version}; this program reads up to {SCHEMA}: "
            "the map was made by a newer version, or the file is damaged"
        )
    checksum = document.pop("checksum", None)
    if checksum != _checksum(document):
        raise MapError(f"{path} is damaged: its checksum does not fit its content")
    try:
        return Manifest.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise MapError(f"{path}: {place}: {problem['msg']}") from error


def read_part(folder: Path, name: str, model: str | None = None) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and metadata of one part of the map, checked against the manifest.

    Args:
        model: refuse a map whose descriptors are of another model; None takes any.

    Raises:
        MapError: as ``read_manifest``; a part that is missing, cut short or altered; or a map of
            another model.
    """
    manifest = read_manifest(folder)
    if model is not None and manifest.model != model:
        raise MapError(
            f"{folder} was made with model '{manifest.model}', not with '{model}': "
            "their descriptors can't be compared"
        )
    digest = manifest.part(name)
    path = _part_path(folder, manifest.revision, name)
    try:
        size = path.stat().st_size
        if size != digest.bytes:
            raise MapError(f"{path} has {size} bytes, the manifest says {digest.bytes}: cut short?")
        if _sha256_of_file(path) != digest.sha256:
            raise MapError(f"{path} is damaged: its SHA-256 is not that of the manifest")
        with safe_open(path, framework="np") as part:
            arrays = {key: part.get_tensor(key) for key in part.keys()}  # noqa: SIM118
            metadata = json.loads((part.metadata() or {})[_METADATA_KEY])
    except OSError as error:
        raise MapError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, MapError):
            raise
        raise MapError(f"{path} is not a part of a vpr map: {error}") from error
    return arrays, metadata


def _part_path(folder: Path, revision: str, name: str) -> Path:
    return folder / revision / f"{name}.safetensors"


def _belongs(name: str) -> bool:
    return name in (MANIFEST, f"{MANIFEST}.unfinished") or bool(_REVISION.fullmatch(name))


def _remove_revisions(folder: Path, keep: str) -> None:
    for entry in folder.iterdir():
        if _REVISION.fullmatch(entry.name) and entry.name != keep:
            shutil.rmtree(entry)


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """To the disk, so that a power cut can't leave a manifest without its parts."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
