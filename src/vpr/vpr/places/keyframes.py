"""Which frames are worth remembering."""

from __future__ import annotations

from vpr.config import SequenceMatchingConfig
from vpr.geometry import relative, rotation_angle, translation_norm
from vpr.records import Pose


class KeyframeSelector:
    """Keeps a frame when the robot moved, turned or waited enough since the last kept one.

    Without odometry nothing is known about motion and every frame is kept.
    """

    def __init__(self, config: SequenceMatchingConfig) -> None:
        self._translation = config.keyframe_translation
        self._rotation = config.keyframe_rotation
        self._interval_ns = int(config.keyframe_max_interval * 1e9)
        self._last_stamp_ns: int | None = None
        self._last_odometry: Pose | None = None

    def forget(self) -> None:
        """Start anew: the next frame is kept."""
        self._last_stamp_ns = None
        self._last_odometry = None

    def reason_to_skip(self, stamp_ns: int, odometry: Pose | None) -> str:
        """Why a frame is not a keyframe, in words; empty when it is."""
        if self._last_stamp_ns is None or self._last_odometry is None or odometry is None:
            return ""
        if stamp_ns - self._last_stamp_ns >= self._interval_ns:
            return ""
        motion = relative(self._last_odometry, odometry)
        moved, turned = translation_norm(motion), rotation_angle(motion)
        if moved >= self._translation or turned >= self._rotation:
            return ""
        return (
            f"moved {moved:.2f} m < {self._translation:.2f} m and turned {turned:.2f} rad < "
            f"{self._rotation:.2f} rad since the last keyframe"
        )

    def keep(self, stamp_ns: int, odometry: Pose | None) -> None:
        """Note the newest keyframe."""
        self._last_stamp_ns = stamp_ns
        self._last_odometry = odometry
