"""What a pre-trained backbone sees in an image's patches, as input of the S3E encoders.

A few rooms teach an encoder their own wallpaper and little else. Features that were learnt from a
million images tell materials and shapes apart from the start; the encoders, which stay those of the
paper, learn what of them says that two views overlap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vpr.images.decoding import colour_of
from vpr.models.activations import LayerActivations
from vpr.models.backbone import make_backbone
from vpr.models.compiled import compiled_where_possible
from vpr.records import Image
from vpr.relocalization.patches import Patches

WIDTH, HEIGHT = 320, 240  # px that the backbone sees an image in
LAYERS = ("_blocks.4", "_blocks.10", "_blocks.15")  # at an 8th, 16th and 32nd of the size
CHANNELS = 40 + 112 + 320
QUARTERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]) / 4.0  # of a patch


def patch_features(images: Sequence[Image], patches: Sequence[Patches]) -> Tensor:
    """(B, K, 472) float32: the backbone's maps, averaged over the quarters of every patch.

    Args:
        patches: of each image, K of one size.
    """
    rgb = [cv2.resize(colour_of(image), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
           for image in images]  # fmt: skip
    maps = [
        [level.float() for level in _activations()(np.ascontiguousarray(view[None, ..., ::-1]))]
        for view in rgb
    ]
    return torch.stack([_sampled(*pair) for pair in zip(maps, patches, strict=True)])


def _sampled(maps: Sequence[Tensor], patches: Patches) -> Tensor:
    """(K, C) means over four points in each patch, in maps (1, c, h, w)."""
    size = torch.tensor(patches.size, dtype=torch.float32)
    centres = torch.from_numpy(patches.centres)
    points = centres[:, None] + QUARTERS * patches.pixels.shape[1]  # (K, 4, 2) px
    grid = (2.0 * points / size - 1.0)[None]
    found = [
        functional.grid_sample(level, grid, padding_mode="border", align_corners=False)
        for level in maps
    ]
    return torch.cat([level[0].mean(dim=2) for level in found]).T


@functools.cache
def _activations() -> Callable[[NDArray[np.uint8]], tuple[Tensor, ...]]:
    """The backbone for one image (1, HEIGHT, WIDTH, 3) RGB, as fast as it runs here."""
    network = LayerActivations(make_backbone("efficientnet_lite0", "embedded"), LAYERS).eval()
    example = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    compiled = compiled_where_possible(network, example, 0, "auto", torch.device("cpu"))
    if compiled is not None:
        return compiled

    def run(rgb: NDArray[np.uint8]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return tuple(network(torch.from_numpy(rgb)))

    return run
