"""The picture of a dataset: where its keyframes were taken and which way they look."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vpr.supervision.dataset import MANIFEST, Dataset, read_dataset

MAP_PICTURE = "map.png"
ARROW = 4.0  # m, length of a keyframe's line of sight in the picture


def draw_map_if_any(folder: Path) -> Path | None:
    """Draw ``map.png`` into a dataset folder; None where there is no dataset yet."""
    if not (folder / MANIFEST).exists():
        return None
    dataset = read_dataset(folder)
    return draw_map(dataset, folder / MAP_PICTURE) if len(dataset) else None


def draw_map(dataset: Dataset, file: Path) -> Path:
    """Positions from above, a colour a session, with each keyframe's heading as a line."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(7, 6), dpi=120, layout="constrained")
        axes = figure.subplots()
        colours = matplotlib.colormaps["tab10"]
        for session in np.unique(dataset.sessions):
            rows = dataset.sessions == session
            east, north = dataset.positions[rows, :2].T
            sight = np.exp(1j * dataset.headings[rows])
            colour = colours(int(session) % 10)
            axes.plot(east, north, ".", color=colour, label=f"session {session}: {rows.sum()}")
            axes.quiver(
                east, north, ARROW * sight.real, ARROW * sight.imag, color=colour,
                angles="xy", scale_units="xy", scale=1, width=0.002,
            )  # fmt: skip
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel="east (m)", ylabel="north (m)")
        axes.legend(fontsize=7, frameon=False, ncols=2)
        unfinished = file.with_name(f".{file.name}.unfinished")
        figure.savefig(unfinished, format="png")
    unfinished.replace(file)
    return file
