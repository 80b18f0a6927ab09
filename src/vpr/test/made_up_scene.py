"""A scene of random points that cameras with known poses look at: features without images."""

from dataclasses import dataclass

import numpy as np

from vpr.geometry import inverse, pose_from_quaternion
from vpr.records import CameraModel
from vpr.verification.features import LocalFeatures

BASE_T_CAMERA = pose_from_quaternion((0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))
CAMERA = CameraModel(640, 480, np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]]))


@dataclass
class Scene:
    """Points (N, 3) in the map frame, each with a descriptor of its own."""

    points: np.ndarray
    descriptors: np.ndarray

    @classmethod
    def along_x(cls, length, seed=0, per_metre=40):
        """Walls and ground beside a straight way along +x, z up."""
        rng = np.random.default_rng(seed)
        count = int(length * per_metre)
        side = rng.choice([-1.0, 1.0], count)
        points = np.column_stack(
            [
                rng.uniform(0.0, length + 25.0, count),
                side * rng.uniform(2.5, 9.0, count),
                rng.uniform(-1.2, 5.0, count),
            ]
        )
        return cls(points, rng.integers(0, 256, (count, 32), dtype=np.uint8))

    def view(
        self,
        map_T_base,
        seed=0,
        noise=0.5,
        changed=0.3,
        depth_noise=None,
        base_T_camera=BASE_T_CAMERA,
        camera=CAMERA,
        limit=800,
    ):
        """Features that a camera sees from a pose.

        Args:
            noise: px of each keypoint. changed: share of points that look different by now.
            depth_noise: 1/m, of depths measured with noise growing as the square; None for none.
        """
        rng = np.random.default_rng((seed, 1))
        seen = self.points - (map_T_base @ base_T_camera)[:3, 3]
        seen = seen @ (map_T_base @ base_T_camera)[:3, :3]
        pixels = seen @ camera.matrix.T
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = pixels[:, :2] / pixels[:, 2:]
        inside = (seen[:, 2] > 1.0) & (seen[:, 2] < 30.0) & (pixels >= 0).all(axis=1)
        inside &= (pixels < (camera.width, camera.height)).all(axis=1)
        rows = np.flatnonzero(inside)
        rows = np.sort(rng.permutation(rows)[:limit])
        descriptors = self.descriptors[rows].copy()
        other = rng.random(len(rows)) < changed
        descriptors[other] = rng.integers(0, 256, (other.sum(), 32), dtype=np.uint8)
        flipped = rng.integers(0, 256, (len(rows), 8))
        for column in flipped.T:  # 8 of 256 bits differ between two looks at one point
            descriptors[np.arange(len(rows)), column // 8] ^= (1 << (column % 8)).astype(np.uint8)
        depths = np.full(len(rows), np.nan)
        if depth_noise is not None:
            depths = seen[rows, 2] + rng.normal(0.0, depth_noise * seen[rows, 2] ** 2)
        noisy = pixels[rows] + rng.normal(0.0, noise, (len(rows), 2))
        return LocalFeatures(
            pixels=noisy.astype(np.float32),
            sizes=np.ones(len(rows), np.float32),
            angles=np.full(len(rows), 90.0, np.float32),
            descriptors=descriptors,
            depths=depths.astype(np.float32),
            camera=camera,
        )


def relative_truth(reference, query):
    """reference_T_query of two true poses."""
    return inverse(reference) @ query
