"""Each bridge against a stand-in of its host in another process, which checks what it is given."""

from importlib.util import find_spec

import numpy as np
import pytest
from conftest import LATCHED
from drive import closure, graph, keyframe, odometry
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from visualization_msgs.msg import Marker, MarkerArray
from vpr_interfaces.msg import Keyframe, LoopClosure, PoseGraph

from vpr.geometry import pose_from_xy_yaw
from vpr_nodes.conversions import pose_msg, time_msg
from vpr_nodes.vpr_node import REMEMBERED

pytest_plugins = ("stand_ins",)
SECOND = 10**9


def lap(probe, seconds=33.0, keyframe_period=0.7):
    """Publish a lap: odometry at 10 Hz, a keyframe of ours now and then; returns their times."""
    poses = probe.publisher(Odometry, "odometry")
    frames = probe.publisher(Keyframe, "keyframe", REMEMBERED)
    times, due = {}, 0.0
    for step in range(round(seconds * 10)):
        now = step / 10
        poses.publish(odometry(now))
        if now >= due:
            frames.publish(keyframe(len(times), now))
            times[len(times)] = now
            due += keyframe_period
        probe.spin(0.003)
    return times


def latched(probe, message_type, topic, message):
    """Publish a map product as pose_graph does: whoever comes late hears it too."""
    publisher = probe.node.create_publisher(message_type, topic, LATCHED)
    publisher.publish(message)
    probe.until(lambda: publisher.get_subscription_count() > 0)


def send(probe, times, query, reference, off=0.0):
    publisher = probe.publisher(LoopClosure, "loop_closures")
    publisher.publish(closure(query, times[query], reference, times[reference], off))


def test_rtabmap_takes_true_links_and_its_silence_on_false_ones_is_heard(built_hosts, probe):
    built_hosts.start("rtabmap", read_back_timeout=2.0)
    built_hosts.connected("rtabmap/info")
    times = lap(probe)
    last = max(times)
    send(probe, times, last - 2, 1)
    built_hosts.until(lambda: bool(built_hosts.said(refusal="")))
    taken = built_hosts.said(refusal="")[0]
    assert taken["start"] > taken["end"]  # from the new node to the old, as RTAB-Map's own
    built_hosts.until(lambda: probe.status("rtabmap_bridge").get("published links_in_graph") == "1")
    send(probe, times, last - 12, 5, off=6.0)
    built_hosts.until(lambda: bool(built_hosts.said(start=..., end=...)[1:]))
    assert "m off" in built_hosts.said(start=...)[1]["refusal"]
    built_hosts.until(lambda: probe.status("rtabmap_bridge").get("dropped refused_by_host") == "1")


def test_swarm_slam_gets_closures_between_keyframes_it_knows(built_hosts, probe):
    built_hosts.start("swarm_slam", patience=1.0)
    built_hosts.connected("cslam/keyframe_odom")
    times = lap(probe)
    last = max(times)
    send(probe, times, last - 2, 1)
    send(probe, times | {999: 500.0}, 999, 2)  # a keyframe that nobody has
    built_hosts.until(lambda: bool(built_hosts.said(metres=...)))
    heard = built_hosts.said(metres=...)[0]
    assert heard["metres"] < 0.05
    assert heard["radians"] < 0.02
    assert heard["ends"][0] < heard["ends"][1]
    built_hosts.until(
        lambda: probe.status("swarm_slam_bridge").get("dropped unknown_keyframe") == "1"
    )
    assert not built_hosts.said(error=...)


def test_kimera_takes_our_graph_in_order(built_hosts, probe):
    built_hosts.start("kimera", bridge="pose_graph_tools", robot_id=3)
    times = lap(probe)
    last = max(times)
    send(probe, times, last - 2, 1)
    refused = closure(last - 5, times[last - 5], 8, times[8], off=6.0)
    refused.state = LoopClosure.REJECTED
    probe.publisher(LoopClosure, "loop_closures").publish(refused)
    built_hosts.until(lambda: bool(built_hosts.said(kind="rejected")))
    edges = built_hosts.said(kind="odom")
    assert len(edges) == last
    assert all(edge["in_order"] and edge["metres"] < 1e-6 for edge in edges)
    (heard,) = built_hosts.said(kind="closure")
    assert (heard["start"], heard["end"]) == ([3, 1], [3, last - 2])
    assert heard["metres"] < 1e-6
    # GTSAM's order: rotation first
    np.testing.assert_allclose(heard["variances"], [0.001] * 3 + [0.01] * 3, rtol=1e-6)
    (rejected,) = built_hosts.said(kind="rejected")
    assert rejected["known"]


