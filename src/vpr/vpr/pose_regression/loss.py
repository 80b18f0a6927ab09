"""Losses of VLocNet++, equations 2 to 8, with their learnable log-variances.

Quaternions are x y z w. The labels' need be neither of unit length nor of any sign: they are
normalised, and q and -q are the same rotation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpr.models.vlocnet import Prediction, Task, rotation_matrix
from vpr.semantics.classes import UNLABELLED

FIRST_TRANSLATION = 0.0  # log-variances at the start, as Kendall & Cipolla 2017 have them
FIRST_ROTATION = -3.0
TASK_LIMIT = 2.0  # see LossWeights.multitask
ZERO = 1e-6  # a shorter quaternion is no rotation


class LabelError(ValueError):
    """A pose label that is no pose; says which."""


@dataclass(frozen=True)
class Truth:
    """What is known of a batch of B images.

    ``depth`` is zero where it is unknown, ``labels`` 255.
    """

    position: Tensor  # (B, 3) m, of map_T_camera
    rotation: Tensor  # (B, 4) quaternion
    labels: Tensor | None = None  # (B, H, W) int64
    depth: Tensor | None = None  # (B, 1, h, w) m

    def __post_init__(self) -> None:
        lengths = self.rotation.norm(dim=1)
        if not bool((lengths > ZERO).all()):
            row = int((lengths <= ZERO).nonzero()[0])
            raise LabelError(f"label {row} of the batch has a zero quaternion")
        if not bool(torch.isfinite(self.position).all() & torch.isfinite(self.rotation).all()):
            raise LabelError("a label of the batch is not finite")
        object.__setattr__(self, "rotation", self.rotation / lengths[:, None])

    def to(self, device: torch.device) -> Truth:
        """The same on another device."""
        labels, depth = self.labels, self.depth
        return Truth(
            self.position.to(device),
            self.rotation.to(device),
            None if labels is None else labels.to(device),
            None if depth is None else depth.to(device),
        )


class LossWeights(nn.Module):
    """The log-variances s of all equations; they are learnt with the network."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("x", "x_rel", "x_vo"):
            self.register_parameter(name, nn.Parameter(torch.tensor(FIRST_TRANSLATION)))
        for name in ("q", "q_rel", "q_vo"):
            self.register_parameter(name, nn.Parameter(torch.tensor(FIRST_ROTATION)))
        for name in ("loc", "vo", "seg", "depth"):
            self.register_parameter(name, nn.Parameter(torch.tensor(0.0)))

    def weighted(self, loss: Tensor, name: str) -> Tensor:
        """loss * exp(-s) + s."""
        s = self.get_parameter(name)
        return loss * torch.exp(-s) + s

    def multitask(self, losses: dict[str, Tensor]) -> Tensor:
        """Equation 8 over the tasks ``loc``, ``vo``, ``seg`` that are given.

        The losses of equations 3 and 7 turn negative as errors shrink, and L exp(-s) + s has no
        minimum for a negative L; s is therefore held within +-``TASK_LIMIT``.
        """
        terms = []
        for name, loss in losses.items():
            s = self.get_parameter(name).clamp(-TASK_LIMIT, TASK_LIMIT)
            terms.append(loss * torch.exp(-s) + s)
        return torch.stack(terms).sum()


def quaternion_distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance (B,) of unit quaternions, of the nearer of b and -b."""
    return torch.minimum((a - b).norm(dim=1), (a + b).norm(dim=1))


def between(a: Tensor, b: Tensor) -> Tensor:
    """a^-1 b of unit quaternions (B, 4)."""
    return product(a * a.new_tensor([-1.0, -1.0, -1.0, 1.0]), b)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b of quaternions (B, 4)."""
    ax, ay, az, aw = a.unbind(dim=1)
    bx, by, bz, bw = b.unbind(dim=1)
    values = [
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    ]
    return torch.stack(values, dim=1)


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Equation 2, a mean over labelled pixels; zero without any."""
    if bool((labels == UNLABELLED).all()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits.float(), labels, ignore_index=UNLABELLED)


def odometry_loss(
    position: Tensor, rotation: Tensor, previous: Truth, current: Truth, weights: LossWeights
) -> Tensor:
    """Equations 3 and 4: the motion previous_T_current against the labels'."""
    apart = (current.position - previous.position)[:, :, None]
    true_position = (rotation_matrix(previous.rotation).transpose(1, 2) @ apart)[:, :, 0]
    true_rotation = between(previous.rotation, current.rotation)
    loss = weights.weighted((position - true_position).norm(dim=1).mean(), "x_vo")
    return loss + weights.weighted(quaternion_distance(rotation, true_rotation).mean(), "q_vo")


