"""Images, fixes and odometry or IMU on their own clocks, joined into labelled keyframes.

Pillai & Leonard IV-A: the position and heading of an image are interpolated to its stamp, and a
keyframe is taken every 5 m or 30 degrees.
"""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path

import numpy as np

from vpr.config import GpsImageSyncConfig
from vpr.geometry import PoseUnavailable
from vpr.images.decoding import ImageError
from vpr.records import GpsFix, Image, Pose
from vpr.supervision.dataset import DatasetWriter, HeadingSource, LabelledKeyframe
from vpr.supervision.heading import Course, ImuHeading, OdometryHeading, wrapped
from vpr.supervision.map_picture import draw_map_if_any
from vpr.supervision.positions import PositionTrack

MAX_WAITING = 300  # images held back; the oldest goes first


class GpsImageSynchronizer:
    """Feed it the streams in any order; ``poll`` gives the keyframes that have become certain.

    With ``config.dataset`` set they are also written there. When stamps go back, what waits is
    settled and a new session begins. ``rejected_images`` and ``rejected_fixes`` count
    what was left out, by reason.

    Args:
        source: name of the recording that is played in; one whose labelling was interrupted goes
            on where it was, and to the same folder. Empty for a live drive.

    Raises:
        DatasetError: at construction, when the dataset folder can't be continued, or when it
            holds all of ``source`` already.
    """

    def __init__(self, config: GpsImageSyncConfig, source: str = "") -> None:
        self._config = config
        self._writer: DatasetWriter | None = None
        if config.dataset:
            suffix = f".{config.image_format}"
            self._writer = DatasetWriter(Path(config.dataset), suffix, config.jpeg_quality)
        self.session = self._writer.sessions if self._writer else 0
        if self._writer and source:
            self.session = self._writer.begin_source(source)
        self._resumable = bool(source)
        self.rejected_images: Counter[str] = Counter()
        self.keyframes = 0
        self._noted: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        self._positions = PositionTrack(config, self._writer.origin if self._writer else None)
        self._settled: list[LabelledKeyframe] = []
        self._images: deque[tuple[int, Image | bytes]] = deque()
        self._last: LabelledKeyframe | None = None
        self._begin()

    def _begin(self) -> None:
        self._course = Course(self._config.heading_min_distance)
        max_gap_ns = round(self._config.odometry_max_gap * 1e9)
        self._odometry = OdometryHeading(max_gap_ns)
        self._imu = ImuHeading(max_gap_ns)
        self._newest_ns = self._newest_image_ns = -1

    @property
    def rejected_fixes(self) -> Counter[str]:
        """Fixes left out, by reason."""
        return self._positions.rejected

    def add_image(self, stamp_ns: int, image: Image | bytes) -> None:
        """Take in an image, decoded or as received (JPEG or PNG).

        Raises:
            DatasetError: the stamp went back and the keyframes before can't be written.
        """
        if stamp_ns < self._newest_image_ns:
            self.begin_session()
        if stamp_ns == self._newest_image_ns:
            self.rejected_images["duplicate"] += 1
            return
        if len(self._images) == MAX_WAITING:
            self._images.popleft()
            self.rejected_images["too_many_waiting"] += 1
        self._images.append((stamp_ns, image))
        self._newest_image_ns = stamp_ns
        self._newest_ns = max(self._newest_ns, stamp_ns)

    def add_fix(self, stamp_ns: int, fix: GpsFix, valid: bool = True) -> None:
        """Take in a fix; ``valid`` is whether its status says that it is one.

        Raises:
            DatasetError: as ``add_image``.
        """
        self._restart_if_back(stamp_ns, self._positions.last_stamp_ns)
        position = self._positions.add(stamp_ns, fix, valid)
        if position is None:
            return
        self._newest_ns = max(self._newest_ns, stamp_ns)
        chord = self._course.add(stamp_ns, position)
        if chord is not None:
            self._odometry.add_chord(chord)
            self._imu.add_chord(chord)

    def add_odometry(self, stamp_ns: int, odom_T_base: Pose) -> None:
        """Take in an odometry pose.

        Raises:
            ValueError: a pose that is not finite, or a stamp that does not ascend.
            DatasetError: as ``add_image``.
        """
        self._restart_if_back(stamp_ns, self._odometry.track.last_stamp_ns)
        if not np.isfinite(odom_T_base).all():
            raise ValueError("odometry pose has a value that is not finite")
        self._odometry.track.append(stamp_ns, odom_T_base)
        self._newest_ns = max(self._newest_ns, stamp_ns)

    def add_imu(self, stamp_ns: int, orientation: Pose) -> None:
        """Take in an IMU's orientation as a pose; its heading serves where odometry has none.

        Raises:
            ValueError: an orientation that is not finite, or a stamp that does not ascend.
            DatasetError: as ``add_image``.
        """
        self._restart_if_back(stamp_ns, self._imu.track.last_stamp_ns)
        if not np.isfinite(orientation).all():
            raise ValueError("IMU orientation has a value that is not finite")
        self._imu.add(stamp_ns, orientation)
        self._newest_ns = max(self._newest_ns, stamp_ns)

    def poll(self) -> list[LabelledKeyframe]:
        """New keyframes whose labels no later message can change.

        Raises:
            DatasetError: a keyframe can't be written.
        """
        self._settle(finished=False)
        result, self._settled = self._settled, []
        return result

    def finish(self) -> list[LabelledKeyframe]:
        """The keyframes still waiting, with what is known of them; nothing more will come.

        Raises:
            DatasetError: a keyframe can't be written.
        """
        self._settle(finished=True)
        self._note_rejected()
        if self._writer is not None:
            self._writer.complete_source()
            draw_map_if_any(self._writer.folder)
        return self.poll()

    def begin_session(self) -> None:
        """Settle what waits and begin anew, as when a bag starts over."""
        self._settle(finished=True)
        if not self._resumable:  # else counted once, when the whole recording is through
            self._note_rejected()
        if self._last is not None:
            self.session += 1
        self._last = None
        self._positions.restart()
        self._begin()

    def missing(self) -> str:
        """What keeps keyframes from being made, in words; empty when nothing does."""
        if self._newest_image_ns < 0:
            return "no image received"
        if self._positions.last_stamp_ns is None:
            left_out = ", ".join(f"{key} {n}" for key, n in sorted(self.rejected_fixes.items()))
            return f"no usable fix received (left out: {left_out or 'none'}); nothing is written"
        if self._course.at(self._newest_image_ns) is None:
            return "no heading yet: the fixes have not moved"
        return ""

    def _restart_if_back(self, stamp_ns: int, last_ns: int | None) -> None:
        """A message out of order is one thing, a stream that starts over another."""
        if last_ns is not None and last_ns - stamp_ns > self._config.max_wait * 1e9:
            self.begin_session()

    def _settle(self, finished: bool) -> None:
        while self._images:
            stamp_ns, image = self._images[0]
            expired = finished or self._newest_ns - stamp_ns > self._config.max_wait * 1e9
            if not expired and not self._certain(stamp_ns):
                return
            self._images.popleft()
            self._take(stamp_ns, image)

    def _certain(self, stamp_ns: int) -> bool:
        """Whether all that is needed for a label has come."""
        newest_fix = self._positions.last_stamp_ns
        if newest_fix is None or newest_fix < stamp_ns:
            return False
        if len(self._odometry.track):
            return self._odometry.at(stamp_ns) is not None
        if len(self._imu.track):
            return self._imu.at(stamp_ns) is not None
        return self._course.covers(stamp_ns)

    def _take(self, stamp_ns: int, image: Image | bytes) -> None:
        keyframe = self._labelled(stamp_ns, image)
        if keyframe is None or not self._far_from_last(keyframe):
            return
        if self._writer is not None:
            assert self._positions.origin is not None
            try:
                self._writer.add(keyframe, self._positions.origin)
            except ImageError as error:
                self.rejected_images[error.reason] += 1
                return
        self._last = keyframe
        self.keyframes += 1
        self._settled.append(keyframe)

    def _labelled(self, stamp_ns: int, image: Image | bytes) -> LabelledKeyframe | None:
        try:
            position = self._positions.at(stamp_ns)
        except PoseUnavailable:
            self.rejected_images["no_fix_around"] += 1
            return None
        source, heading = self._heading(stamp_ns)
        if heading is None:
            self.rejected_images["no_heading"] += 1
            return None
        fix = self._positions.fix_of(position)
        return LabelledKeyframe(self.session, stamp_ns, fix, position, heading, source, image)

    def _heading(self, stamp_ns: int) -> tuple[HeadingSource, float | None]:
        """The best heading there is, and where it is from."""
        if (heading := self._odometry.at(stamp_ns)) is not None:
            return "odometry", heading
        if (heading := self._imu.at(stamp_ns)) is not None:
            return "imu", heading
        return "fixes", self._course.at(stamp_ns)

    def _far_from_last(self, keyframe: LabelledKeyframe) -> bool:
        if self._last is None:
            return True
        moved = float(np.linalg.norm(keyframe.position[:2] - self._last.position[:2]))
        turned = abs(wrapped(keyframe.heading - self._last.heading))
        return (
            moved >= self._config.keyframe_translation or turned >= self._config.keyframe_rotation
        )

    def _note_rejected(self) -> None:
        """Write the counts that are new since the last time."""
        if self._writer is None:
            return
        fixes, images = self.rejected_fixes.copy(), self.rejected_images.copy()
        self._writer.note_rejected(fixes - self._noted[0], images - self._noted[1])
        self._noted = fixes, images
