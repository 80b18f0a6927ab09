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

from vpr.images.decoding import colour_of
from vpr.models.activations import LayerActivations
from vpr.models.backbone import make_backbone
from vpr.models.compiled import compiled_where_possible
from vpr.records import Image
from vpr.relocalization.patches import Patches

WIDTH, HEIGHT = 320, 240  # px that the backbone sees an image in
LAYERS = ("_blocks.4", "_blocks.10", "_blocks.15")  # at an 8th, 16th and 32nd of the size
CHANNELS = 40 + 112 + 320
QUARTERS = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]], np.float32) / 4.0  # of a patch's side


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
    """(K, C) means over four points in each patch, bilinear in maps (1, c, h, w)."""
    side = patches.pixels.shape[1]
    points = patches.centres[:, None] + QUARTERS * np.float32(side)
    points /= np.array(patches.size, np.float32)
    found = []
    for level in maps:
        channels, height, width = level.shape[1:]
        weights = _weights(points, width, height)
        found.append(torch.from_numpy(weights) @ level.reshape(channels, -1).T)
    return torch.cat(found, dim=1)


def _weights(points: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """(K, height * width): what each cell counts in the mean over points (K, 4, 2) in 0..1."""
    last = np.array([width - 1, height - 1], np.float32)
    place = np.clip(points * (last + 1.0) - 0.5, 0.0, last)  # cell centres lie at halves
    corner = np.minimum(place.astype(np.int64), np.maximum(last.astype(np.int64) - 1, 0))
    share = place - corner
    weights = np.zeros((len(points), height * width), np.float32)
    rows = np.arange(len(points))[:, None]
    for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x = np.minimum(corner[..., 0] + right, width - 1)
        y = np.minimum(corner[..., 1] + below, height - 1)
        across = share[..., 0] if right else 1.0 - share[..., 0]
        down = share[..., 1] if below else 1.0 - share[..., 1]
        np.add.at(weights, (rows, y * width + x), across * down / 4.0)
    return weights


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
