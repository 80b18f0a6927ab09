"""A trained VLocNet++ with what makes its answers usable: how sure it is, and what it knows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.stats import chi2

from vpr.models.descriptor_model import read_tensors, write_tensors
from vpr.models.vlocnet import VLocNet, VLocNetConfig
from vpr.models.weights import load_weights
from vpr.pose_regression.frames import FramesError, PosedFrames
from vpr.pose_regression.loss import LossWeights
from vpr.pose_regression.prediction import Answers, pose_errors
from vpr.records import Covariance

FORMAT, SCHEMA = "vpr vlocnet", 1
HEADER, NETWORK, KNOWN = "header", "network.", "known"
COVERAGE = 0.95  # of held-out frames that lie within the ellipsoid of that probability
KNOWN_FRAMES = 512  # embeddings of training frames that are kept
FAMILIAR_QUANTILE = 0.99  # of held-out frames' distances to them,
# and this times as far is still the training world: trained in redkitchen, 3 % of its later frames
# and 90 to 100 % of a campus walk, a corridor and a street are beyond
FAMILIAR_MARGIN = 1.2


class PoseModelError(ValueError):
    """A file that holds no trained VLocNet++."""


class Certainty(BaseModel):
    """Standard deviations of each axis, from the learnt weights and held-out frames."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    translation: float  # m
    rotation: float  # rad
    motion_translation: float  # m, of the odometry
    motion_rotation: float  # rad
    learnt_translation: float  # m; what the weights alone said
    learnt_rotation: float  # rad
    held_out: int  # frames it was calibrated on
    familiar: float  # largest cosine distance to a training frame that is still the training world

    def covariance(self) -> Covariance:
        """Of the pose, (6, 6)."""
        return np.diag([self.translation**2] * 3 + [self.rotation**2] * 3)

    def motion_covariance(self) -> Covariance:
        """Of one step of the odometry, (6, 6)."""
        return np.diag([self.motion_translation**2] * 3 + [self.motion_rotation**2] * 3)


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: str
    schema_version: int
    network: VLocNetConfig
    certainty: Certainty
    provenance: dict[str, str]


@dataclass(frozen=True)
class PoseModel:
    """``known`` holds the normalised embeddings (K, 1024) of training frames."""

    network: VLocNet
    certainty: Certainty
    known: NDArray[np.float32]
    provenance: dict[str, str]

    def strangeness(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine distance (N,) of embeddings (N, 1024) to the nearest training frame."""
        return distances(embeddings, self.known)

    def save(self, path: Path) -> None:
        """Write the file; an older one is replaced only by a whole one.

        Raises:
            DescriptorModelError: the disk refuses.
        """
        tensors = {
            f"{NETWORK}{name}": tensor.detach().cpu().contiguous()
            for name, tensor in self.network.state_dict().items()
        }
        tensors[KNOWN] = torch.from_numpy(self.known)
        header = _Header(
            format=FORMAT,
            schema_version=SCHEMA,
            network=self.network.config,
            certainty=self.certainty,
            provenance=self.provenance,
        )
        write_tensors(path, tensors, {HEADER: header.model_dump_json()})

    @classmethod
    def load(cls, path: Path) -> PoseModel:
        """Read what ``save`` wrote.

        Raises:
            PoseModelError: foreign, or of a newer version.
            DescriptorModelError, WeightsError: missing, corrupt or incomplete.
        """
        tensors, metadata = read_tensors(path)
        try:
            header = _Header.model_validate(json.loads(metadata[HEADER]))
            known = tensors.pop(KNOWN).numpy()
        except (KeyError, ValueError, ValidationError) as error:
            raise PoseModelError(f"{path} is not a trained VLocNet++: {error}") from error
        if header.format != FORMAT or header.schema_version > SCHEMA:
            raise PoseModelError(
                f"{path} has format {header.format} version {header.schema_version}, "
                f"this reads {FORMAT} up to {SCHEMA}"
            )
        network = VLocNet(header.network)
        load_weights(network, {n.removeprefix(NETWORK): t for n, t in tensors.items()}, str(path))
        return cls(network.eval(), header.certainty, known, header.provenance)


def known_frames(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalised embeddings of at most ``KNOWN_FRAMES`` of the frames, spread evenly."""
    chosen = np.unique(np.linspace(0, len(embeddings) - 1, KNOWN_FRAMES).astype(int))
    return _normalised(embeddings[chosen])


def distances(embeddings: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine distance (N,) of embeddings to the nearest known one; zero where none is known."""
    if not known.size:
        return np.zeros(len(embeddings), np.float32)
    return np.asarray(1.0 - (_normalised(embeddings) @ known.T).max(axis=1), np.float32)


def calibrated(
    weights: LossWeights,
    held_out: PosedFrames,
    answers: Answers,
    motions: NDArray[np.float64],
    known: NDArray[np.float32],
) -> Certainty:
    """How sure the network may be, from frames of its world that it did not learn from.

    The learnt log-variances are the scale of the errors in training; they are widened (or
    narrowed) until ``COVERAGE`` of the held-out errors lie within the ellipsoid of that
    probability. Errors of held-out frames beside learnt ones are less than elsewhere.

    Args:
        motions: true previous_T_current (N, 4, 4), NaN where there is none.

    Raises:
        FramesError: no held-out frame.
    """
    if not len(held_out):
        raise FramesError("no frame is held out to calibrate on: give more frames")
    values = {name: float(torch.exp(p.detach())) for name, p in weights.named_parameters()}
    # a quaternion's error is half the angle; the norm of three axes is sqrt(3) of one
    learnt = (values["x"] / np.sqrt(3.0), 2.0 * values["q"] / np.sqrt(3.0))
    pose, motion = (np.nan, np.nan), (np.nan, np.nan)
    if np.isfinite(answers.poses).all():
        pose = _axis_deviations(*pose_errors(answers.poses, held_out.poses))
    moved = np.isfinite(answers.motions).all(axis=(1, 2)) & np.isfinite(motions).all(axis=(1, 2))
    if moved.any():
        motion = _axis_deviations(*pose_errors(answers.motions[moved], motions[moved]))
    strange = distances(answers.embeddings, known)
    return Certainty(
        translation=_or(pose[0], learnt[0]),
        rotation=_or(pose[1], learnt[1]),
        motion_translation=_or(motion[0], values["x_vo"] / np.sqrt(3.0)),
        motion_rotation=_or(motion[1], 2.0 * values["q_vo"] / np.sqrt(3.0)),
        learnt_translation=learnt[0],
        learnt_rotation=learnt[1],
        held_out=len(held_out),
        familiar=FAMILIAR_MARGIN * float(np.quantile(strange, FAMILIAR_QUANTILE)),
    )


def _axis_deviations(
    metres: NDArray[np.float64], degrees: NDArray[np.float64]
) -> tuple[float, float]:
    """Deviations of one axis with which ``COVERAGE`` of the errors lie within the ellipsoid.

    The quantile is the conformal one, which a new frame of the same kind keeps on average.
    """
    rank = min(1.0, np.ceil((len(metres) + 1) * COVERAGE) / len(metres))
    radius = np.sqrt(chi2.ppf(COVERAGE, 3))
    translation = float(np.quantile(metres, rank, method="higher") / radius)
    rotation = float(np.quantile(np.radians(degrees), rank, method="higher") / radius)
    return translation, rotation


def _or(value: float, otherwise: float) -> float:
    return float(value if np.isfinite(value) else otherwise)


def _normalised(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, 1e-12), np.float32)
