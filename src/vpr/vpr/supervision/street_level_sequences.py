"""Mapillary Street-Level Sequences in its official folder format.

Warburg et al., "Mapillary Street-Level Sequences: A Dataset for Lifelong Place Recognition", CVPR
2020. Below the root lie ``train_val/CITY/{query,database}`` and ``test/...``, each with ``images``,
``postprocessed.csv`` (position in UTM, night, view direction) and ``raw.csv`` (compass angle,
panorama or not). Panoramas are left out, as the authors do.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpr.supervision.overlap import Viewpoints2D

# the reduced set of Holder et al., section IV
REDUCED_TRAINING_CITIES = ("amman", "boston", "london", "manila", "zurich")
REDUCED_VALIDATION_CITIES = ("cph", "sf")
SPLITS = ("train_val", "test")
TRUE = "True"


class StreetLevelSequencesError(ValueError):
    """A data set that lacks a city, a file or a column, or holds a wrong value; says where."""


@dataclass(frozen=True)
class Traverse:
    """The images of one side, ``query`` or ``database``, of one or more cities.

    ``viewpoints`` are UTM metres; cities are told apart by ``city``, because their UTM zones may
    overlap in numbers.
    """

    files: tuple[Path, ...]
    viewpoints: Viewpoints2D
    city: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)


def read_traverse(root: Path, cities: Sequence[str], side: str) -> Traverse:
    """Read one side of the named cities, in the files' order.

    Args:
        root: folder that holds ``train_val``.
        side: ``query`` or ``database``.

    Raises:
        StreetLevelSequencesError: naming the city, file, line or column at fault.
    """
    files: list[Path] = []
    rows: list[tuple[float, float, float]] = []
    names: list[str] = []
    for city in cities:
        folder = _city_folder(root, city) / side
        raw = {row["key"]: row for row in _rows(folder / "raw.csv", ("key", "ca", "pano"))}
        placed = _rows(folder / "postprocessed.csv", ("key", "easting", "northing"))
        for line, row in enumerate(placed, start=2):
            key = row["key"]
            if key not in raw:
                raise StreetLevelSequencesError(f"{folder}: image {key} is not in raw.csv")
            if raw[key]["pano"] == TRUE:
                continue
            place = (row["easting"], row["northing"], raw[key]["ca"])
            rows.append(_numbers(place, folder / "postprocessed.csv", line))
            files.append(folder / "images" / f"{key}.jpg")
            names.append(city)
    values = np.array(rows, np.float64).reshape(-1, 3)
    headings = np.radians(90.0 - values[:, 2])  # a compass turns from north to east
    return Traverse(tuple(files), Viewpoints2D(values[:, :2], headings), tuple(names))


def missing_images(traverse: Traverse) -> list[Path]:
    """Images the tables name but the folder lacks: the archives come in volumes."""
    return [path for path in traverse.files if not path.is_file()]


def _city_folder(root: Path, city: str) -> Path:
    for split in SPLITS:
        if (root / split / city).is_dir():
            return root / split / city
    known = sorted(path.name for split in SPLITS for path in (root / split).glob("*"))
    raise StreetLevelSequencesError(
        f"no city '{city}' below {root}/{SPLITS[0]}; there are: {', '.join(known) or 'none'}"
    )


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in columns if name not in (reader.fieldnames or ())]
            if lacking:
                raise StreetLevelSequencesError(f"{path} lacks the column '{lacking[0]}'")
            return list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise StreetLevelSequencesError(f"cannot read {path}: {error}") from error


def _numbers(words: tuple[str, str, str], path: Path, line: int) -> tuple[float, float, float]:
    try:
        east, north, angle = (float(word) for word in words)
    except (TypeError, ValueError) as error:
        raise StreetLevelSequencesError(f"{path}, line {line}: {error}") from error
    if not np.isfinite([east, north, angle]).all():
        raise StreetLevelSequencesError(f"{path}, line {line}: a value is not finite")
    return east, north, angle
