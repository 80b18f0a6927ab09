"""Images with poses, at the network's size, as VLocNet++ learns from them and is judged on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.models.vlocnet import VLocNetConfig
from vpr.records import CameraModel, Image, Pose
from vpr.semantics.classes import UNLABELLED

DEPTH_STRIDE = 8  # px of the image a depth of the network stands for
JUMP = 2.5  # times the usual step between numbered frames; after a longer one nothing is "previous"
CAMERA_TOLERANCE = 0.05  # share of the focal length, and of the image for its centre
ROTATION_TOLERANCE = 1e-2  # written with few digits; worse is no rotation


V = TypeVar("V", np.uint8, np.float32)


class FramesError(ValueError):
    """Frames that cannot be learnt from or judged; names the first that is wrong."""


@dataclass(frozen=True)
class Frame:
    """One image of a data set as it lies there."""

    name: str  # to speak of it
    sequence: int
    number: int  # ascends with time within a sequence; a stamp will do
    image: Image  # (H, W, 3) BGR or (H, W) grey
    pose: Pose  # map_T_camera, optical axes
    labels: NDArray[np.uint8] | None = None  # (H, W) classes, 255 where unlabelled
    depth: NDArray[np.float32] | None = None  # (H, W) m; zero or infinite where unknown


@dataclass(frozen=True)
class PosedFrames:
    """N frames; ``follows[i]`` says whether frame i comes directly after frame i - 1."""

    images: NDArray[np.uint8]  # (N, H, W, 3) RGB
    poses: NDArray[np.float64]  # (N, 4, 4) map_T_camera
    follows: NDArray[np.bool_]  # (N,)
    drives: NDArray[np.int64]  # (N,) the sequence each is of
    camera: NDArray[np.float64]  # (4,) as VLocNet.camera
    labels: NDArray[np.uint8] | None = None  # (N, H, W)
    depth: NDArray[np.float32] | None = None  # (N, H / 8, W / 8) m, zero where unknown

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, chosen: NDArray[np.bool_]) -> PosedFrames:
        """The frames of a mask (N,); one that follows a frame left out follows nothing."""
        before = np.concatenate([[False], chosen[:-1]])
        return PosedFrames(
            self.images[chosen],
            self.poses[chosen],
            (self.follows & before)[chosen],
            self.drives[chosen],
            self.camera,
            None if self.labels is None else self.labels[chosen],
            None if self.depth is None else self.depth[chosen],
        )

    def save(self, path: Path) -> None:
        """Write the file; an older one is replaced only by a whole one."""
        arrays = {name: array for name, array in vars(self).items() if array is not None}
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> PosedFrames:
        """Read what ``save`` wrote.

        Raises:
            FramesError: the file is none of those.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                return cls(**found)
        except (OSError, EOFError, ValueError, TypeError, BadZipFile) as error:
            raise FramesError(f"{path} holds no frames: {error}") from error

    def last_of_runs(self, length: int) -> NDArray[np.int64]:
        """Rows of the frames that, with those before them, are ``length`` consecutive ones."""
        unbroken = np.ones(len(self), np.bool_)
        for back in range(length - 1):
            unbroken &= np.concatenate([np.zeros(back, np.bool_), self.follows[: len(self) - back]])
        return np.flatnonzero(unbroken)

    def held_out(self, share: float) -> NDArray[np.bool_]:
        """A mask of the last drives, about ``share`` of them; of one drive, of its last part.

        Frames between learnt ones are no measure of what a network does elsewhere.
        """
        drives = np.unique(self.drives)
        if len(drives) > 1:
            count = min(max(1, round(share * len(drives))), len(drives) - 1)
            return np.asarray(np.isin(self.drives, drives[-count:]))
        return np.arange(len(self)) >= len(self) - max(1, round(share * len(self)))


def normalised_camera(camera: CameraModel) -> NDArray[np.float64]:
    """fx / W, fy / H, cx / W, cy / H with the corner of the image as origin: free of its size."""
    (fx, _, cx), (_, fy, cy) = camera.matrix[0], camera.matrix[1]
    width, height = camera.width, camera.height
    return np.array([fx / width, fy / height, (cx + 0.5) / width, (cy + 0.5) / height])


