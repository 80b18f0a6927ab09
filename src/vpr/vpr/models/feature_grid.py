"""Early features of EfficientNet-Lite0 on a fixed grid, for traverses with a steady viewpoint.

Where things are in the image tells places apart when every image of a route looks forward along the
same line, as from a train; early layers (Suenderhauf et al., "On the Performance of ConvNet
Features for Place Recognition", IROS 2015) survive seasons better than late ones. What all images
of a traverse share, its season, is taken off by standardising each value over the traverse.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vpr.models.backbone import Backbone, make_backbone
from vpr.models.efficientnet_lite0 import EfficientNetLite0
from vpr.records import Image

WIDTH, HEIGHT = 128, 64  # px that every image is brought to
BLOCKS = 5  # inverted residuals that are run: 40 channels at an eighth of the size
GRID = (8, 16)  # rows, columns
SMALLEST_DEVIATION = 1e-3  # of the traverse's; values that vary less are not blown up


@functools.cache
def _backbone() -> Backbone:
    return make_backbone("efficientnet_lite0", "embedded")


def model_name() -> str:
    """``grid@hash`` over weights and settings: names the descriptors."""
    return f"grid{BLOCKS}@{_backbone().fingerprint.hex()[:12]}"


def grid_descriptors(images: Iterable[Image]) -> NDArray[np.float32]:
    """(N, D) L2-normalised descriptors of the grey or BGR images of one whole traverse."""
    return standardised(grid_features(images))


def grid_features(images: Iterable[Image]) -> NDArray[np.float32]:
    """(N, D) of grey or BGR images, not yet standardised over a traverse."""
    return np.stack([_features(image) for image in images])


def standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) rows of length 1, after each column was given mean 0 and deviation 1.

    A row that differs from the mean by no more than rounding is all zero.
    """
    centred = features - features.mean(axis=0)
    deviations = features.std(axis=0) + SMALLEST_DEVIATION * max(float(features.std()), 1e-12)
    scaled = centred / deviations
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    tells = lengths > SMALLEST_DEVIATION * np.sqrt(features.shape[1])
    return np.asarray(np.where(tells, scaled / np.maximum(lengths, 1e-12), 0.0), np.float32)


@torch.inference_mode()
def _features(image: Image) -> NDArray[np.float32]:
    backbone = _backbone()
    network = cast(EfficientNetLite0, backbone.network)
    resized = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    kind = cv2.COLOR_GRAY2RGB if resized.ndim == 2 else cv2.COLOR_BGR2RGB
    rgb = torch.from_numpy(cv2.cvtColor(resized, kind)).permute(2, 0, 1).float() / 255.0
    mean, deviation = (
        torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std)
    )
    found: Tensor = network.early(((rgb - mean) / deviation)[None], BLOCKS)
    return np.asarray(adaptive_avg_pool2d(found, GRID).flatten().numpy(), np.float32)
