"""What one live matching step costs, beside other ways of doing the same, in one run.

A step is all that the recognizer does for a frame: search, sequence, ranking, remembering. Places
are a made-up walk whose neighbours resemble each other, saved as a map and loaded from it; the
queries are a second visit to a part of it. Another walk leads through stretches of a few looks, as
streets do: descriptors in clusters, which are harder to search approximately. Everything runs on
one core. FAISS Flat is asked in turn with the exact step, query by query: on a robot, too, other
work is done between two frames, and neither finds its descriptors left in the processor's cache.

Each figure is measured in a process of its own and can be kept as it comes, with the walks and maps
that it was measured on: a table of a million places takes longer than one run has.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.evaluation.kept_rows import KeptRows
from vpr.evaluation.map_scale import MODEL, add_places, resident_bytes
from vpr.maps.folder import open_part
from vpr.places.convolution import sequence_distances
from vpr.places.descriptors import DescriptorRows
from vpr.places.recognizer import PlaceRecognizer

DIMENSION = 256
SIZES = (10_000, 100_000, 1_000_000)
LENGTHS = (5, 10, 20, 50)
CLUSTERED_LIMIT = 100_000  # places up to which the walk in clusters is always searched as well
LOOP_LIMIT = 10_000  # the same for the loop over places
CONVOLUTION_LIMIT = 100_000  # and for the convolution of the whole window
HNSW_LIMIT = 100_000  # and for the graph, which takes long to build
HNSW_LINKS, HNSW_EFFORT = 32, 64
WALK_SMOOTHNESS = 0.9  # correlation of neighbouring places
LOOKS = 50  # of the stretches in the walk in clusters
STRETCH = 100  # places of one look
LOOK_SHARE = 0.7  # of a descriptor's square that its look makes up
QUERY_NOISE = 4.0  # length of what a second visit adds to a descriptor of length 1
TOLERANCE = 2  # places
WALK, CLUSTERED = "walk", "walk in clusters"
QUERIES = 150
SLOW_STEPS = 3  # of peers that take seconds
SECOND = 1_000_000_000

Descriptors = NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True)
class StepCost:
    """One way of search at one sequence length."""

    milliseconds: float  # median
    flat: float | None  # the same of FAISS Flat's search between the steps
    recall: float  # share of queries found within TOLERANCE places, once the window is full
    bytes_per_place: float  # resident memory that loading and searching the map took


@dataclass(frozen=True)
class MatchingCost:
    """One size of map and one length; milliseconds are medians, None where a peer was left out."""

    places: int
    length: int
    exact: StepCost
    approximate: StepCost
    clustered: tuple[StepCost, StepCost] | None  # exact and approximate, of the walk in clusters
    hnsw: float | None
    hnsw_recall: float | None  # share of true nearest neighbours found
    convolution: float | None
    numpy_loop: float | None
    same_nearest_in_half_precision: float  # share of queries whose nearest place is the same

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)

    def to_row(self) -> dict[str, Any]:
        """The same in columns, without what was left out; ``kept`` is of exact search's recall."""
        exact, approximate = self.exact, self.approximate
        row: dict[str, Any] = {
            "places": self.places,
            "frames": self.length,
            "exact": exact.milliseconds,
            "flat": exact.flat,
            "ratio": exact.milliseconds / exact.flat if exact.flat else None,
            "approximate": approximate.milliseconds,
            "kept": _kept(exact, approximate),
        }
        if self.clustered is not None:
            row["clustered"] = self.clustered[1].milliseconds
            row["kept there"] = _kept(*self.clustered)
        row |= {
            "hnsw": self.hnsw,
            "hnsw finds": self.hnsw_recall,
            "convolution": self.convolution,
            "loop": self.numpy_loop,
            "bytes": round(exact.bytes_per_place),
            "bytes, approximate": round(approximate.bytes_per_place),
        }
        return {name: value for name, value in row.items() if value is not None}


