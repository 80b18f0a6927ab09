"""Frames at the network's size, and the data sets in their official formats."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_up_room import room

from vpr.models.vlocnet import VLocNetConfig
from vpr.pose_regression.frames import (
    Frame,
    FramesError,
    PosedFrames,
    gather,
    normalised_camera,
)
from vpr.pose_regression.sources import deeploc, seven_scenes, simulated_drives
from vpr.records import CameraModel, Image
from vpr.simulation.config import SimulationConfig

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
CONFIG = VLocNetConfig(image_width=64, image_height=32, width=4, units=(1, 1, 3, 1), classes=10)
CAMERA = CameraModel(80, 60, np.array([[70.0, 0, 39.5], [0, 70.0, 29.5], [0, 0, 1]]))


def picture(seed: int) -> Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), np.uint8))


def pose_at(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def frame(number: int, sequence: int = 0) -> Frame:
    return Frame(f"frame {number}", sequence, number, picture(number), pose_at(number))


def write_scene(root: Path, sequences: int = 2, frames: int = 3) -> None:
    """A scene as 7-Scenes has it; its last sequence is the test."""
    for sequence in range(1, sequences + 1):
        folder = root / f"seq-{sequence:02d}"
        folder.mkdir(parents=True)
        for number in range(frames):
            stem = folder / f"frame-{number:06d}"
            cv2.imwrite(f"{stem}.color.png", picture(10 * sequence + number))
            depth = np.full((60, 80), 2000, np.uint16)
            depth[:, 40:] = 65535
            cv2.imwrite(f"{stem}.depth.png", depth)
            np.savetxt(f"{stem}.pose.txt", pose_at(0.1 * number), fmt="%.7e")
    trained = "\n".join(f"sequence{number}" for number in range(1, sequences))
    (root / "TrainSplit.txt").write_text(trained + "\n")
    (root / "TestSplit.txt").write_text(f"sequence{sequences}\n")


def write_deeploc(root: Path, rows: list[str]) -> None:
    for split in ("train", "test"):
        for name in ("LeftImages", "labels"):
            (root / split / name).mkdir(parents=True)
        (root / split / "poses.txt").write_text("# DeepLoc\n" + "\n".join(rows) + "\n")
        for number in range(4):
            cv2.imwrite(str(root / split / "LeftImages" / f"Image_{number}.png"), picture(number))
            labels = np.full((60, 80), number, np.uint8)
            cv2.imwrite(str(root / split / "labels" / f"Image_{number}.png"), labels)


DEEPLOC_ROWS = ["img_name x y z qw qx qy qz"] + [
    f"Image_{number} {number}.5 2.0 0.0 0.0 0.0 0.0 1.0" for number in (2, 0, 1, 3)
]


def test_a_scene_is_read_by_its_splits(tmp_path: Path) -> None:
    write_scene(tmp_path, sequences=3)
    train, test = (seven_scenes(tmp_path, split, CONFIG) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 3)
    assert train.follows.tolist() == [False, True, True, False, True, True]
    assert train.images.shape == (6, 32, 64, 3)
    np.testing.assert_allclose(train.poses[:3, 0, 3], [0.0, 0.1, 0.2])
    np.testing.assert_allclose(train.camera, [525 / 640, 525 / 480, 0.5, 0.5])
    assert train.depth is not None
    assert (train.depth[0, 1:, 1:3] == 2.0).all()
    assert (train.depth[0, :, -3:] == 0.0).all()


def test_deeploc_is_read_in_order_with_its_labels(tmp_path: Path) -> None:
    write_deeploc(tmp_path, DEEPLOC_ROWS)
    frames = deeploc(tmp_path, "train", CONFIG)
    np.testing.assert_allclose(frames.poses[:, 0, 3], [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(frames.poses[0, :3, :3], np.diag([-1.0, -1.0, 1.0]), atol=1e-12)
    assert frames.labels is not None
    assert frames.labels[:, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("Image_9 0 0 0 0 0 0 0", "line 7: pose has a zero quaternion"),
        ("Image_9 0 0 0 2 0 0 0", "line 7: a quaternion of length 2, not 1"),
        ("Image_9 nan 0 0 1 0 0 0", "line 7: pose has a value that is not finite"),
        ("Image_9 0 0 0 1 0 0", "line 7 is no pose: 7 columns"),
        ("Image_9 0 0 0 1 0 0 0", "no image Image_9"),
        ("Image_3 0 0 0 1 0 0 0", "out of order"),
    ],
)
def test_bad_rows_of_deeploc_are_named(tmp_path: Path, row: str, reason: str) -> None:
    write_deeploc(tmp_path, [*DEEPLOC_ROWS, row])
    with pytest.raises(FramesError, match=reason):
        deeploc(tmp_path, "train", CONFIG)


def test_what_is_no_scene_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FramesError, match=r"is no 7-Scenes scene: .* nor TrainSplit.txt"):
        seven_scenes(tmp_path, "train", CONFIG)
    write_scene(tmp_path)
    (tmp_path / "seq-01" / "frame-000001.pose.txt").write_text("1 2 3\n")
    with pytest.raises(FramesError, match=r"frame-000001.pose.txt is not a 4x4 pose"):
        seven_scenes(tmp_path, "train", CONFIG)


def test_a_jump_in_time_begins_anew() -> None:
    frames = gather([frame(n) for n in (0, 4, 8, 12, 400, 404)], CAMERA, CONFIG)
    assert frames.follows.tolist() == [False, True, True, True, False, True]


def test_frames_out_of_order_are_refused() -> None:
    with pytest.raises(FramesError, match="frame 3 is out of order: it comes after number 5"):
        gather([frame(5), frame(3)], CAMERA, CONFIG)
    two = gather([frame(5), frame(3, sequence=1)], CAMERA, CONFIG)
    assert not two.follows.any()


def test_what_is_no_rotation_is_refused() -> None:
    for pose, reason in (
        (np.diag([1.0, 1.0, -1.0, 1.0]), "no rotation"),
        (np.zeros((4, 4)), "no rotation"),
        (np.full((4, 4), np.nan), "not finite"),
    ):
        with pytest.raises(FramesError, match=reason):
            gather([Frame("one", 0, 0, picture(0), pose)], CAMERA, CONFIG)
    with pytest.raises(FramesError, match="no frames"):
        gather([], CAMERA, CONFIG)
    labels = np.full((60, 80), 12, np.uint8)
    with pytest.raises(FramesError, match="label 12, the network has 10 classes"):
        gather([Frame("one", 0, 0, picture(0), np.eye(4), labels)], CAMERA, CONFIG)


def test_a_subset_follows_only_what_is_in_it() -> None:
    frames = gather([frame(n) for n in range(10)], CAMERA, CONFIG)
    rest = frames.subset(np.arange(10) != 4)
    assert len(rest) == 9
    assert rest.follows.tolist() == [False, True, True, True, False, True, True, True, True]


def test_frames_are_read_back_and_foreign_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "frames.npz"
    for frames in (room(6), replace(room(6), labels=None, depth=None)):
        frames.save(file)
        found = vars(PosedFrames.load(file))
        assert found.keys() == vars(frames).keys()
        for name, array in vars(frames).items():
            np.testing.assert_array_equal(found[name], array)
    for content in (b"", b"no frames", file.read_bytes()[:-200]):
        file.write_bytes(content)
        with pytest.raises(FramesError, match="holds no frames"):
            PosedFrames.load(file)


def test_runs_of_consecutive_frames_end_where_none_is_missing() -> None:
    frames = replace(room(6), follows=np.array([False, True, True, False, True, True]))
    assert frames.last_of_runs(2).tolist() == [1, 2, 4, 5]
    assert frames.last_of_runs(3).tolist() == [2, 5]
    assert frames.last_of_runs(4).tolist() == []


def test_whole_drives_are_held_out_or_the_end_of_one() -> None:
    one = gather([frame(n) for n in range(10)], CAMERA, CONFIG)
    assert np.flatnonzero(one.held_out(0.2)).tolist() == [8, 9]
    three = [frame(n, sequence=s) for s in range(3) for n in range(10)]
    drives = gather(three, CAMERA, CONFIG)
    assert np.flatnonzero(drives.held_out(0.05)).tolist() == list(range(20, 30))
    assert drives.held_out(0.7).sum() == 20
    assert drives.held_out(0.89).sum() == 20  # one is left to learn from


def test_intrinsics_do_not_depend_on_the_size() -> None:
    double = CameraModel(160, 120, np.array([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]]))
    np.testing.assert_allclose(normalised_camera(CAMERA), normalised_camera(double))


def test_a_simulated_world_has_all_truths() -> None:
    simulation = SimulationConfig(laps=1, image_rate=0.25, tail=0.0)
    config = CONFIG.model_copy(update={"classes": 19})
    frames = simulated_drives(3, [1, 2], config, simulation)
    assert frames.follows.sum() == len(frames) - 2
    assert frames.labels is not None
    assert frames.depth is not None
    assert len(np.unique(frames.labels)) > 5
    ahead = frames.poses[:, :3, 2]  # optical axis, level with the ground
    np.testing.assert_allclose(ahead[:, 2], 0.0, atol=1e-9)
    assert frames.depth.shape == (len(frames), 4, 8)


@pytest.mark.skipif(not (SHARED / "redkitchen").is_dir(), reason="no ../shared/data/redkitchen")
def test_red_kitchen() -> None:
    frames = seven_scenes(SHARED / "redkitchen", "all", CONFIG)
    assert len(frames) == 250
    assert frames.follows.sum() == 249
    assert frames.depth is not None
    assert 1.0 < np.median(frames.depth[frames.depth > 0]) < 4.0
