"""What a network says of frames in their order, and how far that is from the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from vpr.geometry import pose_from_quaternion
from vpr.models.vlocnet import Memory, Prediction, VLocNet
from vpr.pose_regression.frames import PosedFrames
from vpr.records import Pose
from vpr.semantics.classes import UNLABELLED

NEAR = (0.05, 5.0)  # m and degrees of the share that 7-Scenes is reported with


@dataclass(frozen=True)
class Answers:
    """Of N frames; rows that the network said nothing of are NaN."""

    poses: NDArray[np.float64]  # (N, 4, 4) map_T_camera
    motions: NDArray[np.float64]  # (N, 4, 4) previous_T_current
    labels: NDArray[np.uint8] | None  # (N, H, W)
    embeddings: NDArray[np.float32]  # (N, 1024)


def as_network_input(images: NDArray[np.uint8]) -> Tensor:
    """RGB (N, H, W, 3) as (N, 3, H, W) in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def predict(network: VLocNet, frames: PosedFrames) -> Answers:
    """Step through the frames as a camera would, beginning anew where one follows nothing."""
    device = network.camera.device
    rows = list(_steps(network.eval(), frames, device))
    classes = [_classes(row) for row in rows]
    return Answers(
        np.stack([pose_of(row.position, row.rotation) for row in rows]),
        np.stack([pose_of(row.motion_position, row.motion_rotation) for row in rows]),
        None if classes[0] is None else np.stack([c for c in classes if c is not None]),
        np.stack([_embedding(row) for row in rows]),
    )


def pose_of(position: Tensor | None, rotation: Tensor | None) -> Pose:
    """4x4 pose of the first of a batch; NaN where there is none."""
    if position is None or rotation is None:
        return np.full((4, 4), np.nan)
    return pose_from_quaternion(position[0].cpu().numpy(), rotation[0].cpu().numpy())


def _steps(network: VLocNet, frames: PosedFrames, device: torch.device) -> Iterator[Prediction]:
    memory: Memory | None = None
    with torch.inference_mode():
        for image, follows in zip(frames.images, frames.follows, strict=True):
            before = memory if follows else None
            prediction, memory = network.step(as_network_input(image[None]).to(device), before)
            yield prediction


def _classes(prediction: Prediction) -> NDArray[np.uint8] | None:
    if prediction.logits is None:
        return None
    return prediction.logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()


def _embedding(prediction: Prediction) -> NDArray[np.float32]:
    if prediction.embedding is None:
        return np.zeros(0, np.float32)
    return np.asarray(prediction.embedding[0].cpu().numpy(), np.float32)


def pose_errors(
    poses: NDArray[np.float64], truth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances (N,) in metres and angles (N,) in degrees between poses (N, 4, 4)."""
    apart = np.linalg.norm(poses[:, :3, 3] - truth[:, :3, 3], axis=1)
    turned = Rotation.from_matrix(np.swapaxes(truth[:, :3, :3], 1, 2) @ poses[:, :3, :3])
    return apart, np.degrees(turned.magnitude())


def pose_figures(poses: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    """Median errors, and the share within 5 cm and 5 degrees."""
    metres, degrees = pose_errors(poses, truth)
    return {
        "median_translation_m": float(np.median(metres)),
        "median_rotation_deg": float(np.median(degrees)),
        "share_5cm_5deg": float(np.mean((metres <= NEAR[0]) & (degrees <= NEAR[1]))),
    }


def figures(answers: Answers, frames: PosedFrames) -> dict[str, float]:
    """All that can be said of a network on frames: of pose, odometry and segmentation."""
    result: dict[str, float] = {"frames": len(frames)}
    if np.isfinite(answers.poses).all():
        result |= pose_figures(answers.poses, frames.poses)
    moved = frames.follows & np.isfinite(answers.motions).all(axis=(1, 2))
    if moved.any():
        result |= _odometry_figures(answers.motions[moved], true_motions(frames)[moved])
    if answers.labels is not None and frames.labels is not None:
        result["mean_iou"] = mean_intersection_over_union(answers.labels, frames.labels)
    return result


def true_motions(frames: PosedFrames) -> NDArray[np.float64]:
    """previous_T_current (N, 4, 4) of the frames that follow one, NaN of the others."""
    motions = np.full_like(frames.poses, np.nan)
    at = np.flatnonzero(frames.follows)
    motions[at] = np.linalg.inv(frames.poses[at - 1]) @ frames.poses[at]
    return motions


def _odometry_figures(motions: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    """Errors a step, and summed over the way: per cent of it, and degrees a metre."""
    metres, degrees = pose_errors(motions, truth)
    way = float(np.linalg.norm(truth[:, :3, 3], axis=1).sum())
    return {
        "odometry_translation_m": float(np.median(metres)),
        "odometry_rotation_deg": float(np.median(degrees)),
        "odometry_translation_percent": 100.0 * float(metres.sum()) / max(way, 1e-9),
        "odometry_rotation_deg_per_m": float(degrees.sum()) / max(way, 1e-9),
    }


def mean_intersection_over_union(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Mean over the classes that are there in truth, (N, H, W) each; NaN without a label."""
    judged = truth != UNLABELLED
    p, t = predicted[judged].astype(np.int64), truth[judged].astype(np.int64)
    if not len(t):
        return float("nan")
    size = int(max(p.max(), t.max())) + 1
    counts: NDArray[Any] = np.bincount(t * size + p, minlength=size**2).reshape(size, size)
    hits, there = np.diag(counts), counts.sum(axis=1)
    union = there + counts.sum(axis=0) - hits
    return float(np.mean(hits[there > 0] / union[there > 0]))
