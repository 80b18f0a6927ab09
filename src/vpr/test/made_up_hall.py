"""RGB-D views of a textured room from within, for tests of S3E-GNN's virtual views."""

import numpy as np
from scipy.spatial.transform import Rotation

from vpr.records import CameraModel
from vpr.relocalization.rgbd import RgbdSequence

HALF = np.array([4.0, 1.5, 3.0])  # m, half the room along x, y (down) and z
SIZE, FOCAL = (160, 120), 80.0
CELL = 0.25  # m, a side of the wallpaper's squares


def camera_pose(x, z, heading):
    """map_T_camera; the camera looks along z, turned by ``heading`` degrees about y."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("y", heading, degrees=True).as_matrix()
    pose[0, 3], pose[2, 3] = x, z
    return pose


def room(poses, laps, seed=0):
    """What cameras see of a room whose walls have colours of their own."""
    width, height = SIZE
    matrix = np.array([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1.0]])
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack(
        [(columns - width / 2) / FOCAL, (rows - height / 2) / FOCAL, np.ones(columns.shape)], -1
    )
    noise = np.random.default_rng(seed).integers(-60, 61, (6, 64, 64, 3))
    colours = np.random.default_rng(seed + 1).integers(60, 196, (6, 3))
    views = [_view(pose, rays, noise, colours) for pose in poses]
    images, depths = zip(*views, strict=True)
    count = len(poses)
    return RgbdSequence(
        "room", CameraModel(width, height, matrix), np.stack(images), np.stack(depths),
        np.stack(poses), np.arange(count, dtype=np.int64) * 500_000_000, np.asarray(laps, np.int64),
    )  # fmt: skip


def _view(pose, rays, noise, colours):
    towards = rays @ pose[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = (np.sign(towards) * HALF - pose[:3, 3]) / towards
    reach[~np.isfinite(reach)] = np.inf
    axis = reach.argmin(axis=-1)
    depth = reach.min(axis=-1)  # rays have length 1 along the camera's z axis
    met = pose[:3, 3] + depth[..., None] * towards
    side = np.take_along_axis(towards, axis[..., None], -1)[..., 0] > 0
    wall = 2 * axis + side
    across = np.where(axis == 0, met[..., 2], met[..., 0])
    down = np.where(axis == 1, met[..., 2], met[..., 1])
    cells = [np.floor(value / CELL).astype(int) % 64 for value in (across, down)]
    image = np.clip(colours[wall] + noise[wall, cells[0], cells[1]], 0, 255)
    return image.astype(np.uint8), depth.astype(np.float32)


def there_and_back(views=16):
    """A lap around the room, one close to it, and one the other way round."""
    angles = np.linspace(0, 2 * np.pi, views, endpoint=False)
    lap = [(2.2 * np.sin(a), 1.4 * np.cos(a), 90 + np.degrees(a)) for a in angles]
    beside = [(0.9 * x, 0.9 * z, heading + 5) for x, z, heading in lap]
    back = [(x, z, heading + 180) for x, z, heading in lap[::-1]]
    poses = [camera_pose(*place) for place in (*lap, *beside, *back)]
    return room(poses, np.repeat([0, 1, 2], views))
