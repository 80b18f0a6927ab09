"""Tables (Markdown) and pictures of the pose graph's figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vpr.evaluation.graph_outliers import PEER_LIMIT
from vpr.evaluation.pictures import AFTER, BEFORE, FAINT, REJECTED, STYLE

Row = Mapping[str, Any]
_GROWTH_HEAD = (
    "| graph | vertices, closures | error / batch | odometry step p50 | closure step p95 "
    "| gtsam: odometry, closure | mean step / gtsam's |"
)
_OUTLIER_HEAD = (
    "| graph, false closures | without false ones | jury: random | jury: groups "
    "| precision / recall | Levenberg-Marquardt (m) | plain GNC (m) | time of the jury | runs |"
)
_LINES = {  # of the picture: column, name, colour
    "believed_m": ("Levenberg-Marquardt", REJECTED),
    "gnc_m": ("plain GNC", BEFORE),
    "judged_m": ("jury", AFTER),
}


def growth_table(rows: Iterable[Row]) -> str:
    """Times in ms."""
    lines = [_GROWTH_HEAD, "|---" * 7 + "|"]
    for row in rows:
        lines.append(
            f"| {row['graph']} | {row['vertices']}, {row['closures']} | {row['error_ratio']:.4f} "
            f"| {row['odometry_p50_ms']:.3f} ms | {row['closure_p95_ms']:.1f} ms "
            f"| {row['bare_odometry_p50_ms']:.3f}, {row['bare_closure_p95_ms']:.1f} ms "
            f"| {row['step_ratio']:.2f} |"
        )
    return "\n".join(lines)


def outlier_table(rows: Iterable[Row]) -> str:
    """ATE in metres, mean over the seeds; peers of the first seed, random / groups."""
    cases: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        cases.setdefault((row["graph"], row["share"]), []).append(row)
    lines = [_OUTLIER_HEAD, "|---" * 9 + "|"]
    for (name, share), found in sorted(cases.items()):
        kinds = [[r for r in found if (r["group"] > 1) == grouped] for grouped in (False, True)]
        judged = " | ".join(_metres(kind) for kind in kinds)
        peers = " | ".join(
            " / ".join(_peer([r[peer] for r in kind if peer in r]) for kind in kinds)
            for peer in ("believed_m", "gnc_m")
        )
        worst = f"{min(r['precision'] for r in found):.3f} / {min(r['recall'] for r in found):.3f}"
        times = [r["time_s"] for r in found]
        lines.append(
            f"| {name}, {share:.0%} | {_mean(found, 'clean_m')} m | {judged} | {worst} "
            f"| {peers} | {np.mean(times):.1f} s | {len(found)} |"
        )
    return "\n".join(lines)


def _metres(rows: Sequence[Row]) -> str:
    if not rows:
        return "not run"
    worst = max(r["judged_m"] / r["clean_m"] if r["clean_m"] > 1e-3 else 0.0 for r in rows)
    ratio = f" (worst x{worst:.2f})" if worst else ""
    return f"{_mean(rows, 'judged_m')} m{ratio}"


def _peer(errors: Sequence[float | None]) -> str:
    """Mean in metres; None is a run that was stopped."""
    ended = [error for error in errors if error is not None]
    if not errors:
        return "not run"
    return f"{np.mean(ended):.2f}" if len(ended) == len(errors) else f"> {PEER_LIMIT} s"


def _mean(rows: Sequence[Row], column: str) -> str:
    return f"{np.mean([row[column] for row in rows]):.2f}" if rows else "not run"


def draw_growth(file: Path, row: Row) -> Path:
    """Time of every step of one graph, beside gtsam's."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, label, colour in (("gtsam", "iSAM2, bare", BEFORE), ("ours", "ours", AFTER)):
            steps = row["steps_ms"][name]
            axes.plot(steps, ".", markersize=2, color=colour, label=label, rasterized=True)
        axes.set(yscale="log", xlabel="vertex", ylabel="step (ms)", title=row["graph"])
        axes.legend(markerscale=6, loc="upper left")
        return _save(figure, file)


def draw_outliers(file: Path, rows: Sequence[Row]) -> Path:
    """ATE over that without false closures, by their share; dashed: in groups that agree."""
    with_truth = [row for row in rows if row["clean_m"] > 1e-3]
    names = list(dict.fromkeys(row["graph"] for row in with_truth))
    with matplotlib.rc_context(STYLE):
        columns = max(1, min(3, len(names)))
        lines = max(1, -(-len(names) // columns))
        size = (4.2 * columns, 3.2 * lines)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        for axes, name in zip(panels, names, strict=False):
            _outlier_panel(axes, [row for row in with_truth if row["graph"] == name])
            axes.set_title(name)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        if names:
            panels[0].legend(fontsize=8)
        return _save(figure, file)


def _outlier_panel(axes: Axes, rows: Sequence[Row]) -> None:
    for column, (label, colour) in _LINES.items():
        for grouped, style in ((False, "-"), (True, "--")):
            found: dict[float, list[float]] = {}
            for row in rows:
                if row.get(column) is not None and (row["group"] > 1) == grouped:
                    found.setdefault(row["share"], []).append(row[column] / row["clean_m"])
            shares = sorted(found)
            means = [float(np.mean(found[share])) for share in shares]
            axes.plot(
                [100 * share for share in shares],
                means,
                style,
                marker="o",
                markersize=3,
                color=colour,
                label=label if not grouped else None,
            )
    axes.axhline(1.1, color=FAINT, linewidth=0.8)
    axes.set(yscale="log", xlabel="false closures (%)", ylabel="ATE / without false ones")


def _save(figure: Figure, file: Path) -> Path:
    unfinished = file.with_name(f".{file.name}.unfinished")
    figure.savefig(unfinished, format="png")
    unfinished.replace(file)
    return file
