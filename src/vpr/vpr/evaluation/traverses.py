"""Traverses as data sets keep them: where the images are, and what is the same place.

Nordland: a folder of images a season, equal names are one place. Oxford RobotCar: a folder of
images named by microseconds and an ``ins.csv``. Brisbane Event-VPR and St Lucia: images named by
seconds (or numbered) and a track of GPS, as NMEA or as one line a frame. Precomputed descriptors:
a ``.npy`` matrix.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pymap3d
from numpy.typing import NDArray

from vpr.evaluation.places import EvaluationError, image_files, read_image

Format = Literal["nordland", "robotcar", "brisbane", "npy"]
ROBOTCAR_CAMERAS = ("stereo/centre", "stereo/left", "mono_rear", ".")
ROBOTCAR_TRACKS = ("gps/ins.csv", "gps/rtk.csv", "ins.csv")
FARTHEST_FROM_TRACK_S = 1.0  # an image further than this from any fix has no position
NMEA_SENTENCES = ("GPGGA", "GNGGA")


@dataclass(frozen=True)
class Traverse:
    """One drive: images or ready descriptors, and what tells where each was taken.

    ``names`` (N,) tells the place where ``positions`` is None; positions are metres, NaN where
    unknown: (N, 2) as the data set has them, or (N, 3) earth-centred from GPS.
    """

    names: tuple[str, ...]
    files: tuple[Path, ...]  # empty with ready descriptors
    descriptors: NDArray[np.float32] | None
    positions: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class WithoutStops:
    """Two traverses without their stops; every frame of the query traverse still has an answer.

    Attributes:
        correct: the right ``references`` of each query frame there was.
        answers: (Q,) the row of ``queries`` whose match is the answer for it.
    """

    references: Traverse
    queries: Traverse
    correct: list[frozenset[int]]
    answers: NDArray[np.int64]


@dataclass(frozen=True)
class Tolerance:
    """How far a right match may be from the query's place."""

    amount: float
    unit: Literal["frames", "m"]

    def __str__(self) -> str:
        return f"±{self.amount:g} {self.unit}"


def read_traverse(path: Path, kind: Format) -> Traverse:
    """A traverse in one of the formats.

    Raises:
        EvaluationError: something is missing or damaged; names the file.
    """
    readers: dict[str, Callable[[Path], Traverse]] = {
        "nordland": _read_nordland,
        "robotcar": _read_robotcar,
        "brisbane": _read_brisbane,
        "npy": _read_npy,
    }
    return readers[kind](path)


def same_places(
    references: Traverse, queries: Traverse, tolerance: Tolerance
) -> list[frozenset[int]]:
    """The right references of each query.

    With positions: all within ``tolerance`` metres. Without: those whose name's place, in the order
    of the reference traverse, is at most ``tolerance`` frames from the query's; where no names are
    shared the order itself tells.

    Raises:
        EvaluationError: metres are asked of traverses without positions.
    """
    if references.positions is not None and queries.positions is not None:
        if tolerance.unit != "m":
            raise EvaluationError("traverses with positions take a tolerance in metres")
        return _within_metres(references.positions, queries.positions, tolerance.amount)
    if tolerance.unit != "frames":
        raise EvaluationError("traverses without positions take a tolerance in frames")
    index = {name: i for i, name in enumerate(references.names)}
    if not set(index) & set(queries.names):
        index = {name: i for i, name in enumerate(queries.names)}
    reach, count = int(tolerance.amount), len(references)
    found = []
    for name in queries.names:
        at = index.get(name)
        first, last = (0, 0) if at is None else (max(0, at - reach), min(count, at + reach + 1))
        found.append(frozenset(range(first, last)))
    return found


def cut(traverse: Traverse, frames: str) -> Traverse:
    """The stretch ``first:last`` of a traverse, either of them left out for its end.

    Raises:
        EvaluationError: not such a stretch, or nothing is in it.
    """
    try:
        first, last = (int(word) if word else None for word in frames.split(":"))
    except ValueError as error:
        raise EvaluationError(f"frames '{frames}' are not first:last") from error
    kept = list(range(len(traverse)))[first:last]
    if not kept:
        raise EvaluationError(f"frames {frames} of {len(traverse)} are none")
    return _chosen(traverse, kept)


