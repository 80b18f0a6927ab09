"""Recordings in their own formats to dataset folders."""

import csv
import json
import resource
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

import cv2
import numpy as np
import pymap3d
import pytest

from vpr.config import GpsImageSyncConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.records import GpsFix
from vpr.supervision.dataset import DatasetError, read_dataset, read_manifest
from vpr.supervision.heading import wrapped
from vpr.supervision.kitti import kitti_odometry_events, kitti_raw_events
from vpr.supervision.recordings import SensorEvent, label_recording
from vpr.supervision.st_lucia import st_lucia_events

SECOND = 10**9
FRAMES = 40
SPEED, RATE = 8.0, 10.0
ORIGIN = (49.0, 8.4, 110.0)
JPEG = cv2.imencode(".jpg", np.full((24, 32, 3), 120, np.uint8))[1].tobytes()


def config(folder, **changes):
    return GpsImageSyncConfig.from_file(dataset=str(folder), **changes)


def track(frame):
    """East, north, yaw: a circle of 30 m to the left, begun eastwards."""
    angle = SPEED / RATE * frame / 30.0
    return 30.0 * np.sin(angle), 30.0 * (1.0 - np.cos(angle)), wrapped(angle)


def geodetic(frame):
    east, north, _ = track(frame)
    return [float(v) for v in pymap3d.enu2geodetic(east, north, 0.0, *ORIGIN)]


def check(folder, heading=0.05, position=0.1):
    """The dataset lies on the circle; returns it."""
    dataset = read_dataset(folder)
    assert len(dataset) >= 4
    east, north = (dataset.positions - dataset.positions[0])[:, :2].T
    for x, y, yaw in zip(east, north, dataset.headings, strict=True):
        frame = np.argmin([np.hypot(*np.subtract(track(f)[:2], (x, y))) for f in range(FRAMES)])
        off = np.subtract(track(frame)[:2], (x, y))
        assert np.hypot(*off) < position
        assert abs(wrapped(yaw - track(frame)[2])) < heading
    return dataset


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((24, 32), 90, np.uint8))


def kitti_raw(root):
    def stamp(frame):
        moment = datetime.fromtimestamp(1_317_042_145 + frame / RATE, UTC)
        return f"{moment:%Y-%m-%d %H:%M:%S.%f}000"

    stamps = "\n".join(stamp(frame) for frame in range(FRAMES)) + "\n"
    (root / "oxts/data").mkdir(parents=True)
    for frame in range(FRAMES):
        latitude, longitude, altitude = geodetic(frame)
        values = [latitude, longitude, altitude, 0.01, 0.02, track(frame)[2]] + [0.05] * 24
        (root / f"oxts/data/{frame:010d}.txt").write_text(" ".join(map(repr, values)))
        if frame != 7:  # a frame was lost
            write_image(root / f"image_02/data/{frame:010d}.png")
    for stream in ("image_02", "oxts"):
        (root / stream / "timestamps.txt").write_text(stamps)
    return root


def test_kitti_raw_drives_are_labelled_by_their_ins(tmp_path):
    drive = kitti_raw(tmp_path / "2011_09_26_drive_0001_sync")
    label_recording("drive", kitti_raw_events(drive), config(tmp_path / "set"), progress=False)
    dataset = check(tmp_path / "set")
    assert {"imu"} <= set(dataset.heading_sources) <= {"imu", "fixes"}
    assert dataset.origin.latitude == pytest.approx(49.0, abs=1e-6)
    assert dataset.stamps_ns[0] // SECOND == 1_317_042_145


def kitti_odometry(root):
    sequence = root / "sequences/00"
    lines = []
    for frame in range(FRAMES):
        ahead, left, yaw = track(frame)
        c, s = np.cos(yaw), np.sin(yaw)
        pose = [[c, 0, -s, -left], [0, 1, 0, 0], [s, 0, c, ahead]]
        lines.append(" ".join(f"{v:.6e}" for v in np.ravel(pose)))
        write_image(sequence / f"image_0/{frame:06d}.png")
    (root / "poses").mkdir()
    (root / "poses/00.txt").write_text("\n".join(lines) + "\n")
    (sequence / "times.txt").write_text("".join(f"{f / RATE:.6e}\n" for f in range(FRAMES)))
    return root


def test_kitti_odometry_sequences_are_labelled_by_their_poses(tmp_path):
    root = kitti_odometry(tmp_path / "dataset")
    label_recording(
        "00", kitti_odometry_events(root, "00"), config(tmp_path / "set"), progress=False
    )
    dataset = check(tmp_path / "set", heading=0.2)
    assert "odometry" in dataset.heading_sources


def st_lucia(root):
    root.mkdir()
    video = cv2.VideoWriter(
        str(root / "webcam_video.avi"), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (64, 48)
    )
    for frame in range(FRAMES):
        video.write(np.full((48, 64, 3), 3 * frame, np.uint8))
    video.release()
    lines = [geodetic(frame - frame % 5)[:2] for frame in range(FRAMES)]  # the receiver is slower
    (root / "fGPS.txt").write_text("".join(f"{lat:.8f},{lon:.8f}\n" for lat, lon in lines))
    return root


