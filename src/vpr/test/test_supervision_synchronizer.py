"""Images, fixes and odometry into labelled keyframes, on made-up drives and a real one."""

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pymap3d
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr.config import GpsImageSyncConfig
from vpr.geometry import pose_from_xy_yaw
from vpr.records import GpsFix
from vpr.supervision.dataset import DatasetError, read_dataset
from vpr.supervision.heading import wrapped
from vpr.supervision.synchronizer import GpsImageSynchronizer

INS = Path(__file__).resolve().parents[3].parent / "shared/data/karlsruhe_drive/insdata.txt"
ORIGIN = GpsFix(48.0, 9.0, 300.0)
SECOND = 10**9
PIXELS = np.full((8, 12, 3), 90, np.uint8)
SPEED = 8.0  # m/s
RADIUS = 40.0  # m of the turn


def made(dataset="", **overrides):
    return GpsImageSynchronizer(GpsImageSyncConfig.from_file(dataset=str(dataset), **overrides))


def fix_at(east, north, up=0.0, sigma=0.5):
    origin = ORIGIN.latitude, ORIGIN.longitude, ORIGIN.altitude
    latitude, longitude, altitude = pymap3d.enu2geodetic(east, north, up, *origin)
    return GpsFix(float(latitude), float(longitude), float(altitude), np.eye(3) * sigma**2)


def truth(seconds):
    """East, north, heading of a drive: 5 s straight to the north-east, then a left turn."""
    start = np.radians(45.0)
    along = SPEED * seconds
    straight = min(along, 40.0)
    east, north = straight * np.cos(start), straight * np.sin(start)
    angle = start + (along - straight) / RADIUS
    east += RADIUS * (np.sin(angle) - np.sin(start))
    north -= RADIUS * (np.cos(angle) - np.cos(start))
    return east, north, wrapped(angle)


def drive(sync, seconds=12.0, odometry=True, fixes=True, image=PIXELS, start_ns=SECOND):
    """Fixes at 5 Hz, odometry at 20 Hz in its own frame, images at 10 Hz off both clocks."""
    events = []
    if fixes:
        events += [(t, "fix") for t in np.arange(0, seconds, 0.2)]
    if odometry:
        events += [(t, "odometry") for t in np.arange(0, seconds, 0.05)]
    events += [(t, "image") for t in np.arange(0.037, seconds, 0.1)]
    odom_T_enu = pose_from_xy_yaw(-20.0, 7.0, 2.0)
    keyframes = []
    for t, kind in sorted(events):
        stamp_ns = start_ns + round(t * SECOND)
        east, north, heading = truth(t)
        if kind == "fix":
            sync.add_fix(stamp_ns, fix_at(east, north))
        elif kind == "odometry":
            sync.add_odometry(stamp_ns, odom_T_enu @ pose_from_xy_yaw(east, north, heading))
        else:
            sync.add_image(stamp_ns, image)
        keyframes += sync.poll()
    return keyframes + sync.finish()


def errors(keyframes, start_ns=SECOND):
    """Metres and radians off the truth, relative to the first keyframe's origin."""
    result = []
    for keyframe in keyframes:
        east, north, heading = truth((keyframe.stamp_ns - start_ns) / SECOND)
        off = np.hypot(keyframe.position[0] - east, keyframe.position[1] - north)
        result.append((off, abs(wrapped(keyframe.heading - heading))))
    return np.array(result)


@pytest.mark.parametrize(("odometry", "source"), [(True, "odometry"), (False, "fixes")])
def test_position_and_heading_are_those_of_the_image_stamp(odometry, source):
    keyframes = drive(made(), odometry=odometry)
    off = errors(keyframes)
    assert off[:, 0].max() < 0.05
    assert off[:, 1].max() < np.radians(3.0)
    assert {keyframe.heading_source for keyframe in keyframes[2:]} == {source}


def test_keyframes_come_every_five_metres():
    keyframes = drive(made())
    steps = [np.linalg.norm(b.position - a.position) for a, b in pairwise(keyframes)]
    assert min(steps) >= 5.0
    assert max(steps) < 5.0 + SPEED * 0.1 + 0.05


