"""gps_image_sync: labelled keyframes while driving, and what is said where there are none."""

import numpy as np
import pytest
from conftest import image_msg, textured

pytest.importorskip("vpr_interfaces", reason="the workspace is not built and sourced")

from nav_msgs.msg import Odometry
from sensor_msgs.msg import Image, NavSatFix

from vpr.supervision.dataset import read_dataset

SECOND = 10**9
LATITUDE, LONGITUDE = 48.0, 9.0
METRE = 1.0 / 111_200.0  # degrees of latitude


def stamped(message, nanoseconds):
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(nanoseconds, SECOND)
    return message


def fix(nanoseconds, north, status=0):
    message = NavSatFix(latitude=LATITUDE + north * METRE, longitude=LONGITUDE, altitude=300.0)
    message.status.status = status
    return stamped(message, nanoseconds)


def odometry(nanoseconds, x):
    message = Odometry()
    message.pose.pose.position.x = float(x)
    message.pose.pose.orientation.w = 1.0
    return stamped(message, nanoseconds)


def drive(probe, seconds, speed, status=0, with_odometry=True):
    """North at so many m/s: fixes at 1 Hz, images in between at 2 Hz, odometry at 4 Hz."""
    images = probe.publisher(Image, "camera/image_raw")
    fixes = probe.publisher(NavSatFix, "fix")
    if with_odometry:
        poses = probe.publisher(Odometry, "odometry")
    for quarter in range(4 * seconds):
        at = SECOND + quarter * SECOND // 4
        if with_odometry:
            poses.publish(odometry(at, speed * quarter / 4))
        if quarter % 4 == 0:
            fixes.publish(fix(at, speed * quarter / 4, status))
        if quarter % 2 == 1:
            images.publish(image_msg(textured(quarter), at))
        probe.spin(0.05)


def test_images_between_fixes_are_labelled_every_five_metres(probe, nodes, tmp_path):
    nodes.start("gps_image_sync", dataset=str(tmp_path / "drive"))
    drive(probe, 12, 2.1)
    probe.until(lambda: (tmp_path / "drive" / "manifest.json").exists())
    probe.until(lambda: len(read_dataset(tmp_path / "drive")) >= 4)
    dataset = read_dataset(tmp_path / "drive")
    steps = np.linalg.norm(np.diff(dataset.positions[:, :2], axis=0), axis=1)
    np.testing.assert_allclose(steps, 5.25, atol=0.1)
    np.testing.assert_allclose(dataset.headings, np.pi / 2, atol=0.05)
    said = (dataset.geodetic[:, 0] - LATITUDE) / METRE
    driven = 2.1 * (dataset.stamps_ns - SECOND) / SECOND
    np.testing.assert_allclose(said, driven, atol=0.1)


@pytest.mark.parametrize(
    ("speed", "status", "said"),
    [(2.0, -1, "no usable fix received (left out"), (0.0, 0, "the fixes have not moved")],
)
def test_without_gps_or_motion_nothing_is_labelled_and_it_is_said(
    probe, nodes, tmp_path, speed, status, said
):
    nodes.start("gps_image_sync", dataset=str(tmp_path / "drive"), max_wait=1.0)
    drive(probe, 6, speed, status, with_odometry=False)
    probe.until(lambda: said in str(probe.status("gps_image_sync")))
    assert not list((tmp_path / "drive").rglob("*.jpg"))


def test_a_folder_that_cannot_be_written_is_said_and_the_node_stays(probe, nodes, tmp_path):
    (tmp_path / "file").write_text("no folder")
    child = nodes.start("gps_image_sync", dataset=str(tmp_path / "file" / "drive"))
    drive(probe, 8, 2.0)
    probe.until(lambda: "cannot write" in str(probe.status("gps_image_sync")))
    assert child.poll() is None
