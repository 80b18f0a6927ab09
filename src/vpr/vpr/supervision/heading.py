"""Heading in the east-north plane: by the fixes alone, or by odometry or an IMU tied to them.

Headings are radians from east, counter-clockwise (REP-103), in (-pi, pi].
"""

from __future__ import annotations

import cmath
import math
from bisect import bisect_left
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vpr.geometry import PoseTrack, PoseUnavailable, yaw_of
from vpr.records import Pose

CAPACITY = 1000  # chords remembered
MEMORY = 0.9  # weight that the past keeps at each new chord of the odometry offset
MIN_ALONG = 0.5  # of a chord; odometry that moved less, or twice as much, did not see this motion


class Chord(NamedTuple):
    """A straight line between two fixes far enough apart to have a direction."""

    start_ns: int
    end_ns: int
    east: float  # m
    north: float  # m

    @property
    def middle_ns(self) -> int:
        """Where a turning vehicle points along the chord."""
        return (self.start_ns + self.end_ns) // 2

    @property
    def direction(self) -> float:
        """Radians from east."""
        return math.atan2(self.north, self.east)


def wrapped(angle: float) -> float:
    """The same angle in (-pi, pi]."""
    return math.pi - (math.pi - angle) % (2.0 * math.pi)


class Course:
    """Direction of travel by sequential fixes, as in Pillai & Leonard IV-A.

    A vehicle that drives backwards points the other way; fixes alone can't tell.

    Args:
        min_distance: m between the two fixes a direction is taken from.
    """

    def __init__(self, min_distance: float) -> None:
        self._min_distance = min_distance
        self._last: tuple[int, NDArray[np.float64]] | None = None
        self._chords: deque[Chord] = deque(maxlen=CAPACITY)

    def add(self, stamp_ns: int, position: NDArray[np.float64]) -> Chord | None:
        """Take in the next position (3,), east north up; the chord that it completes, if any."""
        if self._last is None:
            self._last = stamp_ns, position
            return None
        east, north, _ = (position - self._last[1]).tolist()
        if math.hypot(east, north) < self._min_distance:
            return None
        chord = Chord(self._last[0], stamp_ns, east, north)
        self._chords.append(chord)
        self._last = stamp_ns, position
        return chord

    def covers(self, stamp_ns: int) -> bool:
        """Whether a direction is known on both sides of a stamp."""
        return bool(self._chords) and (
            self._chords[0].middle_ns <= stamp_ns <= self._chords[-1].middle_ns
        )

    def at(self, stamp_ns: int) -> float | None:
        """Heading, along the shorter arc between the chords around the stamp.

        Before the first chord and behind the last the nearest one counts; None without any.
        """
        if not self._chords:
            return None
        after = bisect_left(self._chords, stamp_ns, key=lambda chord: chord.middle_ns)
        if after == 0:
            return self._chords[0].direction
        if after == len(self._chords):
            return self._chords[-1].direction
        a, b = self._chords[after - 1], self._chords[after]
        fraction = (stamp_ns - a.middle_ns) / (b.middle_ns - a.middle_ns)
        return wrapped(a.direction + fraction * wrapped(b.direction - a.direction))


class OdometryHeading:
    """Odometry's yaw turned into the east-north plane by the motion that both have seen.

    The yaw offset between the two frames is a forgetting circular mean over chords, weighted by
    their length; unlike the course it is right at a standstill and in reverse.
    """

    def __init__(self, max_gap_ns: int) -> None:
        self.track = PoseTrack(max_gap_ns)
        self._waiting: deque[Chord] = deque(maxlen=CAPACITY)
        self._offset = 0j

    def add_chord(self, chord: Chord) -> None:
        """Take in a motion seen by the fixes."""
        self._waiting.append(chord)

    def at(self, stamp_ns: int) -> float | None:
        """Heading; None while odometry does not cover the stamp or is not tied to the fixes."""
        self._tie()
        if not self._offset:
            return None
        try:
            yaw = yaw_of(self.track.at(stamp_ns))
        except PoseUnavailable:
            return None
        return wrapped(yaw + cmath.phase(self._offset))

    def _tie(self) -> None:
        newest = self.track.last_stamp_ns
        while newest is not None and self._waiting and self._waiting[0].end_ns <= newest:
            chord = self._waiting.popleft()
            try:
                step = self.track.at(chord.end_ns) - self.track.at(chord.start_ns)
            except PoseUnavailable:
                continue
            moved = complex(step[0, 3], step[1, 3])
            seen = complex(chord.east, chord.north)
            if MIN_ALONG * abs(seen) <= abs(moved) <= abs(seen) / MIN_ALONG:
                turn = seen / moved
                self._offset = MEMORY * self._offset + abs(seen) * turn / abs(turn)


class ImuHeading:
    """An IMU's yaw turned into the east-north plane by the direction of travel.

    Whether the IMU knows north (REP-145) or began at zero does not matter: the offset is a
    forgetting circular mean over chords of their direction less the yaw in their middle. A chord
    during which the yaw changed by more than ``MAX_TURN`` has no direction to compare with.
    """

    MAX_TURN = 0.35  # rad

    def __init__(self, max_gap_ns: int) -> None:
        self.track = PoseTrack(max_gap_ns)
        self._waiting: deque[Chord] = deque(maxlen=CAPACITY)
        self._offset = 0j

    def add(self, stamp_ns: int, orientation: Pose) -> None:
        """Take in an orientation; only its rotation about the vertical is used.

        Raises:
            ValueError: a stamp that does not ascend.
        """
        self.track.append(stamp_ns, orientation)

    def add_chord(self, chord: Chord) -> None:
        """Take in a motion seen by the fixes."""
        self._waiting.append(chord)

    def at(self, stamp_ns: int) -> float | None:
        """Heading; None while the IMU does not cover the stamp or is not tied to the fixes."""
        self._tie()
        yaw = self._yaw(stamp_ns)
        if yaw is None or not self._offset:
            return None
        return wrapped(yaw + cmath.phase(self._offset))

    def _yaw(self, stamp_ns: int) -> float | None:
        try:
            return yaw_of(self.track.at(stamp_ns))
        except PoseUnavailable:
            return None

    def _tie(self) -> None:
        newest = self.track.last_stamp_ns
        while newest is not None and self._waiting and self._waiting[0].end_ns <= newest:
            chord = self._waiting.popleft()
            yaws = [self._yaw(t) for t in (chord.start_ns, chord.middle_ns, chord.end_ns)]
            start, middle, end = yaws
            if start is None or middle is None or end is None:
                continue
            if abs(wrapped(end - start)) <= self.MAX_TURN:
                length = math.hypot(chord.east, chord.north)
                turn = cmath.rect(length, chord.direction - middle)
                self._offset = MEMORY * self._offset + turn
