"""What one live matching step costs, beside other ways of doing the same, in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.evaluation.map_scale import MODEL, add_places
from vpr.maps.folder import open_part
from vpr.places.convolution import sequence_distances
from vpr.places.recognizer import PlaceRecognizer

DIMENSION = 256
WARM_UP, TIMED = 4, 25  # steps
LOOP_LIMIT = 10_000  # places up to which the slow peers are run
HNSW_LIMIT = 20_000  # places up to which the graph, slow to build, is run
WALK_SMOOTHNESS = 0.9  # correlation of neighbouring places
QUERY_NOISE = 1.0  # length of what a second visit adds to a descriptor of length 1
TOLERANCE = 2  # places
RECALL_QUERIES = 200


@dataclass(frozen=True)
class MatchingCost:
    """Median milliseconds a step; None where a peer was left out as too slow."""

    places: int
    length: int
    exact: float
    approximate: float
    flat: float
    hnsw: float | None
    convolution: float | None
    numpy_loop: float | None
    recall_exact: float
    recall_approximate: float
    bytes_per_place: float

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return dict(vars(self))


def made_up_walk(count: int, seed: int = 0) -> NDArray[np.float32]:
    """(count, DIMENSION) descriptors that change steadily along a path."""
    generator = np.random.default_rng(seed)
    walk = generator.standard_normal((count, DIMENSION), dtype=np.float32)
    fresh = np.float32(np.sqrt(1.0 - WALK_SMOOTHNESS**2))
    for index in range(1, count):
        walk[index] = WALK_SMOOTHNESS * walk[index - 1] + fresh * walk[index]
    walk /= np.linalg.norm(walk, axis=1, keepdims=True)
    return walk


def seen_again(places: NDArray[np.float32], seed: int = 1) -> NDArray[np.float32]:
    """The same places on a second visit."""
    noise = np.random.default_rng(seed).standard_normal(places.shape, dtype=np.float32)
    seen = places + QUERY_NOISE / np.sqrt(DIMENSION) * noise
    return np.asarray(seen / np.linalg.norm(seen, axis=1, keepdims=True), np.float32)


def matching_costs(places: int, lengths: Sequence[int]) -> list[MatchingCost]:
    """One row for each sequence length at a map of this size, single core."""
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    walk = made_up_walk(places)
    first = places // 2
    queries = seen_again(walk[first : first + RECALL_QUERIES])
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(walk)
    flat_ms = _median_ms(lambda query: flat.search(query[None], 10), queries)
    hnsw_ms = _hnsw_ms(walk, queries) if places <= HNSW_LIMIT else None
    rows = []
    for length in lengths:
        exact_ms, exact_recall = _live(walk, queries, first, length, 0)
        quick_ms, quick_recall = _live(walk, queries, first, length, 1)
        slow = places <= LOOP_LIMIT
        rows.append(
            MatchingCost(
                places,
                length,
                exact_ms,
                quick_ms,
                flat_ms,
                hnsw_ms,
                _convolution_ms(walk, queries, length) if slow else None,
                _loop_ms(walk, queries, length) if slow else None,
                exact_recall,
                quick_recall,
                4.0 * DIMENSION + 2.0 * length + 4.0,
            )
        )
    return rows


def _live(
    walk: NDArray[np.float32], queries: NDArray[np.float32], first: int, length: int, above: int
) -> tuple[float, float]:
    """Median step of the recognizer (search, sequence, ranking) and its recall@1."""
    config = SequenceMatchingConfig.from_file(
        sequence_length=length,
        min_speed_ratio=1.0,
        max_speed_ratio=1.0,
        speed_steps=1,
        shortlist_above=above,
        exclude_recent_keyframes=RECALL_QUERIES,
        min_probability=0.0,
    )
    recognizer = PlaceRecognizer(config)
    with tempfile.TemporaryDirectory() as scratch:
        add_places(Path(scratch), walk)
        recognizer.load(open_part(Path(scratch), "places"))
    spent, right = [], []
    for index, query in enumerate(queries):
        started = time.perf_counter()
        matches = recognizer.observe((len(walk) + index) * 10**9, query, MODEL).matches
        spent.append(time.perf_counter() - started)
        if matches is None or not matches.candidates:
            raise RuntimeError("a timed step was no keyframe")
        right.append(abs(matches.candidates[0].reference_id - first - index) <= TOLERANCE)
    return 1e3 * float(np.median(spent[length:])), float(np.mean(right[length:]))


def _hnsw_ms(walk: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
    index = faiss.IndexHNSWFlat(DIMENSION, 32, faiss.METRIC_INNER_PRODUCT)
    index.add(walk)
    return _median_ms(lambda query: index.search(query[None], 10), queries)


def _convolution_ms(walk: NDArray[np.float32], queries: NDArray[np.float32], length: int) -> float:
    """Distances of the whole window and their convolution, anew for each frame."""
    references = torch.from_numpy(walk)
    window = torch.from_numpy(queries[:length])

    def step(_: NDArray[np.float32]) -> None:
        sequence_distances(1.0 - window @ references.T, length).argmin()

    return _median_ms(step, queries)


def _loop_ms(walk: NDArray[np.float32], queries: NDArray[np.float32], length: int) -> float:
    """A loop over the places, as codes that compare one by one do it."""

    def step(_: NDArray[np.float32]) -> None:
        window = queries[:length]
        min(
            float(np.sum(1.0 - np.einsum("ij,ij->i", window, walk[i : i + length])))
            for i in range(len(walk) - length + 1)
        )

    return _median_ms(step, queries[:4], 1)


def _median_ms(
    work: Callable[[NDArray[np.float32]], object],
    queries: NDArray[np.float32],
    warm_up: int = WARM_UP,
) -> float:
    spent = []
    for query in queries[: warm_up + TIMED]:
        started = time.perf_counter()
        work(query)
        spent.append(time.perf_counter() - started)
    return 1e3 * float(np.median(spent[warm_up:]))
