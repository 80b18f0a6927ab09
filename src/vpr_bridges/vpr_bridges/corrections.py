"""A host's odometry poses as the pose graph has corrected them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from vpr.geometry import relative
from vpr.records import Keyframe, Pose


class Corrections:
    """Ties any stamped odometry pose to the keyframe before it, whose corrected pose is known."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._keyframes: list[Keyframe] = []
        self._corrected: Mapping[int, Pose] = {}

    def add_keyframe(self, keyframe: Keyframe) -> None:
        """Our newest keyframe; without odometry it ties nothing, a new session forgets the last."""
        if self._keyframes and keyframe.session != self._keyframes[-1].session:
            self._stamps.clear()
            self._keyframes.clear()
        if keyframe.odometry is not None:
            self._stamps.append(keyframe.stamp_ns)
            self._keyframes.append(keyframe)

    def set_graph(self, map_T_base: Mapping[int, Pose]) -> None:
        """Corrected poses of keyframes by id."""
        self._corrected = map_T_base

    def corrected(self, stamp_ns: int, odom_T_base: Pose) -> Pose | None:
        """map_T_base at a stamp of the running session; None before the graph knows it."""
        index = max(bisect_right(self._stamps, stamp_ns) - 1, 0)
        while index >= 0 and self._keyframes:
            keyframe = self._keyframes[index]
            if keyframe.id in self._corrected and keyframe.odometry is not None:
                return self._corrected[keyframe.id] @ relative(keyframe.odometry, odom_T_base)
            index -= 1
        return None
