"""The figures of Pillai & Leonard, and a reliability diagram, each as one PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from vpr.evaluation.drifting_graph import GraphStage
from vpr.evaluation.embedding_curves import NeighbourCurves, SeparationDistances
from vpr.evaluation.pictures import AFTER, BEFORE, FAINT, STYLE, VERIFIED
from vpr.learning.calibrating import Reliability
from vpr.learning.drives import Drives
from vpr.supervision.kernel import SimilarityMatrices

Matrix = NDArray[np.float64]
PANELS_IN_ROW = 4  # of the histograms
EVERY = slice(None)
LEGEND_ROOM = 1.4  # of a diagram that ends at 1
SAME_SPOT, AGAIN = 4.0, 10  # m, and keyframes later: a further pass of the same spot
POINTS = STYLE | {"axes.axisbelow": True}  # points over the grid, not under it
CHART, SQUARE = 1.25, 1.05  # width of a panel to its height
Curves = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def draw_supervision(file: Path, drives: Drives, matrices: SimilarityMatrices) -> Path:
    """Fig. 2: the path coloured by bearing, and similarity by translation, rotation and both."""
    with matplotlib.rc_context(POINTS | {"axes.grid": False}):
        figure, axes = _row(4, 3.4, SQUARE)
        _path(axes[0], drives, colours=drives.viewpoints.headings, colormap="hsv")
        axes[0].set_title("bearing")
        for panel, (name, values) in zip(
            axes[1:],
            {
                "similarity t, by translation": matrices.t,
                "R, by rotation": matrices.R,
                "Rt, by both": matrices.Rt,
            }.items(),
            strict=True,
        ):
            _matrix(panel, values, name, 0.0, 1.0)
        return _save(figure, file)


def draw_epochs(file: Path, distances: Mapping[str, Matrix], target: Matrix) -> Path:
    """Fig. 3: distances at several epochs, red is near, beside the similarity wanted."""
    with matplotlib.rc_context(POINTS | {"axes.grid": False}):
        figure, axes = _row(len(distances) + 1, 3.2, SQUARE)
        for panel, (name, values) in zip(axes, distances.items(), strict=False):
            low, high = np.percentile(values, (1.0, 40.0))
            _matrix(panel, -values, name, -float(high), -float(low))
        _matrix(axes[-1], target, "target", 0.0, 1.0)
        return _save(figure, file)


def draw_tsne(file: Path, drives: Drives, embeddings: NDArray[np.float32], seed: int = 0) -> Path:
    """Fig. 4: the path coloured by a 3-D t-SNE of the embedding; one place, one colour.

    Later passes are small dots on the large ones of the first: an eye of another colour is a
    place that was not recognised.
    """
    perplexity = float(np.clip(len(drives) / 4.0, 2.0, 30.0))
    reduced = TSNE(3, perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        embeddings
    )
    ranks = reduced.argsort(axis=0).argsort(axis=0) / max(len(reduced) - 1, 1)  # even colours
    with matplotlib.rc_context(POINTS):
        figure, axes = _row(1, 5.0)
        views = drives.viewpoints
        passed = np.tril(views.distances(views) <= SAME_SPOT, -AGAIN).any(axis=1)
        for rows, size, edge in ((~passed, 130.0, 0.0), (passed, 32.0, 0.8)):
            _path(axes[0], drives, ranks, size=size, edge=edge, shown=rows)
        axes[0].set_title("place as colour: first pass large, later ones small")
        return _save(figure, file)


def draw_layers(file: Path, curves: Mapping[str, Curves]) -> Path:
    """Fig. 5: precision over recall of the backbone's layers and the learned embedding.

    Args:
        curves: title of a panel ("within 20 m") -> name -> recall and precision: the layers from
            the first to the last one, then the whole descriptor and the learned one.
    """
    with matplotlib.rc_context(POINTS):
        figure, axes = _row(len(curves), 4.2)
        for panel, (title, lines) in zip(axes, curves.items(), strict=True):
            shades = matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1.0, len(lines) - 2))
            colours = [*shades, BEFORE, AFTER]
            for (name, (recall, precision)), colour in zip(lines.items(), colours, strict=True):
                (line,) = panel.plot(recall, precision, color=colour, linewidth=1.1)
                line.set_label(name.lstrip("_"))  # a label that begins with _ is not shown
            for line in panel.lines[-2:]:
                line.set_linewidth(2.4)
            panel.set(
                xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02), title=title
            )
        axes[0].legend(fontsize=7)
        return _save(figure, file)


def draw_neighbours(
    file: Path, curves: Mapping[str, Mapping[str, NeighbourCurves]], level: str
) -> Path:
    """Figs. 6 and 7: precision over recall, and recall over the distance or the neighbours.

    Args:
        curves: what counts as right ("within 20 m") -> backbone and learned -> curve.
    """
    with matplotlib.rc_context(POINTS):
        figure, axes = _row(2, 4.2)
        for (truth, named), line in zip(curves.items(), ("-", "--"), strict=True):
            for (name, curve), colour in zip(named.items(), (BEFORE, AFTER), strict=True):
                label = f"{name}, {truth}"
                axes[0].plot(curve.recall, curve.precision, color=colour, linestyle=line)
                scale = 1.0 if level == "neighbours" else 1.0 / curve.levels.max()
                levels = curve.levels * scale
                axes[1].plot(levels, curve.recall, color=colour, linestyle=line, label=label)
        axes[0].set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        shown = level if level == "neighbours" else f"{level}, share of the largest"
        axes[1].set(xlabel=shown, ylabel="recall", ylim=(0, 1.02))
        axes[1].legend(fontsize=8)
        return _save(figure, file)


def draw_separation(file: Path, distances: Mapping[str, SeparationDistances]) -> Path:
    """Fig. 8: histograms of positive and negative pairs' distances, one panel a descriptor."""
    rows = -(-len(distances) // PANELS_IN_ROW)
    with matplotlib.rc_context(POINTS):
        figure = Figure(figsize=(4.0 * PANELS_IN_ROW, 3.0 * rows), layout="constrained")
        cells = figure.subplots(rows, PANELS_IN_ROW, squeeze=False).ravel()
        for panel, (name, pairs) in zip(cells, distances.items(), strict=False):
            _histograms(panel, pairs)
            panel.set(title=f"{name.lstrip('_')}: overlap {pairs.overlap:.2f}")
        for panel in cells[len(distances) :]:
            panel.set_axis_off()
        cells[0].legend(fontsize=8)
        return _save(figure, file)


def draw_graph_stages(file: Path, stages: Sequence[GraphStage]) -> Path:
    """Fig. 9: measured and optimised pose graph as the drive goes on."""
    with matplotlib.rc_context(POINTS):
        figure, axes = _row(len(stages), 3.6)
        for panel, stage in zip(axes, stages, strict=True):
            panel.plot(*stage.truth.T, color=FAINT, linewidth=4, alpha=0.4, label="truth")
            panel.plot(*stage.measured.T, color=BEFORE, linewidth=1.0, label="measured")
            panel.plot(*stage.optimised.T, color=AFTER, linewidth=1.3, label="optimised")
            closed = stage.optimised[stage.closures[:, 1]]
            panel.scatter(
                closed[:, 0], closed[:, 1], color=VERIFIED, s=7, zorder=3, label="closed a loop"
            )
            before, after = stage.errors
            title = f"{stage.share:.0%}: {before:.2f} → {after:.2f} m, {len(closed)} closures"
            panel.set_title(title, fontsize=9)
            panel.set_aspect("equal", adjustable="datalim")
        axes[0].legend(fontsize=8)
        return _save(figure, file)


def draw_reliability(file: Path, panels: Mapping[str, Mapping[str, Reliability]]) -> Path:
    """Observed over predicted probability; on the diagonal a probability is what it says.

    Args:
        panels: title ("sequences") -> name ("nearest") -> diagram.
    """
    with matplotlib.rc_context(POINTS):
        figure, axes = _row(len(panels), 4.6)
        for panel, (title, diagrams) in zip(axes, panels.items(), strict=True):
            panel.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
            for name, diagram in diagrams.items():
                label = f"{name}: ECE {diagram.expected_error:.3f}, {diagram.counts.sum()} matches"
                (line,) = panel.plot(diagram.predicted, diagram.observed, label=label)
                sizes = 200.0 * diagram.counts / diagram.counts.max() + 6.0
                panel.scatter(diagram.predicted, diagram.observed, s=sizes, color=line.get_color())
            panel.set(xlabel="predicted P(same place)", ylabel="share that was right", title=title)
            panel.set_ylim(-0.05, LEGEND_ROOM)
            panel.legend(fontsize=8, loc="upper left")
        return _save(figure, file)


def _row(count: int, height: float, width: float = CHART) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(max(height * width * count, 5.0), height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _histograms(axes: Axes, pairs: SeparationDistances) -> None:
    edges = np.histogram_bin_edges(np.concatenate([pairs.positive, pairs.negative]), 50).tolist()
    for values, colour, label in (
        (pairs.positive, VERIFIED, "same place"),
        (pairs.negative, AFTER, "50 m apart or more"),
    ):
        weights = np.full(len(values), 1.0 / max(len(values), 1))
        axes.hist(values, edges, weights=weights, color=colour, alpha=0.6, label=label)
    axes.set(xlabel="L2 distance", ylabel="share of pairs")


def _path(
    axes: Axes,
    drives: Drives,
    colours: NDArray[np.float64],
    colormap: str | None = None,
    size: float = 9.0,
    edge: float = 0.0,
    shown: NDArray[np.bool_] | slice = EVERY,
) -> None:
    centred = drives.viewpoints.positions - drives.viewpoints.positions.mean(axis=0)
    east, north = centred[shown].T
    axes.scatter(
        east, north, c=colours[shown], cmap=colormap, s=size, linewidths=edge, edgecolors="white"
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="east (m)", ylabel="north (m)")


def _matrix(axes: Axes, values: Matrix, title: str, low: float, high: float) -> None:
    axes.imshow(values, cmap="jet", vmin=low, vmax=high, interpolation="nearest")
    axes.set(title=title, xlabel="keyframe")


def _save(figure: Figure, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    figure.savefig(unfinished, format="png")
    unfinished.replace(file)
    return file
