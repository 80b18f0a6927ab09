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
from vpr.relocalization.encoders import (
    ENCODERS,
    PIXEL_VALUES,
    EncoderInput,
    make_encoder,
    patch_pixels,
)
from vpr.relocalization.graph_network import GraphNetwork
from vpr.relocalization.patch_features import CHANNELS, HEIGHT, WIDTH, patch_features
from vpr.relocalization.patches import PATCH_SIZES, PatchExtractor
from vpr.relocalization.similarity_scale import SimilarityScale
from vpr.relocalization.strip_appearance import StripAppearance

KIND = "vpr s3e 2"
AT_ONCE = 64  # views
VALUES = {"features": CHANNELS, "pixels": PIXEL_VALUES}  # of a patch
LATER_PARTS = ("appearance",)  # a model without them loads, and can do less
EMBEDDED_WEIGHTS = Path(__file__).parent / "s3e_doom_levels.safetensors"


class S3eModel:
    """Images to embeddings, and the network that aggregates them over a pose graph.

    Args:
        encoder: ``vit`` or ``sparse``.
        sees: ``features``, what a pre-trained backbone makes of the patches, or their ``pixels``,
            as in the paper.
    """

    def __init__(
        self,
        encoder: str,
        patch_size: int,
        patch_count: int = 128,
        dimension: int = 128,
        sees: str = "pixels",
    ) -> None:
        if sees not in VALUES:
            raise ValueError(f"an encoder sees {tuple(VALUES)}, not '{sees}'")
        self.kind = encoder
        self.sees = sees
        self.dimension = dimension
        self.patches = PatchExtractor(patch_size, patch_count)
        self.encoder = make_encoder(encoder, VALUES[sees], dimension)
        self.scale = SimilarityScale()
        self.appearance = StripAppearance()
        self.graph = GraphNetwork(dimension)

    @property
    def name(self) -> str:
        """name@weights-hash of the encoder: embeddings of two encoders can't be compared."""
        digest = weights_fingerprint(self.encoder).hex()[:12]
        return f"s3e_{self.kind}_{self.patches.patch_size}@{digest}"

    def given(self, images: Sequence[Image], patches: PatchExtractor | None = None) -> EncoderInput:
        """What the encoder sees of images.

        Args:
            patches: cuts other patches than the model's own.

        Raises:
            PatchError: an image that gives no patches.
        """
        cut = [(patches or self.patches)(image) for image in images]
        values = patch_pixels(cut) if self.sees == "pixels" else patch_features(images, cut)
        return EncoderInput.of(cut, values)

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """(N, D) embeddings of unit length.

        Raises:
            PatchError: an image that gives no patches.
        """
        return self.embedded(self.given(images))

    @torch.no_grad()
    def embedded(self, given: EncoderInput) -> NDArray[np.float32]:
        """(N, D) embeddings of unit length of what ``given`` gave."""
        encoder = self.encoder.eval()
        parts = [
            encoder(given.rows(np.arange(first, min(first + AT_ONCE, len(given)))))
            for first in range(0, len(given), AT_ONCE)
        ]
        return np.asarray(torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy())

    def warm_up(self) -> None:
        """Do now what the first image would wait for: the backbone is compiled for it."""
        noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        self.embed([noise])

    def save(self, path: Path) -> None:
        """Write weights and shape; an older file is replaced only by a whole one."""
        state = {
            f"{part}.{name}": value.contiguous()
            for part, network in self._networks().items()
            for name, value in network.state_dict().items()
        }
        shape = {
            "kind": KIND,
            "encoder": self.kind,
            "sees": self.sees,
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
        for part, network in model._networks().items():
            own = {
                name.removeprefix(f"{part}."): value
                for name, value in state.items()
                if name.startswith(f"{part}.")
            }
            if own or part not in LATER_PARTS:
                load_weights(network, own, f"{path} ({part})")
            network.eval()
        return model

    def _networks(self) -> dict[str, torch.nn.Module]:
        return {
            "encoder": self.encoder,
            "scale": self.scale,
            "appearance": self.appearance,
            "graph": self.graph,
        }


def _shape(path: Path) -> tuple[str, int, int, int, str]:
    try:
        with safe_open(path, "pt") as file:
            given = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is corrupt or not a weights file: {error}") from error
    if given.get("kind") != KIND:
        raise WeightsError(f"{path} is not an S3E model ('{KIND}')")
    try:
        numbers = [int(given[name]) for name in ("patch_size", "patch_count", "dimension")]
        encoder, sees = given["encoder"], given["sees"]
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: its description is damaged: {error}") from error
    known = encoder in ENCODERS and sees in VALUES and numbers[0] in PATCH_SIZES
    if not known or min(numbers) < 1:
        raise WeightsError(f"{path}: no encoder '{encoder}' of {sees} with {numbers}")
    return encoder, numbers[0], numbers[1], numbers[2], sees
