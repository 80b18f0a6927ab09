"""The headline figures, each beside its peer, measured in one run; writes the README's table.

Worlds and data sets run through the real nodes; place recognition on image folders and the cost
of search run in this process. Data sets are read where they lie (``VPR_DATA``, else ``shared/data``
beside the project) and left out, with a word, where they don't.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table

from vpr.bags.folders import write_karlsruhe, write_seven_scenes, write_traverses
from vpr.config import SequenceMatchingConfig
from vpr.evaluation.map_scale import MODEL, add_places
from vpr.evaluation.places import (
    embed_files,
    image_files,
    match_descriptors,
    place_figures,
    read_ground_truth,
)
from vpr.evaluation.recording import read_run, read_source
from vpr.evaluation.sequence_cost import cost_rows
from vpr.maps.folder import open_part
from vpr.places.recognizer import PlaceRecognizer
from vpr.records import ClosureState
from vpr.simulation.config import SimulationConfig
from vpr.simulation.recording import record_drive
from vpr_bringup.bench_graph import graph_lines
from vpr_bringup.bench_map import map_rows
from vpr_bringup.bench_semantics import semantics_rows
from vpr_bringup.demo import REPOSITORY, DemoOptions, run_demo

SEEDS = (1, 2, 3)
MAP_SIZES = (1_000, 10_000, 100_000)
WALK_RATE = 5.0  # images a second
WALK_TOLERANCE = 5  # frames between two views of one place
SEARCH_DIMENSION = 1104  # of the shipped descriptor
SEARCH_REPEATS = 30
BEGIN, END = "<!-- results: begin (make bench) -->", "<!-- results: end -->"
console = Console()


@dataclass(frozen=True)
class Line:
    """One row of the results: what was measured, ours, the peer's, and the wanted value."""

    what: str
    ours: str
    peer: str
    wanted: str


def run_bench(out: Path, readme: Path | None) -> None:
    """Measure everything, print it, write ``results.json`` and, if asked, the README's table."""
    out.mkdir(parents=True, exist_ok=True)
    lines: list[Line] = []
    details: dict[str, Any] = {}
    data = data_folder()
    for section in (
        lambda: worlds(out, details),
        lambda: image_folders(data, details),
        lambda: real_bags(data, out, details),
        lambda: latency(out, details),
        lambda: search_cost(details),
        lambda: [Line(*row) for row in graph_lines(data, out / "graph")],
        lambda: [Line(**row) for row in cost_rows(details)],
        lambda: [Line(**row) for row in map_rows(details)],
        lambda: [Line(**row) for row in semantics_rows()],
    ):
        lines += section()
        details["lines"] = [asdict(line) for line in lines]
        (out / "results.json").write_text(json.dumps(details, indent=2) + "\n")
    print_lines(lines)
    if readme is not None:
        write_readme(readme, lines)


