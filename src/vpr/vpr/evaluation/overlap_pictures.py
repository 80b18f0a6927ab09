"""Similarity matrices as pictures (S3E-GNN Fig. 9)."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray


def draw_similarity(path: Path, matrix: NDArray[np.float32], laps: NDArray[np.int64]) -> None:
    """A PNG of the (N, N) reprojection IoU of a sequence; lines part its laps."""
    figure, axes = plt.subplots(figsize=(7.0, 6.0), layout="constrained")
    shown = axes.imshow(matrix, vmin=0.0, vmax=1.0, cmap="viridis", interpolation="nearest")
    for border in np.flatnonzero(np.diff(laps)) + 0.5:
        axes.axhline(border, color="white", linewidth=0.8)
        axes.axvline(border, color="white", linewidth=0.8)
    axes.set_xlabel("target view")
    axes.set_ylabel("source view")
    figure.colorbar(shown, label="share of the source's pixels that the target sees")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_prediction(
    path: Path,
    truth: NDArray[np.float32],
    predicted: NDArray[np.float32],
    laps: NDArray[np.int64],
) -> None:
    """A PNG of true and predicted similarities (N, N) and of what lies between (Fig. 9)."""
    panels = (
        ("reprojection IoU", truth, "viridis", 1.0),
        ("predicted similarity", predicted, "viridis", 1.0),
        ("absolute error", np.abs(predicted - truth), "magma", 0.5),
    )
    figure, row = plt.subplots(1, 3, figsize=(15.0, 4.8), layout="constrained")
    for axes, (title, matrix, colours, most) in zip(row, panels, strict=True):
        shown = axes.imshow(matrix, vmin=0.0, vmax=most, cmap=colours, interpolation="nearest")
        for border in np.flatnonzero(np.diff(laps)) + 0.5:
            axes.axhline(border, color="white", linewidth=0.8)
            axes.axvline(border, color="white", linewidth=0.8)
        axes.set_title(title)
        axes.set_xlabel("view")
        figure.colorbar(shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)
