"""Benchmark rows of place recognition in this process: folders of images, and what a step costs."""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from vpr.config import SequenceMatchingConfig
from vpr.evaluation.map_scale import MODEL, add_places
from vpr.evaluation.places import (
    embed_files,
    image_files,
    match_descriptors,
    place_figures,
    read_ground_truth,
)
from vpr.maps.folder import open_part
from vpr.places.recognizer import PlaceRecognizer
from vpr_bringup.bench_lines import Line, console
from vpr_bringup.demo import REPOSITORY

MAP_SIZES = (1_000, 10_000, 100_000)
SEARCH_DIMENSION = 1104  # of the shipped descriptor
SEARCH_REPEATS = 30


def image_folders(data: Path | None, details: dict[str, Any]) -> list[Line]:
    """Recall on pairs of image folders, beside the plainest descriptor of the same network."""
    if data is None:
        return []
    plain = REPOSITORY / "config" / "plain_baseline.yaml"
    lines, found = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, reference, query, truth, lengths in _pairs(data, Path(scratch)):
            console.print(f"{name}")
            files = (image_files(reference), image_files(query))
            right = read_ground_truth(truth, len(files[1]), len(files[0]))
            shipped = [embed_files(images) for images in files]
            plainest = [embed_files(images, plain) for images in files]
            for length, wanted in lengths.items():
                config = SequenceMatchingConfig.from_file(sequence_length=length)
                ours = place_figures(match_descriptors(*shipped, config), right)
                peer = place_figures(match_descriptors(*plainest, config), right)
                found[f"{name} {length}"] = {"ours": ours.to_json(), "plain": peer.to_json()}
                frames = "single image" if length == 1 else f"{length} frames"
                lines.append(
                    Line(
                        f"{name}, {frames}: recall@1 (recall at 100 % precision)",
                        f"{ours.recall_at_1:.3f} ({ours.recall_at_100_precision:.3f})",
                        f"{peer.recall_at_1:.3f} ({peer.recall_at_100_precision:.3f}) plain GeM",
                        wanted,
                    )
                )
    details["image_folders"] = found
    return lines


def _pairs(data: Path, scratch: Path) -> list[tuple[str, Path, Path, Path, dict[int, str]]]:
    """Name, reference, query, ground truth, and what is wanted by sequence length."""
    gardens = data / "gardens_point"
    return [
        (
            "corridor",
            data / "corridor" / "ref",
            data / "corridor" / "query",
            data / "corridor" / "ground_truth.csv",
            {1: "≥ 0.90", 7: "≥ 0.98 (≥ 0.9)"},
        ),
        (
            "Gardens Point left → right (±2)",
            gardens / "day_left",
            gardens / "day_right",
            _same_index(scratch / "gardens.csv", 200, 2),
            {1: "≥ 0.92", 7: "1.00"},
        ),
        (
            "SPED thumbnails",
            data / "sped_thumbnails" / "reference",
            data / "sped_thumbnails" / "query",
            _same_index(scratch / "sped.csv", len(image_files(data / "sped_thumbnails/query")), 0),
            {1: "printed"},
        ),
        (
            "Nordland winter → summer (±1)",
            data / "nordland" / "summer",
            data / "nordland" / "winter",
            _same_index(scratch / "nordland.csv", 1788, 1),
            {1: "printed", 7: "printed"},
        ),
    ]


def _same_index(path: Path, count: int, tolerance: int) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "references"])
        for i in range(count):
            right = range(max(0, i - tolerance), min(count, i + tolerance + 1))
            writer.writerow([i, " ".join(map(str, right))])
    return path


def search_cost(details: dict[str, Any]) -> list[Line]:
    """One live step (search, sequence, ranking) against the bare search of FAISS, by map size."""
    faiss.omp_set_num_threads(1)
    lines, found = [], {}
    rng = np.random.default_rng(0)
    for size in MAP_SIZES:
        places = rng.standard_normal((size, SEARCH_DIMENSION), dtype=np.float32)
        places /= np.linalg.norm(places, axis=1, keepdims=True)
        queries = places[rng.integers(0, size, SEARCH_REPEATS)]
        ours = _step_times(places, queries)
        index = faiss.IndexFlatIP(SEARCH_DIMENSION)
        index.add(places)
        peer = _times(lambda query, flat=index: flat.search(query[None], 10), queries)
        found[size] = {"ours_ms": ours, "faiss_flat_ms": peer}
        lines.append(
            Line(
                f"matching step at {size:,} places, p50 / p95",
                f"{ours['p50']:.2f} / {ours['p95']:.2f} ms",
                f"FAISS Flat {peer['p50']:.2f} / {peer['p95']:.2f} ms "
                f"(ratio {ours['p50'] / peer['p50']:.2f})",
                "grows with N",
            )
        )
    details["search"] = found
    return lines


def _step_times(places: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """Steps of a recognizer that has the places from a map, in half precision."""
    recognizer = PlaceRecognizer(SequenceMatchingConfig.from_file())
    with tempfile.TemporaryDirectory() as scratch:
        add_places(Path(scratch) / "map", places)
        recognizer.load(open_part(Path(scratch) / "map", "places"))
        recognizer.settle()
        stamps = iter(range(1, len(queries) + 1))

        def step(query: np.ndarray) -> None:
            recognizer.observe(next(stamps) * 10**9, query, MODEL)

        return _times(step, queries)


def _times(work: Any, queries: np.ndarray) -> dict[str, float]:
    for query in queries[:3]:
        work(query)
    spent = []
    for query in queries[3:]:
        started = time.perf_counter()
        work(query)
        spent.append(1e3 * (time.perf_counter() - started))
    p50, p95 = np.percentile(spent, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}
