"""Benchmark rows of drives through all nodes: simulated towns, recorded images, latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vpr.bags.folders import write_karlsruhe, write_seven_scenes, write_traverses
from vpr.evaluation.places import image_files
from vpr.evaluation.recording import read_run, read_source
from vpr.records import ClosureState
from vpr.simulation.config import SimulationConfig
from vpr.simulation.recording import record_drive
from vpr_bringup.bench_lines import Line, console
from vpr_bringup.demo import DemoOptions, run_demo

SEEDS = (1, 2, 3)
WALK_RATE = 5.0  # images a second
WALK_TOLERANCE = 5  # frames between two views of one place


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