def relative_loss(
    before: Prediction, now: Prediction, previous: Truth, current: Truth, weights: LossWeights
) -> Tensor:
    """Equation 5, the Geometric Consistency term, with the previous step's prediction.

    As written there, translations are compared in the map's axes, rotations relatively.
    """
    assert before.position is not None
    assert before.rotation is not None
    assert now.position is not None
    assert now.rotation is not None
    apart = current.position - previous.position
    error = (apart - (now.position - before.position)).norm(dim=1).mean()
    turned = between(before.rotation, now.rotation)
    true_turned = between(previous.rotation, current.rotation)
    loss = weights.weighted(error, "x_rel")
    return loss + weights.weighted(quaternion_distance(turned, true_turned).mean(), "q_rel")


def euclidean_loss(prediction: Prediction, truth: Truth, weights: LossWeights) -> Tensor:
    """Equation 6."""
    assert prediction.position is not None
    assert prediction.rotation is not None
    error = (prediction.position - truth.position).norm(dim=1).mean()
    turned = quaternion_distance(prediction.rotation, truth.rotation).mean()
    return weights.weighted(error, "x") + weights.weighted(turned, "q")


def depth_loss(depth: Tensor, truth: Tensor) -> Tensor:
    """Mean ratio of predicted and true depth as a logarithm, where the true one is known.

    The paper takes its depth from a network that was trained elsewhere; this trains ours.
    """
    known = truth > 0.0
    if not bool(known.any()):
        return depth.sum() * 0.0
    return (torch.log(depth[known]) - torch.log(truth[known])).abs().mean()


def window_losses(
    predictions: list[Prediction],
    truths: list[Truth],
    weights: LossWeights,
    tasks: Collection[Task],
    geometric_consistency: bool = True,
) -> dict[str, Tensor]:
    """Losses ``loc`` (equation 7), ``vo``, ``seg`` and ``depth`` of consecutive steps.

    Each is a mean over the steps that have it; a task outside ``tasks`` has none. Equation 7 adds
    two such means, so that the motion weighs no less for the first step, which has none.
    """
    found: dict[str, list[Tensor]] = {n: [] for n in ("euc", "rel", "vo", "seg", "depth")}
    for step, (now, truth) in enumerate(zip(predictions, truths, strict=True)):
        before = predictions[step - 1] if step else None
        if "pose" in tasks:
            found["euc"].append(euclidean_loss(now, truth, weights))
            if before is not None and geometric_consistency:
                found["rel"].append(relative_loss(before, now, truths[step - 1], truth, weights))
        if "odometry" in tasks and now.motion_position is not None:
            assert now.motion_rotation is not None
            motion = (now.motion_position, now.motion_rotation)
            found["vo"].append(odometry_loss(*motion, truths[step - 1], truth, weights))
        if "segmentation" in tasks and now.logits is not None and truth.labels is not None:
            found["seg"].append(segmentation_loss(now.logits, truth.labels))
        if now.depth is not None and truth.depth is not None:
            found["depth"].append(depth_loss(now.depth, truth.depth))
    means = {name: torch.stack(terms).mean() for name, terms in found.items() if terms}
    localisation = [means.pop(name) for name in ("euc", "rel") if name in means]
    return ({"loc": torch.stack(localisation).sum()} if localisation else {}) | means