def test_a_turn_makes_keyframes_without_distance():
    keyframes = drive(made(keyframe_translation=1000.0))
    turns = [abs(wrapped(b.heading - a.heading)) for a, b in pairwise(keyframes)]
    assert len(turns) == 2  # 56 m of a 40 m radius turn: 80 degrees
    assert min(turns) >= np.pi / 6 - 1e-4


@given(st.floats(-50, 50))
def test_wrapped_is_the_same_angle_in_one_turn(angle):
    assert -np.pi < wrapped(angle) <= np.pi
    assert np.cos(wrapped(angle)) == pytest.approx(np.cos(angle), abs=1e-9)


def test_the_order_in_which_streams_arrive_does_not_matter():
    in_order = drive(made())
    late = made()
    stamps = [SECOND + round(t * SECOND) for t in np.arange(0.037, 4.0, 0.1)]
    for stamp in stamps:  # images first, fixes later
        late.add_image(stamp, PIXELS)
    assert late.poll() == []
    for t in np.arange(0, 5.5, 0.2):
        late.add_fix(SECOND + round(t * SECOND), fix_at(*truth(t)[:2]))
    found = [keyframe.stamp_ns for keyframe in late.poll()]
    expected = [keyframe.stamp_ns for keyframe in in_order]
    assert len(found) >= 4
    assert found == expected[: len(found)]


def test_without_gps_nothing_is_written_and_it_says_why(tmp_path):
    sync = made(tmp_path / "set")
    assert sync.missing() == "no image received"
    assert drive(sync, seconds=8.0, fixes=False) == []
    assert "no usable fix received" in sync.missing()
    assert sync.rejected_images == {"no_fix_around": 80}
    assert not (tmp_path / "set").exists()


