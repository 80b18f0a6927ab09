"""What S3E-GNN costs: keyframes a second, and a query against reference graphs of any size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vpr.records import Image
from vpr.relocalization.model import S3eModel
from vpr.relocalization.reference_graph import ReferenceGraph

NODES = (100, 1_000, 10_000, 100_000)
REPEATS = 5
QUERY_LENGTH = 5

Row = dict[str, object]


def keyframe_rate(model: S3eModel, images: Sequence[Image], threads: int = 2) -> Row:
    """Keyframes a second from image to answer: patches, embedding, graph update and query."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        graph = ReferenceGraph(model.graph)
        window: list[NDArray[np.float32]] = []
        model.embed(images[:1])
        started = time.perf_counter()
        for row, image in enumerate(images):
            embedding = model.embed([image])[0]
            window = [*window, embedding][-QUERY_LENGTH:]
            graph.add(row, embedding, beside=row - 1 if row else None)
            graph.query(np.stack(window), k=5)
        seconds = time.perf_counter() - started
    finally:
        torch.set_num_threads(before)
    return {
        "encoder": model.kind,
        "patch_size": model.patches.patch_size,
        "threads": threads,
        "keyframes_per_second": len(images) / seconds,
    }


def query_costs(model: S3eModel, nodes: Sequence[int] = NODES) -> list[Row]:
    """Milliseconds of a query of one keyframe in one long drive, one row a size of the graph.

    Args:
        nodes: ascending.
    """
    rng = np.random.default_rng(0)
    graph = ReferenceGraph(model.graph)
    query = rng.standard_normal((1, model.dimension), np.float32)
    rows: list[Row] = []
    for count in nodes:
        new = range(len(graph), count)
        embeddings = rng.standard_normal((len(new), model.dimension), np.float32)
        graph.extend(new, embeddings, [i - 1 if i else None for i in new])
        rows.append({"nodes": count, "query_ms": 1e3 * _fastest(lambda: graph.query(query, k=5))})
    return rows


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
