"""What a search costs and finds, for each kind of index: the measurement behind ``auto``."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vpr.places.index import DescriptorIndex, ExactIndex, IndexKind, make_index

KINDS: tuple[IndexKind, ...] = ("exact", "kd_tree", "graph")
PLACES = (1_000, 10_000, 50_000)
QUERIES = 50
NEIGHBOURS = 10
SPREAD = 24  # dimensions in which made-up descriptors vary, about as real ones do


def search_rows(
    places: Sequence[int] = PLACES, dimension: int = 512, seed: int = 0
) -> list[dict[str, float | str]]:
    """One row a kind and size: ms to add a place, p50 and p95 of a search, share found.

    Descriptors are made up, unit length, varying in ``SPREAD`` directions; ``found`` is the share
    of the exact ten nearest that the kind returns.
    """
    rng = np.random.default_rng(seed)
    axes = rng.standard_normal((SPREAD, dimension)).astype(np.float32)
    rows: list[dict[str, float | str]] = []
    for count in places:
        remembered = _made_up(rng, axes, count)
        queries = _made_up(rng, axes, QUERIES)
        exact = ExactIndex(dimension)
        exact.add(remembered)
        truth = [set(exact.nearest(query, NEIGHBOURS).rows.tolist()) for query in queries]
        for kind in KINDS:
            index = make_index(kind, dimension)
            started = time.perf_counter()
            index.add(remembered)
            adding = (time.perf_counter() - started) / count
            row: dict[str, float | str] = {"index": kind, "places": count, "add_ms": adding * 1e3}
            rows.append(row | _searched(index, queries, truth))
    return rows


def _searched(
    index: DescriptorIndex, queries: NDArray[np.float32], truth: list[set[int]]
) -> dict[str, float | str]:
    seconds, found = [], []
    for query, expected in zip(queries, truth, strict=True):
        started = time.perf_counter()
        neighbours = index.nearest(query, NEIGHBOURS)
        seconds.append(time.perf_counter() - started)
        found.append(len(expected & set(neighbours.rows.tolist())) / len(expected))
    p50, p95 = np.percentile(seconds, (50, 95)) * 1e3
    return {"p50_ms": float(p50), "p95_ms": float(p95), "found": float(np.mean(found))}


def _made_up(
    rng: np.random.Generator, axes: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    rows = rng.standard_normal((count, SPREAD)).astype(np.float32) @ axes
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
