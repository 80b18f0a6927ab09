"""Dataset folders as one collection of drives to learn from and to be judged on.

Each session of each folder is a drive. Folders have origins of their own; those of one region are
laid out in one metric frame, and regions are set so far apart that no two of their places are near
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pymap3d
from numpy.typing import NDArray

from vpr.learning.errors import TrainingError
from vpr.supervision.dataset import Dataset, DatasetError, read_dataset
from vpr.supervision.kernel import Viewpoints

REGION_RADIUS = 50_000.0  # m; a tangent plane is true to 0.3 m in 10 km over this
REGION_SPACING = 1e7  # m
MIN_EXTENT = 20.0  # m that a drive must cover: less is a receiver that stands still


@dataclass(frozen=True)
class Drives:
    """N keyframes of several drives, in the order of the folders and of time."""

    images: tuple[Path, ...]
    viewpoints: Viewpoints
    stamps_ns: NDArray[np.int64]  # (N,)
    drive: NDArray[np.int64]  # (N,) index into names
    names: tuple[str, ...]  # folder/session of each drive

    def __len__(self) -> int:
        return len(self.images)

    def rows_of(self, drives: Sequence[int]) -> NDArray[np.int64]:
        """Rows of some drives, in order."""
        return np.flatnonzero(np.isin(self.drive, np.asarray(drives)))

    def subset(self, rows: NDArray[np.int64]) -> Drives:
        """Only these rows; drives keep their numbers."""
        return Drives(
            tuple(self.images[row] for row in rows.tolist()),
            self.viewpoints[rows],
            self.stamps_ns[rows],
            self.drive[rows],
            self.names,
        )


def read_drives(folders: Sequence[Path]) -> Drives:
    """All keyframes of the folders.

    Raises:
        DatasetError: a folder is no dataset, or damaged.
        TrainingError: no folder, one without keyframes, or a GPS that stood still.
    """
    if not folders:
        raise TrainingError("no dataset folder given")
    datasets = [read_dataset(Path(folder)) for folder in folders]
    for dataset in datasets:
        _check_moved(dataset)
    names = _short_names(folders)
    positions = _laid_out(datasets)
    drive: list[NDArray[np.int64]] = []
    drive_names: list[str] = []
    for dataset, name in zip(datasets, names, strict=True):
        numbers, index = np.unique(dataset.sessions, return_inverse=True)
        drive.append(index + len(drive_names))
        drive_names += [f"{name}/{number}" for number in numbers.tolist()]
    return Drives(
        tuple(path for dataset in datasets for path in dataset.images),
        Viewpoints(np.concatenate(positions), np.concatenate([d.headings for d in datasets])),
        np.concatenate([dataset.stamps_ns for dataset in datasets]),
        np.concatenate(drive).astype(np.int64),
        tuple(drive_names),
    )


def _check_moved(dataset: Dataset) -> None:
    if len(dataset) == 0:
        raise TrainingError(
            f"{dataset.folder} has no keyframes: was there GPS? (its manifest.json says what was "
            "left out)"
        )
    extent = float(np.ptp(dataset.positions[:, :2], axis=0).max())
    if extent < MIN_EXTENT:
        raise TrainingError(
            f"{dataset.folder}: all positions lie within {extent:.1f} m; a drive must cover "
            f"{MIN_EXTENT:g} m to tell places apart (does the GPS stand still?)"
        )


def _short_names(folders: Sequence[Path]) -> list[str]:
    names = [Path(folder).resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [str(folder) for folder in folders]


def _laid_out(datasets: Sequence[Dataset]) -> list[NDArray[np.float64]]:
    """Positions (N, 2) of each dataset in its region's frame, regions far apart."""
    regions: list[tuple[float, float, float]] = []
    result = []
    for dataset in datasets:
        first = (dataset.origin.latitude, dataset.origin.longitude, dataset.origin.altitude)
        region = next((i for i, r in enumerate(regions) if _near(first, r)), len(regions))
        if region == len(regions):
            regions.append(first)
        east, north, _ = pymap3d.geodetic2enu(*dataset.geodetic.T, *regions[region])
        result.append(np.stack([east + region * REGION_SPACING, north], axis=1))
    return result


def _near(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    east, north, up = pymap3d.geodetic2enu(*a, *b)
    return bool(np.linalg.norm([east, north, up]) < REGION_RADIUS)


__all__ = ["DatasetError", "Drives", "read_drives"]
