"""The pose graph's headline figures; ``vpr eval graph`` has all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vpr.evaluation.graph_figures import graph_tasks, judged_rows, measure

GROWN = ("growth kitti_00", "growth intel")
LIVE = "live KITTI 00"
JUDGED = ("outliers KITTI 05, measured ", "peers KITTI 05, measured ")


def graph_lines(data: Path | None, out: Path) -> list[tuple[str, str, str, str]]:
    """What, ours, the peer's and the wanted value; nothing without data."""
    if data is None:
        return []
    tasks = [
        task
        for task in graph_tasks(data, seeds=(1,))
        if task[0] in (*GROWN, LIVE) or task[0].startswith(JUDGED)
    ]
    rows = measure(tasks, out, print)
    grown = [line for name in GROWN for line in _growth(rows[name])]
    judged = [line for row in judged_rows(rows, rows) for line in _judged(row)]
    return [*grown, *_live(rows[LIVE]), *judged]


def _growth(row: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    name = row["graph"]
    return [
        (
            f"{name}: error of the growing graph / batch; mean step / bare iSAM2",
            f"{row['error_ratio']:.4f}; {row['step_ratio']:.2f}",
            "1; 1",
            "≤ 1.01; ≤ 1.15",
        ),
        (
            f"{name}: odometry step p50, closure step p95",
            f"{row['odometry_p50_ms']:.3f}, {row['closure_p95_ms']:.1f} ms",
            f"{row['bare_odometry_p50_ms']:.3f}, {row['bare_closure_p95_ms']:.1f} ms (bare iSAM2)",
            "≤ 0.15, ≤ 15 ms",
        ),
    ]


def _live(row: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (
            f"{row['graph']}, live graph: keyframe p50, closure p50, p95; closures let in",
            f"{row['keyframe_p50_ms']:.2f}, {row['closure_p50_ms']:.1f}, "
            f"{row['closure_p95_ms']:.1f} ms; {row['verified']} of {row['closures']}",
            "-",
            "≤ 0.15, -, ≤ 15 ms; all",
        )
    ]


def _judged(row: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    kind = "random" if row["group"] == 1 else f"groups of {row['group']}"
    return [
        (
            f"{row['graph']}, {row['share']:.0%} false closures, {kind}: ATE",
            f"{row['judged_m']:.2f} m ({row['clean_m']:.2f} m without them)",
            f"{row['believed_m']:.1f} m (Levenberg-Marquardt), {row['gnc_m']:.2f} m (GNC)",
            "x1.5" if row["share"] > 0.5 else "x1.1",
        )
    ]