def matching_costs(
    sizes: Sequence[int] = SIZES,
    lengths: Sequence[int] = LENGTHS,
    out: Path | None = None,
    every_peer: bool = False,
) -> list[MatchingCost]:
    """One row for each size and length.

    Args:
        out: folder for walks, maps and figures; a run that was cut short goes on there.
        every_peer: also those that take minutes, or an hour to build, at a large size.

    Raises:
        KeptRowsError: ``out`` holds figures of another configuration, or none.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as scratch:
            return matching_costs(sizes, lengths, Path(scratch), every_peer)
    config = SequenceMatchingConfig.from_file().model_dump(mode="json")
    kept = KeptRows(out / "costs.json", {"queries": QUERIES, "sequence_matching": config})
    sized = [SizedCosts(size, out / f"{size} places", kept, every_peer) for size in sizes]
    return [costs.row(length) for costs in sized for length in lengths]


def cost_rows(details: dict[str, Any], out: Path) -> list[dict[str, str]]:
    """``what``, ``ours``, ``peer`` and ``wanted`` of each size; figures go into ``details``.

    ``out`` and errors are those of ``matching_costs``.
    """
    costs = matching_costs(out=out)
    details["sequence_cost"] = [cost.to_json() for cost in costs]
    return [row for size in SIZES for row in _size_rows([c for c in costs if c.places == size])]


def _size_rows(costs: list[MatchingCost]) -> list[dict[str, str]]:
    rows = [_exact_row(costs), _approximate_row(costs)]
    clustered = [cost.clustered for cost in costs if cost.clustered is not None]
    return rows + ([_clustered_row(costs, clustered)] if clustered else [])


def _exact_row(costs: list[MatchingCost]) -> dict[str, str]:
    steps = [cost.exact for cost in costs]
    ratios = [s.milliseconds / s.flat if s.flat else None for s in steps]
    flat = f"FAISS Flat in turn {_joined([s.flat for s in steps])} ms"
    peers = [f"{flat} (ratio {_joined(ratios)})"]
    if costs[0].convolution is not None:
        peers.append(f"convolution anew {_joined([c.convolution for c in costs])} ms")
    if costs[0].numpy_loop is not None:
        peers.append(f"loop over places {_joined([c.numpy_loop for c in costs])} ms")
    return {
        "what": f"exact step, {_what(costs)}",
        "ours": f"{_joined([s.milliseconds for s in steps])} ms; {_bytes(steps)} bytes a place",
        "peer": "; ".join(peers),
        "wanted": "ratio ≤ 1.1, not growing with frames",
    }


def _approximate_row(costs: list[MatchingCost]) -> dict[str, str]:
    steps = [cost.approximate for cost in costs]
    kept = [_kept(cost.exact, cost.approximate) for cost in costs]
    hnsw, found = costs[0].hnsw, costs[0].hnsw_recall
    none = hnsw is None or found is None
    return {
        "what": f"approximate step, {_what(costs)}",
        "ours": f"{_joined([s.milliseconds for s in steps])} ms; {_joined(kept)} of exact recall; "
        f"{_bytes(steps)} bytes a place",
        "peer": "-" if none else f"HNSW {hnsw:.2f} ms, finds {found:.2f} of the nearest",
        "wanted": "≤ 1 ms at 100,000, ≥ 0.99 of exact recall",
    }


def _clustered_row(
    costs: list[MatchingCost], clustered: list[tuple[StepCost, StepCost]]
) -> dict[str, str]:
    exact, steps = ([pair[which] for pair in clustered] for which in (0, 1))
    kept = [_kept(*pair) for pair in clustered]
    return {
        "what": f"approximate step, clustered descriptors, {_what(costs)}",
        "ours": f"{_joined([s.milliseconds for s in steps])} ms; {_joined(kept)} of exact recall",
        "peer": f"exact {_joined([s.milliseconds for s in exact])} ms, finds "
        f"{_joined([s.recall for s in exact])}",
        "wanted": "≤ 1 ms at 100,000, ≥ 0.99 of exact recall",
    }


def _kept(exact: StepCost, approximate: StepCost) -> float:
    """Share of exact search's recall that is left."""
    return approximate.recall / max(exact.recall, 1e-9)


def _what(costs: list[MatchingCost]) -> str:
    frames = " / ".join(str(cost.length) for cost in costs)
    return f"{costs[0].places:,} places, {frames} frames"


