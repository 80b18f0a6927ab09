"""The two S3E encoders: patches of an image to one embedding (S3E-GNN III-A, Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence

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
PIXEL_VALUES = 3 * SEEN_SIZE**2
BEGINNING = 0.1  # of random weights, where what is given is passed on beside them
CENTRE = 4  # offset of a 3x3 kernel


class EncoderInput:
    """A batch of B images with K patches each, ready for a network.

    Attributes:
        values: (B, K, C) float32, what each patch shows; float16 where it is kept.
        places: (B, K, 2) float32, centres in 0..1 of width and height.
        cells: (B, K, 2) int64, centres divided by the patch size (III-A).
    """

    def __init__(self, values: Tensor, places: Tensor, cells: Tensor) -> None:
        self.values, self.places, self.cells = values, places, cells

    @classmethod
    def of(cls, batch: Sequence[Patches], values: Tensor) -> EncoderInput:
        """Tensors of a batch of images with equally many patches of one size.

        Args:
            values: (B, K, C), as of ``patch_pixels`` or ``patch_features``.
        """
        centres = torch.from_numpy(np.stack([p.centres for p in batch]))
        sizes = torch.tensor([p.size for p in batch], dtype=torch.float32)
        cells = (centres / batch[0].pixels.shape[1]).long()
        return cls(values, centres / sizes[:, None], cells)

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, chosen: NDArray[np.intp]) -> EncoderInput:
        """Some of the images, in the given order."""
        at = torch.from_numpy(chosen)
        return EncoderInput(self.values[at].float(), self.places[at], self.cells[at])

    def to(self, device: torch.device) -> EncoderInput:
        """The same on a device."""
        return EncoderInput(self.values.to(device), self.places.to(device), self.cells.to(device))

    @classmethod
    def joined(cls, parts: Sequence[EncoderInput]) -> EncoderInput:
        """One batch of several with equally many patches an image."""
        return cls(
            torch.cat([part.values for part in parts]),
            torch.cat([part.places for part in parts]),
            torch.cat([part.cells for part in parts]),
        )


def patch_pixels(batch: Sequence[Patches]) -> Tensor:
    """(B, K, 192) float32: patches reduced to 8x8 pixels, about -1..1."""
    pixels = torch.from_numpy(np.stack([p.pixels for p in batch])).permute(0, 1, 4, 2, 3)
    images, count = pixels.shape[:2]
    small = functional.adaptive_avg_pool2d(pixels.flatten(0, 1).float(), SEEN_SIZE)
    return (small / 127.5 - 1.0).reshape(images, count, PIXEL_VALUES)


class PatchProjection(nn.Module):
    """What a patch shows to fewer values: channels are standardised, then mixed."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.scaling = nn.BatchNorm1d(channels, affine=False)
        self.mixing = nn.Linear(channels, width)

    def forward(self, values: Tensor) -> Tensor:
        """(B, K, C) to (B, K, width)."""
        scaled = self.scaling(values.flatten(0, 1))
        return torch.as_tensor(self.mixing(scaled)).reshape(*values.shape[:2], -1)

    @torch.no_grad()
    def begin(self, values: Tensor) -> None:
        """Start from the principal components of views (N, K, C), each the mean of its patches.

        Fewer of them than ``width`` leave the rest as they are.
        """
        patches = values.flatten(0, 1)
        self.scaling.running_mean.copy_(patches.mean(dim=0))  # type: ignore[union-attr]
        self.scaling.running_var.copy_(patches.var(dim=0))  # type: ignore[union-attr]
        self.scaling.eval()
        views = self.scaling(patches).reshape(values.shape).mean(dim=1)
        _, _, axes = torch.linalg.svd(views - views.mean(dim=0), full_matrices=False)
        count = min(len(axes), self.mixing.out_features)
        self.mixing.weight[:count] = axes[:count]
        self.mixing.bias[:count] = 0.0

    def train(self, mode: bool = True) -> PatchProjection:
        """As of every module, but for the scale of the channels, which ``begin`` has measured."""
        super().train(mode)
        self.scaling.eval()
        return self


class VitEncoder(nn.Module):
    """A vision transformer whose tokens are the patches, placed by their coordinates.

    Its blocks begin by adding little to the tokens.
    """

    def __init__(self, channels: int, dimension: int, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.patch = PatchProjection(channels, dimension)
        placing = nn.Linear(dimension, dimension)
        self.place = nn.Sequential(nn.Linear(2, dimension), nn.GELU(), placing)
        layer = nn.TransformerEncoderLayer(
            dimension, heads, 2 * dimension, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dimension)
        self.centre = centring(dimension)
        with torch.no_grad():
            placing.weight.mul_(BEGINNING)
            for name, weight in self.blocks.named_parameters():
                if name.endswith(("out_proj.weight", "linear2.weight")):
                    weight.mul_(BEGINNING)

    def forward(self, given: EncoderInput) -> Tensor:
        """(B, D) embeddings."""
        tokens = self.patch(given.values) + self.place(given.places)
        return torch.as_tensor(self.centre(self.norm(self.blocks(tokens)).mean(dim=1)))


class SparseEncoder(nn.Module):
    """Three sparse convolutions with batch norm and ReLU, then global average pooling (Fig. 2).

    They begin by passing on what they are given, its two signs apart, and little of neighbours.
    """

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        half = dimension // 2
        self.patch = PatchProjection(channels, half)
        self.place = nn.Linear(2, half)
        pairs = [(half, dimension), (dimension, dimension), (dimension, dimension)]
        convolutions = [SparseConvolution(a, b) for a, b in pairs]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for _, b in pairs)
        self.centre = centring(dimension)
        signs = torch.cat([torch.eye(half), -torch.eye(half), torch.zeros(half, dimension % 2)], 1)
        with torch.no_grad():
            self.place.weight.zero_()
            for convolution, begun in zip(
                convolutions, (signs, torch.eye(dimension), torch.eye(dimension)), strict=True
            ):
                convolution.weight.mul_(BEGINNING)
                convolution.weight[CENTRE] += begun

    def forward(self, given: EncoderInput) -> Tensor:
        """(B, D) embeddings."""
        images, count = given.values.shape[:2]
        batch = torch.arange(images, device=given.values.device).repeat_interleave(count)
        placed = self.patch(given.values) + self.place(2.0 * given.places - 1.0)
        features, sites = quantise(placed.flatten(0, 1), given.cells.flatten(0, 1), batch, images)
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


def make_encoder(kind: str, channels: int, dimension: int = 128) -> VitEncoder | SparseEncoder:
    """An untrained encoder by name, of patches with ``channels`` values each.

    Raises:
        ValueError: neither ``vit`` nor ``sparse``.
    """
    if kind not in ENCODERS:
        raise ValueError(f"encoder '{kind}' is not one of {ENCODERS}")
    return (VitEncoder if kind == "vit" else SparseEncoder)(channels, dimension)