def other_camera(seen: NDArray[np.float64], learnt: NDArray[np.float64], tolerance: float) -> str:
    """Say how cameras (4,), as ``normalised_camera`` has them, differ; nothing where they do not.

    ``tolerance`` is a share of the focal length, and of the image for its centre.
    """
    off = np.abs(seen - learnt) / np.array([learnt[0], learnt[1], 1.0, 1.0])
    if not (off > tolerance).any():
        return ""
    names = ("fx / width", "fy / height", "cx / width", "cy / height")
    pairs = zip(names, seen, learnt, strict=True)
    return "another camera than that of the training: " + ", ".join(
        f"{name} {a:.3f} (was {b:.3f})" for name, a, b in pairs
    )


def network_image(image: Image, config: VLocNetConfig) -> NDArray[np.uint8]:
    """BGR or grey image as RGB (H, W, 3) at the network's size."""
    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    size = (config.image_width, config.image_height)
    small = cv2.resize(image[..., :3], size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1], np.uint8)


def gather(frames: Iterable[Frame], camera: CameraModel, config: VLocNetConfig) -> PosedFrames:
    """Bring frames to the network's size; sequences come one after another.

    Raises:
        FramesError: no frame, a pose that is none, or frames of a sequence out of order.
    """
    images: list[NDArray[np.uint8]] = []
    poses: list[Pose] = []
    places: list[tuple[int, int]] = []
    labels: list[NDArray[np.uint8] | None] = []
    depths: list[NDArray[np.float32] | None] = []
    for frame in frames:
        if places and places[-1][0] == frame.sequence and frame.number <= places[-1][1]:
            raise FramesError(
                f"{frame.name} is out of order: it comes after number {places[-1][1]}"
            )
        poses.append(checked_pose(frame.pose, frame.name))
        images.append(network_image(frame.image, config))
        places.append((frame.sequence, frame.number))
        labels.append(_network_labels(frame, config))
        depths.append(_network_depth(frame, config))
    if not images:
        raise FramesError("there are no frames")
    return PosedFrames(
        np.stack(images),
        np.stack(poses),
        _following(np.array(places)),
        np.array(places)[:, 0],
        normalised_camera(camera),
        _stacked(labels, UNLABELLED),
        _stacked(depths, 0),
    )


def checked_pose(pose: Pose, name: str) -> Pose:
    """The pose with its rotation made exact.

    Raises:
        FramesError: not finite, or not a rotation.
    """
    if not np.isfinite(pose).all():
        raise FramesError(f"{name}: its pose is not finite")
    rotation = pose[:3, :3]
    off = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if off > ROTATION_TOLERANCE or np.linalg.det(rotation) < 0.0:
        raise FramesError(f"{name}: its pose has no rotation (off by {off:.2g})")
    left, _, right = np.linalg.svd(rotation)
    exact = np.eye(4)
    exact[:3, :3], exact[:3, 3] = left @ right, pose[:3, 3]
    return exact


def _following(places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which frames come directly after the one before: same sequence, no longer step than usual."""
    follows = np.zeros(len(places), np.bool_)
    if len(places) > 1:
        same = np.diff(places[:, 0]) == 0
        steps = np.diff(places[:, 1])
        usual = np.median(steps[same]) if same.any() else 0.0
        follows[1:] = same & (steps <= JUMP * usual)
    return follows


def _network_labels(frame: Frame, config: VLocNetConfig) -> NDArray[np.uint8] | None:
    if frame.labels is None:
        return None
    size = (config.image_width, config.image_height)
    labels = np.asarray(cv2.resize(frame.labels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    wrong = (labels >= config.classes) & (labels != UNLABELLED)
    if wrong.any():
        raise FramesError(
            f"{frame.name}: label {labels[wrong][0]}, the network has {config.classes} classes"
        )
    return labels


def _network_depth(frame: Frame, config: VLocNetConfig) -> NDArray[np.float32] | None:
    """The nearest depth pixel of each cell: averages across an edge are of no thing."""
    if frame.depth is None:
        return None
    size = (config.image_width // DEPTH_STRIDE, config.image_height // DEPTH_STRIDE)
    known = np.where(np.isfinite(frame.depth), frame.depth, 0.0).astype(np.float32)
    return np.asarray(cv2.resize(known, size, interpolation=cv2.INTER_NEAREST), np.float32)


def _stacked(items: Sequence[NDArray[V] | None], unknown: int) -> NDArray[V] | None:
    """Items of one shape, those missing filled with ``unknown``; None where all are missing."""
    like = next((item for item in items if item is not None), None)
    if like is None:
        return None
    return np.stack([np.full_like(like, unknown) if item is None else item for item in items])
