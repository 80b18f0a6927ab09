"""A trained VLocNet++ with what makes its answers usable: how sure it is, and what it knows."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from vpr.models.descriptor_model import read_tensors, write_tensors
from vpr.models.vlocnet import VLocNet, VLocNetConfig
from vpr.models.weights import load_weights
from vpr.pose_regression.calibration import Certainty, calibrated
from vpr.pose_regression.frames import (
    CAMERA_TOLERANCE,
    FramesError,
    PosedFrames,
    other_camera,
)
from vpr.pose_regression.prediction import predict

FORMAT, SCHEMA = "vpr vlocnet", 2
HEADER, NETWORK, KNOWN = "header", "network.", "known"
KNOWN_FRAMES = 512  # embeddings of training frames that are kept


class PoseModelError(ValueError):
    """A file that holds no trained VLocNet++."""


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

    @property
    def camera(self) -> NDArray[np.float64]:
        """(4,) as ``VLocNet.camera``."""
        return np.asarray(self.network.camera.cpu().numpy(), np.float64)

    def strangeness(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine distance (N,) of embeddings (N, 1024) to the nearest training frame."""
        return distances(embeddings, self.known)

    def calibrated_on(self, others: PosedFrames) -> PoseModel:
        """The same network, as sure as drives allow that it did not learn from.

        Raises:
            FramesError: no frame, or another camera took them.
        """
        if remark := other_camera(others.camera, self.camera, CAMERA_TOLERANCE):
            raise FramesError(f"cannot calibrate: {remark}")
        answers = predict(self.network, others)
        strangeness = self.strangeness(answers.embeddings)
        certainty = calibrated(self.certainty.learnt, others, answers, strangeness)
        return replace(self, certainty=certainty)

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


def _normalised(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, 1e-12), np.float32)
