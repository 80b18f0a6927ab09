"""Sparse convolution over quantised coordinates, in plain PyTorch (after Choy et al. 2019).

No sparse library installs from PyPI for CPU and CUDA alike. This is the same operation: outputs
exist only at occupied sites, and each gathers the occupied sites in its neighbourhood.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SparseSites:
    """Occupied sites of a batch of grids, and who neighbours whom.

    Attributes:
        batch: (M,) which image each site belongs to, ascending.
        neighbours: (M, 9) row of the site at each offset of a 3x3 kernel, row-major; M where
            that site is empty.
        images: how many images the batch has.
    """

    batch: Tensor
    neighbours: Tensor
    images: int


def quantise(
    features: Tensor, cells: Tensor, batch: Tensor, images: int
) -> tuple[Tensor, SparseSites]:
    """Sites of points on integer cells; features of points that share a cell are averaged.

    Args:
        features: (N, C). cells: (N, 2) int64 x, y >= 0. batch: (N,) int64 image of each point.

    Returns:
        (M, C) features of the occupied sites, and the sites.
    """
    width, height = int(cells[:, 0].max()) + 3, int(cells[:, 1].max()) + 3
    keys = (batch * height + cells[:, 1] + 1) * width + cells[:, 0] + 1  # a margin of one cell
    occupied, site = torch.unique(keys, return_inverse=True)
    count = torch.bincount(site, minlength=len(occupied)).clamp(min=1)
    summed = features.new_zeros(len(occupied), features.shape[1]).index_add(0, site, features)
    steps = torch.tensor([-1, 0, 1], device=keys.device)
    offsets = (steps[:, None] * width + steps[None]).reshape(-1)
    wanted = occupied[:, None] + offsets
    place = torch.searchsorted(occupied, wanted).clamp(max=len(occupied) - 1)
    neighbours = torch.where(occupied[place] == wanted, place, len(occupied))
    sites = SparseSites(occupied // (width * height), neighbours, images)
    return summed / count[:, None], sites


class SparseConvolution(nn.Module):
    """A 3x3 convolution, stride 1, whose outputs exist at the occupied sites only.

    Its ``weight`` (9, C_in, C_out) is a dense kernel (C_out, C_in, 3, 3) with the offsets first.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        bound = (6.0 / (9 * channels_in)) ** 0.5
        self.weight = nn.Parameter(
            torch.empty(9, channels_in, channels_out).uniform_(-bound, bound)
        )

    def forward(self, features: Tensor, sites: SparseSites) -> Tensor:
        """(M, C_in) features of the sites to (M, C_out)."""
        padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
        gathered = padded[sites.neighbours]  # (M, 9, C_in)
        return torch.einsum("mkc,kcd->md", gathered, self.weight)


def pool_images(features: Tensor, sites: SparseSites) -> Tensor:
    """(B, C) mean over each image's sites (global average pooling)."""
    total = features.new_zeros(sites.images, features.shape[1])
    total = total.index_add(0, sites.batch, features)
    count = torch.bincount(sites.batch, minlength=sites.images).clamp(min=1)
    return total / count[:, None]
