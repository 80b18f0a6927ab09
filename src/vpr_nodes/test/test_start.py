"""Starting: wrong parameters refused in words, lifecycle by hand, two robots side by side."""

import pytest
from conftest import image_msg, textured
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from sensor_msgs.msg import Image


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"floor": 3.0}, "segmentation.floor = 3.0"),
        ({"attention_width": "wide"}, "segmentation.attention_width = 'wide'"),
        ({"source": "tea_leaves"}, "segmentation.source = 'tea_leaves'"),
        ({"attention_widht": 100}, "segmentation.attention_widht = 100"),
    ],
)
def test_a_wrong_parameter_is_refused_with_name_value_and_range(nodes, parameters, said):
    child = nodes.start("segmentation", **parameters)
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert said in output


def test_a_missing_bag_or_one_without_images_is_refused_with_its_topics(nodes, tmp_path):
    child = nodes.start("bag_player", bag=str(tmp_path / "none"))
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert "no bag at" in output

    from vpr.bags.messages import SensorMessages
    from vpr.bags.writer import BagWriter

    with BagWriter(tmp_path / "no_images") as bag:
        bag.add_topic("/fix", "sensor_msgs/msg/NavSatFix")
        import numpy as np

        fix = SensorMessages(bag.typestore).fix(10, np.array([49.0, 8, 100]), np.ones(3), True)
        bag.write("/fix", 10, fix)
    child = nodes.start("bag_player", bag=str(tmp_path / "no_images"))
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert "no image topic" in output
    assert "/fix (sensor_msgs/msg/NavSatFix)" in output


def test_lifecycle_can_be_driven_by_a_manager(probe, nodes):
    nodes.start("segmentation", autostart=False)
    state = probe.call(GetState, "/segmentation/get_state", GetState.Request())
    assert state.current_state.label == "unconfigured"
    for transition, label in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
    ):
        request = ChangeState.Request()
        request.transition.id = transition
        assert probe.call(ChangeState, "/segmentation/change_state", request).success
        state = probe.call(GetState, "/segmentation/get_state", GetState.Request())
        assert state.current_state.label == label
    attention = probe.hear(Image, "attention")
    camera = probe.publisher(Image, "camera/image_raw")
    camera.publish(image_msg(textured(0), 10**9))
    probe.until(lambda: len(attention) == 1)


def test_two_robots_in_two_namespaces_do_not_touch(probe, nodes):
    for robot in ("anna", "bert"):
        nodes.start("segmentation", "-r", f"__ns:=/{robot}")
    heard = {robot: probe.hear(Image, f"/{robot}/attention") for robot in ("anna", "bert")}
    for robot in heard:
        probe.publisher(Image, f"/{robot}/camera/image_raw")
    probe.publisher(Image, "/anna/camera/image_raw").publish(image_msg(textured(0), 10**9))
    probe.until(lambda: len(heard["anna"]) == 1)
    probe.spin(0.5)
    assert not heard["bert"]


def test_several_nodes_compose_into_one_process(probe, nodes):
    child = nodes.start("composed", own=["--nodes", "segmentation", "pose_graph"])
    attention = probe.hear(Image, "attention")
    probe.publisher(Image, "camera/image_raw").publish(image_msg(textured(0), 10**9))
    probe.until(lambda: len(attention) == 1)
    for name in ("segmentation", "pose_graph"):
        state = probe.call(GetState, f"/{name}/get_state", GetState.Request())
        assert state.current_state.label == "active"
    assert child.poll() is None


def test_a_composed_process_ends_when_one_node_is_refused(nodes):
    child = nodes.start("composed", own=["--nodes", "pose_graph"], publish_period=-1.0)
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert "pose_graph.publish_period = -1.0" in output