def thinned(traverse: Traverse, spacing: float) -> Traverse:
    """Frames at least ``spacing`` metres apart: neither stops nor frame rates are left in it.

    Frames without a position are left out.

    Raises:
        EvaluationError: the traverse has no positions.
    """
    if traverse.positions is None:
        raise EvaluationError("a traverse without positions cannot be thinned by metres")
    kept: list[int] = []
    for index, position in enumerate(traverse.positions):
        moved = not kept or np.linalg.norm(position - traverse.positions[kept[-1]]) >= spacing
        if moved and np.isfinite(position).all():
            kept.append(index)
    return _chosen(traverse, kept)


def moving(traverse: Traverse, stillness: float) -> list[int]:
    """Frames that are left when those are taken out during which the camera stood still.

    A frame is kept that differs from the last kept one by ``stillness`` grey levels, on average
    over its pixels. A robot keeps keyframes in the same way, by its odometry.

    Raises:
        EvaluationError: the traverse has no images, or one cannot be decoded.
    """
    if not traverse.files:
        raise EvaluationError("stops cannot be seen in a traverse without images")
    kept = [0]
    last = _grey(traverse.files[0])
    for index, file in enumerate(traverse.files[1:], 1):
        image = _grey(file)
        if image.shape != last.shape or np.abs(image - last).mean() >= stillness:
            kept.append(index)
            last = image
    return kept


def without_stops(
    references: Traverse, queries: Traverse, correct: list[frozenset[int]], stillness: float
) -> WithoutStops:
    """Both traverses without the frames of their own stops, as ``moving`` sees them.

    For a reference frame that is taken out stands the last one that was kept before it; a query
    frame that is taken out has the answer of the last one that was asked before it. With a
    stillness of 0 all frames stay.
    """
    if stillness == 0.0:
        return WithoutStops(references, queries, correct, np.arange(len(queries)))
    kept, asked = moving(references, stillness), moving(queries, stillness)
    stands_for = np.searchsorted(kept, np.arange(len(references)), "right") - 1
    answers = np.searchsorted(asked, np.arange(len(queries)), "right") - 1
    right = [frozenset(stands_for[sorted(places)].tolist()) for places in correct]
    return WithoutStops(_chosen(references, kept), _chosen(queries, asked), right, answers)


def _grey(file: Path) -> NDArray[np.float32]:
    return np.asarray(read_image(file).mean(axis=2), np.float32)


def _chosen(traverse: Traverse, kept: list[int]) -> Traverse:
    return Traverse(
        tuple(traverse.names[i] for i in kept),
        tuple(traverse.files[i] for i in kept) if traverse.files else (),
        None if traverse.descriptors is None else traverse.descriptors[kept],
        None if traverse.positions is None else traverse.positions[kept],
    )


def _within_metres(
    references: NDArray[np.float64], queries: NDArray[np.float64], metres: float
) -> list[frozenset[int]]:
    return [
        frozenset(np.flatnonzero(np.linalg.norm(references - query, axis=1) <= metres).tolist())
        for query in queries
    ]


def _read_nordland(folder: Path) -> Traverse:
    files = image_files(folder)
    return Traverse(tuple(file.stem for file in files), tuple(files), None, None)


def _read_npy(path: Path) -> Traverse:
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EvaluationError(f"cannot read descriptors {path}: {error}") from error
    if matrix.ndim != 2 or not len(matrix) or not np.issubdtype(matrix.dtype, np.floating):
        raise EvaluationError(f"{path} holds {matrix.dtype} {matrix.shape}, not descriptors (N, D)")
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(broken):
        raise EvaluationError(f"{path}: descriptor {broken[0]} has a value that is not finite")
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    if (lengths == 0.0).any():
        raise EvaluationError(f"{path}: descriptor {int(lengths.argmin())} is all zero")
    unit = np.asarray(matrix / lengths, np.float32)
    return Traverse(tuple(str(i) for i in range(len(unit))), (), unit, None)


def _read_robotcar(folder: Path) -> Traverse:
    images = next((folder / name for name in ROBOTCAR_CAMERAS if (folder / name).is_dir()), folder)
    files = image_files(images)
    seconds = _seconds_of_names(files, 1e-6)
    track = next((folder / name for name in ROBOTCAR_TRACKS if (folder / name).is_file()), None)
    if track is None:
        raise EvaluationError(f"{folder} has none of {', '.join(ROBOTCAR_TRACKS)}")
    rows = _table(track, ("timestamp", "northing", "easting"))
    positions = _at(seconds, rows[:, 0] * 1e-6, rows[:, [2, 1]])
    return Traverse(tuple(file.stem for file in files), tuple(files), None, positions)