def data_folder() -> Path | None:
    """Where the data sets lie, if anywhere."""
    given = os.environ.get("VPR_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if folder.is_dir():
        return folder
    console.print(f"no data sets at {folder}: their rows are left out")
    return None


def print_lines(lines: Iterable[Line]) -> None:
    """Show the results as a table."""
    table = Table("figure", "ours", "peer, same run", "wanted", title="results")
    for line in lines:
        table.add_row(line.what, line.ours, line.peer, line.wanted)
    console.print(table)


def write_readme(
    readme: Path, lines: Iterable[Line], markers: tuple[str, str] = (BEGIN, END)
) -> None:
    """Replace what stands between the two markers of the README."""
    begin, end = markers
    rows = ["| figure | ours | peer, same run | wanted |", "|---|---|---|---|"]
    rows += [f"| {line.what} | {line.ours} | {line.peer} | {line.wanted} |" for line in lines]
    text = readme.read_text()
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    readme.write_text(f"{head}{begin}\n" + "\n".join(rows) + f"\n{end}{tail}")


def worlds(out: Path, details: dict[str, Any]) -> list[Line]:
    """Simulated towns through all nodes, each in a process of its own."""
    runs = {}
    for seed in SEEDS:
        console.rule(f"world {seed}")
        runs[seed] = run_demo(DemoOptions(out=out / f"world_{seed}", seed=seed))
    details["worlds"] = runs

    def each(name: str, digits: int = 2) -> str:
        return " / ".join(f"{run[name]:.{digits}f}" for run in runs.values())

    ratios = " / ".join(f"{run['ate_after_m'] / run['ate_before_m']:.2f}" for run in runs.values())
    names = f"towns {', '.join(map(str, SEEDS))}"
    return [
        Line(
            f"precision of verified closures, {names}",
            each("verified_precision", 3),
            f"{each('naive_precision')} (single-image nearest neighbour)",
            "1.0",
        ),
        Line(f"true revisits closed within 2 s, {names}", each("revisit_recall"), "-", "≥ 0.60"),
        Line(
            f"ATE after, {names}",
            f"{each('ate_after_m')} m (ratio {ratios})",
            f"{each('ate_before_m')} m (odometry)",
            "ratio ≤ 0.35",
        ),
        Line(f"keyframes lost, {names}", each("keyframes_lost", 0), "-", "0"),
    ]


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


def real_bags(data: Path | None, out: Path, details: dict[str, Any]) -> list[Line]:
    """Recorded images through all nodes: closures published live."""
    if data is None:
        return []
    bags = out / "bags"
    bags.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    walks = {
        "corridor": (data / "corridor" / "ref", data / "corridor" / "query"),
        "gardens_point": (
            data / "gardens_point" / "day_left",
            data / "gardens_point" / "day_right",
        ),
    }
    for name, folders in walks.items():
        write_traverses(bags / name, folders, WALK_RATE, overwrite=True)
        _play(bags / name, out)
        references = len(image_files(folders[0]))
        found[name] = _traverse_closures(bags / name, out / name, references)
    write_seven_scenes(bags / "redkitchen", data / "redkitchen", 7.5, 0.005, 0.002, 0, True)
    write_karlsruhe(bags / "karlsruhe", data / "karlsruhe_drive", overwrite=True)
    kitchen = found["redkitchen"] = _play(bags / "redkitchen", out)
    street = found["karlsruhe"] = _play(bags / "karlsruhe", out)
    details["real_bags"] = found
    lines = [
        Line(
            f"{name} as a bag: queries closed right / verified wrong",
            f"{found[name]['closed']} of {found[name]['queries']} / {found[name]['wrong']}",
            "-",
            "no wrong one",
        )
        for name in ("corridor", "gardens_point")
    ]
    worst = kitchen["closure_translation_error_m_max"]
    turn = kitchen["closure_rotation_error_deg_max"]
    shown = "none verified" if worst is None else f"worst {worst:.2f} m, {turn:.1f}°"
    lines.append(
        Line(
            f"redkitchen (RGB-D): error of {kitchen['closures_verified']} verified closures",
            shown,
            "-",
            "≤ 0.3 m, 30°",
        )
    )
    lines.append(
        Line("Karlsruhe drive (no loop): verified", str(street["closures_verified"]), "-", "0")
    )
    return lines


def _play(bag: Path, out: Path) -> dict[str, Any]:
    console.rule(f"{bag.name} through the nodes")
    return run_demo(DemoOptions(out=out / bag.name, bag=bag))


def _traverse_closures(bag: Path, result: Path, references: int) -> dict[str, int]:
    """Verified closures of two traverses whose equal indices are one place."""
    index = {stamp: i for i, stamp in enumerate(read_source(bag).image_stamps_ns)}
    run = read_run(result / "recording")
    right, wrong = set(), 0
    for closure in run.closures:
        if closure.state == ClosureState.VERIFIED:
            query = index[closure.query_stamp_ns] - references
            if abs(query - index[closure.reference_stamp_ns]) <= WALK_TOLERANCE:
                right.add(query)
            else:
                wrong += 1
    return {"queries": len(index) - references, "closed": len(right), "wrong": wrong}


def latency(out: Path, details: dict[str, Any]) -> list[Line]:
    """640x480 at 10 Hz through all nodes in separate processes."""
    bag = out / "bags" / "vga_10hz"
    bag.parent.mkdir(parents=True, exist_ok=True)
    console.rule("640x480 at 10 Hz")
    config = SimulationConfig(image_width=640, image_height=480, image_rate=10, odometry_rate=30)
    record_drive(bag, SEEDS[0], config, overwrite=True)
    summary = run_demo(DemoOptions(out=out / "vga_10hz", bag=bag))
    details["latency"] = summary
    nodes, work = summary["latency_ms"], summary["processing_ms"]
    lines = [
        Line(
            f"{name}: image → answer, p50 / p95",
            f"{value['p50']:.0f} / {value['p95']:.0f} ms",
            f"own work {work[name]['p50']:.1f} / {work[name]['p95']:.1f} ms"
            if name in work
            else "-",
            "p95 < 100 ms" if name == "end_to_end" else "-",
        )
        for name, value in nodes.items()
    ]
    path = ("embedding", "sequence_matching", "loop_closure")
    busy = sum(work[name]["p50"] for name in path if name in work)
    total = nodes["end_to_end"]["p50"]
    details["transport_share"] = 1.0 - busy / total
    lines.append(
        Line(
            "share of that which is transport and waiting",
            f"{1.0 - busy / total:.0%} of {total:.0f} ms",
            "-",
            "-",
        )
    )
    lines.append(Line("keyframes lost at 10 Hz", str(summary["keyframes_lost"]), "-", "0"))
    return lines


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