def test_st_lucia_traverses_are_labelled_by_their_fixes(tmp_path):
    traverse = st_lucia(tmp_path / "100909_1210")
    label_recording("t", st_lucia_events(traverse), config(tmp_path / "set"), progress=False)
    dataset = read_dataset(tmp_path / "set")
    assert len(dataset) >= 4
    assert (dataset.geodetic[:, 0] < 0).all()  # Brisbane is south of the equator
    steps = np.linalg.norm(np.diff(dataset.positions[:, :2], axis=0), axis=1)
    assert steps.min() > 4.5


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "oxts/data/0000000003.txt").write_text("1 2 3"), "not 30"),
        (lambda root: (root / "oxts/timestamps.txt").write_text("now\n"), "timestamps.txt line 1"),
        (lambda root: (root / "image_02/timestamps.txt").unlink(), "cannot read"),
        (lambda root: write_image(root / "image_02/data/0000000099.png"), "no timestamp for"),
    ],
)
def test_damaged_kitti_drives_are_refused_by_place(tmp_path, damage, said):
    drive = kitti_raw(tmp_path / "drive")
    damage(drive)
    with pytest.raises(DatasetError, match=said):
        list(kitti_raw_events(drive))


def test_damaged_sequences_and_traverses_are_refused_by_place(tmp_path):
    root = kitti_odometry(tmp_path / "dataset")
    (root / "poses/00.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(DatasetError, match="40 images, 40 times and 1 poses"):
        list(kitti_odometry_events(root, "00"))
    traverse = st_lucia(tmp_path / "traverse")
    (traverse / "fGPS.txt").write_text("27.5 153.0\n")
    with pytest.raises(DatasetError, match="line 1: not 'latitude,longitude'"):
        list(st_lucia_events(traverse))
    (traverse / "webcam_video.avi").unlink()
    (traverse / "fGPS.txt").write_text("27.5,153.0\n")
    with pytest.raises(DatasetError, match="cannot open the video"):
        list(st_lucia_events(traverse))


def events(yaw_offset=0.0, images=True):
    """A drive with fixes, an IMU that began at ``yaw_offset``, and images between them."""
    for frame in range(FRAMES * 2):
        stamp = SECOND + round(frame / RATE * SECOND)
        if frame % 5 == 0:
            yield SensorEvent(stamp, fix=GpsFix(*geodetic(frame)))
        yaw = track(frame)[2] + yaw_offset
        yield SensorEvent(stamp, orientation=pose_from_xy_yaw(0.0, 0.0, yaw))
        if images:
            yield SensorEvent(stamp + 1, image=JPEG)


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_an_imu_gives_the_heading_whatever_it_began_at(tmp_path, offset):
    label_recording("imu", events(offset), config(tmp_path / "set"), progress=False)
    dataset = read_dataset(tmp_path / "set")
    late = dataset.stamps_ns > 3 * SECOND
    assert set(np.array(dataset.heading_sources)[late]) == {"imu"}
    truth = [track((stamp - SECOND) / SECOND * RATE)[2] for stamp in dataset.stamps_ns[late]]
    off = [abs(wrapped(a - b)) for a, b in zip(dataset.headings[late], truth, strict=True)]
    assert max(off) < 0.06


def test_a_killed_labelling_goes_on_to_the_same_folder(tmp_path):
    label_recording("bag", events(), config(tmp_path / "whole"), progress=False)

    def killed():
        yield from islice(events(), 120)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_recording("bag", killed(), config(tmp_path / "set"), progress=False)
    begun = len(read_dataset(tmp_path / "set"))
    label_recording("bag", events(), config(tmp_path / "set"), progress=False)
    whole, resumed = tmp_path / "whole", tmp_path / "set"
    assert 0 < begun < len(read_dataset(resumed))
    rows = [list(csv.reader((folder / "keyframes.csv").open())) for folder in (whole, resumed)]
    assert rows[0] == rows[1]
    assert read_manifest(whole) == read_manifest(resumed)
    assert json.loads((resumed / "manifest.json").read_text())["sources"][0]["complete"]
    assert cv2.imread(str(resumed / "map.png")) is not None


def test_a_full_disk_leaves_whole_rows_and_labelling_goes_on(tmp_path):
    label_recording("bag", events(), config(tmp_path / "whole"), progress=False)
    rows = (tmp_path / "whole/keyframes.csv").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(rows) - 40, hard))  # amid the last row
    try:
        with pytest.raises(DatasetError, match="cannot write to"):
            label_recording("bag", events(), config(tmp_path / "set"), progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    begun = (tmp_path / "set/keyframes.csv").read_bytes()
    assert rows.startswith(begun)
    assert begun.endswith(b"\n")
    label_recording("bag", events(), config(tmp_path / "set"), progress=False)
    assert (tmp_path / "set/keyframes.csv").read_bytes() == rows


def test_a_recording_is_labelled_once_and_another_one_added(tmp_path):
    folder = tmp_path / "set"
    label_recording("one", events(), config(folder), progress=False)
    with pytest.raises(DatasetError, match="holds the keyframes of one already"):
        label_recording("one", events(), config(folder), progress=False)
    label_recording("two", events(), config(folder), progress=False)
    assert read_manifest(folder).sessions == 2


def test_a_receiver_that_stands_still_is_refused_with_the_reason(tmp_path):
    fix = GpsFix(*ORIGIN)
    still = (replace(event, fix=fix) if event.fix is not None else event for event in events())
    only_gps = (event for event in still if event.fix is not None or event.image is not None)
    with pytest.raises(DatasetError, match="not moved"):
        label_recording("still", only_gps, config(tmp_path / "set"), progress=False)
    assert not (tmp_path / "set").exists()


def test_a_recording_without_gps_is_refused_with_the_reason(tmp_path):
    blind = (event for event in events() if event.fix is None)
    with pytest.raises(DatasetError, match="no usable fix received"):
        label_recording("blind", blind, config(tmp_path / "set"), progress=False)
    assert not (tmp_path / "set").exists()