def test_a_new_session_is_a_robot_of_its_own_to_kimera(built_hosts, probe):
    built_hosts.start("kimera", bridge="pose_graph_tools")
    frames = probe.publisher(Keyframe, "keyframe", REMEMBERED)
    for identity, session in enumerate([0, 0, 0, 1, 1, 1]):
        frames.publish(keyframe(identity, identity, session))
    built_hosts.until(lambda: len(built_hosts.said(kind="odom")) == 4)
    edges = built_hosts.said(kind="odom")
    assert [tuple(edge["end"]) for edge in edges] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert all(edge["in_order"] for edge in edges)


def test_kimera_gets_closures_between_its_front_ends_nodes(built_hosts, probe):
    built_hosts.start(
        "kimera", "pose_graph_tools", host_parameters={"front_end": "true"}, keys="host"
    )
    built_hosts.connected("pose_graph_incremental")
    times = lap(probe)
    send(probe, times, max(times) - 2, 1)
    built_hosts.until(lambda: bool(built_hosts.said(kind="closure")))
    heard = built_hosts.said(kind="closure")[0]
    assert heard["known"]
    assert heard["metres"] < 0.05
    assert not built_hosts.said(kind="odom")


def test_vins_mono_relocalizes_by_our_match_points(hosts, probe):
    hosts.start("vins_mono")
    frames = probe.publisher(Keyframe, "keyframe", REMEMBERED)
    closures = probe.publisher(LoopClosure, "loop_closures")
    there = {}

    def wall(frame):  # where the stand-in drives
        pose = np.eye(4)
        pose[1, 3] = -1.0 + 2.0 * min(frame, 44 - frame) / 22
        return pose

    def follow():
        """Every second frame is a keyframe of ours; on the way back close to the way there."""
        for report in hosts.said(frame=...):
            frame, stamp = report["frame"], report["stamp"]
            if frame % 2 or frame in there:
                continue
            there[frame] = stamp
            message = Keyframe(id=frame, has_odometry=True)
            message.header.stamp = time_msg(stamp)
            message.odometry.pose = pose_msg(wall(frame))
            frames.publish(message)
            if frame >= 34:
                for query, reference in ((frame, 44 - frame), (frame - 24, 4)):
                    message = LoopClosure(query_id=query, reference_id=reference)
                    message.state, message.has_relative_pose = LoopClosure.VERIFIED, True
                    pose = np.linalg.inv(wall(reference)) @ wall(query)
                    message.relative_pose.pose = pose_msg(pose)
                    message.relative_pose.covariance = np.diag([0.01] * 6).ravel().tolist()
                    closures.publish(message)
        return len(hosts.said(in_window=...)) >= 3

    hosts.until(follow)
    for heard in hosts.said(in_window=...):
        assert heard["in_window"], heard
        assert heard["ascending"]
        assert heard["factors"] == heard["points"] >= 15
        assert heard["pixels_off"] < 2.0
        assert len(heard["values"]) == 8
        index = round(heard["values"][7])
        np.testing.assert_allclose(heard["values"][:3], wall(44 - index)[:3, 3], atol=1e-5)
        np.testing.assert_allclose(heard["values"][3:7], [1, 0, 0, 0], atol=1e-6)
    # closures of queries that VINS has long left behind are said, not sent
    hosts.until(
        lambda: int(probe.status("vins_mono_bridge").get("dropped out_of_window", "0")) >= 2
    )