def _joined(values: Sequence[float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.2f}" for value in values)


def _bytes(steps: list[StepCost]) -> str:
    return " / ".join(f"{step.bytes_per_place:.0f}" for step in steps)


def made_up_walk(count: int, seed: int = 0) -> Descriptors:
    """(count, DIMENSION) descriptors that change steadily along a path."""
    generator = np.random.default_rng(seed)
    walk = generator.standard_normal((count, DIMENSION), dtype=np.float32)
    fresh = np.float32(np.sqrt(1.0 - WALK_SMOOTHNESS**2))
    for index in range(1, count):
        walk[index] = WALK_SMOOTHNESS * walk[index - 1] + fresh * walk[index]
    walk /= np.linalg.norm(walk, axis=1, keepdims=True)
    return walk


def walk_in_clusters(count: int, seed: int = 2) -> Descriptors:
    """The same walk through stretches of ``STRETCH`` places that each have one of ``LOOKS``."""
    generator = np.random.default_rng(seed)
    looks = generator.standard_normal((LOOKS, DIMENSION), dtype=np.float32)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    of_stretch = generator.integers(LOOKS, size=-(-count // STRETCH))
    own = np.float32(np.sqrt(1.0 - LOOK_SHARE)) * made_up_walk(count)
    walk = np.float32(np.sqrt(LOOK_SHARE)) * looks[of_stretch.repeat(STRETCH)[:count]] + own
    return np.asarray(walk / np.linalg.norm(walk, axis=1, keepdims=True), np.float32)


def seen_again(places: Descriptors, seed: int = 1) -> Descriptors:
    """The same places on a second visit."""
    noise = np.random.default_rng(seed).standard_normal(places.shape, dtype=np.float32)
    seen = places + QUERY_NOISE / np.sqrt(DIMENSION) * noise
    return np.asarray(seen / np.linalg.norm(seen, axis=1, keepdims=True), np.float32)


def _alone(work: Callable[..., Result], *arguments: Any) -> Result:
    """The work done in a process of its own, whose memory nothing else has used."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(work, *arguments).result()


@dataclass(frozen=True)
class SizedCosts:
    """What is measured with one number of places; nothing twice."""

    places: int
    folder: Path
    kept: KeptRows
    every_peer: bool

    def row(self, length: int) -> MatchingCost:
        """All of one sequence length."""
        in_clusters = None
        if self._within(CLUSTERED_LIMIT):
            in_clusters = self._step(CLUSTERED, length, 0), self._step(CLUSTERED, length, 1)
        hnsw: dict[str, float] = {}
        if self._within(HNSW_LIMIT):
            hnsw = self._measured("HNSW", _hnsw, self._visited(WALK))
        return MatchingCost(
            self.places,
            length,
            self._step(WALK, length, 0),
            self._step(WALK, length, 1),
            in_clusters,
            hnsw.get("milliseconds"),
            hnsw.get("recall"),
            self._peer("convolution", CONVOLUTION_LIMIT, _convolution, length),
            self._peer("loop", LOOP_LIMIT, _loop, length),
            self._measured("half precision", _half_precision, self._visited(WALK))["same_nearest"],
        )

    def _step(self, walk: str, length: int, shortlist_above: int) -> StepCost:
        """Exact, beside FAISS Flat, or from ``shortlist_above`` places on approximate."""
        name = f"{walk}, {length} frames, {'approximate' if shortlist_above else 'exact'}"
        beside_flat = walk == WALK and not shortlist_above
        visited = self._visited(walk)
        measured = self._measured(name, _step_cost, visited, length, shortlist_above, beside_flat)
        return StepCost(**measured)

    def _peer(
        self, name: str, limit: int, measure: Callable[..., dict[str, float]], length: int
    ) -> float | None:
        if not self._within(limit):
            return None
        named = f"{name}, {length} frames"
        return float(self._measured(named, measure, self._visited(WALK), length)["milliseconds"])

    def _measured(self, name: str, work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return self.kept.row(f"{self.places} places, {name}", lambda: _alone(work, *arguments))

    def _visited(self, walk: str) -> Visited:
        return Visited(self.folder / walk, self.places)

    def _within(self, limit: int) -> bool:
        return self.every_peer or self.places <= limit


@dataclass(frozen=True)
class Visited:
    """A walk of so many places kept as a map, and a second visit to the middle of it."""

    folder: Path
    places: int

    @property
    def first(self) -> int:
        """The first place that is visited again."""
        return self.places // 2

    def walk(self) -> Descriptors:
        """(N, DIMENSION)."""
        return np.asarray(np.load(self._file()))

    def queries(self) -> Descriptors:
        """(QUERIES, DIMENSION) of the second visit."""
        walk = np.load(self._file(), mmap_mode="r")
        return seen_again(np.array(walk[self.first : self.first + QUERIES]))

    def _file(self) -> Path:
        """Of the walk, which is made and saved as a map first, unless both are there."""
        file = self.folder / "walk.npy"
        if not file.exists():
            shutil.rmtree(self.folder, ignore_errors=True)  # a map cut short
            self.folder.mkdir(parents=True)
            make = walk_in_clusters if self.folder.name == CLUSTERED else made_up_walk
            made = make(self.places)
            add_places(self.folder, made)
            unfinished = file.with_suffix(".unfinished.npy")
            np.save(unfinished, made)
            unfinished.replace(file)
        return file


def _step_cost(
    visited: Visited, length: int, shortlist_above: int, beside_flat: bool
) -> dict[str, Any]:
    faiss.omp_set_num_threads(1)
    queries, first = visited.queries(), visited.first
    flat = _flat_index(visited.walk()) if beside_flat else None
    config = SequenceMatchingConfig.from_file(
        sequence_length=length,
        shortlist_above=shortlist_above,
        exclude_recent_keyframes=QUERIES,  # all of the second visit
        min_probability=0.0,
    )
    before = resident_bytes()
    recognizer = PlaceRecognizer(config)
    part = open_part(visited.folder, "places")
    recognizer.load(part)
    recognizer.settle()
    spent, spent_by_flat, right = [], [], []
    for index, query in enumerate(queries):
        started = time.perf_counter()
        matches = recognizer.observe((part.count + index) * SECOND, query, MODEL).matches
        spent.append(time.perf_counter() - started)
        found = None if matches is None or not matches.candidates else matches.candidates[0]
        off = None if found is None else found.reference_id - first - index
        right.append(off is not None and abs(off) <= TOLERANCE)
        if flat is not None:
            started = time.perf_counter()
            flat.search(query[None], 10)
            spent_by_flat.append(time.perf_counter() - started)
    grown = resident_bytes() - before
    cost = StepCost(
        1e3 * float(np.median(spent[length:])),
        1e3 * float(np.median(spent_by_flat[length:])) if spent_by_flat else None,
        float(np.mean(right[length:])),
        grown / part.count,
    )
    return asdict(cost)


def _flat_index(walk: Descriptors) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(walk)
    return index


def _hnsw(visited: Visited) -> dict[str, float]:
    faiss.omp_set_num_threads(1)
    walk, queries = visited.walk(), visited.queries()
    index = _graph(walk, visited.folder / "hnsw.index")
    index.hnsw.efSearch = HNSW_EFFORT
    milliseconds = _median_ms(lambda query: index.search(query[None], 10), queries)
    found = index.search(queries, 1)[1][:, 0] == _nearest(walk, queries)
    return {"milliseconds": milliseconds, "recall": float(np.mean(found))}


def _graph(walk: Descriptors, file: Path) -> Any:
    """The graph of FAISS, built unless it is there."""
    if file.exists():
        return faiss.read_index(str(file))
    index = faiss.IndexHNSWFlat(DIMENSION, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.add(walk)
    unfinished = file.with_suffix(".unfinished")
    faiss.write_index(index, str(unfinished))
    unfinished.replace(file)
    return index


def _nearest(walk: Descriptors, queries: Descriptors) -> NDArray[np.int64]:
    """(Q,) the place most similar to each query, compared in single precision."""
    return np.asarray(_flat_index(walk).search(queries, 1)[1][:, 0], np.int64)


def _half_precision(visited: Visited) -> dict[str, float]:
    """Share of queries whose nearest place is the same in half precision."""
    walk, queries = visited.walk(), visited.queries()
    rows = DescriptorRows(DIMENSION)
    rows.extend(walk)
    found = [int(rows.similarities(query).argmax()) for query in queries]
    return {"same_nearest": float(np.mean(found == _nearest(walk, queries)))}


def _convolution(visited: Visited, length: int) -> dict[str, float]:
    """Distances of the whole window and their convolution, anew for each frame."""
    torch.set_num_threads(1)
    queries, references = visited.queries(), torch.from_numpy(visited.walk())
    window = torch.from_numpy(queries[:length])

    def step(_: Descriptors) -> None:
        sequence_distances(1.0 - window @ references.T, length).argmin()

    return {"milliseconds": _median_ms(step, queries[: 2 * SLOW_STEPS])}


def _loop(visited: Visited, length: int) -> dict[str, float]:
    """A loop over the places, as codes that compare one by one do it."""
    walk, queries = visited.walk(), visited.queries()
    window = queries[:length]

    def step(_: Descriptors) -> None:
        min(
            float(np.sum(1.0 - np.einsum("ij,ij->i", window, walk[i : i + length])))
            for i in range(len(walk) - length + 1)
        )

    return {"milliseconds": _median_ms(step, queries[:SLOW_STEPS])}


def _median_ms(work: Callable[[Descriptors], object], queries: Descriptors) -> float:
    spent = []
    for query in queries:
        started = time.perf_counter()
        work(query)
        spent.append(time.perf_counter() - started)
    return 1e3 * float(np.median(spent[1:]))
