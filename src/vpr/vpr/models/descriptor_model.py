"""A trained descriptor on disk: heads, a fine-tuned trunk if any, calibrations and provenance.

One ``.safetensors`` file; what is not a tensor is JSON in its header. A model names the descriptor
it was trained on. Training on top of a model adds a head behind its heads, so that descriptors
made before can be brought forward without their images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, from_numpy

from vpr.models.calibration import Calibration, SequenceCalibration
from vpr.models.head import DescriptorHead, HeadKind, tensors_fingerprint
from vpr.models.impostors import Impostors

FORMAT = "vpr-descriptor"
SCHEMA = 2  # 2: impostors, and probabilities of sequences
HEADER = "vpr"  # the key of our JSON in the safetensors header
TRUNK = "trunk."  # prefix of the fine-tuned weights of the backbone
IMPOSTORS = "impostors"


class DescriptorModelError(ValueError):
    """A trained descriptor that can't be read, written or used here; says why."""


class _HeadHeader(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: HeadKind
    features: int = Field(ge=1)
    embedding: int = Field(ge=1)
    normalised: bool


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    format: str
    schema_version: int
    base: str
    heads: tuple[_HeadHeader, ...]
    calibration: Calibration | None
    sequence_calibration: SequenceCalibration | None = None
    provenance: dict[str, Any]


@dataclass(frozen=True)
class DescriptorModel:
    """What ``vpr train descriptor`` makes and ``embedding.model`` names.

    ``base`` is the name of the descriptor that the first head takes; ``trunk`` holds the
    backbone's weights that were fine-tuned, by their names in it; ``impostors`` are places of the
    training that the calibration refers to; ``provenance`` says what it was trained on and what
    was measured.
    """

    base: str
    heads: tuple[DescriptorHead, ...]
    trunk: dict[str, Tensor] = field(default_factory=dict)
    calibration: Calibration | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    sequence_calibration: SequenceCalibration | None = None
    impostors: Impostors | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Name of the descriptor before the first head and behind each one."""
        name = self.base
        if self.trunk:
            name = _renamed(name, tensors_fingerprint(self.trunk))
        result = [name]
        for head in self.heads:
            result.append(_renamed(result[-1], head.fingerprint))
        return tuple(result)

    @property
    def name(self) -> str:
        """Name of the descriptors that this model makes."""
        return self.names[-1]

    def impostor_distances(self, descriptors: NDArray[np.float32]) -> NDArray[np.float64]:
        """How near (N,) other places come to each of this model's descriptors (N, d).

        Zero without impostors, to which a calibration then gives no weight.
        """
        if self.impostors is None:
            return np.zeros(len(descriptors))
        return self.impostors.distances(descriptors)

    def forward_from(self, name: str, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Descriptors (N, d) of this model from those (N, D) of a model it was built on.

        Raises:
            DescriptorModelError: it was not built on that model, or the dimension is another.
        """
        if name not in self.names:
            raise DescriptorModelError(
                f"model {self.name} was not trained on top of {name}: descriptors of that model "
                "can't be brought forward without their images"
            )
        for head in self.heads[self.names.index(name) :]:
            if descriptors.shape[1] != head.features:
                raise DescriptorModelError(
                    f"a head takes {head.features} values, the descriptors have "
                    f"{descriptors.shape[1]}"
                )
            descriptors = head.apply_to(descriptors)
        return descriptors

    def save(self, path: Path) -> None:
        """Write the file; an older one is replaced only when this one is complete.

        Raises:
            DescriptorModelError: the disk refuses; nothing is left of the attempt.
        """
        tensors = {f"{TRUNK}{name}": t.detach().cpu() for name, t in self.trunk.items()}
        for index, head in enumerate(self.heads):
            for name, tensor in head.state_dict().items():
                tensors[f"head{index}.{name}"] = tensor.detach().cpu().contiguous()
        if self.impostors is not None:
            tensors[IMPOSTORS] = from_numpy(self.impostors.descriptors)
        header = _Header(
            format=FORMAT,
            schema_version=SCHEMA,
            base=self.base,
            heads=tuple(
                _HeadHeader(
                    kind=h.kind, features=h.features, embedding=h.embedding, normalised=h.normalised
                )
                for h in self.heads
            ),
            calibration=self.calibration,
            sequence_calibration=self.sequence_calibration,
            provenance=self.provenance,
        )
        write_tensors(path, tensors, {HEADER: header.model_dump_json()})

    @classmethod
    def load(cls, path: Path) -> DescriptorModel:
        """Read what ``save`` wrote.

        Raises:
            DescriptorModelError: missing, corrupt, foreign or of a newer version.
        """
        tensors, metadata = read_tensors(path)
        try:
            header = _Header.model_validate(json.loads(metadata[HEADER]))
        except (KeyError, ValueError, ValidationError) as error:
            raise DescriptorModelError(f"{path} is not a trained descriptor: {error}") from error
        if header.format != FORMAT or header.schema_version > SCHEMA:
            raise DescriptorModelError(
                f"{path} has format {header.format} version {header.schema_version}, "
                f"this reads {FORMAT} up to {SCHEMA}"
            )
        heads = tuple(_head(path, i, h, tensors) for i, h in enumerate(header.heads))
        trunk = {n.removeprefix(TRUNK): t for n, t in tensors.items() if n.startswith(TRUNK)}
        impostors = Impostors(tensors[IMPOSTORS].numpy()) if IMPOSTORS in tensors else None
        return cls(
            header.base,
            heads,
            trunk,
            header.calibration,
            header.provenance,
            header.sequence_calibration,
            impostors,
        )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file that appears at ``path`` only when complete.

    Raises:
        DescriptorModelError: the disk refuses; nothing is left of the attempt.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), partial, metadata)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise DescriptorModelError(f"cannot write {path}: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        DescriptorModelError: missing or corrupt, or a value that is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise DescriptorModelError(f"cannot read {path}: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise DescriptorModelError(f"{path}: '{name}' holds values that are not finite")
    return tensors, metadata


def _head(
    path: Path, index: int, header: _HeadHeader, tensors: Mapping[str, Tensor]
) -> DescriptorHead:
    head = DescriptorHead(header.kind, header.features, header.embedding, header.normalised)
    prefix = f"head{index}."
    given = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    try:
        head.load_state_dict(given)
    except RuntimeError as error:
        raise DescriptorModelError(f"{path}: head {index} does not fit: {error}") from error
    return head.eval()


def _renamed(name: str, fingerprint: str) -> str:
    backbone, _, weights = name.rpartition("@")
    digest = hashlib.sha256(f"{weights} {fingerprint}".encode()).hexdigest()
    return f"{backbone}@{digest[:12]}"