def test_vins_fusion_has_its_loop_fusion_topics(hosts, probe):
    hosts.start("vins_fusion", publish_period=0.2)
    corrections = probe.publisher(TransformStamped, "map_to_odom")
    frames = probe.publisher(Keyframe, "keyframe", REMEMBERED)
    hosts.until(lambda: len(hosts.said(topic="odometry_rect")) >= 3)
    assert np.allclose(hosts.said(topic="odometry_rect")[0]["correction"], np.eye(4), atol=1e-6)

    moved = pose_from_xy_yaw(1.0, -2.0, 0.3)
    message = TransformStamped()
    message.transform.translation.x, message.transform.translation.y = 1.0, -2.0
    q = pose_msg(moved).orientation
    message.transform.rotation = q
    corrections.publish(message)
    at = {7: 2 * SECOND}
    frame = Keyframe(id=7, has_odometry=True)
    frame.header.stamp = time_msg(at[7])
    angle = 0.05 * 20
    here = pose_from_xy_yaw(5.0 * np.cos(angle), 5.0 * np.sin(angle), angle)
    frame.odometry.pose = pose_msg(here)
    frames.publish(frame)
    hosts.probe.spin(0.3)
    latched(probe, PoseGraph, "graph", graph({7: moved @ here}, at))
    marker = Marker(ns="odometry")
    marker.header.frame_id = "map"
    latched(probe, MarkerArray, "markers", MarkerArray(markers=[marker]))

    topics = ("pose_graph_path", "path_1", "base_path", "graph", "camera", "keyframe", "margin")
    hosts.until(lambda: all(hosts.said(topic=topic) for topic in topics))
    hosts.until(lambda: len(hosts.said(topic="pose_graph_path")[-1]["stamps"]) >= 5)
    assert all(r["in_order"] and r["frame"] == "world" for r in hosts.said(topic="odometry_rect"))
    assert np.allclose(hosts.said(topic="odometry_rect")[-1]["correction"], moved, atol=1e-6)
    points = np.array(hosts.said(topic="keyframe")[-1]["points"])
    expected = (moved @ [[1, 0], [0, 2], [0, 0], [1, 1]])[:3].T
    np.testing.assert_allclose(points, expected, atol=1e-5)
    path = hosts.said(topic="pose_graph_path")[-1]
    assert path["frame"] == "world"
    assert path["stamps"] == sorted(path["stamps"])
    for stamp, where in zip(path["stamps"], path["where"], strict=True):
        angle = 0.05 * stamp * 10 / SECOND
        true = moved @ [5.0 * np.cos(angle), 5.0 * np.sin(angle), 0, 1]
        np.testing.assert_allclose(where, true[:2], atol=1e-4)


def test_orb_slam3s_jump_stays_out_of_odometry_and_its_keyframes_come_back_corrected(hosts, probe):
    camera = "[0.2, 0.0, 0.3, -0.5, 0.5, -0.5, 0.5]"
    hosts.start("orb_slam3", camera_in_base=camera)
    corrections = probe.publisher(TransformStamped, "map_to_odom")
    frames = probe.publisher(Keyframe, "keyframe", REMEMBERED)
    message = TransformStamped()
    message.transform.translation.y, message.transform.rotation.w = 3.0, 1.0
    corrections.publish(message)
    hosts.until(lambda: bool(hosts.said(topic="odometry", step=100)))
    steps = hosts.said(topic="odometry")
    assert all(report["frames"] == ["odom", "base_link"] for report in steps)
    moves = np.array([report["move"] for report in steps if report["move"]])
    before = np.abs(np.linalg.norm(moves, axis=1))
    assert before.max() < 0.2 + 1e-9  # 0.1 m a step, 0.2 where a message was lost
    np.testing.assert_allclose(moves[:5], np.tile([0.1, 0, 0], (5, 1)), atol=1e-6)
    hosts.until(lambda: bool(hosts.said(topic="pose")))
    assert hosts.said(topic="pose")[-1]["frame"] == "map"
    assert hosts.said(topic="pose")[-1]["apart"] == pytest.approx(3.0, abs=0.3)
    assert int(probe.status("orb_slam3_bridge")["published jumps_kept_out"]) == 1

    frame = Keyframe(id=0, has_odometry=True)
    frame.header.stamp = time_msg(2 * SECOND)
    frame.odometry.pose = pose_msg(np.eye(4))
    frame.odometry.pose.position.x = 2.0
    frames.publish(frame)
    hosts.probe.spin(0.3)
    shifted = np.eye(4)
    shifted[:2, 3] = 2.5, 3.0
    latched(probe, PoseGraph, "graph", graph({0: shifted}, {0: 2 * SECOND}))
    hosts.until(lambda: bool(hosts.said(topic="keyframes")))
    heard = hosts.said(topic="keyframes")[-1]
    assert heard["frame"] == "map"
    assert heard["steps"][:3] == [10, 20, 30]
    np.testing.assert_allclose(heard["where"][:3], [1.5, 2.5, 3.5], atol=0.02)


@pytest.mark.parametrize(
    ("bridge", "package"),
    [
        ("rtabmap", "rtabmap_msgs"),
        ("swarm_slam", "cslam_common_interfaces"),
        ("pose_graph_tools", "pose_graph_tools_msgs"),
    ],
)
def test_without_the_hosts_messages_a_bridge_says_so_and_ends_well(nodes, bridge, package):
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed here")
    child = nodes.start(bridge, package="vpr_bridges")
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert f"the message package {package} is not installed" in output
    assert len(output.strip().splitlines()) == 1
