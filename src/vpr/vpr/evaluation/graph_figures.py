"""The figures of the pose graph in one run: growth beside gtsam, and false closures beside peers.

A run that was stopped goes on where it was: each row is in ``rows.jsonl`` as soon as it is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from vpr.evaluation.graph_growth import growth_row
from vpr.evaluation.graph_outliers import GROUP, outlier_row, peer_row
from vpr.evaluation.live_graph import live_row
from vpr.evaluation.made_graphs import (
    MadeGraph,
    city_graph,
    drive_graph,
    read_kitti_poses,
    sphere_graph,
)
from vpr.graph.g2o import read_g2o
from vpr.graph.optimization import optimize

SHARES = (0.1, 0.3, 0.5, 0.8)
SEEDS = (1, 2, 3)
DRIVES = ("00", "05")
MODELS = ("measured", "weak")
GROWN_FILES = ("smallGrid3D", "intel", "kitti_00", "manhattan", "sphere2500", "city10000")
JUDGED_FILES = ("smallGrid3D", "kitti_00", "intel", "manhattan", "sphere2500")
ONCE = ("sphere2500.g2o",)  # two minutes of CPU time a run
ROWS = "rows.jsonl"
Row = dict[str, Any]
Task = tuple[str, Callable[[], Row]]


def graph_tasks(data: Path | None, seeds: tuple[int, ...] = SEEDS) -> list[Task]:
    """Names of the rows, and what measures them; without data, only made-up graphs."""
    return [*_growth_tasks(data), *_live_tasks(data), *_outlier_tasks(data, seeds)]


def measure(tasks: list[Task], out: Path, progress: Callable[[str], None]) -> dict[str, Row]:
    """Measure what is not in ``out`` yet; rows by name, in the order of the tasks."""
    out.mkdir(parents=True, exist_ok=True)
    rows = kept_rows(out)
    for name, row in tasks:
        progress(name)
        if name not in rows:
            rows[name] = row()
            with (out / ROWS).open("a") as stream:
                stream.write(json.dumps((name, rows[name])) + "\n")
    return {name: rows[name] for name, _ in tasks}


def kept_rows(out: Path) -> dict[str, Row]:
    """Rows by name that earlier runs left in ``out``."""
    file = out / ROWS
    return dict(map(json.loads, file.read_text().splitlines())) if file.exists() else {}


def judged_rows(rows: Mapping[str, Row], peers: Mapping[str, Row]) -> list[Row]:
    """Rows of false closures, each with what its peers reach, where those are known."""
    return [
        row | peers.get(name.replace("outliers", "peers", 1), {})
        for name, row in rows.items()
        if name.startswith("outliers")
    ]


def _growth_tasks(data: Path | None) -> Iterator[Task]:
    for name in GROWN_FILES if data else ():
        assert data is not None
        yield f"growth {name}", partial(_growth, name, partial(_read, data, name))
    made: dict[str, Callable[[], MadeGraph]] = {
        "made city, 2-D": partial(city_graph, 3000, 1),
        "made sphere, 3-D": partial(sphere_graph, 30, 40, 1),
    }
    for name, make in made.items():
        yield f"growth {name}", partial(_growth, name, make)


def _live_tasks(data: Path | None) -> Iterator[Task]:
    if data is not None:
        file = data / "kitti_poses" / "00.txt"
        yield "live KITTI 00", lambda: live_row("KITTI 00", read_kitti_poses(file))


def _outlier_tasks(data: Path | None, seeds: tuple[int, ...]) -> Iterator[Task]:
    made = _judged_graphs(data)
    for seed, name, share, group in product(seeds, made, SHARES, (1, GROUP)):
        if name in ONCE and seed != seeds[0]:
            continue
        make, case = made[name], f"{name} {share} {group} {seed}"
        yield f"outliers {case}", partial(_outliers, name, make, share, group, seed)
        if seed == seeds[0]:
            yield f"peers {case}", partial(_peers, make, share, group, seed)


def _judged_graphs(data: Path | None) -> dict[str, Callable[[int], MadeGraph]]:
    """What makes each graph from a seed."""
    made: dict[str, Callable[[int], MadeGraph]] = {
        "made city, 2-D": partial(city_graph, 300),
        "made sphere, 3-D": partial(sphere_graph, 10, 20),
    }
    if data is not None:
        for drive, model in product(DRIVES, MODELS):
            made[f"KITTI {drive}, {model}"] = partial(_drive, data, drive, model)
        for name in JUDGED_FILES:
            made[f"{name}.g2o"] = partial(_solved, data, name)
    return made


def _growth(name: str, make: Callable[[], MadeGraph]) -> Row:
    return growth_row(name, make().graph)


def _outliers(
    name: str, make: Callable[[int], MadeGraph], share: float, group: int, seed: int
) -> Row:
    return outlier_row(name, make(seed), share, group, seed)


def _peers(make: Callable[[int], MadeGraph], share: float, group: int, seed: int) -> Row:
    return peer_row(make(seed), share, group, seed)


def _read(data: Path, name: str) -> MadeGraph:
    return MadeGraph(read_g2o(data / "g2o" / f"{name}.g2o"), {})


def _drive(data: Path, drive: str, model: str, seed: int) -> MadeGraph:
    return drive_graph(read_kitti_poses(data / "kitti_poses" / f"{drive}.txt"), model, seed)


def _solved(data: Path, name: str, _seed: int) -> MadeGraph:
    """A file's graph; nobody knows its truth, so the batch solution stands for it."""
    graph = _read(data, name).graph
    return MadeGraph(graph, optimize(graph, "none", incremental=False).poses)
