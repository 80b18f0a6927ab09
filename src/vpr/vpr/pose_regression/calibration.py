"""How sure a trained network may be, from drives that it did not learn from.

Split conformal prediction (Vovk et al. 2005) on the Mahalanobis distances of errors, with drives as
groups: frames of one drive resemble each other, so that a quantile over all of them promises
nothing for the next drive. The largest of the drives' quantiles does: of K + 1 drives that are
drawn alike, the one to come has the largest quantile with probability 1 / (K + 1) only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import chi2

from vpr.pose_regression.frames import FramesError, PosedFrames
from vpr.pose_regression.loss import LossWeights
from vpr.pose_regression.prediction import Answers, pose_errors, true_motions
from vpr.records import Covariance

COVERAGE = 0.95  # of a drive's frames that lie within the ellipsoid of that probability
FAMILIAR = 0.99  # of a drive's frames that are to be taken for the training world
HALF = 0.5  # of the frames are stranger than what is typical


class Deviations(BaseModel):
    """Standard deviations of each axis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    translation: float  # m
    rotation: float  # rad
    motion_translation: float  # m, of one step of the odometry
    motion_rotation: float  # rad


class Certainty(BaseModel):
    """What is known of the errors, and what a familiar image is.

    Strangeness is the cosine distance of an image to the nearest training frame.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    deviations: Deviations  # of an image that is no stranger than typical
    learnt: Deviations  # what the log-variances alone said
    drives: int  # it was calibrated on
    held_out: int  # frames of them
    transferred: float | None  # least share of a drive's poses that the other drives' scale covers
    typical: float  # strangeness from which on the pose's deviations grow in proportion
    familiar: float  # strangeness up to which an image is of the training world

    @property
    def summary(self) -> str:
        """One sentence for a person."""
        found, left_out = self.deviations, ""
        if self.transferred is not None:
            left_out = f"; of each, the others' scale covers {self.transferred:.0%} or more"
        return (
            f"a pose is known to {found.translation:.2f} m and {np.degrees(found.rotation):.1f} "
            f"degrees an axis, by {self.held_out} frames of {self.drives} drives not learnt from"
            f"{left_out}"
        )

    def inflation(self, strangeness: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the pose's deviations are multiplied with, one or more, (N,) as given."""
        return inflation(strangeness, self.typical)

    def covariance(self, strangeness: float) -> Covariance:
        """Of the pose that such an image is given, (6, 6)."""
        factor = float(self.inflation(np.array([strangeness], np.float32))[0])
        found = self.deviations
        return _diagonal(factor * found.translation, factor * found.rotation)

    def motion_covariance(self) -> Covariance:
        """Of one step of the odometry, (6, 6)."""
        return _diagonal(self.deviations.motion_translation, self.deviations.motion_rotation)


@dataclass(frozen=True)
class Distances:
    """Mahalanobis distances (N,) of errors, each in its own dimensions."""

    translation: NDArray[np.float64]  # of 3
    rotation: NDArray[np.float64]  # of 3
    pose: NDArray[np.float64]  # of 6

    @classmethod
    def of(
        cls,
        metres: NDArray[np.float64],
        degrees: NDArray[np.float64],
        translation: float | NDArray[np.float64],
        rotation: float | NDArray[np.float64],
    ) -> Distances:
        """Of errors (N,) under deviations of an axis, in m and rad."""
        apart, turned = metres / translation, np.radians(degrees) / rotation
        return cls(apart, turned, np.hypot(apart, turned))

    def covered(self) -> dict[str, NDArray[np.bool_]]:
        """Which errors (N,) lie within the ellipsoids of ``COVERAGE``."""
        return {
            "translation": self.translation <= radius(3),
            "rotation": self.rotation <= radius(3),
            "pose": self.pose <= radius(6),
        }


def radius(dimensions: int) -> float:
    """Mahalanobis distance within which ``COVERAGE`` of a normal distribution lies."""
    return float(np.sqrt(chi2.ppf(COVERAGE, dimensions)))


def inflation(strangeness: NDArray[np.float32], typical: float) -> NDArray[np.float64]:
    """One up to ``typical``, and beyond in proportion to the strangeness (N,)."""
    return np.maximum(1.0, strangeness.astype(np.float64) / max(typical, 1e-9))


