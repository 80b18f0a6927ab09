"""A row of coloured walls seen from a straight path: frames that tell where they were taken."""

import numpy as np

from vpr.models.vlocnet import VLocNetConfig
from vpr.pose_regression.frames import Frame, PosedFrames, gather
from vpr.records import CameraModel

CONFIG = VLocNetConfig(image_width=64, image_height=32, width=4, units=(1, 1, 3, 1), classes=3)
CAMERA = CameraModel(64, 32, np.array([[50.0, 0, 31.5], [0, 50.0, 15.5], [0, 0, 1]]))
STEP = 0.1  # m


def wall(seed: int, frames: int) -> np.ndarray:
    """Stripes 8 px wide, as long as the path needs."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 255, (4, frames, 3), np.uint8), np.ones((8, 8, 1), np.uint8))


def room(count: int = 40, seed: int = 0) -> PosedFrames:
    """Frames along +x before the wall; labels are a third of the picture each, depth is 2 m."""
    stripes = wall(seed, count + 8)
    labels = np.zeros((32, 64), np.uint8)
    labels[:, 21:], labels[:, 42:] = 1, 2
    depth = np.full((32, 64), 2.0, np.float32)
    frames = []
    for number in range(count):
        pose = np.eye(4)
        pose[0, 3] = STEP * number
        image = stripes[:, 4 * number : 4 * number + 64]
        frames.append(Frame(f"frame {number}", 0, number, image, pose, labels, depth))
    return gather(frames, CAMERA, CONFIG)
