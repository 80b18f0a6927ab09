"""Views that a map never took, which a robot that comes the other way round will.

Wherever the map's cameras have been, a virtual camera is turned about the vertical. The map's depth
says what it would see of each of the map's views (``MapDepth``), the map's patches what that looks
like (``strip_appearance``). A query is compared with these, not with the map's own views alone, and
followed along its odometry (``markov_localization``); the mean over where it may be is its IoU with
the views of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vpr.records import Pose
from vpr.relocalization.encoders import EncoderInput
from vpr.relocalization.markov_localization import followed
from vpr.relocalization.model import S3eModel
from vpr.relocalization.rgbd import RgbdError, RgbdSequence
from vpr.relocalization.strip_appearance import (
    COMPONENTS,
    STRIPS,
    StripAppearance,
    strip_means,
    strips_of,
)
from vpr.relocalization.virtual_rendering import SLACK, MapDepth, pooled

IMPROBABLE = 0.01  # belief below which a place says nothing of what two views share
KNOWN = 0.5  # share of what a virtual view sees, that the map must know
HEADINGS = 12  # of virtual cameras at a place


@dataclass(frozen=True)
class PatchCloud:
    """What patches of a map show, and where they are.

    Attributes:
        values: (M, COMPONENTS) float32 less their mean.
        points: (M, 3) float32 in the map.
        distances: (M,) float32 m, from the camera that saw them.
        mean: (COMPONENTS,) float32 of all patches.
    """

    values: NDArray[np.float32]
    points: NDArray[np.float32]
    distances: NDArray[np.float32]
    mean: NDArray[np.float32]

    @classmethod
    def of(
        cls, views: RgbdSequence, values: NDArray[np.float32], places: NDArray[np.float32]
    ) -> PatchCloud:
        """Of R views; patches without depth are left out.

        Args:
            values: (R, K, COMPONENTS) what their patches show.
            places: (R, K, 2) of these, in 0..1 of width and height.
        """
        height, width = views.depths.shape[1:]
        pixels = places * np.array([width, height], np.float32)
        cells = np.minimum(pixels.astype(np.int64), [width - 1, height - 1])
        depth = views.depths[np.arange(len(views))[:, None], cells[..., 1], cells[..., 0]]
        matrix = views.camera.matrix
        rays = np.stack(
            [
                (pixels[..., 0] - matrix[0, 2]) / matrix[0, 0],
                (pixels[..., 1] - matrix[1, 2]) / matrix[1, 1],
                np.ones(depth.shape),
            ],
            axis=-1,
        )
        placed = (rays * depth[..., None]) @ views.poses[:, :3, :3].transpose(0, 2, 1)
        placed += views.poses[:, None, :3, 3]
        known = np.isfinite(depth) & (depth > 0.0)
        mean = values.mean(axis=(0, 1))
        return cls(
            np.ascontiguousarray(values[known] - mean),
            placed[known].astype(np.float32),
            depth[known].astype(np.float32),
            mean,
        )


@dataclass(frozen=True)
class VirtualViews:
    """A map of R views as S virtual ones see it.

    Attributes:
        poses: (S, 4, 4) float64 map_T_camera.
        overlaps: (S, R) float32 mutual IoU with the map's views.
        among: depth of the virtual views, as of a map of their own.
        described: (S, LENGTH) float32, what each would show in strips.
        mean: (COMPONENTS,) what the map's patches show on average.
    """

    poses: NDArray[np.float64]
    overlaps: NDArray[np.float32]
    among: MapDepth
    described: NDArray[np.float32]
    mean: NDArray[np.float32]

    @classmethod
    def of_map(
        cls,
        model: S3eModel,
        views: RgbdSequence,
        given: EncoderInput,
        poses: NDArray[np.float64] | None = None,
    ) -> VirtualViews:
        """Virtual views of a map.

        Args:
            given: what the model sees of ``views``.
            poses: where. If None, the map's own turned about the vertical, but for those that the
                map has nothing to show to: anything looks more like nothing than like a place.
        """
        depth = MapDepth.of(views)
        cloud = PatchCloud.of(views, shown(model, given), given.places.numpy())
        turning = turned(views.poses) if poses is None else poses
        rendered = depth.rendered(turning)
        known = np.isfinite(rendered).mean(axis=(1, 2)) >= (KNOWN if poses is None else 0.0)
        poses, rendered = turning[known], rendered[known]
        sums = pooled(
            cloud.values, cloud.points, cloud.distances,
            np.linalg.inv(poses).astype(np.float32), rendered, depth.lens, STRIPS,
        )  # fmt: skip
        among = MapDepth.of_virtual(poses, rendered, depth.lens)
        overlaps = depth.overlaps(poses, rendered)
        return cls(poses, overlaps, among, strip_means(*sums), cloud.mean)

    def describe(self, model: S3eModel, given: EncoderInput) -> NDArray[np.float32]:
        """(Q, LENGTH) of views that are not of the map."""
        return strips_of(shown(model, given) - self.mean, given.places.numpy())

    def overlaps_of(self, beliefs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(Q, Q) expected IoU between views, each of which may be at several virtual ones."""
        likely = np.flatnonzero(beliefs.max(axis=0) > IMPROBABLE)
        poses, depth = self.poses[likely], self.among
        part = MapDepth(
            poses, depth.buffers[likely], depth.points[likely], depth.surface, depth.lens
        )
        known = depth.buffers[likely] / np.float32(SLACK)
        shares = beliefs[:, likely]
        return np.asarray(shares @ part.overlaps(poses, known) @ shares.T, np.float32)

    def follow(
        self,
        appearance: StripAppearance,
        asked: NDArray[np.float32],
        motions: Sequence[Pose | None],
    ) -> NDArray[np.float32]:
        """(Q, S) P(camera at each virtual view) after each of Q successive views.

        Args:
            asked: (Q, LENGTH) as of ``describe``.
            motions: before_T_after of the camera; None where it was lost.
        """
        return followed(self.poses, appearance.log_likelihoods(asked, self.described), motions)


