"""The place descriptor: activations of several layers of one backbone, pooled and concatenated.

A layer pooled over the whole image says what is in view wherever it stands; pooled over a coarse
grid it says where as well. The first survives a change of viewpoint, the second of light and
season. Each part is L2-normalised and weighted, so that the dot product of two descriptors is the
weighted mean of the parts' cosine similarities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vpr.config import EmbeddingConfig
from vpr.models.activations import (
    LAST_FEATURES,
    Activations,
    LayerActivations,
    in_pytorch,
)
from vpr.models.backbone import make_backbone
from vpr.models.compiled import compiled_where_possible
from vpr.models.descriptor_model import DescriptorModel, DescriptorModelError
from vpr.models.device import chosen_device
from vpr.models.head import DescriptorHead
from vpr.models.pooling import gem_pool
from vpr.models.whitening import Whitening
from vpr.records import Image


class EmbeddingError(ValueError):
    """An image or attention map that cannot be embedded; says which and why."""


@dataclass(frozen=True)
class DescriptorPart:
    """One layer's share of the descriptor."""

    layer: str
    rows: int
    columns: int
    gem_p: float
    weight: float


def descriptor_parts(config: EmbeddingConfig) -> tuple[DescriptorPart, ...]:
    """The parts that the configuration's parallel lists describe."""
    lists = (config.layers, config.layer_grids, config.layer_gem_p, config.layer_weights)
    parts = []
    for layer, grid, gem_p, weight in zip(*lists, strict=True):
        rows, columns = (int(cells) for cells in grid.split("x"))
        parts.append(DescriptorPart(layer, rows, columns, gem_p, weight))
    return tuple(parts)


