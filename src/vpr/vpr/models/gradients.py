"""Histograms of gradients on a grid, for images too small for a network (64x32 pixels).

After Dalal & Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005: which way
edges run survives seasons that turn their contrast round, so orientations are taken without sign,
square roots keep strong edges from ruling, and cells are normalised by their surroundings.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.records import Image

WIDTH, HEIGHT = 64, 32  # px that every image is brought to
CELL = 4  # px
ORIENTATIONS = 8
CELL_BLUR = 0.6  # of a cell
SURROUNDINGS_BLUR = 1.5  # cells
WEAKEST_SURROUNDINGS = 2.0  # root of grey levels; below it a cell counts as empty
DIMENSION = (WIDTH // CELL) * (HEIGHT // CELL) * ORIENTATIONS

_SETTINGS = (WIDTH, HEIGHT, CELL, ORIENTATIONS, CELL_BLUR, SURROUNDINGS_BLUR, WEAKEST_SURROUNDINGS)
MODEL = f"gradients@{hashlib.sha256(repr(_SETTINGS).encode()).hexdigest()[:12]}"


def gradient_descriptor(image: Image) -> NDArray[np.float32]:
    """(DIMENSION,) L2-normalised descriptor of a grey or BGR image; zeros of a blank one."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if grey.shape != (HEIGHT, WIDTH):
        grey = cv2.resize(grey, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    votes = _orientation_votes(grey.astype(np.float32))
    cells = cv2.GaussianBlur(votes, (0, 0), CELL_BLUR * CELL)
    wide = cv2.GaussianBlur(votes, (0, 0), SURROUNDINGS_BLUR * CELL)
    cells = cells / (np.linalg.norm(wide, axis=2, keepdims=True) + WEAKEST_SURROUNDINGS)
    sampled = cells[CELL // 2 :: CELL, CELL // 2 :: CELL].ravel()
    return np.asarray(sampled / max(float(np.linalg.norm(sampled)), 1e-12), np.float32)


def _orientation_votes(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W, ORIENTATIONS): each pixel's edge strength, shared by the two nearest orientations."""
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=1)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=1)
    strength = np.sqrt(np.hypot(across, down))
    bins = (np.arctan2(down, across) % np.pi) * (ORIENTATIONS / np.pi)
    lower = np.floor(bins).astype(np.intp)
    upper_share = bins - lower
    votes = np.zeros((*grey.shape, ORIENTATIONS), np.float32)
    rows, columns = np.indices(grey.shape)
    votes[rows, columns, lower % ORIENTATIONS] = strength * (1.0 - upper_share)
    votes[rows, columns, (lower + 1) % ORIENTATIONS] += strength * upper_share
    return votes
