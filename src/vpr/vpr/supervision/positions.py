"""GPS fixes screened and laid out in metres around one origin."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pymap3d
from numpy.typing import NDArray

from vpr.config import GpsImageSyncConfig
from vpr.geometry import PoseTrack
from vpr.records import GpsFix


class PositionTrack:
    """Positions east, north, up of an origin (the first good fix unless given), over time.

    A fix that is left out is counted in ``rejected`` by reason. When fixes settle somewhere else
    after a jump, the track begins anew there: nothing is interpolated across.
    """

    def __init__(self, config: GpsImageSyncConfig, origin: GpsFix | None) -> None:
        self._config = config
        self.origin = origin
        self.rejected: Counter[str] = Counter()
        self._track = PoseTrack(round(config.fix_max_gap * 1e9))
        self._last: tuple[int, NDArray[np.float64]] | None = None
        self._suspect: tuple[int, NDArray[np.float64]] | None = None

    @property
    def last_stamp_ns(self) -> int | None:
        """Stamp of the newest good fix."""
        return self._track.last_stamp_ns

    def add(self, stamp_ns: int, fix: GpsFix, valid: bool) -> NDArray[np.float64] | None:
        """Take in a fix; its position (3,) in metres, or None when it was left out."""
        problem = self._problem(stamp_ns, fix, valid)
        if problem:
            self.rejected[problem] += 1
            return None
        if self.origin is None:
            self.origin = GpsFix(fix.latitude, fix.longitude, fix.altitude)
        position = self.position_of(fix)
        if self._last is not None and self._jumped(self._last, stamp_ns, position):
            settled = self._suspect is not None and not self._jumped(
                self._suspect, stamp_ns, position
            )
            self._suspect = stamp_ns, position
            if not settled:
                self.rejected["jump"] += 1
                return None
            self._track.clear()
        self._suspect = None
        self._last = stamp_ns, position
        pose = np.eye(4)
        pose[:3, 3] = position
        self._track.append(stamp_ns, pose)
        return position

    def position_of(self, fix: GpsFix) -> NDArray[np.float64]:
        """East, north, up of the origin, metres."""
        assert self.origin is not None
        origin = self.origin.latitude, self.origin.longitude, self.origin.altitude
        return np.array(pymap3d.geodetic2enu(fix.latitude, fix.longitude, fix.altitude, *origin))

    def fix_of(self, position: NDArray[np.float64]) -> GpsFix:
        """Inverse of ``position_of``."""
        assert self.origin is not None
        origin = self.origin.latitude, self.origin.longitude, self.origin.altitude
        latitude, longitude, altitude = pymap3d.enu2geodetic(*position.tolist(), *origin)
        return GpsFix(float(latitude), float(longitude), float(altitude))

    def at(self, stamp_ns: int) -> NDArray[np.float64]:
        """Position (3,) at a stamp, linear between the two fixes around it.

        Raises:
            PoseUnavailable: outside the track, or in a gap longer than ``fix_max_gap``.
        """
        return self._track.at(stamp_ns)[:3, 3]

    def restart(self) -> None:
        """Forget the positions, as when time jumped back; the origin stays."""
        self._track.clear()
        self._last = self._suspect = None

    def _problem(self, stamp_ns: int, fix: GpsFix, valid: bool) -> str:
        values = np.array([fix.latitude, fix.longitude, fix.altitude])
        if not valid:
            return "status"
        if not np.isfinite(values).all() or abs(values[0]) > 90.0 or abs(values[1]) > 180.0:
            return "not_a_position"
        if fix.covariance is not None and not self._certain(fix.covariance):
            return "covariance"
        if self._last is not None and stamp_ns == self._last[0]:
            return "duplicate"
        if self._last is not None and stamp_ns < self._last[0]:
            return "stamp_going_back"
        return ""

    def _certain(self, covariance: NDArray[np.float64]) -> bool:
        variance = float(covariance[0, 0] + covariance[1, 1]) / 2.0
        return bool(0.0 <= variance <= self._config.fix_max_sigma**2)

    def _jumped(
        self, since: tuple[int, NDArray[np.float64]], stamp_ns: int, position: NDArray[np.float64]
    ) -> bool:
        seconds = (stamp_ns - since[0]) / 1e9
        reach = self._config.fix_max_speed * seconds + self._config.fix_max_sigma
        return float(np.linalg.norm(position[:2] - since[1][:2])) > reach