class Embedder:
    """Images to L2-normalised descriptors.

    Args:
        trained: a trained model that is not on disk, in place of ``config.model``.

    Attributes:
        model: ``name@hash`` where the hash covers the weights and every setting that changes the
            descriptor: descriptors of two models are never comparable.
        dimension: length D of a descriptor.
        normalised: False where the trained model was taught distances of any scale.

    Raises:
        BackboneError, WeightsError, WhiteningError, DeviceError, RuntimeUnavailableError,
        DescriptorModelError: at construction, for what is wrong there.
    """

    model: str
    dimension: int
    normalised: bool

    def __init__(self, config: EmbeddingConfig, trained: DescriptorModel | None = None) -> None:
        if config.threads > 0:
            torch.set_num_threads(config.threads)
        self._config = config
        self._device = chosen_device(config.device)
        self._parts = descriptor_parts(config)
        self._extra_channels = 1 if config.attention == "mask_channel" else 0
        self._backbone = make_backbone(config.backbone, config.weights, self._extra_channels)
        self._layers = tuple(dict.fromkeys(part.layer for part in self._parts))
        self._whitening = Whitening.load(config.whitening) if config.whitening else None
        self.model = f"{config.backbone}@{self._fingerprint()}"
        self._heads: tuple[DescriptorHead, ...] = ()
        self.normalised = True
        if trained is None and config.model:
            trained = DescriptorModel.load(Path(config.model).expanduser())
        if trained is not None:
            self._take(trained)
        self._network = LayerActivations(self._backbone, self._layers, self._extra_channels)
        self._activations = self._start_runtime(self._network)
        blank = np.zeros((config.image_height, config.image_width, 3), np.uint8)
        self.dimension = self.embed([blank]).shape[1]

    def embed(
        self, images: Sequence[Image], attention: Sequence[NDArray[np.uint8]] | None = None
    ) -> NDArray[np.float32]:
        """Descriptors (B, D) float32 of B images, (H, W, 3) BGR or (H, W) grey uint8 of any size.

        Args:
            attention: one (h, w) uint8 map an image; not read with ``attention: none``. Without
                maps every pixel counts alike.

        Raises:
            EmbeddingError: no image, one that is not 8-bit with 1 or 3 channels, or an attention
                map that is not 8-bit grey or has another aspect than its image.
        """
        weights = self.attention_weights(attention, images)
        batch = self._with_attention(self._batch(images), weights)
        maps = self._layer_activations(batch)
        in_pooling = self._config.attention == "pooling"
        return self.described(maps, weights if in_pooling else None)

    def described(
        self, maps: Mapping[str, Tensor], attention: Tensor | None
    ) -> NDArray[np.float32]:
        """Descriptors (B, D) float32 of ``feature_maps`` with ``attention_weights`` or without."""
        with torch.inference_mode():
            descriptors = self.pooled(maps, attention).cpu().numpy()
        if self._whitening is not None:
            descriptors = self._whitening(descriptors)
        for head in self._heads:
            descriptors = head.apply_to(descriptors)
        return np.ascontiguousarray(descriptors, dtype=np.float32)

    @property
    def network(self) -> nn.Module:
        """The backbone; training may unfreeze some of it."""
        return self._backbone.network

    @property
    def device(self) -> torch.device:
        """Where descriptors are made."""
        return self._device

    def batch(self, images: Sequence[Image]) -> Tensor:
        """Images as the network sees them, (B, h, w, 3) RGB uint8, for ``describe``.

        Raises:
            EmbeddingError: as ``embed``.
        """
        return torch.from_numpy(self._batch(images)).to(self._device)

    def describe(self, batch: Tensor) -> Tensor:
        """Descriptors (B, D) of a ``batch`` by PyTorch, through which gradients flow.

        Raises:
            EmbeddingError: a whitening is configured, through which they don't.
        """
        if self._whitening is not None:
            raise EmbeddingError("the backbone can't be trained through a whitening: leave it out")
        outputs = self._network.to(self._device)(batch)
        descriptors = self.pooled(dict(zip(self._layers, outputs, strict=True)), None)
        for head in self._heads:
            descriptors = head(descriptors)
        return descriptors

    def part_widths(self) -> list[int]:
        """How many values of the untrained descriptor each configured part has, in order."""
        blank = np.zeros((self._config.image_height, self._config.image_width, 3), np.uint8)
        maps = self.feature_maps([blank])
        return [maps[part.layer].shape[1] * part.rows * part.columns for part in self._parts]

    def trainable_tail(self, count: int) -> dict[str, nn.Module]:
        """The last ``count`` modules that the descriptor passes through, by their names.

        Raises:
            EmbeddingError: the backbone has fewer.
        """
        modules = self._backbone.sequence()
        used = [number for number, name in enumerate(modules, 1) if name in self._layers]
        end = len(modules) if LAST_FEATURES in self._layers else max(used, default=0)
        if count > end:
            raise EmbeddingError(f"{count} modules to unfreeze, the descriptor passes {end}")
        return {name: modules[name] for name in list(modules)[end - count : end]}

    def _take(self, model: DescriptorModel) -> None:
        """Put a trained model behind the backbone, its trained trunk into it."""
        if model.base != self.model:
            raise DescriptorModelError(
                f"the trained model was made for the descriptor {model.base}; backbone, layers and "
                f"image size as configured make {self.model}"
            )
        weights = self._backbone.network.state_dict()
        unknown = set(model.trunk) - set(weights)
        if unknown:
            raise DescriptorModelError(f"the backbone has no layer '{min(unknown)}'")
        self._backbone.network.load_state_dict(weights | model.trunk)
        self._heads = tuple(h.to(self._device).eval().requires_grad_(False) for h in model.heads)
        self.normalised = all(head.normalised for head in model.heads)
        self.model = model.name

    def _start_runtime(self, network: LayerActivations) -> Activations:
        config = self._config
        size = (config.image_height, config.image_width)
        blank = torch.zeros((1, *size, network.channels), dtype=torch.uint8)
        compiled = compiled_where_possible(
            network, blank, config.threads, config.runtime, self._device
        )
        return compiled or in_pytorch(network, self._device, config.mixed_precision)

    def feature_maps(self, images: Sequence[Image]) -> dict[str, Tensor]:
        """Activations (B, C, h, w) float32 of each layer the descriptor is pooled from.

        Raises:
            EmbeddingError: as ``embed``.
        """
        batch = self._with_attention(self._batch(images), None)
        return self._layer_activations(batch)

    def pooled(self, maps: Mapping[str, Tensor], attention: Tensor | None) -> Tensor:
        """Descriptors (B, D) of feature maps, through which gradients reach the attention.

        Args:
            attention: (B, 1, H, W), not negative; None weighs all positions alike.
        """
        pooled = []
        for part in self._parts:
            grid = part.rows, part.columns
            vector = gem_pool(maps[part.layer], part.gem_p, grid, attention)
            pooled.append(part.weight**0.5 * functional.normalize(vector))
        return functional.normalize(torch.cat(pooled, dim=1))

    def _layer_activations(self, batch: NDArray[np.uint8]) -> dict[str, Tensor]:
        return dict(zip(self._layers, self._activations(batch), strict=True))

    def _with_attention(
        self, rgb: NDArray[np.uint8], attention: Tensor | None
    ) -> NDArray[np.uint8]:
        """RGB (B, H, W, 3) with the attention (B, 1, h, w) in it, where it belongs there."""
        how = self._config.attention
        if how not in ("multiplied", "mask_channel"):
            return rgb
        count, height, width, _ = rgb.shape
        masks = np.full((count, height, width, 1), 255, np.uint8)
        if attention is not None:
            planes = functional.interpolate(
                255.0 * attention, (height, width), mode="bilinear", align_corners=False
            )
            masks = planes.round().permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
        if how == "mask_channel":
            return np.concatenate([rgb, masks], axis=3)
        return np.asarray(np.rint(rgb * (masks / np.float32(255.0))), np.uint8)

    def _batch(self, images: Sequence[Image]) -> NDArray[np.uint8]:
        if len(images) == 0:
            raise EmbeddingError("no image to embed")
        size = (self._config.image_width, self._config.image_height)
        return np.stack([_resized_rgb(image, size) for image in images])

    def attention_weights(
        self, attention: Sequence[NDArray[np.uint8]] | None, images: Sequence[Image]
    ) -> Tensor | None:
        """Attention maps of B images as (B, 1, h, w) in 0..1; None where there are none.

        Raises:
            EmbeddingError: not one map an image, or a map of another image.
        """
        if self._config.attention == "none" or attention is None:
            return None
        if len(attention) != len(images):
            raise EmbeddingError(f"{len(attention)} attention maps for {len(images)} images")
        for map_, image in zip(attention, images, strict=True):
            _check_aspect(map_, image)
        size = (self._config.image_width // 4, self._config.image_height // 4)
        maps = [cv2.resize(map_, size, interpolation=cv2.INTER_AREA) for map_ in attention]
        return torch.from_numpy(np.stack(maps)[:, None]).to(self._device).float() / 255.0

    def _fingerprint(self) -> str:
        config = self._config
        settings = (
            self._parts,
            (config.image_width, config.image_height),
            config.attention,
        )
        digest = hashlib.sha256(self._backbone.fingerprint)
        digest.update(repr(settings).encode())
        if self._whitening is not None:
            digest.update(self._whitening.fingerprint)
        return digest.hexdigest()[:12]


def _check_aspect(attention: NDArray[np.uint8], image: Image) -> None:
    """Refuse a map of another picture; a map that was scaled down is off by at most one pixel."""
    if attention.dtype != np.uint8 or attention.ndim != 2 or attention.size == 0:
        raise EmbeddingError(
            f"an attention map is 8-bit grey, not {attention.dtype} of shape {attention.shape}"
        )
    (rows, columns), (image_rows, image_columns) = attention.shape, image.shape[:2]
    if abs(rows - columns * image_rows / image_columns) > 1.0:
        raise EmbeddingError(
            f"attention map {columns}x{rows} is not of an image {image_columns}x{image_rows}"
        )


def _resized_rgb(image: Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise EmbeddingError(f"not an 8-bit image: {image.dtype} array of shape {image.shape}")
    if image.ndim == 3 and image.shape[2] != 3:
        raise EmbeddingError(f"an image has 1 or 3 channels, not {image.shape[2]}")
    shrinks = image.shape[1] >= size[0] and image.shape[0] >= size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small = cv2.resize(image, size, interpolation=how)
    to_rgb = cv2.COLOR_GRAY2RGB if small.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(small, to_rgb), np.uint8)
