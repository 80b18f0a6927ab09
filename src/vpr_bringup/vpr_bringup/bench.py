"""The headline figures, each beside its peer, measured in one run; writes the README's table.

Worlds and data sets run through the real nodes; place recognition on image folders and the cost
of search run in this process. Data sets are read where they lie (``VPR_DATA``, else ``shared/data``
beside the project) and left out, with a word, where they don't. A run that was stopped goes on
where it was; one that came to its end is measured anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vpr.evaluation.kept_rows import KeptRows
from vpr.evaluation.sequence_cost import cost_rows
from vpr_bringup.bench_drives import latency, real_bags, worlds
from vpr_bringup.bench_graph import graph_lines
from vpr_bringup.bench_lines import Line, console, print_lines, write_readme
from vpr_bringup.bench_map import map_rows
from vpr_bringup.bench_places import image_folders, search_cost
from vpr_bringup.bench_semantics import semantics_rows
from vpr_bringup.demo import REPOSITORY

MARKERS = ("<!-- results: begin (make bench) -->", "<!-- results: end -->")
UNFINISHED = "unfinished"  # folder of what a run that is stopped has measured
Details = dict[str, Any]
Section = Callable[[Path | None, Path, Details], list[Line]]

SECTIONS: dict[str, Section] = {
    "worlds": lambda _, out, details: worlds(out, details),
    "image folders": lambda data, _, details: image_folders(data, details),
    "recordings": real_bags,
    "latency": lambda _, out, details: latency(out, details),
    "search": lambda _data, _out, details: search_cost(details),
    "graph": lambda data, out, _: [
        Line(*row) for row in graph_lines(data, out / UNFINISHED / "graph")
    ],
    "sequence cost": lambda _data, out, details: [
        Line(**row) for row in cost_rows(details, out / UNFINISHED / "sequence_cost")
    ],
    "maps": lambda _data, _out, details: [Line(**row) for row in map_rows(details)],
    "semantics": lambda _data, _out, _: [Line(**row) for row in semantics_rows()],
}


def run_bench(out: Path, readme: Path | None) -> None:
    """Measure everything, print it, write ``results.json`` and, if asked, the README's table."""
    out.mkdir(parents=True, exist_ok=True)
    data = data_folder()
    given = {"data": None if data is None else str(data)}
    kept = KeptRows(out / UNFINISHED / "sections.json", given)
    lines: list[Line] = []
    details: Details = {}
    for name, section in SECTIONS.items():
        row = kept.row(name, lambda measure=section: _measured(measure, data, out))
        lines += [Line(**line) for line in row["lines"]]
        details |= row["details"]
    details["lines"] = [asdict(line) for line in lines]
    (out / "results.json").write_text(json.dumps(details, indent=2) + "\n")
    shutil.rmtree(out / UNFINISHED)
    print_lines(lines)
    if readme is not None:
        write_readme(readme, lines, MARKERS)


def _measured(section: Section, data: Path | None, out: Path) -> Details:
    details: Details = {}
    lines = section(data, out, details)
    return {"lines": [asdict(line) for line in lines], "details": details}


def data_folder() -> Path | None:
    """Where the data sets lie, if anywhere."""
    given = os.environ.get("VPR_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if folder.is_dir():
        return folder
    console.print(f"no data sets at {folder}: their rows are left out")
    return None
