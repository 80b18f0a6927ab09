"""Which of a host's keyframes stands for each of ours, and a closure carried over to the host's.

A host picks keyframes of its own, at other stamps than ours. Odometry knows the short way between
two neighbours, so a closure between two of ours becomes one between two of the host's.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np

from vpr.config import BindingConfig
from vpr.geometry import (
    PoseTrack,
    PoseUnavailable,
    inverse,
    relative,
    rotation_angle,
    translation_norm,
)
from vpr.records import Covariance, Keyframe, LoopClosure, Pose
from vpr.uncertain_pose import between

HOST_MEMORY = 1000  # keyframes of the host that wait for one of ours
MAP_MEMORY = 1_000_000  # keyframes of ours whose binding is remembered


class Unbound(ValueError):
    """A closure that cannot be given to the host; ``reason`` is a short key to count by.

    Attributes:
        final: False while the host's keyframe, or odometry, may still come.
    """

    def __init__(self, reason: str, message: str, final: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.final = final


@dataclass(frozen=True)
class HostKeyframe:
    """A keyframe of the host; ``odometry`` is odom_T_base at its stamp, in our odometry's frame."""

    id: int
    stamp_ns: int
    odometry: Pose | None = None


@dataclass(frozen=True)
class Binding:
    """The host's keyframe that stands for one of ours, and the way to it (own_T_host)."""

    host: HostKeyframe
    offset: Pose


@dataclass(frozen=True)
class HostClosure:
    """A closure between two keyframes of the host.

    Attributes:
        relative_pose: reference_T_query between base_link frames at the host's stamps.
        covariance: (6, 6) in the reference's axes, as geometry_msgs has it.
    """

    query: HostKeyframe
    reference: HostKeyframe
    relative_pose: Pose
    covariance: Covariance


class KeyframeBindings:
    """Binds our keyframes to the host's as both come in, each in stamp order."""

    def __init__(self, config: BindingConfig) -> None:
        self.config = config
        self._odometry = PoseTrack(int(config.odometry_max_gap * 1e9))
        self._hosts: deque[HostKeyframe] = deque(maxlen=HOST_MEMORY)
        self._waiting: deque[Keyframe] = deque(maxlen=HOST_MEMORY)
        self._bindings: OrderedDict[int, Binding | Unbound] = OrderedDict()

    def add_odometry(self, stamp_ns: int, odom_T_base: Pose) -> None:
        """The newest odometry; a stamp that went back, as when a bag loops, begins anew."""
        last = self._odometry.last_stamp_ns
        if last is not None and stamp_ns <= last:
            if stamp_ns > last - int(self.config.keyframe_gap * 1e9):
                return  # jitter
            self._odometry.clear()
            self._hosts.clear()
        self._odometry.append(stamp_ns, odom_T_base)

    def add_host(self, keyframe: HostKeyframe) -> None:
        """The host's newest keyframe; its pose is asked of odometry when it has none."""
        if self._hosts and keyframe.stamp_ns <= self._hosts[-1].stamp_ns:
            self._hosts.clear()
        self._hosts.append(keyframe)

    def add_keyframe(self, keyframe: Keyframe) -> None:
        """Our newest keyframe."""
        self._waiting.append(keyframe)

    def settle(self, at_once: bool = False) -> None:
        """Bind what can be bound; with ``at_once`` without waiting for anything to come."""
        still: deque[Keyframe] = deque(maxlen=HOST_MEMORY)
        for keyframe in self._waiting:
            try:
                self._bindings[keyframe.id] = self._bind(keyframe, at_once)
            except Unbound as unbound:
                self._bindings[keyframe.id] = unbound
                if not unbound.final:
                    still.append(keyframe)
        self._waiting = still
        while len(self._bindings) > MAP_MEMORY:
            self._bindings.popitem(last=False)

    def carried_over(self, closure: LoopClosure) -> HostClosure:
        """The closure between the host's keyframes.

        Raises:
            Unbound: it has no relative pose, or an end has no keyframe of the host.
        """
        if closure.relative_pose is None or closure.covariance is None:
            raise Unbound("no_relative_pose", "the closure has no relative pose", final=True)
        query, reference = self.binding(closure.query_id), self.binding(closure.reference_id)
        if query.host.id == reference.host.id:
            raise Unbound(
                "same_keyframe", f"both ends are the host's keyframe {query.host.id}", final=True
            )
        pose, covariance = between(
            inverse(reference.offset), closure.relative_pose, closure.covariance, query.offset
        )
        metres = translation_norm(reference.offset) + translation_norm(query.offset)
        radians = rotation_angle(reference.offset) + rotation_angle(query.offset)
        sigmas = [self.config.offset_translation_noise * metres] * 3
        sigmas += [self.config.offset_rotation_noise * (metres + radians)] * 3
        return HostClosure(
            query.host, reference.host, pose, covariance + np.diag(np.square(sigmas))
        )

    def binding(self, keyframe_id: int) -> Binding:
        """Of one of our keyframes.

        Raises:
            Unbound: the host has none for it, for now or for good.
        """
        found = self._bindings.get(keyframe_id)
        if found is None:
            raise Unbound("unknown_keyframe", f"keyframe {keyframe_id} is not known here", False)
        if isinstance(found, Unbound):
            raise Unbound(found.reason, f"keyframe {keyframe_id}: {found}", found.final)
        return found

    def _bind(self, keyframe: Keyframe, at_once: bool) -> Binding:
        stamp, gap = keyframe.stamp_ns, int(self.config.keyframe_gap * 1e9)
        if not at_once and not (self._hosts and self._hosts[-1].stamp_ns >= stamp):
            raise Unbound("no_host_keyframe", "no keyframe of the host after it yet", final=False)
        near = min(self._hosts, key=lambda host: abs(host.stamp_ns - stamp), default=None)
        if near is None or abs(near.stamp_ns - stamp) > gap:
            message = f"no keyframe of the host within {self.config.keyframe_gap:.1f} s"
            raise Unbound("no_host_keyframe", message, final=True)
        if near.stamp_ns == stamp:
            return Binding(near, np.eye(4))
        if keyframe.odometry is None:
            raise Unbound("no_odometry", "no odometry between it and the host's", final=True)
        pose = near.odometry if near.odometry is not None else self._odometry_at(near, at_once)
        return Binding(near, relative(keyframe.odometry, pose))

    def _odometry_at(self, host: HostKeyframe, at_once: bool) -> Pose:
        last = self._odometry.last_stamp_ns
        try:
            return self._odometry.at(host.stamp_ns)
        except PoseUnavailable as reason:
            coming = not at_once and (last is None or last < host.stamp_ns)
            message = f"odometry at the host's keyframe {host.id}: {reason}"
            raise Unbound("no_odometry", message, final=not coming) from reason
