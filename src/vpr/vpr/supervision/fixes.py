"""Recent GPS fixes, interpolated to an image's stamp."""

from __future__ import annotations

import numpy as np

from vpr.geometry import PoseTrack
from vpr.records import GpsFix


class FixTrack:
    """Latitude, longitude and altitude over time, linear between two fixes.

    Over the metres between two fixes a degree is a constant length, so that linear in degrees
    is linear in metres. The covariance is that of the fix before.

    Args:
        max_gap_ns: fixes further apart are not interpolated between.
    """

    def __init__(self, max_gap_ns: int) -> None:
        self._track = PoseTrack(max_gap_ns)
        self._newest: GpsFix | None = None

    def append(self, stamp_ns: int, fix: GpsFix) -> None:
        """Add the newest fix.

        Raises:
            ValueError: not finite, or a stamp that does not ascend.
        """
        position = np.eye(4)
        position[:3, 3] = fix.latitude, fix.longitude, fix.altitude
        if not np.isfinite(position).all():
            raise ValueError("fix has a coordinate that is not finite")
        self._track.append(stamp_ns, position)
        self._newest = fix

    def clear(self) -> None:
        """Forget everything, as when time jumped back."""
        self._track.clear()

    def at(self, stamp_ns: int) -> GpsFix:
        """Fix at a stamp.

        Raises:
            PoseUnavailable: outside the track, or in a gap longer than ``max_gap_ns``.
        """
        latitude, longitude, altitude = self._track.at(stamp_ns)[:3, 3].tolist()
        covariance = None if self._newest is None else self._newest.covariance
        return GpsFix(latitude, longitude, altitude, covariance)
