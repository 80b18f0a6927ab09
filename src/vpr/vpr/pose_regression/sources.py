"""Data sets in their official formats: 7-Scenes, DeepLoc, and our simulated worlds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from vpr.bags.folders import OPTICAL_IN_BASE, seven_scenes_camera, seven_scenes_depth
from vpr.geometry import pose_from_quaternion
from vpr.models.vlocnet import VLocNetConfig
from vpr.pose_regression.frames import Frame, FramesError, PosedFrames, gather
from vpr.records import CameraModel, Image
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import plan_drive
from vpr.simulation.recording import take_shot
from vpr.simulation.world import build_world

SOURCES = (
    "7scenes:FOLDER, deeploc:FOLDER, or world:SEED:DRIVES with the seeds of its drives as 1,2,3"
)
KINECT_COLOUR_FOCAL = 525.0  # px of 640; 7-Scenes' own pages give no colour intrinsics
ZED_FOCAL_OF_WIDTH = 0.55  # DeepLoc's camera at 720p: about 700 px of 1280
DEEPLOC_CLASSES = 10
DEEPLOC_COLUMNS = 8  # image name, x y z (m), qw qx qy qz
UNIT = 0.05  # a quaternion further than this from unit length is no rounding, but damage

T = TypeVar("T")


def seven_scenes(scene: Path, split: str, config: VLocNetConfig) -> PosedFrames:
    """``train`` or ``test`` of a scene, or ``all`` of one folder of frames.

    A scene has TrainSplit.txt, TestSplit.txt ("sequence1" a line) and seq-01, seq-02, ... with
    frame-NNNNNN.{color,depth,pose}.

    Raises:
        FramesError: a missing split, folder, pose or image, or a pose that is none.
        BagError: an intrinsics file or a depth image that is damaged.
    """
    if any(scene.glob("frame-*.color.*")):
        folders = [scene]
    else:
        folders = [scene / f"seq-{number:02d}" for number in _split(scene, split)]
    files = [_colour_files(folder) for folder in folders]
    first = _read_image(files[0][0])
    if (folders[0] / "camera-intrinsics.txt").is_file():
        camera = seven_scenes_camera(folders[0], first)
    else:
        camera = _centred_camera(first, KINECT_COLOUR_FOCAL / 640 * first.shape[1])
    listed = [(number, file) for number, folder in enumerate(files) for file in folder]
    return gather((_seven_scenes_frame(*item) for item in _shown(listed)), camera, config)


def _split(scene: Path, split: str) -> list[int]:
    file = scene / f"{split.capitalize()}Split.txt"
    try:
        text = file.read_text()
    except OSError as error:
        raise FramesError(
            f"{scene} is no 7-Scenes scene: neither frame-*.color.* nor {file.name}"
        ) from error
    numbers = [int(found) for found in re.findall(r"sequence\s*(\d+)", text)]
    if not numbers:
        raise FramesError(f"{file} names no sequence")
    return numbers


def _colour_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("frame-*.color.*"))
    if not files:
        raise FramesError(f"no frame-*.color.* in {folder}")
    return files


def _seven_scenes_frame(sequence: int, file: Path) -> Frame:
    stem = file.name.split(".")[0]
    pose_file = file.with_name(f"{stem}.pose.txt")
    try:
        pose = np.loadtxt(pose_file).reshape(4, 4)
    except (OSError, ValueError) as error:
        raise FramesError(f"{pose_file} is not a 4x4 pose: {error}") from error
    depth = None
    if file.with_name(f"{stem}.depth.png").is_file():
        depth = seven_scenes_depth(file).astype(np.float32) / 1000.0
    number = int(stem.rsplit("-", 1)[-1])
    return Frame(str(file), sequence, number, _read_image(file), pose, depth=depth)


def deeploc(root: Path, split: str, config: VLocNetConfig) -> PosedFrames:
    """``train`` or ``test`` of DeepLoc: poses.txt, LeftImages/NAME.png, labels/NAME.png.

    Its pages give no intrinsics; a ZED camera's are taken.

    Raises:
        FramesError: a missing file, or a row of poses.txt that is no pose; names the line.
    """
    folder = root / split
    rows = sorted(_deeploc_rows(folder / "poses.txt"))
    if not rows:
        raise FramesError(f"{folder / 'poses.txt'} has no poses")
    first = _read_image(_deeploc_file(folder / "LeftImages", rows[0][1]))
    camera = _centred_camera(first, ZED_FOCAL_OF_WIDTH * first.shape[1])
    return gather((_deeploc_frame(folder, *row) for row in _shown(rows)), camera, config)


def _deeploc_rows(file: Path) -> Iterator[tuple[int, str, tuple[float, ...], int]]:
    """Number, name, x y z qw qx qy qz and line of each image; titles above are passed over."""
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise FramesError(f"cannot read {file}: {error.strerror}") from error
    begun = False
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            values = tuple(float(word) for word in words[1:])
            digits = re.findall(r"\d+", words[0])
            if len(words) != DEEPLOC_COLUMNS or not digits:
                raise ValueError(f"{len(words)} columns")
        except (ValueError, IndexError) as error:
            if not words or not begun:
                continue
            raise FramesError(f"{file} line {number} is no pose: {error}") from error
        begun = True
        yield int(digits[-1]), words[0], values, number


def _deeploc_frame(
    folder: Path, number: int, name: str, values: tuple[float, ...], line: int
) -> Frame:
    x, y, z, qw, qx, qy, qz = values
    try:
        pose = pose_from_quaternion((x, y, z), (qx, qy, qz, qw))
    except ValueError as error:
        raise FramesError(f"{folder / 'poses.txt'} line {line}: {error}") from error
    length = float(np.linalg.norm((qx, qy, qz, qw)))
    if abs(length - 1.0) > UNIT:
        raise FramesError(
            f"{folder / 'poses.txt'} line {line}: a quaternion of length {length:.3g}, not 1"
        )
    image = _read_image(_deeploc_file(folder / "LeftImages", name))
    labels = None
    if (folder / "labels").is_dir() and (file := _found(folder / "labels", name)) is not None:
        labels = _read_labels(file)
    return Frame(f"{folder / name}", 0, number, image, pose, labels=labels)


def _deeploc_file(folder: Path, name: str) -> Path:
    file = _found(folder, name)
    if file is None:
        raise FramesError(f"no image {name} in {folder}")
    return file


def _found(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.png", folder / f"{name}.jpg")
    return next((file for file in candidates if file.is_file()), None)


def simulated_drives(
    world: int,
    drives: Sequence[int],
    config: VLocNetConfig,
    simulation: SimulationConfig | None = None,
) -> PosedFrames:
    """Drives through the town of seed ``world``, each seed on its own line and at its own speed.

    Depth and the classes of Cityscapes are exact.
    """
    simulation = (simulation or SimulationConfig()).model_copy(
        update={"image_width": 2 * config.image_width, "image_height": 2 * config.image_height}
    )
    camera = simulation.camera()
    town = build_world(world, camera, simulation.camera_height)

    def frames() -> Iterator[Frame]:
        for sequence, seed in enumerate(drives):
            drive = plan_drive(seed, town.plan, simulation)
            for index in _shown(drive.image_indices.tolist()):
                shot = take_shot(town, drive, index, simulation)
                pose = drive.poses[index] @ OPTICAL_IN_BASE
                name = f"world {world} drive {seed} image {index}"
                yield Frame(name, sequence, index, shot.image, pose, shot.labels, shot.depth)

    return gather(frames(), camera, config)


def frames_of(source: str, split: str, config: VLocNetConfig) -> PosedFrames:
    """The frames that a word of the command line names, see ``SOURCES``.

    Raises:
        FramesError: no such source, or it cannot be read.
        BagError: see ``seven_scenes``.
    """
    kind, _, rest = source.partition(":")
    if kind == "7scenes" and rest:
        return seven_scenes(Path(rest).expanduser(), split, config)
    if kind == "deeploc" and rest:
        return deeploc(Path(rest).expanduser(), split, config)
    if kind == "world" and (found := re.fullmatch(r"(\d+):(\d+(?:,\d+)*)", rest)):
        drives = [int(seed) for seed in found[2].split(",")]
        return simulated_drives(int(found[1]), drives, config, SimulationConfig(image_rate=3.0))
    raise FramesError(f"'{source}' names no frames: give {SOURCES}")


def _centred_camera(image: Image, focal: float) -> CameraModel:
    height, width = image.shape[:2]
    matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return CameraModel(width, height, matrix, assumed=True)


def _read_image(file: Path) -> Image:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise FramesError(f"{file} is not a readable image")
    return np.asarray(image, np.uint8)


def _read_labels(file: Path) -> NDArray[np.uint8]:
    labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2 or labels.dtype != np.uint8:
        raise FramesError(f"{file} is not a label image of one 8-bit channel")
    return np.asarray(labels, np.uint8)


def _shown(items: Sequence[T]) -> Iterator[T]:
    yield from track(items, description="reading frames", transient=True)
