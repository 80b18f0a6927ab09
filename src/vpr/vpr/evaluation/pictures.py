"""Pictures of a run: trajectory, similarity matrix, image pairs, precision-recall, latency.

Each function writes one PNG, replacing the file only once it is whole, and returns its path.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from vpr.records import Image

INK = "#1f2430"
FAINT = "#8a92a3"
TRUTH = "#b9bfca"
BEFORE = "#e0892c"
AFTER = "#2f6fdd"
VERIFIED = "#1f9d57"
REJECTED = "#d43d3d"
CAPTION = "#7a8394"  # readable on white and on black: sheets of photos have no background
UNCOMPARED = "#e6edf9"
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": TRUTH,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=[AFTER, BEFORE, VERIFIED, "#8552c4", FAINT]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "grid.color": "#eceef2",
    "legend.frameon": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}
PAIR_HEIGHT = 180  # px of each image on a sheet of pairs
SHEET_COLUMNS = 3
CAPTION_INCHES = 0.75  # above and below each pair


@dataclass(frozen=True)
class ImagePair:
    """A query view beside the remembered view it was matched to, with the verdict.

    ``query_points`` and ``reference_points`` are (N, 2) pixels of the matched features, if known.
    """

    query: Image
    reference: Image
    verified: bool
    reason: str
    query_points: NDArray[np.float64] | None = None
    reference_points: NDArray[np.float64] | None = None


def draw_trajectory(
    file: Path,
    before: ArrayLike,
    after: ArrayLike,
    truth: ArrayLike | None = None,
    closures: ArrayLike = (),
) -> Path:
    """Top view of the trajectory before and after the closures, over the truth if known.

    Args:
        before, after, truth: (N, 2) or (N, 3) positions in one common frame, metres.
        closures: (M, 2) pairs of row indices into ``after``, drawn as links.

    Raises:
        ValueError: no positions.
    """
    if not (np.size(before) and np.size(after)):
        raise ValueError("a picture of the trajectory needs at least one position")
    before, after = np.asarray(before)[:, :2], np.asarray(after)[:, :2]
    links = np.asarray(closures, dtype=np.intp).reshape(-1, 2)
    with matplotlib.rc_context(STYLE):
        width, height = np.ptp(np.vstack([before, after]), axis=0)
        figure, axes = _plot((7.0, 0.8 + 6.2 * np.clip(height / max(width, 1e-6), 0.35, 1.2)))
        if truth is not None:
            axes.plot(*np.asarray(truth)[:, :2].T, color=TRUTH, linewidth=5, label="truth")
        axes.plot(*before.T, color=BEFORE, linewidth=1.2, linestyle=(0, (4, 2)), label="before")
        axes.plot(*after.T, color=AFTER, linewidth=1.6, label="after")
        axes.add_collection(LineCollection(after[links].tolist(), colors=VERIFIED, linewidths=0.8))
        ends = after[links.ravel()]
        label = f"{len(links)} verified closures"
        axes.plot(*ends.T, "o", color=VERIFIED, markersize=3.5, linestyle="none", label=label)
        axes.plot(*after[0], marker="s", color=INK, markersize=6, linestyle="none", label="start")
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel="x (m)", ylabel="y (m)")
        _legend_above(figure)
        return _save(figure, file)


def draw_similarity(
    file: Path, similarity: ArrayLike, verified: ArrayLike = (), rejected: ArrayLike = ()
) -> Path:
    """Similarity of every query to every reference keyframe, with the verdicts on it.

    Args:
        similarity: (Q, R), higher is more alike; NaN where two were not compared.
        verified, rejected: (M, 2) pairs of (query row, reference column).
    """
    values = np.asarray(similarity, dtype=np.float64)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = _plot((7.0, 6.0))
        axes.set_facecolor(UNCOMPARED)
        compared = values[np.isfinite(values)]
        low, high = np.percentile(compared, (1.0, 99.9)) if compared.size else (0.0, 1.0)
        image = axes.imshow(
            values, cmap="bone_r", vmin=low, vmax=high, interpolation="nearest", aspect="auto"
        )
        for pairs, marker, colour, name in (
            (rejected, "x", REJECTED, "rejected"),
            (verified, "o", VERIFIED, "verified"),
        ):
            rows, columns = np.asarray(pairs, dtype=np.intp).reshape(-1, 2).T
            axes.plot(
                columns,
                rows,
                marker,
                linestyle="none",
                color=colour,
                markersize=5,
                markerfacecolor="none",
                label=f"{len(rows)} {name}",
            )
        axes.set(xlabel="reference keyframe", ylabel="query keyframe")
        _legend_above(figure)
        figure.colorbar(image, ax=axes, label="similarity", shrink=0.8).outline.set_visible(False)
        return _save(figure, file)


def draw_pairs(file: Path, pairs: Sequence[ImagePair]) -> Path:
    """A sheet of matched image pairs, reference left and query right, with verdict and reason.

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("a sheet of image pairs needs at least one pair")
    columns = min(SHEET_COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    with matplotlib.rc_context(STYLE):
        tallest = max(pair.query.shape[0] / pair.query.shape[1] for pair in pairs)
        size = (4.6 * columns, rows * (2.3 * tallest + CAPTION_INCHES))
        figure = Figure(figsize=size, layout="constrained")
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, pair in zip(cells, pairs, strict=False):
            _draw_pair(axes, pair)
        for axes in cells[len(pairs) :]:
            axes.set_axis_off()
        return _save(figure, file, transparent=True)


def draw_precision_recall(file: Path, curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Path:
    """Precision over recall, one line for each named method: name -> (recall, precision)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _plot((6.0, 4.5))
        for name, (recall, precision) in curves.items():
            axes.plot(recall, precision, linewidth=1.8, label=name)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.legend(loc="lower left")
        return _save(figure, file)


def draw_attention(file: Path, views: Sequence[tuple[Image, NDArray[np.uint8]]]) -> Path:
    """Images above, the same with their attention map (any size, 0..255) laid over below.

    Raises:
        ValueError: no views.
    """
    if not views:
        raise ValueError("an attention picture needs at least one view")
    with matplotlib.rc_context(STYLE):
        tallest = max(image.shape[0] / image.shape[1] for image, _ in views)
        size = (3.2 * len(views), 6.4 * tallest)
        figure = Figure(figsize=size, layout="constrained")
        cells = figure.subplots(2, len(views), squeeze=False)
        for column, (image, attention) in enumerate(views):
            rgb = _rgb(image)
            weight = cv2.resize(attention, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            heat = cv2.cvtColor(cv2.applyColorMap(weight, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
            cells[0, column].imshow(rgb)
            cells[1, column].imshow(cv2.addWeighted(rgb, 0.45, heat, 0.55, 0.0))
        for axes in cells.ravel():
            axes.set_axis_off()
        return _save(figure, file, transparent=True)


def draw_latency(file: Path, latency_ms: Mapping[str, Mapping[str, float]]) -> Path:
    """Median and 95th percentile of each node's latency: node -> {"p50": ms, "p95": ms}."""
    names = list(latency_ms)
    p50 = [latency_ms[name]["p50"] for name in names]
    p95 = [latency_ms[name]["p95"] for name in names]
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure, axes = _plot((6.5, 0.7 + 0.45 * len(names)))
        axes.barh(names, p95, color="#c4d6f7", height=0.62, label="p95")
        axes.barh(names, p50, color=AFTER, height=0.62, label="p50")
        for row, (middle, high) in enumerate(zip(p50, p95, strict=True)):
            axes.annotate(
                f"{middle:.1f} / {high:.1f}",
                (high, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=FAINT,
                fontsize=8,
            )
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.set_xlabel("ms")
        _legend_above(figure)
        return _save(figure, file)


def _plot(size_inches: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size_inches, layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    return figure, axes


def _legend_above(figure: Figure) -> None:
    figure.legend(loc="outside upper center", ncols=5, handlelength=1.6)


def _draw_pair(axes: Axes, pair: ImagePair) -> None:
    views = [_rgb(pair.reference), _rgb(pair.query)]
    scales = [PAIR_HEIGHT / view.shape[0] for view in views]
    sizes = [(round(v.shape[1] * s), PAIR_HEIGHT) for v, s in zip(views, scales, strict=True)]
    left, right = (
        cv2.resize(view, size, interpolation=cv2.INTER_AREA)
        for view, size in zip(views, sizes, strict=True)
    )
    axes.imshow(np.hstack([left, right]))
    if pair.query_points is not None and pair.reference_points is not None:
        starts = np.asarray(pair.reference_points) * scales[0]
        ends = np.asarray(pair.query_points) * scales[1] + (left.shape[1], 0)
        lines = np.stack([starts, ends], axis=1).tolist()
        links = LineCollection(lines, colors="#ffe14d", linewidths=0.5, alpha=0.6)
        axes.add_collection(links, autolim=False)
    colour = VERIFIED if pair.verified else REJECTED
    verdict = "verified" if pair.verified else "rejected"
    axes.set_title(verdict, color=colour, pad=5)
    axes.set_title("remembered | now", loc="right", color=CAPTION, fontsize=8, fontweight="normal")
    reason = textwrap.fill(pair.reason, 62)
    axes.set_xlabel(reason, fontsize=8.5, color=CAPTION, loc="left", parse_math=False)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.axvline(left.shape[1] - 0.5, color="white", linewidth=2)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.5)


def _rgb(image: Image) -> NDArray[np.uint8]:
    code = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)


def _save(figure: Figure, file: Path, transparent: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    figure.savefig(unfinished, format="png", transparent=transparent)
    unfinished.replace(file)
    return file
