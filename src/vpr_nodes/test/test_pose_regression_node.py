"""pose_regression: images in, poses, motion and classes out; and a prior for loop_closure."""

import numpy as np
import pytest
import torch
from conftest import image_msg, textured
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image

from vpr.models.vlocnet import VLocNet, VLocNetConfig
from vpr.pose_regression.calibration import Certainty, Deviations
from vpr.pose_regression.model import PoseModel, known_frames
from vpr.pose_regression.prediction import as_network_input

CONFIG = VLocNetConfig(image_width=64, image_height=32, width=4, units=(1, 1, 3, 1), classes=5)
LABELS = "semantics"


@pytest.fixture
def model_file(tmp_path):
    """A network without training that knows the picture of seed 1 only."""
    torch.manual_seed(0)
    network = VLocNet(CONFIG).eval()
    with torch.no_grad():
        network.pose.temporal_fusion.pooling.weight.normal_()
    known = textured(1, 32, 64)[..., ::-1].copy()
    embedding = network.step(as_network_input(known[None]))[0].embedding.detach().numpy()
    deviations = Deviations(
        translation=0.5, rotation=0.1, motion_translation=0.1, motion_rotation=0.05
    )
    certainty = Certainty(
        deviations=deviations, learnt=deviations, drives=1, held_out=10, transferred=None,
        typical=1e-4, familiar=1e-4,
    )  # fmt: skip
    PoseModel(network, certainty, known_frames(embedding), {}).save(tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


def test_poses_motion_and_classes_keep_the_image_stamp(probe, nodes, model_file):
    nodes.start("pose_regression", pose_model=model_file)
    poses = probe.hear(PoseWithCovarianceStamped, "pose_prior")
    motions = probe.hear(Odometry, "visual_odometry")
    labels = probe.hear(Image, LABELS)
    camera = probe.publisher(Image, "camera/image_raw")
    camera.publish(image_msg(textured(1, 32, 64), 5_000_000_007))
    camera.publish(image_msg(textured(1, 32, 64), 5_100_000_007))
    probe.until(lambda: poses and motions and len(labels) == 2)
    header = poses[0].header
    assert (header.stamp.sec, header.stamp.nanosec, header.frame_id) == (5, 7, "map")
    covariance = np.reshape(poses[0].pose.covariance, (6, 6))
    np.testing.assert_allclose(np.diag(covariance), [0.25] * 3 + [0.01] * 3)
    assert motions[0].header.stamp.nanosec == 100_000_007
    assert motions[0].child_frame_id == "base_link"
    assert (labels[0].encoding, labels[0].width, labels[0].height) == ("mono8", 64, 32)
    assert max(labels[0].data) < CONFIG.classes


def test_strange_images_late_ones_and_other_cameras_are_said(probe, nodes, model_file):
    child = nodes.start("pose_regression", pose_model=model_file)
    poses = probe.hear(PoseWithCovarianceStamped, "pose_prior")
    labels = probe.hear(Image, LABELS)
    camera = probe.publisher(Image, "camera/image_raw")
    intrinsics = probe.publisher(CameraInfo, "camera/camera_info")
    camera.publish(image_msg(textured(2, 32, 64), 10**9))
    probe.until(lambda: len(labels) == 1)
    probe.until(
        lambda: (
            "unlike the training world" in probe.status("pose_regression").get("last_reason", "")
        )
    )
    probe.until(lambda: probe.status("pose_regression")["dropped unlike_training_world"] == "1")
    assert not poses
    camera.publish(image_msg(textured(1, 32, 64), 10**9 - 1))
    probe.until(lambda: probe.status("pose_regression").get("dropped out_of_order") == "1")
    other = CameraInfo(width=64, height=32)
    other.k = [20.0, 0.0, 31.5, 0.0, 20.0, 15.5, 0.0, 0.0, 1.0]
    intrinsics.publish(other)
    probe.spin(0.5)
    camera.publish(image_msg(textured(1, 32, 64), 2 * 10**9))
    probe.until(lambda: probe.status("pose_regression").get("dropped other_camera") == "1")
    assert child.poll() is None


def test_it_does_not_start_without_a_model(nodes, tmp_path):
    child = nodes.start("pose_regression")
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert "make one by vpr train vlocnet" in output
    (tmp_path / "foreign.safetensors").write_bytes(b"foreign")
    child = nodes.start("pose_regression", pose_model=str(tmp_path / "foreign.safetensors"))
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert "cannot read" in output


def test_loop_closure_takes_a_prior_and_refuses_one_without_covariance(probe, nodes):
    nodes.start("loop_closure", pose_prior_used=True)
    prior = probe.publisher(PoseWithCovarianceStamped, "pose_prior")
    message = PoseWithCovarianceStamped()
    message.pose.pose.orientation.w = 1.0
    prior.publish(message)
    probe.until(lambda: probe.status("loop_closure").get("dropped ValueError") == "1")
    message.pose.covariance = np.eye(6).ravel().tolist()
    prior.publish(message)
    probe.until(lambda: probe.status("loop_closure").get("received pose_prior") == "2")
    assert probe.status("loop_closure").get("dropped ValueError") == "1"
