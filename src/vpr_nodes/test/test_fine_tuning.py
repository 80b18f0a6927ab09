"""The robot teaches itself: the action while the other nodes run."""

import sys
from pathlib import Path

import pytest
from conftest import image_msg

pytest.importorskip("vpr_interfaces", reason="the workspace is not built and sourced")
sys.path.append(str(Path(__file__).resolve().parents[2] / "vpr" / "test"))

from action_msgs.msg import GoalStatus
from made_up_drives import facade, write_drive
from rclpy.action import ActionClient
from sensor_msgs.msg import Image
from vpr_interfaces.action import FineTune
from vpr_interfaces.msg import Keyframe

SIZE = {"image_width": 64, "image_height": 48, "runtime": "pytorch"}
TRAINING = {
    "epochs": 4,
    "epoch_positives": 32,
    "batch_positives": 16,
    "negative_pool": 16,
    "embedding_dimension": 32,
    "learning_rate": 3e-4,
    "min_positives": 10,
    "exclude_recent_keyframes": 3,
    "same_place_distance": 3.0,
    "seen_distance": 8.0,
    "snapshots": 0,
}
LONG = 300.0  # s


def params_file(folder):
    """The image size for every process, the training's included."""
    lines = ["/**/embedding:", "  ros__parameters:"]
    lines += [f"    {name}: {value}" for name, value in SIZE.items()]
    file = folder / "small.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


def asked(probe, goal):
    """Send a goal; its handle, its result and all feedback."""
    client = ActionClient(probe.node, FineTune, "fine_tune")
    probe.until(client.server_is_ready)
    feedback = []
    sent = client.send_goal_async(goal, lambda message: feedback.append(message.feedback))
    probe.until(sent.done)
    return sent.result(), feedback


def outcome(probe, handle):
    result = handle.get_result_async()
    probe.until(result.done, LONG)
    return result.result()


def drives(folder):
    return {
        "training": [str(write_drive(folder / "train", drives=(0, 1, 2)))],
        "held_out": [str(write_drive(folder / "held_out", drives=(3, 4)))],
        "model": str(folder / "learned.safetensors"),
    }


def show(probe, places, first_second):
    for i, place in enumerate(places):
        pixels = facade(1, place, 5)
        stamp = (first_second + i) * 10**9
        probe.publisher(Image, "camera/image_raw").publish(image_msg(pixels, stamp))
        probe.spin(0.1)


def test_a_better_model_is_adopted_and_the_places_are_brought_forward(probe, nodes, tmp_path):
    keyframes = probe.hear(Keyframe, "keyframe")
    nodes.start("embedding", **SIZE)
    nodes.start("sequence_matching", odometry_wait=0.0)
    nodes.start("fine_tuning", params_file=str(params_file(tmp_path)), **TRAINING)
    probe.until(lambda: probe.node.count_subscribers("descriptor") > 0)
    probe.until(lambda: probe.node.count_publishers("keyframe") > 0)
    probe.spin(1.0)  # they discover each other on their own
    show(probe, range(4), 10)
    probe.until(lambda: len(keyframes) >= 4)
    before = keyframes[-1].descriptor.model
    handle, feedback = asked(probe, FineTune.Goal(adopt=True, **drives(tmp_path)))
    assert handle.accepted
    done = outcome(probe, handle)
    assert done.status == GoalStatus.STATUS_SUCCEEDED
    assert done.result.better, done.result.report
    assert done.result.adopted, done.result.report
    assert done.result.redescribed >= 4
    assert done.result.score_after > done.result.score_before
    assert {message.stage for message in feedback} == {"training", "adopting"}
    seen = len(keyframes)
    show(probe, range(4, 6), 20)
    probe.until(lambda: len(keyframes) >= seen + 2)
    assert keyframes[-1].descriptor.model == done.result.model != before
    assert len(keyframes[-1].descriptor.data) == 32


def test_a_failed_training_says_why_and_changes_nothing(probe, nodes, tmp_path):
    nodes.start("fine_tuning", **TRAINING)
    goal = FineTune.Goal(training=[str(tmp_path)], model=str(tmp_path / "m.safetensors"))
    handle, _ = asked(probe, goal)
    done = outcome(probe, handle)
    assert done.status == GoalStatus.STATUS_ABORTED
    assert "is not a dataset" in done.result.report
    assert not done.result.adopted


def test_a_model_is_not_adopted_where_the_nodes_are_missing(probe, nodes, tmp_path):
    nodes.start("fine_tuning", params_file=str(params_file(tmp_path)), **TRAINING)
    handle, _ = asked(probe, FineTune.Goal(adopt=True, **drives(tmp_path)))
    done = outcome(probe, handle)
    assert not done.result.adopted
    assert "not adopted: " in done.result.report
    assert (tmp_path / "learned.safetensors").exists()
