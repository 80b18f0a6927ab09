"""What a camera would have seen, had it been turned where it stood: more views with exact poses.

A turn in place moves every pixel whatever its depth (the homography K R K^-1).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from vpr.models.vlocnet import rotation_matrix
from vpr.pose_regression.loss import Truth, product
from vpr.semantics.classes import UNLABELLED


def random_turns(rng: np.random.Generator, count: int, degrees: float) -> Tensor:
    """Quaternions (B, 4) old_R_new of turns by up to ``degrees`` about each axis."""
    angles = np.radians(rng.uniform(-degrees, degrees, (count, 3)))
    return torch.from_numpy(Rotation.from_rotvec(angles).as_quat()).float()


def turned_images(images: Tensor, turns: Tensor, camera: Tensor) -> Tensor:
    """Images (B, 3, H, W) after turns (B, 4); the last pixels are repeated beyond the border.

    ``camera`` (4,) as ``VLocNet.camera``.
    """
    grid, _ = _seen_before(turns, camera, images.shape[2], images.shape[3])
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def turned_truth(truth: Truth, turns: Tensor, camera: Tensor) -> Truth:
    """The truth of the same images; nothing is known beyond the border."""
    labels, depth = truth.labels, truth.depth
    if labels is not None:
        moved, _ = _moved(labels[:, None].float() + 1.0, turns, camera)
        known = moved[:, 0].round().long() - 1
        labels = torch.where(known < 0, torch.full_like(known, UNLABELLED), known)
    if depth is not None:
        moved, ahead = _moved(depth, turns, camera)
        depth = moved / ahead
    return replace(truth, rotation=product(truth.rotation, turns), labels=labels, depth=depth)


def _moved(maps: Tensor, turns: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest values, zero beyond the border; and what a ray's depth was before for one now."""
    grid, ahead = _seen_before(turns, camera, maps.shape[2], maps.shape[3])
    return functional.grid_sample(maps, grid, mode="nearest", align_corners=False), ahead


def _seen_before(turns: Tensor, camera: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where (B, h, w, 2; -1..1) each pixel was, and how far ahead (B, 1, h, w) its ray went."""
    fx, fy, cx, cy = camera.unbind()
    v, u = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    rays = torch.stack([(u - cx) / fx, (v - cy) / fy, torch.ones_like(u)]).reshape(1, 3, -1)
    x, y, ahead = (rotation_matrix(turns) @ rays).unbind(dim=1)
    ahead = ahead.clamp(min=1e-3)
    seen = torch.stack([fx * x / ahead + cx, fy * y / ahead + cy], dim=2)
    batch = len(turns)
    grid = (2.0 * seen - 1.0).reshape(batch, height, width, 2)
    return grid, ahead.reshape(batch, 1, height, width)