def _table(file: Path, columns: tuple[str, ...]) -> NDArray[np.float64]:
    rows = []
    try:
        with file.open(newline="") as stream:
            reader = csv.DictReader(stream)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise EvaluationError(f"{file} lacks the columns {', '.join(sorted(missing))}")
            for row in reader:
                try:
                    rows.append([float(row[name]) for name in columns])
                except (TypeError, ValueError) as error:
                    raise EvaluationError(f"{file}, line {reader.line_num}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"cannot read {file}: {error}") from error
    if not rows:
        raise EvaluationError(f"{file} has no rows")
    return np.array(rows)


def _read_brisbane(folder: Path) -> Traverse:
    frames = folder / "frames"
    files = image_files(frames if frames.is_dir() else folder)
    names = tuple(file.stem for file in files)
    line_a_frame = folder / "fGPS.txt"
    if line_a_frame.is_file():
        return Traverse(names, tuple(files), None, _line_a_frame(line_a_frame, len(files)))
    nmea = sorted(folder.glob("*.nmea"))
    if not nmea:
        raise EvaluationError(f"{folder} has neither fGPS.txt nor an .nmea file")
    stamps, positions = _nmea_track(nmea[0])
    seconds = _seconds_of_names(files, 1.0)
    day = np.mod(seconds, 86400.0) if seconds[0] > 86400.0 else seconds
    return Traverse(names, tuple(files), None, _at(day, stamps, positions))


def _line_a_frame(file: Path, count: int) -> NDArray[np.float64]:
    """Latitude and longitude of every frame, as St Lucia has them; 0 0 where there was no fix."""
    try:
        rows = np.loadtxt(file, delimiter="," if "," in file.read_text() else None, ndmin=2)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"cannot read {file}: {error}") from error
    if len(rows) != count or rows.shape[1] < 2:
        raise EvaluationError(f"{file} has {len(rows)} lines of positions for {count} images")
    known = (rows[:, :2] != 0.0).any(axis=1)
    return np.where(known[:, None], _metres(rows[:, 0], rows[:, 1]), np.nan)


def _nmea_track(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds of the day and metres of every fix."""
    fixes = []
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError as error:
        raise EvaluationError(f"cannot read {file}: {error}") from error
    for number, line in enumerate(lines, 1):
        words = line.split("*")[0].lstrip("$").split(",")
        if words[0] not in NMEA_SENTENCES or len(words) < 7 or words[6] in ("", "0"):
            continue
        try:
            clock = float(words[1])
            seconds = 3600 * (clock // 10000) + 60 * (clock // 100 % 100) + clock % 100
            latitude = _degrees(words[2], words[3] == "S")
            fixes.append((seconds, latitude, _degrees(words[4], words[5] == "W")))
        except ValueError as error:
            raise EvaluationError(f"{file}, line {number}: {error}") from error
    if len(fixes) < 2:
        raise EvaluationError(f"{file} has {len(fixes)} GGA fixes, a track needs two")
    table = np.array(fixes)
    return table[:, 0], _metres(table[:, 1], table[:, 2])


def _degrees(text: str, negative: bool) -> float:
    value = float(text)
    degrees = value // 100 + value % 100 / 60
    return -degrees if negative else degrees


def _metres(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) earth-centred metres on the ellipsoid: one frame for drives wherever they begin."""
    return np.column_stack(pymap3d.geodetic2ecef(latitude, longitude, np.zeros_like(latitude)))


def _seconds_of_names(files: list[Path], unit: float) -> NDArray[np.float64]:
    try:
        return np.array([float(file.stem) * unit for file in files])
    except ValueError as error:
        raise EvaluationError(f"an image in {files[0].parent} is not named by its time") from error


def _at(
    wanted: NDArray[np.float64], stamps: NDArray[np.float64], positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Positions interpolated at ``wanted`` seconds; NaN away from the track."""
    order = np.argsort(stamps, kind="stable")
    stamps, positions = stamps[order], positions[order]
    found = np.column_stack([np.interp(wanted, stamps, column) for column in positions.T])
    after = np.searchsorted(stamps, wanted).clip(1, len(stamps) - 1) if len(stamps) > 1 else None
    if after is None:
        distance = np.abs(wanted - stamps[0])
    else:
        distance = np.minimum(np.abs(wanted - stamps[after - 1]), np.abs(wanted - stamps[after]))
    found[distance > FARTHEST_FROM_TRACK_S] = np.nan
    return found