def test_memory_stays_bounded_while_nothing_can_be_labelled():
    sync = made(max_wait=1000.0)
    for i in range(400):
        sync.add_image(i * SECOND // 10, PIXELS)
    assert sync.rejected_images["too_many_waiting"] == 100


def test_a_standing_start_waits_for_motion():
    sync = made()
    for i in range(20):
        sync.add_fix((i + 1) * SECOND, fix_at(0, 0))
        sync.add_image((i + 1) * SECOND + 1, PIXELS)
    assert sync.poll() == []
    assert "not moved" in sync.missing()
    assert sync.rejected_images["no_heading"] > 0


@pytest.mark.parametrize(
    ("fix", "valid", "reason"),
    [
        (fix_at(9, 9), False, "status"),
        (GpsFix(np.nan, 9.0, 0.0), True, "not_a_position"),
        (GpsFix(91.0, 9.0, 0.0), True, "not_a_position"),
        (fix_at(9, 9, sigma=50.0), True, "covariance"),
        (GpsFix(48.0, 9.0, 0.0, -np.eye(3)), True, "covariance"),
        (GpsFix(48.0, 9.0, 0.0, np.full((3, 3), np.nan)), True, "covariance"),
        (fix_at(900, 900), True, "jump"),
    ],
)
def test_a_bad_fix_is_counted_by_reason_and_does_no_harm(fix, valid, reason):
    sync = made()
    sync.add_fix(SECOND, fix_at(0, 0))
    sync.add_fix(2 * SECOND, fix, valid)
    sync.add_fix(3 * SECOND, fix_at(10, 0))
    assert sync.rejected_fixes == {reason: 1}
    sync.add_image(2 * SECOND, PIXELS)
    (keyframe,) = sync.finish()
    np.testing.assert_allclose(keyframe.position, [5, 0, 0], atol=0.01)


def test_repeated_and_late_fixes_are_counted():
    sync = made()
    for stamp in (SECOND, SECOND, 3 * SECOND, 2 * SECOND):
        sync.add_fix(stamp, fix_at(0, 0))
    assert sync.rejected_fixes == {"duplicate": 1, "stamp_going_back": 1}


def test_after_a_real_jump_the_track_begins_anew_and_bridges_nothing():
    sync = made()
    for i, east in enumerate([0, 5, 10, 2010, 2015, 2020, 2025]):
        sync.add_fix((i + 1) * SECOND, fix_at(east, 0))
    assert sync.rejected_fixes == {"jump": 1}
    for i in range(7):
        sync.add_image((i + 1) * SECOND + SECOND // 2, PIXELS)
    easts = [keyframe.position[0] for keyframe in sync.finish()]
    np.testing.assert_allclose(easts, [2017.5, 2022.5], atol=0.1)


def test_a_gap_in_the_fixes_is_not_interpolated():
    sync = made()
    for second in (1, 2, 3, 13, 14, 15):
        sync.add_fix(second * SECOND, fix_at(6.0 * second, 0))
    for second in range(1, 15):
        sync.add_image(second * SECOND + SECOND // 2, PIXELS)
    stamps = [keyframe.stamp_ns // SECOND for keyframe in sync.finish()]
    assert stamps == [1, 2, 13, 14]
    assert sync.rejected_images == {"no_fix_around": 10}


def test_odometry_that_is_no_pose_is_refused():
    sync = made()
    with pytest.raises(ValueError, match="not finite"):
        sync.add_odometry(SECOND, np.full((4, 4), np.nan))


def test_stamps_going_back_begin_a_session_and_lose_nothing():
    sync = made()
    first = drive(sync)
    second = drive(sync)
    assert [keyframe.session for keyframe in first] == [0] * len(first)
    assert [keyframe.session for keyframe in second] == [1] * len(second)
    assert [k.stamp_ns for k in second] == [k.stamp_ns for k in first]


def test_the_dataset_reads_back_as_it_was_labelled(tmp_path):
    folder = tmp_path / "set"
    sync = made(folder, image_format="png")
    keyframes = drive(sync)
    dataset = read_dataset(folder)
    assert len(dataset) == len(keyframes) == sync.keyframes
    assert dataset.stamps_ns.tolist() == [keyframe.stamp_ns for keyframe in keyframes]
    positions = np.array([keyframe.position for keyframe in keyframes])
    np.testing.assert_allclose(dataset.positions, positions, atol=1e-4)
    headings = [keyframe.heading for keyframe in keyframes]
    np.testing.assert_allclose(dataset.headings, headings, atol=1e-6)
    np.testing.assert_array_equal(dataset.image(3), PIXELS)
    origin = dataset.origin.latitude, dataset.origin.longitude, dataset.origin.altitude
    again = np.stack(pymap3d.geodetic2enu(*dataset.geodetic.T, *origin), axis=1)
    np.testing.assert_allclose(again, dataset.positions, atol=2e-3)


def test_a_compressed_image_is_stored_as_received(tmp_path):
    encoded = cv2.imencode(".jpg", PIXELS)[1].tobytes()
    keyframes = drive(made(tmp_path / "set"), seconds=4.0, image=encoded)
    stored = [path.read_bytes() for path in sorted((tmp_path / "set/images").iterdir())]
    assert stored == [encoded] * len(keyframes)


def test_a_damaged_image_is_counted_and_the_next_one_taken(tmp_path):
    sync = made(tmp_path / "set")
    keyframes = drive(sync, seconds=4.0, image=b"\xff\xd8\xff nonsense")
    assert keyframes == []
    assert sync.rejected_images == {"undecodable_image": 38, "no_fix_around": 2}
    assert len(drive(sync, seconds=4.0, start_ns=100 * SECOND)) > 3


def test_a_second_run_appends_a_session_in_the_same_coordinates(tmp_path):
    folder = tmp_path / "set"
    first = drive(made(folder), seconds=6.0)
    shifted = made(folder)
    for i in range(5):
        shifted.add_fix((i + 1) * SECOND, fix_at(100 + 6.0 * i, 50))
        shifted.add_image((i + 1) * SECOND, PIXELS)
    second = shifted.finish()
    dataset = read_dataset(folder)
    assert dataset.sessions.tolist() == [0] * len(first) + [1] * len(second)
    np.testing.assert_allclose(dataset.positions[len(first)][:2], [100, 50], atol=0.05)
    assert [path.name for path in dataset.images] == [f"{i:06d}.jpg" for i in range(len(dataset))]


def test_the_manifest_tells_what_was_left_out(tmp_path):
    folder = tmp_path / "set"
    for _ in range(2):
        sync = made(folder)
        sync.add_fix(SECOND // 2, fix_at(0, 0), valid=False)
        drive(sync, seconds=3.0)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rejected_fixes"] == {"status": 2}
    assert manifest["sessions"] == 2


def test_a_row_cut_short_by_a_crash_is_dropped_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "set"
    first = drive(made(folder), seconds=4.0)
    with (folder / "keyframes.csv").open("a") as file:
        file.write("99,0,12345,48.0")
    assert len(read_dataset(folder)) == len(first)
    second = drive(made(folder), seconds=4.0)
    assert len(read_dataset(folder)) == len(first) + len(second)


def test_unusable_dataset_folders_are_refused_by_place_and_cause(tmp_path):
    with pytest.raises(DatasetError, match=r"has no manifest\.json"):
        read_dataset(tmp_path)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DatasetError, match="not empty and not a dataset"):
        made(tmp_path)
    folder = tmp_path / "set"
    drive(made(folder), seconds=4.0)
    rows = folder / "keyframes.csv"
    good = rows.read_text()
    rows.write_text(good.replace("odometry", "odometry,,"))
    with pytest.raises(DatasetError, match=r"keyframes\.csv:"):
        read_dataset(folder)
    rows.write_text("\n".join(good.splitlines()[:2]) + "\n")
    with pytest.raises(DatasetError, match="has 1 keyframes, the manifest says"):
        read_dataset(folder)
    rows.write_text("a,b\n")
    with pytest.raises(DatasetError, match="first line"):
        read_dataset(folder)
    rows.write_text(good)
    (folder / "images/000001.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"000001\.jpg: .*empty"):
        read_dataset(folder).image(1)
    manifest = folder / "manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document | {"schema_version": 2}))
    with pytest.raises(DatasetError, match="schema version 2"):
        read_dataset(folder)
    manifest.write_text(json.dumps(document | {"format": "bag"}))
    with pytest.raises(DatasetError, match="format"):
        made(folder)


def karlsruhe():
    """Rows of the INS and their exact stamps."""
    return np.loadtxt(INS), [int(line.split()[0]) for line in INS.read_text().splitlines()]


def karlsruhe_keyframes(sync, every):
    rows, stamps = karlsruhe()
    keyframes = []
    for row, stamp in enumerate(stamps):
        if row % every == 0:
            sync.add_fix(stamp, GpsFix(*rows[row, 1:4]))
        sync.add_image(stamp, PIXELS)
        keyframes += sync.poll()
    return keyframes + sync.finish()


@pytest.mark.skipif(not INS.exists(), reason="the Karlsruhe drive is not on this machine")
@pytest.mark.parametrize(("every", "position_m", "heading_deg"), [(2, 0.1, 4.0), (10, 0.5, 6.0)])
def test_karlsruhe_positions_between_fixes(every, position_m, heading_deg):
    """Every n-th INS row as a fix, all images labelled: compared with the rows left out."""
    rows, stamps = karlsruhe()
    keyframes = karlsruhe_keyframes(made(keyframe_translation=1e-6), every)
    labelled = {keyframe.stamp_ns: keyframe for keyframe in keyframes}
    assert len(labelled) > 0.95 * len(stamps)
    origin = rows[0, 1:4]
    off, turned = [], []
    for row, stamp in enumerate(stamps[20:-20], start=20):
        expected = np.array(pymap3d.geodetic2enu(*rows[row, 1:4], *origin))
        off.append(np.linalg.norm(labelled[stamp].position - expected))
        if abs(rows[row, 9]) < np.pi / 2:  # beyond, the file's yaw is 240 degrees off its motion
            turned.append(abs(wrapped(labelled[stamp].heading - rows[row, 9])))
    assert np.max(off) < position_m
    assert len(turned) > 150
    assert np.degrees(np.percentile(turned, 95)) < heading_deg


@pytest.mark.skipif(not INS.exists(), reason="the Karlsruhe drive is not on this machine")
def test_karlsruhe_gives_a_keyframe_each_five_metres():
    keyframes = karlsruhe_keyframes(made(), every=1)
    assert 226 / 5 * 0.85 < len(keyframes) < 226 / 5 * 1.15 + 4  # turns add a few
