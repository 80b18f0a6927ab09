"""A trained VLocNet++ on a stream of images: poses, motions and classes, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vpr.config import PoseRegressionConfig
from vpr.geometry import inverse, pose_from_quaternion
from vpr.models.device import chosen_device
from vpr.models.vlocnet import Memory
from vpr.pose_regression.frames import network_image, normalised_camera, other_camera
from vpr.pose_regression.model import PoseModel
from vpr.pose_regression.prediction import as_network_input, pose_of
from vpr.records import CameraModel, Covariance, Image, Pose


class FrameRefused(ValueError):
    """A frame that is not looked at; ``reason`` is a short key for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Regression:
    """What an image tells. Poses are of base_link; covariances as in geometry_msgs.

    ``pose`` is None where the image is unlike the training world, ``motion`` on a first frame;
    ``remark`` says so.
    """

    pose: Pose | None  # map_T_base
    covariance: Covariance
    motion: Pose | None  # previous_T_current of base_link
    motion_covariance: Covariance
    labels: NDArray[np.uint8] | None  # (H, W) classes, at the network's size
    strangeness: float  # cosine distance to the nearest training frame
    familiar: bool  # whether that is as near as frames of the training world are
    remark: str


class PoseRegressor:
    """Keeps the memory of the frame before, and begins anew where that is not the frame before.

    Raises:
        PoseModelError, DescriptorModelError, WeightsError: ``pose_model`` is no trained VLocNet++.
        DeviceError: ``device`` is a GPU that is not there.
        ValueError: ``camera_in_base`` has no rotation.
    """

    def __init__(self, config: PoseRegressionConfig) -> None:
        self.config = config
        self.model = PoseModel.load(Path(config.pose_model).expanduser())
        self._device = chosen_device(config.device)
        if self._device.type == "cpu" and config.threads:
            torch.set_num_threads(config.threads)
        self._network = self.model.network.to(self._device).eval()
        values = config.camera_in_base
        self._base_T_camera = pose_from_quaternion(values[:3], values[3:])
        self._memory: Memory | None = None
        self._last_ns: int | None = None

    def observe(self, stamp_ns: int, image: Image, camera: CameraModel | None) -> Regression:
        """Look at the next image; without a camera its intrinsics are taken on trust.

        Raises:
            FrameRefused: it is older than the last one (``out_of_order``), or another camera took
                it than those of the training (``other_camera``).
        """
        self._check_camera(camera)
        remark = self._arrive(stamp_ns)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed),
        ):
            pixels = network_image(image, self._network.config)
            batch = as_network_input(pixels[None]).to(self._device)
            prediction, self._memory = self._network.step(batch, self._memory)
        certainty = self.model.certainty
        pose = self._in_base(pose_of(prediction.position, prediction.rotation))
        strange = 0.0
        if prediction.embedding is not None:
            strange = float(self.model.strangeness(prediction.embedding.cpu().numpy())[0])
        familiar = strange <= certainty.familiar
        if not familiar:
            pose = None
            remark = (
                f"the image is unlike the training world: distance {strange:.3f} to the nearest "
                f"training frame, up to {certainty.familiar:.3f} is familiar"
            )
        labels = prediction.logits
        return Regression(
            pose,
            certainty.covariance(strange),
            self._motion(pose_of(prediction.motion_position, prediction.motion_rotation)),
            certainty.motion_covariance(),
            None if labels is None else labels[0].argmax(dim=0).to(torch.uint8).cpu().numpy(),
            strange,
            familiar,
            remark,
        )

    @property
    def _mixed(self) -> bool:
        return self.config.mixed_precision and self._device.type == "cuda"

    def _arrive(self, stamp_ns: int) -> str:
        """Note the stamp; forget the frame before where this one does not follow it."""
        last, self._last_ns = self._last_ns, stamp_ns
        if last is None:
            return "first frame: no motion yet"
        seconds = (stamp_ns - last) * 1e-9
        if seconds < -self.config.time_jump_tolerance:
            self._memory = None
            return f"time jumped back by {-seconds:.1f} s: begun anew"
        if seconds <= 0.0:
            self._last_ns = last
            raise FrameRefused("out_of_order", f"an image {-seconds:.3f} s older than the last one")
        if seconds > self.config.max_gap:
            self._memory = None
            return f"no image for {seconds:.1f} s: begun anew, no motion"
        return ""

    def _check_camera(self, camera: CameraModel | None) -> None:
        if camera is None:
            return
        tolerance = self.config.camera_tolerance
        if remark := other_camera(normalised_camera(camera), self.model.camera, tolerance):
            raise FrameRefused("other_camera", remark)

    def _in_base(self, map_T_camera: Pose) -> Pose | None:
        if not np.isfinite(map_T_camera).all():
            return None
        return np.asarray(map_T_camera @ inverse(self._base_T_camera))

    def _motion(self, motion: Pose) -> Pose | None:
        if not np.isfinite(motion).all():
            return None
        return np.asarray(self._base_T_camera @ motion @ inverse(self._base_T_camera))
