"""A dataset folder of labelled keyframes.

::

    manifest.json    format, origin of the metric coordinates, counts, what was left out and why
    keyframes.csv    one row a keyframe, see ``COLUMNS``
    images/000000.jpg ...
    map.png          where they were taken; drawn when a recording is finished

Rows are appended behind their image, so that an interrupted run loses at most the row it was
writing. Opening a folder again appends another session in the same metric coordinates.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vpr.images.decoding import ImageError, decode_compressed
from vpr.records import GpsFix, Image

MANIFEST, ROWS, IMAGES = "manifest.json", "keyframes.csv", "images"
SCHEMA = 1
COLUMNS = (
    "index",
    "session",
    "stamp_ns",
    "latitude",
    "longitude",
    "altitude",
    "east",
    "north",
    "up",
    "heading_rad",
    "heading_source",
    "image",
)
HeadingSource = Literal["odometry", "imu", "fixes"]
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}


class DatasetError(ValueError):
    """A dataset folder that can't be written or read; the message names the place and cause."""


@dataclass(frozen=True)
class LabelledKeyframe:
    """An image and where it was taken, interpolated to its stamp."""

    session: int
    stamp_ns: int
    fix: GpsFix
    position: NDArray[np.float64]  # (3,) east north up of the dataset's origin, metres
    heading: float  # radians from east, counter-clockwise
    heading_source: HeadingSource
    image: Image | bytes  # decoded, or as it was received


@dataclass(frozen=True)
class Dataset:
    """N keyframes of a dataset folder, in the order they were taken."""

    folder: Path
    origin: GpsFix
    sessions: NDArray[np.int64]  # (N,)
    stamps_ns: NDArray[np.int64]  # (N,)
    geodetic: NDArray[np.float64]  # (N, 3) latitude, longitude (degrees), altitude (m)
    positions: NDArray[np.float64]  # (N, 3) east north up of the origin, m
    headings: NDArray[np.float64]  # (N,) radians from east, counter-clockwise
    heading_sources: tuple[str, ...]
    images: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Image:
        """Pixels of one keyframe.

        Raises:
            DatasetError: the image is missing or damaged.
        """
        path = self.images[index]
        try:
            return decode_compressed(path.read_bytes())
        except OSError as error:
            raise DatasetError(f"cannot read {path}: {error.strerror}") from error
        except ImageError as error:
            raise DatasetError(f"{path}: {error}") from error