def turned(poses: NDArray[np.float64], headings: int = HEADINGS) -> NDArray[np.float64]:
    """(headings * R, 4, 4) cameras where (R, 4, 4) are, turned about their mean vertical (y)."""
    vertical = poses[:, :3, 1].mean(axis=0)
    vertical /= np.linalg.norm(vertical)
    result = np.tile(poses, (headings, 1, 1))
    angles = np.repeat(2.0 * np.pi * np.arange(headings) / headings, len(poses))
    turns = Rotation.from_rotvec(angles[:, None] * vertical).as_matrix()
    result[:, :3, :3] = turns @ result[:, :3, :3]
    return result


@torch.no_grad()
def shown(model: S3eModel, given: EncoderInput) -> NDArray[np.float32]:
    """(N, K, COMPONENTS) first components of what each patch shows.

    Raises:
        ValueError: the encoder makes fewer of a patch.
    """
    if model.encoder.patch.mixing.out_features < COMPONENTS:
        raise ValueError(
            f"virtual views take {COMPONENTS} components of a patch, this encoder makes "
            f"{model.encoder.patch.mixing.out_features}"
        )
    values = model.encoder.eval().patch(given.values.float())[..., :COMPONENTS]
    return np.ascontiguousarray(values.cpu().numpy(), np.float32)


def appearance_differences(
    model: S3eModel, sequence: RgbdSequence, given: EncoderInput
) -> NDArray[np.float32]:
    """(Q, LENGTH) of later laps' views from what the first says of their true places.

    Args:
        given: what the model sees of the sequence.

    Raises:
        RgbdError: a sequence of a single lap.
    """
    first = sequence.laps == sequence.laps.min()
    if first.all():
        raise RgbdError(f"{sequence.name}: a single lap has nobody to see it again")
    own, later = np.flatnonzero(first), np.flatnonzero(~first)
    views = VirtualViews.of_map(model, sequence.chosen(own), given.rows(own), sequence.poses[later])
    return views.describe(model, given.rows(later)) - views.described
