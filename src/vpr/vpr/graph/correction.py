"""map -> odom as it is published: it follows the graph no faster than allowed.

The graph corrects itself at once; a robot that steers by the map must not see itself jump.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vpr.config import PoseGraphConfig
from vpr.geometry import interpolate, inverse, relative, rotation_angle, translation_norm
from vpr.records import Pose

LONGEST_STEP = 1.0  # s; after a longer silence the correction moves no further than in this
SHORTENING = 0.9  # of a step that turned out too long, until it is not


@dataclass(frozen=True)
class Correction:
    """One published map_T_odom.

    Attributes:
        jumped_from: map_T_odom before, where this step is larger than allowed; else None.
        left_translation: m that the robot's pose still has to move; ``left_rotation`` in rad.
    """

    pose: Pose
    jumped_from: Pose | None
    left_translation: float
    left_rotation: float


class SmoothCorrection:
    """map_T_odom over time; stamps are those of the data, so a slow playback moves slowly."""

    def __init__(self, config: PoseGraphConfig) -> None:
        self._config = config
        self._pose: Pose | None = None
        self._stamp_ns = 0
        self._session: int | None = None

    def leave_session(self) -> None:
        """Know nothing of where the robot is next: the next step may be a jump."""
        self._session = None

    def follow(self, session: int, target: Pose, odometry: Pose, stamp_ns: int) -> Correction:
        """Move towards the graph's map_T_odom.

        The robot's pose in the map and the transform itself both keep to the limits; of the two,
        the transform moves more where the robot turns far from the odometry's origin. In another
        session than before, or where the way is longer than ``correction_jump``, it jumps.

        Args:
            target: map_T_odom by the graph.
            odometry: odom_T_base now.
        """
        before, same = self._pose, session == self._session
        self._session = session
        seconds = min(max((stamp_ns - self._stamp_ns) / 1e9, 0.0), LONGEST_STEP)
        self._stamp_ns = max(stamp_ns, self._stamp_ns) if same else stamp_ns
        if before is None:
            self._pose = target
            return Correction(target, None, 0.0, 0.0)
        if not same or _way(before, target, odometry)[0] > self._config.correction_jump:
            self._pose = target
            allowed = self._allowed(before, target, odometry, seconds)
            return Correction(target, None if allowed else before, 0.0, 0.0)
        self._pose = self._stepped(before, target, odometry, seconds)
        return Correction(self._pose, None, *_way(self._pose, target, odometry))

    def _stepped(self, before: Pose, target: Pose, odometry: Pose, seconds: float) -> Pose:
        if self._allowed(before, target, odometry, seconds):
            return target
        if seconds <= 0.0:
            return before
        far, turn = _largest(before, target, odometry)
        share = min(
            self._config.correction_max_speed * seconds / max(far, 1e-12),
            self._config.correction_max_turn_rate * seconds / max(turn, 1e-12),
            1.0,
        )
        begin, end = before @ odometry, target @ odometry
        while True:
            step = interpolate(begin, end, share) @ inverse(odometry)
            if self._allowed(before, step, odometry, seconds):
                return step
            share *= SHORTENING

    def _allowed(self, before: Pose, after: Pose, odometry: Pose, seconds: float) -> bool:
        far, turn = _largest(before, after, odometry)
        return (
            far <= self._config.correction_max_speed * seconds
            and turn <= self._config.correction_max_turn_rate * seconds
        )


def _way(before: Pose, after: Pose, odometry: Pose) -> tuple[float, float]:
    """How far (m, rad) a change of map_T_odom moves the robot."""
    step = relative(before @ odometry, after @ odometry)
    return translation_norm(step), rotation_angle(step)


def _largest(before: Pose, after: Pose, odometry: Pose) -> tuple[float, float]:
    """The larger of what the robot and what the transform moves, m, and the rotation, rad."""
    way, turn = _way(before, after, odometry)
    return max(way, float(np.linalg.norm(after[:3, 3] - before[:3, 3]))), turn
