"""A recorded drive: complete, readable, and the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from vpr.bags.reader import BagReader, header_stamp_ns
from vpr.simulation.config import SimulationConfig
from vpr.simulation.drive import plan_drive
from vpr.simulation.labels import Label
from vpr.simulation.recording import record_drive, take_shot
from vpr.simulation.world import World, build_world

SMALL = SimulationConfig(
    image_width=128, image_height=96, laps=1, image_rate=1.0, tail=0.0, depth=True, labels=True
)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "drive"
    record_drive(path, 5, SMALL, progress=False)
    return path


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(5, SMALL.camera(), SMALL.camera_height)


def test_the_bag_has_every_sensor(bag: Path) -> None:
    with BagReader(bag) as reader:
        assert reader.topics == {
            "/camera/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
            "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
            "/camera/depth/image_raw": "sensor_msgs/msg/Image",
            "/camera/labels": "sensor_msgs/msg/Image",
            "/odometry": "nav_msgs/msg/Odometry",
            "/ground_truth": "nav_msgs/msg/Odometry",
            "/fix": "sensor_msgs/msg/NavSatFix",
        }
        images = [m for _, m in reader.messages("/camera/image_raw/compressed")]
        odometry = {header_stamp_ns(m): m for _, m in reader.messages("/odometry")}
        truth = {header_stamp_ns(m): m for _, m in reader.messages("/ground_truth")}
        fixes = [m for _, m in reader.messages("/fix")]
    assert {header_stamp_ns(image) for image in images} == truth.keys() <= odometry.keys()
    assert all(cv2.imdecode(m.data, cv2.IMREAD_COLOR).shape == (96, 128, 3) for m in images)
    first = odometry[min(odometry)]
    assert (first.header.frame_id, first.child_frame_id) == ("odom", "base_link")
    last = odometry[max(odometry)]
    assert np.linalg.eigvalsh(last.pose.covariance.reshape(6, 6)).min() > 0
    assert {fix.status.status for fix in fixes} == {-1, 0}
    assert all(np.isnan(fix.latitude) == (fix.status.status < 0) for fix in fixes)


def test_messages_are_recorded_in_time_order_at_their_stamps(bag: Path) -> None:
    with BagReader(bag) as reader:
        stamps = []
        for raw in reader.raw():
            assert header_stamp_ns(reader.decode(raw)) == raw.timestamp_ns
            stamps.append(raw.timestamp_ns)
    assert stamps == sorted(stamps)


def test_camera_info_is_the_rendering_camera(bag: Path) -> None:
    with BagReader(bag) as reader:
        _, info = next(reader.messages("/camera/camera_info"))
    assert np.array_equal(info.k.reshape(3, 3), SMALL.camera().matrix)
    assert (info.width, info.height) == (128, 96)


def test_depth_and_labels_belong_to_the_image(bag: Path, world: World) -> None:
    drive = plan_drive(5, world.plan, SMALL)
    shot = take_shot(world, drive, 0, SMALL)
    with BagReader(bag) as reader:
        _, depth = next(reader.messages("/camera/depth/image_raw"))
        _, labels = next(reader.messages("/camera/labels"))
    millimetres = depth.data.view(np.uint16).reshape(96, 128)
    assert (depth.encoding, labels.encoding) == ("16UC1", "mono8")
    near = shot.depth < 60.0
    assert np.abs(millimetres[near] / 1000.0 - shot.depth[near]).max() <= 0.0006
    assert (millimetres[np.isinf(shot.depth)] == 0).all()
    assert np.array_equal(labels.data.reshape(96, 128), shot.labels)


def test_metadata_is_what_rosbag2_writes(bag: Path) -> None:
    info = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (info["version"], info["storage_identifier"]) == (9, "mcap")
    assert info["relative_file_paths"] == ["drive.mcap"]
    for entry in info["topics_with_message_count"]:
        topic = entry["topic_metadata"]
        assert topic["type_description_hash"].startswith("RIHS01_")
        (qos,) = topic["offered_qos_profiles"]
        assert (qos["reliability"], qos["durability"]) == ("reliable", "volatile")


def test_the_same_seed_gives_the_same_bytes(bag: Path, tmp_path: Path) -> None:
    record_drive(tmp_path / "drive", 5, SMALL, progress=False)
    with BagReader(bag) as one, BagReader(tmp_path / "drive") as other:
        assert list(one.raw()) == list(other.raw())


def test_another_seed_gives_another_world(world: World) -> None:
    other = build_world(6, SMALL.camera(), SMALL.camera_height)
    assert not np.array_equal(other.plan.easts, world.plan.easts)
    assert len(other.fixed) != len(world.fixed)


def test_a_view_shows_a_street(world: World) -> None:
    drive = plan_drive(5, world.plan, SMALL)
    seen = set()
    for index in drive.image_indices[::8]:
        shot = take_shot(world, drive, int(index), SMALL)
        assert np.isin(shot.labels, [int(label) for label in Label]).all()
        assert np.array_equal(np.isinf(shot.depth), shot.labels == Label.SKY)
        assert shot.depth.min() > 0.0
        assert shot.image.std() > 20.0  # not fog
        seen |= set(np.unique(shot.labels).tolist())
    common = {Label.ROAD, Label.SIDEWALK, Label.BUILDING, Label.SKY, Label.CAR, Label.PERSON}
    assert common <= seen


def test_the_second_lap_has_other_light_and_other_traffic() -> None:
    config = SMALL.model_copy(update={"laps": 2, "lateral_sway": 0.0, "image_noise": 0.0})
    world = build_world(5, config.camera(), config.camera_height)
    drive = plan_drive(5, world.plan, config)
    pose = drive.poses[200]
    first, second = world.view(pose, 10.0, lap=0), world.view(pose, 10.0, lap=1)
    assert second.image.mean() < 0.9 * first.image.mean()
    moved = [int(label) for label in (Label.CAR, Label.PERSON)]
    still = ~np.isin(first.labels, moved) & ~np.isin(second.labels, moved)
    same = first.depth[still] == second.depth[still]
    assert same.mean() > 0.99  # but for pixels a car's outline halves
    assert not np.array_equal(first.labels, second.labels)


def test_the_ready_made_bag_is_small_and_whole() -> None:
    folder = Path(__file__).resolve().parents[3] / "bags" / "demo"
    if not folder.exists():
        pytest.skip("bags/ is not beside this checkout")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 15e6
    with BagReader(folder) as reader:
        config = SimulationConfig()
        stamps = [stamp for stamp, _ in reader.messages("/camera/image_raw/compressed")]
        truth = np.array(
            [
                (m.pose.pose.position.x, m.pose.pose.position.y)
                for _, m in reader.messages("/ground_truth")
            ]
        )
    assert stamps[0] == config.start_ns
    assert len(stamps) == len(truth)
    assert np.linalg.norm(np.diff(truth, axis=0), axis=1).max() <= 1.0
