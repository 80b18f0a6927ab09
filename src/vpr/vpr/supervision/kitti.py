"""KITTI drives in their official folder formats (Geiger et al. 2012, 2013).

Raw, synchronised (``2011_09_26_drive_0001_sync``)::

    image_02/data/0000000000.png ...   image_02/timestamps.txt
    oxts/data/0000000000.txt ...       oxts/timestamps.txt

Odometry (``dataset``)::

    sequences/00/image_0/000000.png ...   sequences/00/times.txt   poses/00.txt
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path

import numpy as np
import pymap3d
from numpy.typing import NDArray

from vpr.evaluation.places import EvaluationError, image_files
from vpr.geometry import pose_from_xy_yaw
from vpr.records import GpsFix
from vpr.supervision.dataset import DatasetError
from vpr.supervision.recordings import SensorEvent

GREY_CAMERAS, COLOUR_CAMERAS = ("image_00", "image_0"), ("image_02", "image_2")
OXTS_POSITION_ACCURACY = 23  # column: "pos_accuracy", m
OXTS_COLUMNS = 30
MADE_UP_ORIGIN = (49.011, 8.4163, 112.0)  # Karlsruhe; poses of the odometry set are not geodetic


def kitti_raw_events(drive: Path, camera: str = "image_02") -> Iterator[SensorEvent]:
    """Images, and the INS's fixes and yaw, of a raw drive, in order of time.

    Raises:
        DatasetError: a file is missing or makes no sense; names it.
    """
    images = merge(_raw_images(drive / camera), _raw_oxts(drive / "oxts"), key=lambda e: e.stamp_ns)
    yield from images


def kitti_odometry_events(
    dataset: Path, sequence: str, camera: str = "image_0"
) -> Iterator[SensorEvent]:
    """Images, and the true poses as odometry and as fixes around a made-up origin.

    The poses are those of the left camera: x right, y down, z ahead of the first image.

    Raises:
        DatasetError: a file is missing or makes no sense; names it.
    """
    folder = dataset / "sequences" / sequence
    times = _numbers(folder / "times.txt", 1)[:, 0]
    poses = _numbers(dataset / "poses" / f"{sequence}.txt", 12).reshape(-1, 3, 4)
    files = _images(folder / camera)
    if not len(times) == len(poses) == len(files):
        raise DatasetError(
            f"{folder}: {len(files)} images, {len(times)} times and {len(poses)} poses"
        )
    for file, seconds, pose in zip(files, times, poses, strict=True):
        stamp = 1 + round(float(seconds) * 1e9)
        ahead, left = pose[[2, 0], 3] * (1, -1)
        yaw = np.arctan2(-pose[0, 2], pose[2, 2])
        yield SensorEvent(stamp, fix=_fix_at(float(ahead), float(left), -float(pose[1, 3])))
        yield SensorEvent(stamp, odometry=pose_from_xy_yaw(float(ahead), float(left), float(yaw)))
        yield SensorEvent(stamp, image=_bytes(file))


def _raw_images(folder: Path) -> Iterator[SensorEvent]:
    stamps = _stamps(folder / "timestamps.txt")
    files = _images(folder / "data")
    for file in files:  # a frame that was lost has a stamp and no file
        index = int(file.stem) if file.stem.isdigit() else -1
        if not 0 <= index < len(stamps):
            raise DatasetError(f"{folder}: no timestamp for {file.name}")
        yield SensorEvent(stamps[index], image=_bytes(file))


def _raw_oxts(folder: Path) -> Iterator[SensorEvent]:
    stamps = _stamps(folder / "timestamps.txt")
    for file in sorted((folder / "data").glob("*.txt")):
        values = _numbers(file, OXTS_COLUMNS)[0]
        index = int(file.stem) if file.stem.isdigit() else -1
        if not 0 <= index < len(stamps):
            raise DatasetError(f"{folder}: no timestamp for {file.name}")
        stamp, (latitude, longitude, altitude, _, _, yaw) = stamps[index], values[:6].tolist()
        covariance = np.eye(3) * values[OXTS_POSITION_ACCURACY] ** 2
        yield SensorEvent(stamp, fix=GpsFix(latitude, longitude, altitude, covariance))
        yield SensorEvent(stamp, orientation=pose_from_xy_yaw(0.0, 0.0, yaw))


def _fix_at(east: float, north: float, up: float) -> GpsFix:
    latitude, longitude, altitude = pymap3d.enu2geodetic(east, north, up, *MADE_UP_ORIGIN)
    return GpsFix(float(latitude), float(longitude), float(altitude))


def _stamps(file: Path) -> list[int]:
    """Nanoseconds of lines as ``2011-09-26 13:02:25.964389445``."""
    stamps = []
    for number, line in enumerate(_lines(file), 1):
        try:
            whole, _, fraction = line.partition(".")
            moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            stamps.append(round(moment.timestamp()) * 10**9 + int(f"{fraction:0<9}"[:9]))
        except ValueError as error:
            raise DatasetError(f"{file} line {number}: {error}") from error
    return stamps


def _numbers(file: Path, columns: int) -> NDArray[np.float64]:
    rows = []
    for number, line in enumerate(_lines(file), 1):
        words = line.split()
        try:
            rows.append([float(word) for word in words])
        except ValueError as error:
            raise DatasetError(f"{file} line {number}: {error}") from error
        if len(words) != columns:
            raise DatasetError(f"{file} line {number}: {len(words)} numbers, not {columns}")
    if not rows:
        raise DatasetError(f"{file} is empty")
    return np.array(rows)


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {file}: {error}") from error


def _images(folder: Path) -> list[Path]:
    try:
        return image_files(folder)
    except EvaluationError as error:
        raise DatasetError(str(error)) from error


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror}") from error
