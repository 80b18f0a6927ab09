"""St Lucia Multiple Times of Day (Glover et al., ICRA 2010) in its official folder format.

One folder a traverse (``100909_1210``)::

    webcam_video.avi   fGPS.txt

with one line ``latitude,longitude`` a video frame, degrees, the latitude south of the equator
written without its sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from vpr.records import GpsFix
from vpr.supervision.dataset import DatasetError
from vpr.supervision.recordings import SensorEvent

VIDEO, FIXES = "webcam_video.avi", "fGPS.txt"
DEFAULT_RATE = 15.0  # frames a second, where the video does not say


def st_lucia_events(traverse: Path) -> Iterator[SensorEvent]:
    """Images and fixes of a traverse; frames are timed by the video's rate.

    A fix that is repeated over several frames is given once: the receiver was slower than the
    camera.

    Raises:
        DatasetError: a file is missing or makes no sense; names it.
    """
    fixes = _fixes(traverse / FIXES)
    file = traverse / VIDEO
    video = cv2.VideoCapture(str(file))
    if not video.isOpened():
        raise DatasetError(f"cannot open the video {file}")
    rate = video.get(cv2.CAP_PROP_FPS)
    period_ns = 1e9 / (rate if np.isfinite(rate) and rate > 0.0 else DEFAULT_RATE)
    last: GpsFix | None = None
    try:
        for frame, fix in enumerate(fixes):
            stamp = 1 + round(frame * period_ns)
            if fix != last:
                yield SensorEvent(stamp, fix=fix)
                last = fix
            read, image = video.read()
            if not read:
                return
            yield SensorEvent(stamp, image=np.asarray(image, np.uint8))
    finally:
        video.release()


def _fixes(file: Path) -> list[GpsFix]:
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {file}: {error}") from error
    fixes = []
    for number, line in enumerate(lines, 1):
        try:
            latitude, longitude = (float(word) for word in line.split(","))
        except ValueError as error:
            raise DatasetError(f"{file} line {number}: not 'latitude,longitude'") from error
        fixes.append(GpsFix(-abs(latitude), longitude, 0.0))
    if not fixes:
        raise DatasetError(f"{file} is empty")
    return fixes
