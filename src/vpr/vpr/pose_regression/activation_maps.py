"""What the pose stream looks at: regression activation maps by Grad-CAM++, as pictures.

Chattopadhyay et al., "Grad-CAM++", 2017, by the library pytorch-grad-cam.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vpr.images.overlay import attention_overlay
from vpr.models.torchvision_import import import_torchvision
from vpr.models.vlocnet import VLocNet
from vpr.pose_regression.prediction import as_network_input
from vpr.records import Image

ENLARGED = 3  # times; the network's images are small
CATALOGUE_COLUMNS = 4  # pictures beside each other


class _Position(nn.Module):
    """The position that each image of a batch is given as a first frame."""

    def __init__(self, network: VLocNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        position = self.network.step(images)[0].position
        assert position is not None
        return position


def activation_maps(network: VLocNet, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How much each pixel of RGB images (N, H, W, 3) has to do with the predicted position.

    Returns:
        (N, H, W), 0 to 255 within each image.

    Raises:
        ValueError: the network has no pose stream.
    """
    if network.pose is None:
        raise ValueError("the network regresses no pose: there is no activation map of it")
    import_torchvision()  # which the library imports
    from pytorch_grad_cam import GradCAMPlusPlus

    offset = network.pose.regressor.offset

    def far_from_the_middle(position: Tensor) -> Tensor:
        distance: Tensor = (position - offset).norm()
        return distance

    last = list(network.pose.res5.values())[-1]
    maps = []
    with GradCAMPlusPlus(_Position(network.eval()), [last]) as explain:
        for image in images:
            batch = as_network_input(image[None]).to(offset.device)
            maps.append(explain(input_tensor=batch, targets=[far_from_the_middle])[0])
    for parameter in network.parameters():
        parameter.grad = None
    return np.asarray(np.round(255.0 * np.clip(np.stack(maps), 0.0, 1.0)), np.uint8)


def draw_activation_maps(network: VLocNet, images: NDArray[np.uint8], file: Path) -> None:
    """Images (N, H, W, 3) RGB, each above its activation map, as one picture."""
    maps = activation_maps(network, images)
    pairs = [_pair(image, map_) for image, map_ in zip(images, maps, strict=True)]
    missing = -len(pairs) % CATALOGUE_COLUMNS if len(pairs) > CATALOGUE_COLUMNS else 0
    pairs += [np.full_like(pairs[0], 255)] * missing
    rows = [
        np.hstack(pairs[i : i + CATALOGUE_COLUMNS]) for i in range(0, len(pairs), CATALOGUE_COLUMNS)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(file), np.vstack(rows)):
        raise ValueError(f"cannot write {file}")


def _pair(image: NDArray[np.uint8], map_: NDArray[np.uint8]) -> Image:
    height, width = map_.shape
    size = (ENLARGED * width, ENLARGED * height)
    bgr = np.ascontiguousarray(image[..., ::-1])
    large = np.asarray(cv2.resize(bgr, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    shown = cv2.resize(map_, size, interpolation=cv2.INTER_LINEAR)
    return np.vstack([large, attention_overlay(large, np.asarray(shown, np.uint8))])
