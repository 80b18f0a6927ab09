"""What a large map costs: opening it, the memory it takes while serving, and adding to it."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.maps.folder import (
    MANIFEST,
    PartWriter,
    begin_revision,
    commit,
    open_part,
    read_manifest,
)
from vpr.places.memory import PlaceMemory
from vpr.places.recognizer import PlaceRecognizer
from vpr.records import Keyframe

MODEL = "made-up@0"
INCREMENT = 100  # keyframes added by a save
SAVED_AT_ONCE = 100_000
QUERIES = 15
SECOND = 1_000_000_000
SEARCH_COSTS = ("resident_mb", "resident_ratio", "step_ms")


def map_costs(
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000), dimension: int = 256
) -> list[dict[str, Any]]:
    """One row a size, each measured in a process of its own on a map of random unit descriptors.

    Returns:
        Rows of ``keyframes``, ``half_precision_mb`` of all descriptors, ``open_s``,
        ``resident_mb`` after ``QUERIES`` queries compared with every place, ``resident_ratio`` of
        the two, ``step_ms`` of a query (median), the last three with ``shipped_`` before them for
        search as configured, ``increment_ms`` and ``increment_bytes`` of a save of ``INCREMENT``
        keyframes (median of five).
    """
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "map"
            made_up_map(folder, size, dimension)
            half = 2.0 * size * dimension / 1e6
            row = {"keyframes": size, "half_precision_mb": half} | _served(folder, half, exact=True)
            shipped = _served(folder, half, exact=False)
            row |= {f"shipped_{name}": shipped[name] for name in SEARCH_COSTS}
            rows.append(row | _increments(folder))
    return rows


def made_up_map(folder: Path, keyframes: int, dimension: int, seed: int = 0) -> None:
    """Save a map of random places."""
    generator = np.random.default_rng(seed)
    for first in range(0, keyframes, SAVED_AT_ONCE):
        count = min(SAVED_AT_ONCE, keyframes - first)
        add_places(folder, _descriptors(count, dimension, generator))


def add_places(folder: Path, descriptors: NDArray[np.float32]) -> None:
    """Save places (N, D) of one session, a metre and a second apart, behind those of a map."""
    places = PlaceMemory(MODEL, descriptors.shape[1])
    if (folder / MANIFEST).exists():
        places = PlaceMemory.of_map(open_part(folder, "places"))
    _drive(places, descriptors)
    _save(folder, places)


def _drive(places: PlaceMemory, descriptors: NDArray[np.float32]) -> None:
    for keyframe, descriptor in enumerate(descriptors, len(places)):
        odometry = np.eye(4)
        odometry[0, 3] = keyframe
        stamp = (keyframe + 1) * SECOND
        places.append(Keyframe(keyframe, 0, stamp, descriptor, MODEL, odometry=odometry))


def _descriptors(count: int, dimension: int, generator: np.random.Generator) -> NDArray[np.float32]:
    values = generator.standard_normal((count, dimension), np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def _save(folder: Path, places: PlaceMemory) -> None:
    before = read_manifest(folder) if (folder / MANIFEST).exists() else None
    revision = begin_revision(folder) if before is None else before.revision
    with PartWriter(folder, revision, "places") as writer:
        digest = writer.finish(len(places), places.save(writer))
    commit(folder, revision, [digest], MODEL, before)


def _served(folder: Path, half_precision_mb: float, exact: bool) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        costs = process.submit(_serve, folder, exact).result()
    return costs | {"resident_ratio": costs["resident_mb"] / half_precision_mb}


def _serve(folder: Path, exact: bool) -> dict[str, float]:
    started = time.perf_counter()
    config = SequenceMatchingConfig.from_file()
    if exact:
        config = config.model_copy(update={"shortlist_above": 0})
    recognizer = PlaceRecognizer(config)
    part = open_part(folder, "places")
    recognizer.load(part)
    opened = time.perf_counter() - started
    recognizer.settle()
    dimension = part.table("keyframes").column("descriptors", "<f2", (None,)).shape[1]
    spent = []
    queries = _descriptors(QUERIES, dimension, np.random.default_rng(1))
    for number, query in enumerate(queries):
        started = time.perf_counter()
        recognizer.observe((number + 1) * SECOND, query, MODEL)
        spent.append(time.perf_counter() - started)
    return {
        "open_s": opened,
        "resident_mb": resident_bytes() / 1e6,
        "step_ms": 1e3 * float(np.median(spent)),
    }


def _increments(folder: Path) -> dict[str, float]:
    places = PlaceMemory.of_map(open_part(folder, "places"))
    generator = np.random.default_rng(2)
    spent, written = [], []
    for _ in range(5):
        _drive(places, _descriptors(INCREMENT, places.dimension, generator))
        before = _bytes_of(folder)
        started = time.perf_counter()
        _save(folder, places)
        spent.append(time.perf_counter() - started)
        written.append(_bytes_of(folder) - before)
    return {
        "increment_ms": 1e3 * float(np.median(spent)),
        "increment_bytes": float(np.median(written)),
    }


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def resident_bytes() -> int:
    """Of this process now, the pages of mapped files included (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no VmRSS")
