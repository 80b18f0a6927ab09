"""Which frames are worth remembering."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.geometry import relative, rotation_angle, translation_norm
from vpr.records import Pose


class KeyframeSelector:
    """Keeps a frame when the robot moved, turned or waited enough since the last kept one.

    Without odometry motion shows in the images alone: a frame is kept that looks different enough
    from the last kept one.
    """

    def __init__(self, config: SequenceMatchingConfig) -> None:
        self._translation = config.keyframe_translation
        self._rotation = config.keyframe_rotation
        self._novelty = config.keyframe_novelty
        self._interval_ns = int(config.keyframe_max_interval * 1e9)
        self._last_stamp_ns: int | None = None
        self._last_odometry: Pose | None = None
        self._last_descriptor: NDArray[np.float32] | None = None

    def forget(self) -> None:
        """Start anew: the next frame is kept."""
        self._last_stamp_ns = None
        self._last_odometry = None
        self._last_descriptor = None

    def reason_to_skip(
        self, stamp_ns: int, odometry: Pose | None, descriptor: NDArray[np.float32]
    ) -> str:
        """Why a frame is not a keyframe, in words; empty when it is.

        Args:
            descriptor: (D,) L2-normalised.
        """
        if self._last_stamp_ns is None or stamp_ns - self._last_stamp_ns >= self._interval_ns:
            return ""
        if self._last_odometry is None or odometry is None:
            return self._nothing_new(descriptor)
        motion = relative(self._last_odometry, odometry)
        moved, turned = translation_norm(motion), rotation_angle(motion)
        if moved >= self._translation or turned >= self._rotation:
            return ""
        return (
            f"moved {moved:.2f} m < {self._translation:.2f} m and turned {turned:.2f} rad < "
            f"{self._rotation:.2f} rad since the last keyframe"
        )

    def keep(self, stamp_ns: int, odometry: Pose | None, descriptor: NDArray[np.float32]) -> None:
        """Note the newest keyframe."""
        self._last_stamp_ns = stamp_ns
        self._last_odometry = odometry
        self._last_descriptor = descriptor

    def _nothing_new(self, descriptor: NDArray[np.float32]) -> str:
        if self._novelty == 0.0 or self._last_descriptor is None:
            return ""
        differs = 1.0 - float(descriptor @ self._last_descriptor)
        if differs >= self._novelty:
            return ""
        return (
            f"looks like the last keyframe ({differs:.3f} < {self._novelty:.3f}), without odometry"
        )
