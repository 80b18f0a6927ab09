"""RGB-D views of a textured wall, for tests of S3E-GNN."""

import numpy as np

from vpr.records import CameraModel
from vpr.relocalization.rgbd import RgbdSequence


def wall(laps=2, views=12, step=1.0, size=(128, 96)):
    """A camera that slides along a textured wall 2 m away, ``step`` metres a view, some laps.

    It rises 40 cm on the way and comes down again.
    """
    width, height = size
    pixels = round(100 * step)  # 100 px a metre
    columns = (pixels * views + width) // 8 + 1
    blocks = np.random.default_rng(0).integers(0, 256, (height // 8 + 6, columns, 3))
    texture = np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)
    images, poses = [], []
    for _ in range(laps):
        for view in range(views):
            up = round(40 * np.sin(np.pi * view / views))
            left = pixels * view
            images.append(texture[up : up + height, left : left + width])
            pose = np.eye(4)
            pose[:2, 3] = step * view, up / 100.0
            poses.append(pose)
    count = laps * views
    matrix = np.array([[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]])
    camera = CameraModel(width, height, matrix)
    depths = np.full((count, height, width), 2.0, np.float32)
    stamps = np.arange(count, dtype=np.int64) * 500_000_000
    laps_of_views = np.arange(count, dtype=np.int64) // views
    return RgbdSequence(
        "wall", camera, np.stack(images), depths, np.stack(poses), stamps, laps_of_views
    )
