"""Bags from image folders: plain traverses, RGB-D of several kinds, and the Karlsruhe drives.

So that a data set on disk runs through the same nodes as a robot does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.bags.messages import SensorMessages
from vpr.bags.reader import BagError
from vpr.bags.topics import (
    CAMERA_INFO_TOPIC,
    COMPRESSED_TOPIC,
    DEPTH_TOPIC,
    FIX_TOPIC,
    ODOMETRY_TOPIC,
    TRUTH_TOPIC,
)
from vpr.bags.writer import BagWriter
from vpr.evaluation.places import image_files
from vpr.geometry import inverse, relative, rotation_from_vector
from vpr.records import CameraModel, Image, Pose
from vpr.relocalization.rgbd import load_rgbd

START_NS = 1_700_000_000_000_000_000
BETWEEN_TRAVERSES_NS = 15_000_000_000  # so that no place of one is recent in the next
JPEG_QUALITY = 95
NO_DEPTH = 65535  # what 7-Scenes writes where there is no measurement
# A Kinect's: the intrinsics file is the depth camera's. Matched features of redkitchen, carried
# over by depth and true pose, land 2.0 px off with this focal length, 3.4 px with the depth's.
COLOUR_OVER_DEPTH_FOCAL = 525.0 / 585.0
OPTICAL_IN_BASE = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
INS_GPS_SIGMA = 1.0  # m, claimed for the fixes of an inertial navigation system
INS_COLUMNS = 10  # time (ns), latitude, longitude, altitude, x, y, z, roll, pitch, yaw


def _read(file: Path) -> Image:
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BagError(f"{file} is not a readable image")
    return np.asarray(image)


def write_traverses(path: Path, folders: Sequence[Path], rate: float, overwrite: bool) -> int:
    """Images of several folders, one walk after another, as compressed images at ``rate`` Hz.

    Returns:
        how many images were written.

    Raises:
        BagError: an image does not decode, or the bag exists already.
        EvaluationError: a folder is missing or has no image.
    """
    written = 0
    period, stamp = round(1e9 / rate), START_NS
    with BagWriter(path, overwrite=overwrite) as bag:
        messages = SensorMessages(bag.typestore)
        bag.add_topic(COMPRESSED_TOPIC, "sensor_msgs/msg/CompressedImage")
        for folder in folders:
            for file in image_files(folder):
                picture = messages.compressed_image(stamp, _read(file), JPEG_QUALITY)
                bag.write(COMPRESSED_TOPIC, stamp, picture)
                stamp += period
                written += 1
            stamp += BETWEEN_TRAVERSES_NS
    return written


def write_seven_scenes(
    path: Path,
    folder: Path,
    rate: float,
    translation_noise: float,
    rotation_noise: float,
    seed: int,
    overwrite: bool,
) -> int:
    """A 7-Scenes sequence (``frame-N.{color,depth,pose}``) with odometry that drifts from truth.

    The depth images are laid over the colour images: the two cameras differ in focal length; the
    2.5 cm between them are neglected.

    Args:
        translation_noise, rotation_noise: standard deviation a frame, metres and radians, each
            axis, of the odometry made from the true poses.

    Returns:
        how many frames were written.

    Raises:
        BagError: frames, poses or intrinsics are missing or do not decode.
    """
    files = sorted(folder.glob("frame-*.color.*"))
    if not files:
        raise BagError(f"no frame-*.color.* in {folder}")
    camera = seven_scenes_camera(folder, _read(files[0]))
    truth = [_seven_scenes_pose(file) for file in files]
    odometry = drifting(truth, translation_noise, rotation_noise, seed)
    frames = ((_read(file), seven_scenes_depth(file)) for file in files)
    _write_frames(path, camera, zip(frames, odometry, truth, strict=True), rate, overwrite)
    return len(files)


def write_rgbd(
    path: Path,
    folder: Path,
    rate: float,
    translation_noise: float,
    rotation_noise: float,
    seed: int,
    overwrite: bool,
) -> int:
    """An RGB-D folder of any kind that ``load_rgbd`` reads; else as ``write_seven_scenes``.

    Raises:
        RgbdError: it is none of them, or damaged. BagError: the bag exists already.
    """
    sequence = load_rgbd(folder)
    truth = list(sequence.poses @ inverse(OPTICAL_IN_BASE))
    odometry = drifting(truth, translation_noise, rotation_noise, seed)
    depths = (
        np.rint(np.nan_to_num(1000.0 * d)).clip(0, 65535).astype(np.uint16) for d in sequence.depths
    )
    frames = zip(zip(sequence.images, depths, strict=True), odometry, truth, strict=True)
    _write_frames(path, sequence.camera, frames, rate, overwrite)
    return len(sequence)


def _write_frames(
    path: Path,
    camera: CameraModel,
    frames: Iterable[tuple[tuple[Image, NDArray[np.uint16]], Pose, Pose]],
    rate: float,
    overwrite: bool,
) -> None:
    """Frames at ``rate`` Hz: image and depth in mm, odom_T_base and map_T_base."""
    period = round(1e9 / rate)
    with BagWriter(path, overwrite=overwrite) as bag:
        messages = SensorMessages(bag.typestore)
        bag.add_topic(COMPRESSED_TOPIC, "sensor_msgs/msg/CompressedImage")
        bag.add_topic(DEPTH_TOPIC, "sensor_msgs/msg/Image")
        bag.add_topic(CAMERA_INFO_TOPIC, "sensor_msgs/msg/CameraInfo")
        for topic in (ODOMETRY_TOPIC, TRUTH_TOPIC):
            bag.add_topic(topic, "nav_msgs/msg/Odometry")
        for row, ((image, depth), odometry, truth) in enumerate(frames):
            stamp = START_NS + row * period
            for topic, frame, pose in (
                (ODOMETRY_TOPIC, "odom", odometry),
                (TRUTH_TOPIC, "map", truth),
            ):
                message = messages.odometry(stamp, frame, pose, np.ones(3), np.zeros(3), np.ones(3))
                bag.write(topic, stamp, message)
            bag.write(CAMERA_INFO_TOPIC, stamp, messages.camera_info(stamp, camera))
            bag.write(DEPTH_TOPIC, stamp, messages.image(stamp, depth, "16UC1"))
            picture = messages.compressed_image(stamp, image, JPEG_QUALITY)
            bag.write(COMPRESSED_TOPIC, stamp, picture)


def drifting(
    poses: Sequence[Pose], translation_noise: float, rotation_noise: float, seed: int
) -> list[Pose]:
    """Odometry of a true trajectory: its steps with white noise, chained from the first pose."""
    rng = np.random.default_rng(seed)
    result = [poses[0]]
    for before, after in pairwise(poses):
        step = relative(before, after)
        noise = np.eye(4)
        noise[:3, 3] = rng.normal(0.0, translation_noise, 3)
        noise[:3, :3] = rotation_from_vector(rng.normal(0.0, rotation_noise, 3))
        result.append(result[-1] @ step @ noise)
    return result


def _seven_scenes_pose(colour: Path) -> Pose:
    """map_T_base of a frame; the file holds map_T_camera_optical."""
    file = colour.with_name(colour.name.split(".")[0] + ".pose.txt")
    try:
        pose = np.loadtxt(file).reshape(4, 4)
    except (OSError, ValueError) as error:
        raise BagError(f"{file} is not a 4x4 pose: {error}") from error
    left, _, right = np.linalg.svd(pose[:3, :3])  # written with few digits: not quite a rotation
    pose[:3, :3] = left @ right
    result: Pose = pose @ inverse(OPTICAL_IN_BASE)
    return result


def seven_scenes_depth(colour: Path) -> NDArray[np.uint16]:
    """Depth image (H, W) in mm as the colour camera would see it; 0 where there is none."""
    depth = _read(colour.with_name(colour.name.split(".")[0] + ".depth.png"))
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise BagError(f"the depth image beside {colour} is not 16 bits, one channel")
    depth = np.where(depth == NO_DEPTH, 0, depth).astype(np.uint16)
    height, width = depth.shape
    shrink = COLOUR_OVER_DEPTH_FOCAL
    shift = (1.0 - shrink) * np.array([[width / 2], [height / 2]])
    onto_colour = np.hstack([shrink * np.eye(2), shift])
    registered = cv2.warpAffine(depth, onto_colour, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray(registered, np.uint16)


def seven_scenes_camera(folder: Path, image: Image) -> CameraModel:
    """The colour camera, from the depth camera's intrinsics."""
    file = folder / "camera-intrinsics.txt"
    try:
        matrix = np.loadtxt(file).reshape(3, 3)
    except (OSError, ValueError) as error:
        raise BagError(f"{file} is not a 3x3 intrinsic matrix: {error}") from error
    matrix[[0, 1], [0, 1]] *= COLOUR_OVER_DEPTH_FOCAL
    height, width = image.shape[:2]
    return CameraModel(width, height, matrix)


