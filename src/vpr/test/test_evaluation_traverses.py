import cv2
import numpy as np
import pytest

from vpr.evaluation.places import EvaluationError
from vpr.evaluation.traverses import (
    Tolerance,
    Traverse,
    cut,
    moving,
    read_traverse,
    same_places,
    thinned,
    without_stops,
)

METRES_A_DEGREE_NORTH = 110_880  # at 27.5 degrees south, WGS 84, to a few metres


def images(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / f"{name}.png"), np.full((4, 8), 90, np.uint8))


def test_nordland_places_are_equal_names(tmp_path):
    images(tmp_path / "summer", [f"images-{i:05d}" for i in (10, 20, 30, 40)])
    images(tmp_path / "winter", [f"images-{i:05d}" for i in (20, 30, 99)])
    summer, winter = (read_traverse(tmp_path / s, "nordland") for s in ("summer", "winter"))
    assert same_places(summer, winter, Tolerance(0, "frames")) == [{1}, {2}, frozenset()]
    assert same_places(summer, winter, Tolerance(1, "frames"))[:2] == [{0, 1, 2}, {1, 2, 3}]
    with pytest.raises(EvaluationError, match="tolerance in frames"):
        same_places(summer, winter, Tolerance(5, "m"))


def test_robotcar_positions_are_interpolated_at_the_images_microseconds(tmp_path):
    images(tmp_path / "stereo/centre", ["1000000", "1500000", "9000000"])
    (tmp_path / "gps").mkdir()
    (tmp_path / "gps/ins.csv").write_text(
        "timestamp,ins_status,northing,easting\n"
        "1000000,INS_SOLUTION_GOOD,100.0,20.0\n2000000,INS_SOLUTION_GOOD,110.0,24.0\n"
    )
    drive = read_traverse(tmp_path, "robotcar")
    np.testing.assert_allclose(drive.positions[:2], [[20.0, 100.0], [22.0, 105.0]])
    assert np.isnan(drive.positions[2]).all()  # seconds away from any fix
    assert same_places(drive, drive, Tolerance(6, "m")) == [{0, 1}, {0, 1}, frozenset()]
    assert thinned(drive, 10.0).names == ("1000000",)


def test_brisbane_positions_come_from_nmea_at_the_images_seconds(tmp_path):
    midday = 1_588_000_000 // 86400 * 86400 + 43200
    images(tmp_path / "frames", [f"{midday}.5"])
    (tmp_path / "drive.nmea").write_text(
        "$GPGGA,120000,2730.000,S,15300.000,E,1,08,1.0,20,M,,,,*47\n"
        "$GPGSV,3,1,11\n$GPGGA,120000.2,,,,,0,,,,,,,,\n"
        "$GPGGA,120001,2729.990,S,15300.000,E,1,08,1.0,20,M,,,,*47\n"
    )
    images(tmp_path / "other/frames", [f"{midday}"])
    (tmp_path / "other/drive.nmea").write_text((tmp_path / "drive.nmea").read_text())
    half, start = (read_traverse(path, "brisbane") for path in (tmp_path, tmp_path / "other"))
    driven = np.linalg.norm(half.positions[0] - start.positions[0])
    assert driven == pytest.approx(0.005 / 60 * METRES_A_DEGREE_NORTH, rel=0.01)


def test_st_lucia_has_a_position_on_every_line(tmp_path):
    images(tmp_path, ["0001", "0002", "0003"])
    (tmp_path / "fGPS.txt").write_text("-27.5,153.0\n-27.499,153.0\n0,0\n")
    drive = read_traverse(tmp_path, "brisbane")
    driven = np.linalg.norm(drive.positions[1] - drive.positions[0])
    assert driven == pytest.approx(0.001 * METRES_A_DEGREE_NORTH, rel=0.01)
    assert np.isnan(drive.positions[2]).all()
    (tmp_path / "fGPS.txt").write_text("-27.5,153.0\n")
    with pytest.raises(EvaluationError, match="1 lines of positions for 3 images"):
        read_traverse(tmp_path, "brisbane")


def test_ready_descriptors_are_normalised_and_cut(tmp_path):
    np.save(tmp_path / "d.npy", np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]))
    drive = cut(read_traverse(tmp_path / "d.npy", "npy"), ":2")
    np.testing.assert_allclose(drive.descriptors, [[0.6, 0.8], [0.0, 1.0]])
    assert same_places(drive, drive, Tolerance(0, "frames")) == [{0}, {1}]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros(3), "not descriptors"),
        (np.array([[1, 2]]), "not descriptors"),
        (np.array([[1.0, np.nan]]), "not finite"),
        (np.array([[1.0, 1.0], [0.0, 0.0]]), "descriptor 1 is all zero"),
    ],
)
def test_broken_descriptors_are_refused(tmp_path, matrix, message):
    np.save(tmp_path / "d.npy", matrix)
    with pytest.raises(EvaluationError, match=message):
        read_traverse(tmp_path / "d.npy", "npy")


@pytest.mark.parametrize("kind", ["nordland", "robotcar", "brisbane", "npy"])
def test_what_is_missing_is_named(tmp_path, kind):
    with pytest.raises(EvaluationError, match="nowhere"):
        read_traverse(tmp_path / "nowhere", kind)


@pytest.mark.parametrize("kind", ["robotcar", "brisbane"])
def test_images_without_a_track_are_refused(tmp_path, kind):
    images(tmp_path, ["1", "2"])
    with pytest.raises(EvaluationError, match=r"ins\.csv|fGPS\.txt"):
        read_traverse(tmp_path, kind)


def test_tolerance_is_printed_with_its_unit():
    assert str(Tolerance(1, "frames")) == "±1 frames"
    assert str(Tolerance(5, "m")) == "±5 m"


def brightness(folder, levels):
    """A traverse whose frames show nothing but a grey level each."""
    folder.mkdir()
    for i, level in enumerate(levels):
        cv2.imwrite(str(folder / f"{i:05d}.png"), np.full((4, 8), level, np.uint8))
    return read_traverse(folder, "nordland")


def test_stops_are_taken_out_of_each_drive_by_its_own_images(tmp_path):
    summer = brightness(tmp_path / "summer", [10, 50, 50, 51, 52, 90, 130])
    winter = brightness(tmp_path / "winter", [20, 60, 60, 60, 80, 80, 120])
    assert moving(summer, 5.0) == [0, 1, 5, 6]
    correct = same_places(summer, winter, Tolerance(0, "frames"))
    driven = without_stops(summer, winter, correct, 5.0)
    assert driven.references.names == ("00000", "00001", "00005", "00006")
    assert driven.queries.names == ("00000", "00001", "00004", "00006")
    assert driven.answers.tolist() == [0, 1, 1, 1, 2, 2, 3]
    assert driven.correct == [{0}, {1}, {1}, {1}, {1}, {2}, {3}]  # winter moved on a frame before
    unchanged = without_stops(summer, winter, correct, 0.0)
    assert unchanged.correct == correct
    assert unchanged.answers.tolist() == [*range(7)]


def test_frames_that_creep_on_are_kept_once_they_have_changed(tmp_path):
    assert moving(brightness(tmp_path / "slow", range(10, 22)), 5.0) == [0, 5, 10]


def test_stops_cannot_be_seen_in_ready_descriptors():
    ready = Traverse(("0",), (), np.ones((1, 4), np.float32), None)
    with pytest.raises(EvaluationError, match="without images"):
        moving(ready, 5.0)
