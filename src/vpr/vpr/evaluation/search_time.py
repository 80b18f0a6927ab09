"""What a search costs and finds, for each kind of index: the measurement behind ``auto``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vpr.places.index import DescriptorIndex, ExactIndex, IndexKind, Neighbours, make_index

KINDS: tuple[IndexKind, ...] = ("exact", "kd_tree", "graph")
PLACES = (1_000, 10_000, 50_000)
QUERIES = 50
NEIGHBOURS = 10
INSERTIONS = 20  # parts in which places are added: an index grows
ROUNDING = 1e-5  # of the radius
SPREAD = 24  # dimensions in which made-up descriptors vary, about as real ones do


def search_rows(
    places: Sequence[int] = PLACES, dimension: int = 512, seed: int = 0
) -> list[dict[str, float | str]]:
    """One row a kind and size: ms to add a place, ms of searches, and what they find.

    Descriptors are made up, unit length, varying in ``SPREAD`` directions. Searched are the ten
    nearest (k-NN) and all that are as near as the tenth (epsilon-NN); ``found`` and
    ``found_within`` are the shares of what the exact search returns.
    """
    rng = np.random.default_rng(seed)
    axes = rng.standard_normal((SPREAD, dimension)).astype(np.float32)
    rows: list[dict[str, float | str]] = []
    for count in places:
        remembered = _made_up(rng, axes, count)
        queries = _made_up(rng, axes, QUERIES)
        exact = ExactIndex(dimension)
        exact.add(remembered)
        truth = [exact.nearest(query, NEIGHBOURS) for query in queries]
        for kind in KINDS:
            index = make_index(kind, dimension)
            started = time.perf_counter()
            for part in np.array_split(remembered, INSERTIONS):
                index.add(part)
            adding = (time.perf_counter() - started) / count
            row: dict[str, float | str] = {"index": kind, "places": count, "add_ms": adding * 1e3}
            rows.append(row | _searched(index, queries, truth))
    return rows


def _searched(
    index: DescriptorIndex, queries: NDArray[np.float32], truth: list[Neighbours]
) -> dict[str, float | str]:
    found: dict[str, list[float]] = {"nearest": [], "within": []}
    seconds: dict[str, list[float]] = {"nearest": [], "within": []}
    for query, expected in zip(queries, truth, strict=True):
        radius = float(expected.distances[-1]) * (1.0 + ROUNDING)
        searches: dict[str, Callable[[], Neighbours]] = {
            "nearest": partial(index.nearest, query, NEIGHBOURS),
            "within": partial(index.within, query, radius),
        }
        wanted = set(expected.rows.tolist())
        for name, search in searches.items():
            started = time.perf_counter()
            neighbours = search()
            seconds[name].append(time.perf_counter() - started)
            found[name].append(len(wanted & set(neighbours.rows.tolist())) / len(wanted))
    p50, p95 = np.percentile(seconds["nearest"], (50, 95)) * 1e3
    return {
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "within_p50_ms": float(np.median(seconds["within"]) * 1e3),
        "found": float(np.mean(found["nearest"])),
        "found_within": float(np.mean(found["within"])),
    }


def _made_up(
    rng: np.random.Generator, axes: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    rows = rng.standard_normal((count, SPREAD)).astype(np.float32) @ axes
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