def write_karlsruhe(path: Path, folder: Path, overwrite: bool) -> int:
    """A Karlsruhe drive (``left/`` and ``insdata.txt``) as images and GPS fixes, no odometry.

    Returns:
        how many images were written.

    Raises:
        BagError: rows and images do not go together, or something does not decode.
    """
    rows = _ins_rows(folder / "insdata.txt")
    files = image_files(folder / "left")
    if len(files) != len(rows):
        raise BagError(f"{len(files)} images but {len(rows)} rows in {folder / 'insdata.txt'}")
    with BagWriter(path, overwrite=overwrite) as bag:
        messages = SensorMessages(bag.typestore)
        bag.add_topic(COMPRESSED_TOPIC, "sensor_msgs/msg/CompressedImage")
        bag.add_topic(FIX_TOPIC, "sensor_msgs/msg/NavSatFix")
        variance = np.full(3, INS_GPS_SIGMA**2)
        for file, (stamp, geodetic) in zip(files, rows, strict=True):
            bag.write(FIX_TOPIC, stamp, messages.fix(stamp, geodetic, variance, fixed=True))
            picture = messages.compressed_image(stamp, _read(file), JPEG_QUALITY)
            bag.write(COMPRESSED_TOPIC, stamp, picture)
    return len(files)


def _ins_rows(file: Path) -> list[tuple[int, NDArray[np.float64]]]:
    """Stamp (ns) and latitude, longitude, altitude of each row."""
    return list(_parsed(file))


def _parsed(file: Path) -> Iterator[tuple[int, NDArray[np.float64]]]:
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise BagError(f"cannot read {file}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) != INS_COLUMNS:
            raise BagError(f"{file} line {number}: {len(words)} columns, not {INS_COLUMNS}")
        yield int(words[0]), np.array(words[1:4], np.float64)
