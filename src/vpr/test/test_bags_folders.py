"""Bags from image folders in the data sets' own formats, made small here."""

import cv2
import numpy as np
import pytest
from made_up_wall import wall

from vpr.bags.folders import (
    drifting,
    write_karlsruhe,
    write_rgbd,
    write_seven_scenes,
    write_traverses,
)
from vpr.bags.reader import BagError, BagReader, header_stamp_ns
from vpr.geometry import pose_from_xy_yaw
from vpr.images.decoding import decode_depth
from vpr.relocalization.rgbd import RgbdError, write_realsense


def picture(seed):
    return np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def test_traverses_follow_each_other_in_natural_order(tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        for i in range(11):
            cv2.imwrite(
                str(tmp_path / folder / f"frame{i}.jpg"), np.full((16, 16), 20 * i, np.uint8)
            )
    written = write_traverses(
        tmp_path / "bag", [tmp_path / "first", tmp_path / "second"], 10.0, overwrite=False
    )
    assert written == 22
    with BagReader(tmp_path / "bag") as bag:
        messages = [message for _, message in bag.messages("/camera/image_raw/compressed")]
    stamps = [header_stamp_ns(message) for message in messages]
    assert np.all(np.diff(stamps) > 0)
    assert stamps[11] - stamps[10] > 10 * 10**9
    tenth = cv2.imdecode(np.asarray(messages[10].data), cv2.IMREAD_GRAYSCALE)
    assert abs(float(tenth.mean()) - 200) < 3  # frame10 comes after frame9


@pytest.fixture
def scene(tmp_path):
    """Three frames in the format of 7-Scenes."""
    folder = tmp_path / "scene"
    folder.mkdir()
    np.savetxt(folder / "camera-intrinsics.txt", [[50, 0, 32], [0, 50, 24], [0, 0, 1]])
    for i in range(3):
        name = folder / f"frame-{i:06d}"
        cv2.imwrite(f"{name}.color.png", picture(i))
        depth = np.full((48, 64), 1500, np.uint16)
        depth[0, 0] = 65535
        cv2.imwrite(f"{name}.depth.png", depth)
        pose = np.eye(4)
        pose[0, 3] = 0.1 * i  # the camera moves to its right: to base_link's -y
        np.savetxt(f"{name}.pose.txt", pose)
    return folder


def test_seven_scenes_poses_depths_and_intrinsics(tmp_path, scene):
    assert write_seven_scenes(tmp_path / "bag", scene, 10.0, 0.0, 0.0, 0, False) == 3
    with BagReader(tmp_path / "bag") as bag:
        truth = [message for _, message in bag.messages("/ground_truth")]
        _, depth = next(iter(bag.messages("/camera/depth/image_raw")))
        _, camera = next(iter(bag.messages("/camera/camera_info")))
    moved = truth[2].pose.pose.position.x - truth[0].pose.pose.position.x
    assert moved == pytest.approx(0.2)  # in the map, which is the first camera's
    metres = decode_depth(
        depth.encoding, depth.height, depth.width, depth.step, bytes(depth.data), False
    )
    # the colour camera sees more: no depth at its border, and the depth's lost corner further in
    assert np.isnan(metres[0, 0])
    assert metres[24, 32] == pytest.approx(1.5)
    border = round((1 - 525 / 585) / 2 * 64)
    assert np.isfinite(metres[24, border + 1])
    assert np.isnan(metres[24, border - 2])
    assert camera.k[0] == pytest.approx(50 * 525 / 585)


@pytest.mark.parametrize("broken", ["frame-000001.pose.txt", "camera-intrinsics.txt"])
def test_seven_scenes_without_poses_or_intrinsics_is_refused_by_file(tmp_path, scene, broken):
    (scene / broken).write_text("1 2 3")
    with pytest.raises(BagError, match=broken):
        write_seven_scenes(tmp_path / "bag", scene, 10.0, 0.0, 0.0, 0, False)
    assert not (tmp_path / "bag").exists()


def test_any_rgbd_folder_becomes_a_bag_with_depth_in_the_base_frame(tmp_path):
    hall = wall(laps=1, views=3, step=0.2)
    hall.depths[1, 0, 0] = np.nan
    write_realsense(tmp_path / "hall", hall)
    assert write_rgbd(tmp_path / "bag", tmp_path / "hall", 2.0, 0.0, 0.0, 0, False) == 3
    with BagReader(tmp_path / "bag") as bag:
        truth = [message for _, message in bag.messages("/ground_truth")]
        depths = [message for _, message in bag.messages("/camera/depth/image_raw")]
        _, camera = next(iter(bag.messages("/camera/camera_info")))
    metres = decode_depth(
        depths[1].encoding, depths[1].height, depths[1].width, depths[1].step,
        bytes(depths[1].data), False,
    )  # fmt: skip
    assert np.isnan(metres[0, 0])
    assert metres[5, 5] == pytest.approx(2.0, abs=2e-3)
    assert camera.k[0] == 200.0
    base = truth[0].pose.pose.orientation  # the camera's axes are the map's: the base's are not
    assert abs(base.w) == pytest.approx(0.5)
    assert truth[1].pose.pose.position.x - truth[0].pose.pose.position.x == pytest.approx(0.2)
    with pytest.raises(RgbdError, match="is no"):
        write_rgbd(tmp_path / "other", tmp_path, 2.0, 0.0, 0.0, 0, False)


def test_drift_grows_from_the_first_pose_and_is_seeded():
    straight = [pose_from_xy_yaw(i, 0, 0) for i in range(200)]
    odometry = drifting(straight, 0.05, 0.001, seed=3)
    np.testing.assert_array_equal(odometry[0], straight[0])
    errors = [np.linalg.norm(a[:3, 3] - b[:3, 3]) for a, b in zip(odometry, straight, strict=True)]
    assert np.mean(errors[-50:]) > np.mean(errors[:50])
    np.testing.assert_array_equal(odometry[-1], drifting(straight, 0.05, 0.001, seed=3)[-1])


def test_karlsruhe_rows_and_images_must_go_together(tmp_path):
    folder = tmp_path / "drive"
    (folder / "left").mkdir(parents=True)
    for i in range(2):
        cv2.imwrite(str(folder / "left" / f"{i:06d}.png"), picture(i)[:, :, 0])
    rows = [f"{10**9 * (i + 1)} 49.0 8.4 114.0 0 0 0 0 0 0" for i in range(2)]
    (folder / "insdata.txt").write_text("\n".join(rows))
    assert write_karlsruhe(tmp_path / "bag", folder, False) == 2
    with BagReader(tmp_path / "bag") as bag:
        fixes = [message for _, message in bag.messages("/fix")]
    assert [fix.latitude for fix in fixes] == [49.0, 49.0]
    (folder / "insdata.txt").write_text(rows[0])
    with pytest.raises(BagError, match="2 images but 1 rows"):
        write_karlsruhe(tmp_path / "other", folder, False)
    (folder / "insdata.txt").write_text("1 2 3\n")
    with pytest.raises(BagError, match="line 1: 3 columns"):
        write_karlsruhe(tmp_path / "other", folder, False)
