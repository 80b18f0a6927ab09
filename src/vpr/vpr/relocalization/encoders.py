"""The two S3E encoders: patches of an image to one embedding (S3E-GNN III-A, Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vpr.relocalization.patches import Patches
from vpr.relocalization.sparse_convolution import (
    SparseConvolution,
    pool_images,
    quantise,
)

SEEN_SIZE = 8  # px; patches are reduced to this side, so that one network serves every size


class EncoderInput:
    """A batch of B images with K patches each, ready for a network.

    Attributes:
        pixels: (B, K, 3, 8, 8) float32, about -1..1.
        places: (B, K, 2) float32, centres in 0..1 of width and height.
        cells: (B, K, 2) int64, centres divided by the patch size (III-A).
    """

    def __init__(self, pixels: Tensor, places: Tensor, cells: Tensor) -> None:
        self.pixels, self.places, self.cells = pixels, places, cells

    @classmethod
    def of(cls, batch: Sequence[Patches]) -> EncoderInput:
        """Tensors of a batch of images with equally many patches of one size."""
        pixels = torch.from_numpy(np.stack([p.pixels for p in batch])).permute(0, 1, 4, 2, 3)
        images, count = pixels.shape[:2]
        small = functional.adaptive_avg_pool2d(pixels.flatten(0, 1).float(), SEEN_SIZE)
        centres = torch.from_numpy(np.stack([p.centres for p in batch]))
        sizes = torch.tensor([p.size for p in batch], dtype=torch.float32)
        return cls(
            (small / 127.5 - 1.0).reshape(images, count, 3, SEEN_SIZE, SEEN_SIZE),
            centres / sizes[:, None],
            (centres / pixels.shape[-1]).long(),
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, chosen: NDArray[np.intp]) -> EncoderInput:
        """Some of the images, in the given order."""
        at = torch.from_numpy(chosen)
        return EncoderInput(self.pixels[at], self.places[at], self.cells[at])

    def to(self, device: torch.device) -> EncoderInput:
        """The same on a device."""
        return EncoderInput(self.pixels.to(device), self.places.to(device), self.cells.to(device))

    @classmethod
    def joined(cls, parts: Sequence[EncoderInput]) -> EncoderInput:
        """One batch of several with equally many patches an image."""
        return cls(
            torch.cat([part.pixels for part in parts]),
            torch.cat([part.places for part in parts]),
            torch.cat([part.cells for part in parts]),
        )

    def painted(self, mixing: Tensor, shift: Tensor) -> EncoderInput:
        """All pixels through one colour map: (3, 3) ``mixing``, then (3,) ``shift``."""
        pixels = torch.einsum("bkchw,dc->bkdhw", self.pixels, mixing) + shift[:, None, None]
        return EncoderInput(pixels, self.places, self.cells)

    def flipped(self) -> EncoderInput:
        """The images mirrored left to right."""
        mirrored = torch.stack([1.0 - self.places[..., 0], self.places[..., 1]], dim=-1)
        last = self.cells[..., 0].amax(dim=1, keepdim=True)
        cells = torch.stack([last - self.cells[..., 0], self.cells[..., 1]], dim=-1)
        return EncoderInput(self.pixels.flip(-1), mirrored, cells)


class VitEncoder(nn.Module):
    """A vision transformer whose tokens are the patches, placed by their coordinates."""

    def __init__(self, dimension: int = 128, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.patch = nn.Linear(3 * SEEN_SIZE**2, dimension)
        self.place = nn.Sequential(
            nn.Linear(2, dimension), nn.GELU(), nn.Linear(dimension, dimension)
        )
        layer = nn.TransformerEncoderLayer(
            dimension, heads, 2 * dimension, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dimension)
        self.centre = centring(dimension)

    def forward(self, given: EncoderInput) -> Tensor:
        """(B, D) embeddings."""
        tokens = self.patch(given.pixels.flatten(2)) + self.place(given.places)
        return torch.as_tensor(self.centre(self.norm(self.blocks(tokens)).mean(dim=1)))


class SparseEncoder(nn.Module):
    """Three sparse convolutions with batch norm and ReLU, then global average pooling (Fig. 2)."""

    def __init__(self, dimension: int = 128, width: int = 64) -> None:
        super().__init__()
        channels = (3 * SEEN_SIZE**2, width, width, dimension)
        pairs = list(pairwise(channels))
        self.convolutions = nn.ModuleList(SparseConvolution(a, b) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for _, b in pairs)
        self.centre = centring(dimension)

    def forward(self, given: EncoderInput) -> Tensor:
        """(B, D) embeddings."""
        images, count = given.pixels.shape[:2]
        batch = torch.arange(images, device=given.pixels.device).repeat_interleave(count)
        features, sites = quantise(
            given.pixels.flatten(0, 1).flatten(1), given.cells.flatten(0, 1), batch, images
        )
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = torch.relu(norm(convolution(features, sites)))
        return torch.as_tensor(self.centre(pool_images(features, sites)))


def centring(dimension: int) -> nn.BatchNorm1d:
    """Takes the mean over views from their embeddings, which is not in the paper.

    Averages of rectified features all point about the same way: without this, cosines of any two
    views begin above 0.9, and thousands of steps go by before they tell anything apart.
    """
    return nn.BatchNorm1d(dimension, affine=False)


ENCODERS = ("vit", "sparse")


def make_encoder(kind: str, dimension: int = 128) -> VitEncoder | SparseEncoder:
    """An untrained encoder by name.

    Raises:
        ValueError: neither ``vit`` nor ``sparse``.
    """
    if kind not in ENCODERS:
        raise ValueError(f"encoder '{kind}' is not one of {ENCODERS}")
    return VitEncoder(dimension) if kind == "vit" else SparseEncoder(dimension)