def conformal_quantile(scores: NDArray[np.float64], share: float) -> float:
    """The score (N,) that a next one of the same kind exceeds with 1 - ``share`` at most.

    Of fewer than share / (1 - share) scores no such bound can be had: the largest stands for it.
    """
    rank = int(np.ceil((len(scores) + 1) * share))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def quantile_over_drives(
    scores: NDArray[np.float64], drives: NDArray[np.int64], share: float
) -> float:
    """The largest of the conformal quantiles of scores (N,) of the ``drives`` (N,) they are of."""
    return max(conformal_quantile(scores[drives == drive], share) for drive in np.unique(drives))


def calibrated(
    learnt: Deviations,
    held_out: PosedFrames,
    answers: Answers,
    strangeness: NDArray[np.float32],
) -> Certainty:
    """Scale the learnt deviations until they hold on drives that were not learnt from.

    Translation and rotation are scaled each by itself, then both until the poses hold too.

    Raises:
        FramesError: no held-out frame.
    """
    if not len(held_out):
        raise FramesError("no frame is held out to calibrate on: give more frames")
    drives, typical = held_out.drives, float(np.quantile(strangeness, HALF))
    translation, rotation = learnt.translation, learnt.rotation
    transferred = None
    if np.isfinite(answers.poses).all():
        metres, degrees = pose_errors(answers.poses, held_out.poses)
        factor = inflation(strangeness, typical)
        metres, degrees = metres / factor, degrees / factor
        translation, rotation = _scaled(metres, degrees, drives)
        transferred = _transferred(metres, degrees, drives)
    motions = true_motions(held_out)
    moved = np.isfinite(answers.motions).all(axis=(1, 2)) & held_out.follows
    motion = (learnt.motion_translation, learnt.motion_rotation)
    if moved.any():
        motion = _scaled(*pose_errors(answers.motions[moved], motions[moved]), drives[moved])
    return Certainty(
        deviations=Deviations(
            translation=translation,
            rotation=rotation,
            motion_translation=motion[0],
            motion_rotation=motion[1],
        ),
        learnt=learnt,
        drives=len(np.unique(drives)),
        held_out=len(held_out),
        transferred=transferred,
        typical=typical,
        familiar=quantile_over_drives(strangeness.astype(np.float64), drives, FAMILIAR),
    )


def learnt_deviations(weights: LossWeights) -> Deviations:
    """What the log-variances say: exp(s) is the mean error of the training."""
    values = {name: float(torch.exp(p.detach())) for name, p in weights.named_parameters()}
    # a quaternion's error is half the angle; the norm of three axes is sqrt(3) of one
    axis = 1.0 / np.sqrt(3.0)
    return Deviations(
        translation=axis * values["x"],
        rotation=2.0 * axis * values["q"],
        motion_translation=axis * values["x_vo"],
        motion_rotation=2.0 * axis * values["q_vo"],
    )


def _scaled(
    metres: NDArray[np.float64], degrees: NDArray[np.float64], drives: NDArray[np.int64]
) -> tuple[float, float]:
    """Deviations of an axis, m and rad, with which each drive is covered."""
    translation = quantile_over_drives(metres, drives, COVERAGE) / radius(3)
    rotation = quantile_over_drives(np.radians(degrees), drives, COVERAGE) / radius(3)
    translation, rotation = max(translation, 1e-9), max(rotation, 1e-9)
    both = Distances.of(metres, degrees, translation, rotation).pose
    wider = max(1.0, quantile_over_drives(both, drives, COVERAGE) / radius(6))
    return translation * wider, rotation * wider


def _transferred(
    metres: NDArray[np.float64], degrees: NDArray[np.float64], drives: NDArray[np.int64]
) -> float | None:
    """Leave one drive out, scale on the others: the least share of it that is covered."""
    shares = []
    for drive in np.unique(drives):
        out = drives == drive
        if out.all():
            return None
        deviations = _scaled(metres[~out], degrees[~out], drives[~out])
        covered = Distances.of(metres[out], degrees[out], *deviations).covered()["pose"]
        shares.append(float(covered.mean()))
    return min(shares)


def _diagonal(translation: float, rotation: float) -> Covariance:
    return np.diag([translation**2] * 3 + [rotation**2] * 3)
