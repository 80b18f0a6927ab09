"""A long painted wall 4 m before a camera that moves along it, and a model for its views."""

import cv2
import numpy as np
import torch

from vpr.records import CameraModel
from vpr.relocalization.model import S3eModel

DEPTH, FOCAL = 4.0, 200.0  # m, px
WIDTH, HEIGHT = 320, 240
PIXELS_PER_METRE = FOCAL / DEPTH
CAMERA = CameraModel(WIDTH, HEIGHT, np.array([[FOCAL, 0, 160], [0, FOCAL, 120], [0, 0, 1]]))
CAMERA_IN_BASE = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]  # the base has the camera's axes


class Gallery:
    """The wall; +x is along it, to the camera's right."""

    def __init__(self, length: float = 12.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        width = round(PIXELS_PER_METRE * length) + WIDTH
        self.wall = np.full((HEIGHT, width, 3), 128, np.uint8)
        for _ in range(width):
            corner = rng.integers((-20, -20), (width, HEIGHT))
            other = corner + rng.integers(6, 40, 2)
            colour = rng.integers(0, 255, 3).tolist()
            cv2.rectangle(self.wall, corner.tolist(), other.tolist(), colour, -1)

    def view(self, x: float) -> np.ndarray:
        """What the camera sees from x metres along the wall."""
        left = round(PIXELS_PER_METRE * x)
        return self.wall[:, left : left + WIDTH].copy()

    @staticmethod
    def depth() -> np.ndarray:
        """Of every view, in mm."""
        return np.full((HEIGHT, WIDTH), round(1000 * DEPTH), np.uint16)

    @staticmethod
    def pose(x: float) -> np.ndarray:
        """map_T_base there."""
        pose = np.eye(4)
        pose[0, 3] = x
        return pose


def save_model(path, dimension: int = 16) -> str:
    """A small model that was not trained: its graph network looks at each node by itself.

    The same view gets the same feature then, whatever is beside it.
    """
    torch.manual_seed(0)
    model = S3eModel("vit", 16, patch_count=48, dimension=dimension)
    with torch.no_grad():
        model.graph.edge.weight.zero_()
        model.graph.edge.bias.zero_()
        for layer in model.graph.layers:
            layer.lin_l.weight.zero_()
    model.save(path)
    return str(path)
