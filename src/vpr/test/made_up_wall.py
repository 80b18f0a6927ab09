"""RGB-D views of a textured wall, for tests of S3E-GNN."""

import numpy as np

from vpr.records import CameraModel
from vpr.relocalization.rgbd import RgbdSequence


def wall(laps=2, views=12, step=1.0, size=(128, 96)):
    """A camera that slides along a textured wall 2 m away, ``step`` metres a view, some laps."""
    width, height = size
    pixels = round(100 * step)  # 100 px a metre
    columns = (pixels * views + width) // 8 + 1
    blocks = np.random.default_rng(0).integers(0, 256, (height // 8, columns, 3))
    texture = np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)
    images, poses = [], []
    for _ in range(laps):
        for view in range(views):
            images.append(texture[:, pixels * view : pixels * view + width])
            pose = np.eye(4)
            pose[0, 3] = step * view
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
