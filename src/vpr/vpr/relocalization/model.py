"""An S3E model: patch extractor, encoder and graph network, kept in one ``.safetensors`` file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vpr.models.weights import (
    WeightsError,
    load_weights,
    read_state_dict,
    weights_fingerprint,
)
from vpr.records import Image
from vpr.relocalization.encoders import ENCODERS, EncoderInput, make_encoder
from vpr.relocalization.graph_network import GraphNetwork
from vpr.relocalization.patches import PATCH_SIZES, PatchExtractor

KIND = "vpr s3e 1"
EMBEDDED_WEIGHTS = Path(__file__).parent / "s3e_doom_levels.safetensors"


class S3eModel:
    """Images to embeddings, and the network that aggregates them over a pose graph.

    Args:
        encoder: ``vit`` or ``sparse``.
    """

    def __init__(
        self, encoder: str, patch_size: int, patch_count: int = 128, dimension: int = 128
    ) -> None:
        self.kind = encoder
        self.dimension = dimension
        self.patches = PatchExtractor(patch_size, patch_count)
        self.encoder = make_encoder(encoder, dimension)
        self.graph = GraphNetwork(dimension)

    @property
    def name(self) -> str:
        """name@weights-hash of the encoder: embeddings of two encoders can't be compared."""
        digest = weights_fingerprint(self.encoder).hex()[:12]
        return f"s3e_{self.kind}_{self.patches.patch_size}@{digest}"

    @torch.no_grad()
    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """(N, D) embeddings of unit length.

        Raises:
            PatchError: an image that gives no patches.
        """
        given = EncoderInput.of([self.patches(image) for image in images])
        values = torch.nn.functional.normalize(self.encoder.eval()(given), dim=1)
        return np.asarray(values.numpy(), np.float32)

    def save(self, path: Path) -> None:
        """Write weights and shape; an older file is replaced only by a whole one."""
        networks = {"encoder": self.encoder, "graph": self.graph}
        state = {
            f"{part}.{name}": value.contiguous()
            for part, network in networks.items()
            for name, value in network.state_dict().items()
        }
        shape = {
            "kind": KIND,
            "encoder": self.kind,
            "patch_size": str(self.patches.patch_size),
            "patch_count": str(self.patches.count),
            "dimension": str(self.dimension),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        save_file(state, partial, metadata=shape)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path = EMBEDDED_WEIGHTS) -> S3eModel:
        """Read a model that ``save`` wrote; without a path the shipped one.

        The shipped one was trained in simulated indoor levels (``vpr.simulation.doom_levels``).

        Raises:
            WeightsError: missing, damaged, or not an S3E model.
        """
        state = read_state_dict(path)
        model = cls(*_shape(path))
        for part, network in (("encoder", model.encoder), ("graph", model.graph)):
            own = {
                name.removeprefix(f"{part}."): value
                for name, value in state.items()
                if name.startswith(f"{part}.")
            }
            load_weights(network, own, f"{path} ({part})")
        model.encoder.eval()
        model.graph.eval()
        return model


def _shape(path: Path) -> tuple[str, int, int, int]:
    try:
        with safe_open(path, "pt") as file:
            given = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is corrupt or not a weights file: {error}") from error
    if given.get("kind") != KIND:
        raise WeightsError(f"{path} is not an S3E model ('{KIND}')")
    try:
        numbers = [int(given[name]) for name in ("patch_size", "patch_count", "dimension")]
        encoder = given["encoder"]
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: its description is damaged: {error}") from error
    if encoder not in ENCODERS or numbers[0] not in PATCH_SIZES or min(numbers) < 1:
        raise WeightsError(f"{path}: no encoder '{encoder}' with {numbers}")
    return encoder, numbers[0], numbers[1], numbers[2]
