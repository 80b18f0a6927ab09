"""RGB-D sequences with known poses, and the folders they are kept in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vpr.geometry import PoseTrack, PoseUnavailable, pose_from_quaternion
from vpr.records import CameraModel, Image, Pose

NO_DEPTH_7SCENES = 65535
DEPTH_CAMERA_7SCENES = (585.0, 320.0, 240.0)  # focal length and principal point, px
DEPTH_SCALE_TUM = 1.0 / 5000.0  # m a unit
CAMERA_TUM = (525.0, 319.5, 239.5)  # what the benchmark's tools assume
ASSOCIATION_NS = 20_000_000  # colour and depth of TUM folders at most this far apart
POSE_GAP_NS = 200_000_000  # poses further apart are not interpolated between
COLOUR_OVER_DEPTH_FOCAL = 525.0 / 585.0


class RgbdError(ValueError):
    """A folder that is not what it should be, or a view without usable depth; says where."""


@dataclass(frozen=True)
class RgbdSequence:
    """N views of one place with truth.

    Attributes:
        images: (N, H, W, 3) BGR uint8.
        depths: (N, H, W) float32 metres along the optical axis, registered to the images; NaN
            where unknown.
        poses: (N, 4, 4) map_T_camera, optical axes.
        laps: (N,) which run each view belongs to.
    """

    name: str
    camera: CameraModel
    images: NDArray[np.uint8]
    depths: NDArray[np.float32]
    poses: NDArray[np.float64]
    stamps_ns: NDArray[np.int64]
    laps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.poses)

    def chosen(self, rows: NDArray[np.intp]) -> RgbdSequence:
        """Some of the views, in the given order."""
        return RgbdSequence(
            self.name,
            self.camera,
            self.images[rows],
            self.depths[rows],
            self.poses[rows],
            self.stamps_ns[rows],
            self.laps[rows],
        )


def load_seven_scenes(folder: Path, stride: int = 1) -> RgbdSequence:
    """A 7-Scenes sequence: ``frame-N.{color,depth}.png`` and ``frame-N.pose.txt`` (Shotton 2013).

    The depth images are laid over the colour images by their focal lengths; the 2.5 cm between
    the two cameras are neglected.

    Raises:
        RgbdError: a file is missing, damaged, or of another kind.
    """
    files = _every(sorted(folder.glob("frame-*.color.*")), stride, folder, "frame-*.color.*")
    focal, cx, cy = DEPTH_CAMERA_7SCENES
    camera = _camera(files[0], focal * COLOUR_OVER_DEPTH_FOCAL, focal * COLOUR_OVER_DEPTH_FOCAL,
                     cx, cy)  # fmt: skip
    depths, poses = [], []
    for file in files:
        stem = file.name.split(".")[0]
        raw = _depth(file.with_name(f"{stem}.depth.png"))
        raw = np.where(raw == NO_DEPTH_7SCENES, 0, raw).astype(np.uint16)
        depths.append(_metres(_onto_colour(raw), 1e-3))
        poses.append(_matrix(file.with_name(f"{stem}.pose.txt")))
    stamps = np.arange(len(files), dtype=np.int64) * 33_333_333 * stride
    return _sequence(folder.name, camera, files, depths, poses, stamps, np.zeros(len(files)))


def load_tum(folder: Path, stride: int = 1) -> RgbdSequence:
    """A TUM RGB-D folder: ``rgb.txt``, ``depth.txt`` and ``groundtruth.txt`` (Sturm et al. 2012).

    Colour and depth are associated by nearest stamp; the true pose is interpolated.

    Raises:
        RgbdError: as ``load_seven_scenes``, or no colour image has a depth image and a pose.
    """
    colours, depths = _listed(folder / "rgb.txt"), _listed(folder / "depth.txt")
    track = _tum_track(folder / "groundtruth.txt")
    depth_stamps = np.array([stamp for stamp, _ in depths], np.int64)
    files, maps, poses, stamps = [], [], [], []
    for stamp, name in colours[::stride]:
        nearest = int(np.argmin(np.abs(depth_stamps - stamp)))
        if abs(int(depth_stamps[nearest]) - stamp) > ASSOCIATION_NS:
            continue
        try:
            pose = track.at(stamp)
        except PoseUnavailable:
            continue
        files.append(folder / name)
        maps.append(_metres(_depth(folder / depths[nearest][1]), DEPTH_SCALE_TUM))
        poses.append(pose)
        stamps.append(stamp)
    if not files:
        raise RgbdError(f"{folder}: no colour image has a depth image and a pose near it")
    focal, cx, cy = CAMERA_TUM
    camera = _camera(files[0], focal, focal, cx, cy)
    return _sequence(
        folder.name, camera, files, maps, poses, np.array(stamps), np.zeros(len(files))
    )


def load_realsense(folder: Path, stride: int = 1) -> RgbdSequence:
    """A folder as RealSense tools export it: ``color/N.png``, aligned ``depth/N.png``,
    ``camera.json`` (``width height fx fy cx cy depth_scale``) and ``poses.txt``
    (``stamp x y z qx qy qz qw lap`` a line, map_T_camera, the lap optional).

    Raises:
        RgbdError: as ``load_seven_scenes``; intrinsics that do not fit the images.
    """
    try:
        given = json.loads((folder / "camera.json").read_text())
        fx, fy, cx, cy = (float(given[name]) for name in ("fx", "fy", "cx", "cy"))
        scale, size = float(given["depth_scale"]), (int(given["width"]), int(given["height"]))
        rows = np.loadtxt(folder / "poses.txt", ndmin=2)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RgbdError(f"{folder}: camera.json or poses.txt cannot be read: {error}") from error
    files = sorted((folder / "color").glob("*.png"))
    if len(files) != len(rows) or rows.shape[1] not in (8, 9):
        raise RgbdError(f"{folder}: {len(files)} colour images, but {len(rows)} poses of 8 numbers")
    files = _every(files, stride, folder, "color/*.png")
    camera = _camera(files[0], fx, fy, cx, cy)
    if (camera.width, camera.height) != size:
        raise RgbdError(f"{folder}: camera.json is for {size}, images are "
                        f"{(camera.width, camera.height)}")  # fmt: skip
    rows = rows[::stride]
    depths = [_metres(_depth(folder / "depth" / file.name), scale) for file in files]
    poses = [_checked(pose_from_quaternion, row[1:4], row[4:8]) for row in rows]
    laps = rows[:, 8] if rows.shape[1] == 9 else np.zeros(len(rows))
    stamps = np.round(rows[:, 0] * 1e9).astype(np.int64)
    return _sequence(folder.name, camera, files, depths, poses, stamps, laps)


def write_realsense(folder: Path, sequence: RgbdSequence, depth_scale: float = 1e-3) -> None:
    """Write a sequence as ``load_realsense`` reads it; the poses, which make it whole, last."""
    for part in ("color", "depth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    matrix, lines = sequence.camera.matrix, []
    for row in range(len(sequence)):
        units = np.nan_to_num(sequence.depths[row] / depth_scale, nan=0.0, posinf=0.0)
        cv2.imwrite(str(folder / "color" / f"{row:06d}.png"), sequence.images[row])
        cv2.imwrite(
            str(folder / "depth" / f"{row:06d}.png"), np.clip(units, 0, 65535).astype(np.uint16)
        )
        pose = sequence.poses[row]
        numbers = [
            sequence.stamps_ns[row] / 1e9,
            *pose[:3, 3],
            *Rotation.from_matrix(pose[:3, :3]).as_quat(),
        ]
        lines.append(" ".join(f"{n:.9f}" for n in numbers) + f" {sequence.laps[row]}\n")
    camera = {
        "width": sequence.camera.width, "height": sequence.camera.height,
        "fx": matrix[0, 0], "fy": matrix[1, 1], "cx": matrix[0, 2], "cy": matrix[1, 2],
        "depth_scale": depth_scale,
    }  # fmt: skip
    (folder / "camera.json").write_text(json.dumps(camera, indent=2) + "\n")
    unfinished = folder / ".poses.txt.unfinished"
    unfinished.write_text("".join(lines))
    unfinished.replace(folder / "poses.txt")


def load_rgbd(folder: Path, stride: int = 1) -> RgbdSequence:
    """Any of the three kinds of folder, told by the files in it.

    Raises:
        RgbdError: none of the three, or damaged.
    """
    loaders: dict[str, Callable[[Path, int], RgbdSequence]] = {
        "camera.json": load_realsense,
        "groundtruth.txt": load_tum,
        "frame-*.color.*": load_seven_scenes,
    }
    for mark, load in loaders.items():
        if any(folder.glob(mark)):
            return load(folder, stride)
    raise RgbdError(f"{folder} is no 7-Scenes, TUM RGB-D or RealSense folder")


def _every(files: list[Path], stride: int, folder: Path, pattern: str) -> list[Path]:
    if not files:
        raise RgbdError(f"no {pattern} in {folder}")
    return files[::stride]


def _colour(file: Path) -> Image:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise RgbdError(f"{file} is missing or does not decode")
    return np.asarray(image, np.uint8)


def _depth(file: Path) -> NDArray[np.uint16]:
    depth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if depth is None:
        raise RgbdError(f"{file} is missing or does not decode: no depth")
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise RgbdError(f"{file} is not a depth image of 16 bits, one channel")
    return depth.astype(np.uint16)


def _metres(depth: NDArray[np.uint16], scale: float) -> NDArray[np.float32]:
    return np.where(depth > 0, depth * np.float32(scale), np.nan).astype(np.float32)


def _onto_colour(depth: NDArray[np.uint16]) -> NDArray[np.uint16]:
    height, width = depth.shape
    shrink = COLOUR_OVER_DEPTH_FOCAL
    shift = (1.0 - shrink) * np.array([[width / 2], [height / 2]])
    onto = np.hstack([shrink * np.eye(2), shift])
    laid = cv2.warpAffine(depth, onto, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray(laid, np.uint16)


def _matrix(file: Path) -> Pose:
    try:
        pose = np.loadtxt(file).reshape(4, 4)
    except (OSError, ValueError) as error:
        raise RgbdError(f"{file} is not a 4x4 pose: {error}") from error
    if not np.isfinite(pose).all():
        raise RgbdError(f"{file} holds values that are not finite")
    left, _, right = np.linalg.svd(pose[:3, :3])  # written with few digits: not quite a rotation
    pose[:3, :3] = left @ right
    return np.asarray(pose, np.float64)


def _checked(make: Callable[..., Pose], *values: NDArray[np.float64]) -> Pose:
    try:
        return make(*values)
    except ValueError as error:
        raise RgbdError(f"poses.txt: {error}") from error


def _listed(file: Path) -> list[tuple[int, str]]:
    """Stamp (ns) and name of each line of a TUM list."""
    try:
        lines = [line.split() for line in file.read_text().splitlines() if line[:1] != "#"]
        return [(round(float(words[0]) * 1e9), words[1]) for words in lines if words]
    except (OSError, ValueError, IndexError) as error:
        raise RgbdError(f"{file} is not a list of stamps and files: {error}") from error


def _tum_track(file: Path) -> PoseTrack:
    try:
        rows = np.loadtxt(file, ndmin=2)
        track = PoseTrack(POSE_GAP_NS, capacity=len(rows) + 1)
        for row in rows:
            track.append(round(row[0] * 1e9), pose_from_quaternion(row[1:4], row[4:8]))
    except (OSError, ValueError) as error:
        raise RgbdError(f"{file} is no TUM trajectory: {error}") from error
    return track


def _camera(first: Path, fx: float, fy: float, cx: float, cy: float) -> CameraModel:
    height, width = _colour(first).shape[:2]
    if not (fx > 0 and fy > 0 and 0 < cx < width and 0 < cy < height):
        raise RgbdError(f"intrinsics fx {fx} fy {fy} cx {cx} cy {cy} do not fit {width}x{height}")
    return CameraModel(width, height, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]))


def _sequence(
    name: str,
    camera: CameraModel,
    files: list[Path],
    depths: list[NDArray[np.float32]],
    poses: list[Pose],
    stamps: NDArray[np.int64],
    laps: NDArray[np.float64],
) -> RgbdSequence:
    images = [_colour(file) for file in files]
    shapes = {image.shape[:2] for image in images} | {depth.shape for depth in depths}
    if len(shapes) != 1:
        raise RgbdError(f"{name}: images and depth images differ in size: {sorted(shapes)}")
    return RgbdSequence(
        name, camera, np.stack(images), np.stack(depths), np.stack(poses),
        np.asarray(stamps, np.int64), np.asarray(laps, np.int64),
    )  # fmt: skip
