"""RGB-D folders in the formats of 7-Scenes, TUM RGB-D and RealSense; damaged ones refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from vpr.records import CameraModel
from vpr.relocalization.rgbd import RgbdError, RgbdSequence, load_rgbd, write_realsense

KITCHEN = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "redkitchen"


def sequence(count=3):
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = np.arange(count)
    depths = rng.uniform(1.0, 3.0, (count, 48, 64)).astype(np.float32)
    depths[:, :5] = np.nan
    return RgbdSequence(
        "made_up",
        CameraModel(64, 48, np.array([[50.0, 0, 32], [0, 51.0, 24], [0, 0, 1]])),
        rng.integers(0, 256, (count, 48, 64, 3), dtype=np.uint8),
        depths,
        poses,
        np.arange(count) * 500_000_000,
        np.arange(count) % 2,
    )


def tum_folder(folder):
    for kind in ("rgb", "depth"):
        (folder / kind).mkdir()
        lines = [f"{1 + i}.{'000' if kind == 'rgb' else '010'} {kind}/{i}.png" for i in range(3)]
        (folder / f"{kind}.txt").write_text("# list\n" + "\n".join(lines) + "\n")
    for i in range(3):
        cv2.imwrite(str(folder / f"rgb/{i}.png"), np.full((480, 640, 3), 40 * i, np.uint8))
        cv2.imwrite(str(folder / f"depth/{i}.png"), np.full((480, 640), 5000 * i, np.uint16))
    rows = [f"{0.95 + 0.1 * i:.2f} {i} 0 0 0 0 0 1" for i in range(12)]  # ends at 2.05 s
    (folder / "groundtruth.txt").write_text("# truth\n" + "\n".join(rows) + "\n")


def test_what_is_written_is_read_back(tmp_path):
    made = sequence()
    write_realsense(tmp_path / "room", made)
    read = load_rgbd(tmp_path / "room")
    assert np.array_equal(read.images, made.images)
    assert np.allclose(read.depths, made.depths, atol=1e-3, equal_nan=True)
    assert np.allclose(read.poses, made.poses)
    assert np.array_equal(read.laps, made.laps)
    assert np.array_equal(read.camera.matrix, made.camera.matrix)


def test_tum_images_are_joined_with_depth_and_interpolated_pose(tmp_path):
    tum_folder(tmp_path)
    read = load_rgbd(tmp_path)
    assert read.stamps_ns.tolist() == [10**9, 2 * 10**9]  # the third has no pose
    assert read.poses[:, 0, 3] == pytest.approx([0.5, 10.5])
    assert np.isnan(read.depths[0]).all()
    assert np.all(read.depths[1] == 1.0)


def test_real_seven_scenes_frames_load():
    if not KITCHEN.is_dir():
        pytest.skip("the 7-Scenes red kitchen is not there")
    read = load_rgbd(KITCHEN, stride=50)
    assert len(read) == 5
    known = np.isfinite(read.depths)
    assert known.mean() > 0.5
    assert 0.3 < np.median(read.depths[known]) < 6.0
    assert np.allclose(read.poses[:, :3, :3] @ read.poses[:, :3, :3].transpose(0, 2, 1), np.eye(3))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "depth" / "000001.png").unlink(), "no depth"),
        (lambda f: (f / "color" / "000001.png").write_bytes(b"x"), "does not decode"),
        (lambda f: (f / "camera.json").write_text('{"fx": 1}'), "camera.json"),
        (
            lambda f: (f / "camera.json").write_text(
                (f / "camera.json").read_text().replace("64", "640")
            ),
            "camera.json is for",
        ),
        (lambda f: (f / "poses.txt").write_text("0 0 0 0 0 0 0 0 0\n" * 3), "quaternion"),
        (lambda f: (f / "poses.txt").write_text("0 0 0 0 0 0 0 1 0\n"), "3 colour images"),
    ],
)
def test_damaged_folders_are_refused_with_the_place(tmp_path, damage, words):
    write_realsense(tmp_path, sequence())
    damage(tmp_path)
    with pytest.raises(RgbdError, match=words):
        load_rgbd(tmp_path)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(RgbdError, match="no 7-Scenes, TUM"):
        load_rgbd(tmp_path)