class _Origin(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    latitude: Annotated[float, Field(ge=-90.0, le=90.0)]
    longitude: Annotated[float, Field(ge=-180.0, le=180.0)]
    altitude: Annotated[float, Field(allow_inf_nan=False)]


class Source(BaseModel):
    """A recording that keyframes were taken from, so that labelling it again can go on."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    first_session: int
    complete: bool


class Manifest(BaseModel):
    """What a dataset folder says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal["vpr-dataset"]
    schema_version: int
    origin: _Origin
    keyframes: int
    sessions: int
    rejected_fixes: dict[str, int]  # by reason, over all sessions
    rejected_images: dict[str, int]
    sources: tuple[Source, ...] = ()  # recordings labelled offline; a live drive has none


def read_dataset(folder: Path) -> Dataset:
    """The keyframes of a folder; images are read one by one later.

    Raises:
        DatasetError: no dataset there, or a row that makes no sense; names the line.
    """
    manifest = read_manifest(folder)
    rows = _read_rows(folder / ROWS)
    if len(rows) < manifest.keyframes:
        raise DatasetError(
            f"{folder / ROWS} has {len(rows)} keyframes, the manifest says {manifest.keyframes}"
        )

    def numbers(*names: str) -> NDArray[np.float64]:
        table = [[float(row[name]) for name in names] for row in rows]
        return np.array(table, np.float64).reshape(-1, len(names))

    return Dataset(
        folder=folder,
        origin=GpsFix(**manifest.origin.model_dump()),
        sessions=np.array([int(row["session"]) for row in rows], np.int64),
        stamps_ns=np.array([int(row["stamp_ns"]) for row in rows], np.int64),
        geodetic=numbers("latitude", "longitude", "altitude"),
        positions=numbers("east", "north", "up"),
        headings=numbers("heading_rad")[:, 0],
        heading_sources=tuple(row["heading_source"] for row in rows),
        images=tuple(folder / row["image"] for row in rows),
    )


def read_manifest(folder: Path) -> Manifest:
    """Manifest of a dataset folder.

    Raises:
        DatasetError: missing, damaged, foreign or of a newer version.
    """
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DatasetError(f"{folder} is not a dataset: it has no {MANIFEST}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is damaged: {error}") from error
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise DatasetError(f"{path} is not a dataset's: {place}: {problem['msg']}") from error
    if manifest.schema_version > SCHEMA:
        raise DatasetError(f"{path} has schema version {manifest.schema_version}, newer than ours")
    return manifest


class DatasetWriter:
    """Appends keyframes to a folder, which it makes at the first one.

    Args:
        image_suffix: ".jpg" or ".png"; how a decoded image is stored. One received as JPEG or
            PNG is stored as it came.

    Raises:
        DatasetError: the folder holds something else, or a damaged dataset.
    """

    def __init__(self, folder: Path, image_suffix: str, jpeg_quality: int) -> None:
        self.folder = folder
        self._suffix, self._quality = image_suffix, jpeg_quality
        self._manifest: Manifest | None = None
        self._source: Source | None = None
        self._stored: set[tuple[int, int]] = set()  # session and stamp of what a killed run wrote
        self._count = 0
        if (folder / MANIFEST).exists():
            self._manifest = read_manifest(folder)
            rows = _read_rows(folder / ROWS)
            self._count = len(rows)
            self._stored = {(int(row["session"]), int(row["stamp_ns"])) for row in rows}
            _cut_unfinished_row(folder / ROWS)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DatasetError(f"{folder} is not empty and not a dataset; choose another folder")

    @property
    def origin(self) -> GpsFix | None:
        """Origin of the metric coordinates of a folder that is continued."""
        return None if self._manifest is None else GpsFix(**self._manifest.origin.model_dump())

    @property
    def sessions(self) -> int:
        """Sessions in the folder so far."""
        return 0 if self._manifest is None else self._manifest.sessions

    def begin_source(self, name: str) -> int:
        """Say which recording the next keyframes are from; the session its first one belongs to.

        One that a killed run began is taken up again: what is stored of it is not stored twice.

        Raises:
            DatasetError: the recording is in the folder already.
        """
        known = () if self._manifest is None else self._manifest.sources
        for source in known:
            if source.name == name and source.complete:
                raise DatasetError(f"{self.folder} holds the keyframes of {name} already")
            if source.name == name:
                self._source = source
                return source.first_session
        self._source = Source(name=name, first_session=self.sessions, complete=False)
        return self.sessions

    def complete_source(self) -> None:
        """Note that all of the recording is stored."""
        if self._source is not None and self._manifest is not None:
            self._source = self._source.model_copy(update={"complete": True})
            self._update()

    def add(self, keyframe: LabelledKeyframe, origin: GpsFix) -> None:
        """Store one keyframe, unless the folder has it from a run that was killed.

        Raises:
            ImageError: the image can't be decoded or encoded; nothing was stored.
            DatasetError: the disk refuses.
        """
        if self._source is not None and (keyframe.session, keyframe.stamp_ns) in self._stored:
            return
        suffix, encoded = self._encoded(keyframe.image)
        try:
            if self._manifest is None:
                self._begin(origin)
            name = f"{IMAGES}/{self._count:06d}{suffix}"
            _write(self.folder / name, encoded)
            _append(self.folder / ROWS, _row(self._count, keyframe, name).encode())
            self._count += 1
            self._update(sessions=max(self.sessions, keyframe.session + 1))
        except OSError as error:
            raise DatasetError(f"cannot write to {self.folder}: {error.strerror}") from error

    def note_rejected(self, fixes: Mapping[str, int], images: Mapping[str, int]) -> None:
        """Add to what was left out, by reason, and write the manifest."""
        if self._manifest is None:
            return
        self._update(
            rejected_fixes=_sum(self._manifest.rejected_fixes, fixes),
            rejected_images=_sum(self._manifest.rejected_images, images),
        )

    def _begin(self, origin: GpsFix) -> None:
        (self.folder / IMAGES).mkdir(parents=True, exist_ok=True)
        _write(self.folder / ROWS, (",".join(COLUMNS) + "\n").encode())
        self._manifest = Manifest(
            format="vpr-dataset",
            schema_version=SCHEMA,
            origin=_Origin(
                latitude=origin.latitude, longitude=origin.longitude, altitude=origin.altitude
            ),
            keyframes=0,
            sessions=0,
            rejected_fixes={},
            rejected_images={},
        )

    def _update(self, **changes: object) -> None:
        assert self._manifest is not None
        if self._source is not None:
            others = (s for s in self._manifest.sources if s.name != self._source.name)
            changes["sources"] = (*others, self._source)
        self._manifest = self._manifest.model_copy(update={"keyframes": self._count, **changes})
        _write(self.folder / MANIFEST, (self._manifest.model_dump_json(indent=2) + "\n").encode())

    def _encoded(self, image: Image | bytes) -> tuple[str, bytes]:
        if isinstance(image, bytes):
            pixels = decode_compressed(image)  # what can't be read later is refused now
            for magic, suffix in _MAGIC.items():
                if image.startswith(magic):
                    return suffix, image
            image = pixels
        if image.size == 0:
            raise ImageError("empty_image", "image has no pixels")
        options = [cv2.IMWRITE_JPEG_QUALITY, self._quality] if self._suffix == ".jpg" else []
        done, encoded = cv2.imencode(self._suffix, image, options)
        if not done:
            raise ImageError("unencodable_image", f"image {image.shape} can't be stored")
        return self._suffix, encoded.tobytes()


def _row(index: int, keyframe: LabelledKeyframe, name: str) -> str:
    fix, (east, north, up) = keyframe.fix, keyframe.position.tolist()
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(
        (
            index,
            keyframe.session,
            keyframe.stamp_ns,
            f"{fix.latitude:.9f}",  # 0.1 mm
            f"{fix.longitude:.9f}",
            f"{fix.altitude:.4f}",
            f"{east:.4f}",
            f"{north:.4f}",
            f"{up:.4f}",
            f"{keyframe.heading:.6f}",
            keyframe.heading_source,
            name,
        )
    )
    return line.getvalue()


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Complete rows; a last line without its end was being written when the run died."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {error}") from error
    complete = text[: text.rfind("\n") + 1]
    rows = list(csv.DictReader(io.StringIO(complete)))
    if complete.split("\n", 1)[0] != ",".join(COLUMNS):
        raise DatasetError(f"{path}: first line is not {','.join(COLUMNS)}")
    for number, row in enumerate(rows, start=2):
        try:
            int(row["session"]), int(row["stamp_ns"])
            finite = all(np.isfinite(float(row[name])) for name in COLUMNS[3:10])
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{path}:{number}: {error}") from error
        if not finite or None in row or not row["image"]:
            raise DatasetError(f"{path}:{number}: not a keyframe")
    return rows


def _cut_unfinished_row(path: Path) -> None:
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if len(complete) < len(content):
        _write(path, complete)


def _append(path: Path, content: bytes) -> None:
    """Add all of it or nothing: half a row would spoil the one after it."""
    size = path.stat().st_size
    try:
        with path.open("ab") as file:
            file.write(content)
    except OSError:
        os.truncate(path, size)
        raise


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _sum(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in sorted(a.keys() | b.keys())}
