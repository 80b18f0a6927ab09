"""gnn_relocalization: live matches and poses, the service relocalize, maps, and every refusal."""

import numpy as np
import pytest
from conftest import LATCHED, PATIENCE, image_msg
from geometry_msgs.msg import PoseWithCovarianceStamped
from made_up_gallery import CAMERA, CAMERA_IN_BASE, Gallery, save_model
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from test_place_nodes import SECOND, descriptor, keyframe, odometry
from vpr_interfaces.msg import Descriptor, Keyframe, PlaceMatch, PlaceMatches, PoseGraph
from vpr_interfaces.msg import PoseGraphNode as PoseGraphNodeMsg
from vpr_interfaces.srv import LoadMap, Relocalize, SaveMap, VerifyImage

from vpr.maps.folder import read_manifest
from vpr.maps.sessions import verify_map

GALLERY = Gallery()
DRIVE = np.arange(0.0, 8.0, 0.5)  # m along the wall


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "s3e.safetensors")


def depth_msg(stamp_ns):
    message = image_msg(GALLERY.depth().view(np.uint8), stamp_ns, "16UC1")
    message.width = CAMERA.width
    return message


def camera_info(cx=160.0, width=CAMERA.width):
    message = CameraInfo(width=width, height=CAMERA.height)
    message.k = [200.0, 0.0, cx, 0.0, 200.0, 120.0, 0.0, 0.0, 1.0]
    return message


def relocalize(probe, image=None, depth=True, **fields):
    """Ask for an image's place; without one, for the live camera's."""
    request = Relocalize.Request(live_camera=image is None, **fields)
    if image is not None:
        request.image = image_msg(image, 77 * SECOND)
        request.depth = depth_msg(77 * SECOND) if depth else Image()
    return probe.call(Relocalize, "relocalize", request)


def relocalize_in_time(probe, *image, **fields):
    """As ``relocalize``, once loop_closure has been found."""
    answers = []

    def found():
        answers.append(relocalize(probe, *image, **fields))
        return "is not running" not in answers[-1].reason

    probe.until(found)
    return answers[-1]


class Robot:
    """The four nodes that a relocalizing robot needs, and a camera before the wall."""

    def __init__(self, probe, nodes, model, **parameters):
        self.probe = probe
        own = {
            "sequence_matching": {"exclude_recent_time": 0.0},
            "loop_closure": {"depth_topic_used": True, "camera_in_base": CAMERA_IN_BASE},
            "pose_graph": {"publish_period": 0.05},
            "gnn_relocalization": {
                "depth_topic_used": True, "s3e_model": model, "candidate_separation": 2,
                "exclude_recent_time": 0.0, "min_probability": 0.0,
            },
        }  # fmt: skip
        self.children = [nodes.start(n, **values, **parameters) for n, values in own.items()]
        self.keyframes = self._heard(Keyframe, "keyframe")
        self.matches = self._heard(PlaceMatches, "gnn_matches")
        self.poses = self._heard(PoseWithCovarianceStamped, "relocalization_pose")
        self.graphs = self._heard(PoseGraph, "graph", LATCHED)
        self.camera = probe.publisher(Image, "camera/image_raw")
        self.depth = probe.publisher(Image, "camera/depth/image_raw")
        self.info = probe.publisher(CameraInfo, "camera/camera_info")
        self.seen = probe.publisher(Descriptor, "descriptor")
        self.odometry = probe.publisher(Odometry, "odometry")
        probe.until(
            lambda: (
                probe.node.count_subscribers("/camera/image_raw") == 2
                and probe.node.count_subscribers("/camera/depth/image_raw") == 2
                and probe.node.count_subscribers("/keyframe") == 4
                and probe.node.count_subscribers("/graph") == 3
            ),
            3 * PATIENCE,  # four processes begin at once
        )
        probe.spin(2.0)  # until the nodes have found each other too

    def _heard(self, message_type, topic, qos=100):
        """What is heard on a topic, also by the robot before this one."""
        known = self.probe.heard.get(topic)
        return self.probe.hear(message_type, topic, qos) if known is None else known

    def look(self, second, x):
        """One frame of the camera."""
        self.info.publish(camera_info())
        self.depth.publish(depth_msg(second * SECOND))
        self.camera.publish(image_msg(GALLERY.view(x), second * SECOND))

    def drive(self, begin, positions, carried=0.0):
        """Keyframes along the wall, one a second; odometry is off by how far it was carried."""
        known = len(self.keyframes)
        for i, x in enumerate(positions):
            wanted = known + i + 1
            self.look(begin + i, x)
            self.odometry.publish(odometry((begin + i) * SECOND, x + carried))
            self.seen.publish(descriptor((begin + i) * SECOND, (begin + i) * 1000))
            self.probe.until(lambda n=wanted: len(self.keyframes) == n)
            self.probe.until(self._embedded)  # faster than it sees, images would be lost
        newest = self.keyframes[-1].id
        self.probe.until(lambda: bool(self.graphs) and self.graphs[-1].nodes[-1].id == newest)

    def _embedded(self):
        status = self.probe.status("gnn_relocalization")
        return status.get("keyframes_in_graph") == str(self.keyframes[-1].id + 1)


def x_of(pose):
    return pose.pose.pose.position.x


def test_a_carried_robot_is_found_live_and_by_the_service(probe, nodes, model):
    robot = Robot(probe, nodes, model)
    robot.drive(1, DRIVE)
    assert not robot.poses
    robot.drive(17, DRIVE[4:12], carried=500.0)  # 500 m in a second
    assert robot.keyframes[-1].session == 1
    probe.until(lambda: len(robot.poses) >= 3 and robot.graphs[-1].nodes[-1].anchored)
    assert robot.matches[-1].candidates[0].source == PlaceMatch.GNN
    truth = {17 + i: x for i, x in enumerate(DRIVE[4:12])}
    for pose in robot.poses:
        assert pose.header.frame_id == "map"
        assert x_of(pose) == pytest.approx(truth[pose.header.stamp.sec], abs=0.15)
        assert np.diag(np.reshape(pose.pose.covariance, (6, 6))).min() > 0.0

    answer = relocalize(probe, GALLERY.view(5.1), camera_info=camera_info())
    assert answer.ok, answer.reason
    assert x_of(answer.pose) == pytest.approx(5.1, abs=0.08)
    assert (answer.pose.header.stamp.sec, answer.pose.header.frame_id) == (77, "map")
    assert answer.searched == len(robot.keyframes)
    assert answer.inliers >= 36
    assert 0.0 < answer.probability <= 1.0
    robot.look(120, 1.1)  # no keyframe: the robot stands where it was put
    probe.spin(0.5)
    answer = relocalize(probe)
    assert answer.ok, answer.reason
    assert answer.pose.header.stamp.sec == 120
    assert x_of(answer.pose) == pytest.approx(1.1, abs=0.08)


def test_what_cannot_be_relocalized_is_answered_with_the_reason(probe, nodes, model):
    robot = Robot(probe, nodes, model)
    robot.drive(1, DRIVE[:8])
    known = GALLERY.view(2.0)
    for said, answer in {
        "none of": relocalize(probe, Gallery(seed=9).view(3.0)),
        "blank": relocalize(probe, np.full_like(known, 80)),
        "no image was given": probe.call(Relocalize, "relocalize", Relocalize.Request()),
        "principal point": relocalize(probe, known, camera_info=camera_info(cx=900.0)),
        "a crop whose intrinsics": relocalize(probe, known, camera_info=camera_info(width=640)),
    }.items():
        assert not answer.ok
        assert said in answer.reason
    answer = relocalize(probe, known, depth=False, camera_info=camera_info())
    assert answer.ok, answer.reason
    hole = Relocalize.Request(image=image_msg(known, SECOND), depth=depth_msg(SECOND))
    hole.depth.data = bytes(len(hole.depth.data))
    answer = probe.call(Relocalize, "relocalize", hole)
    assert "measures nothing" in answer.reason
    probe.until(
        lambda: probe.status("gnn_relocalization").get("published relocalize refused") == "5"
    )
    robot.camera.publish(image_msg(np.full_like(known, 80), 50 * SECOND))
    robot.seen.publish(descriptor(50 * SECOND, 1))
    probe.until(lambda: probe.status("gnn_relocalization").get("dropped blank_image") == "1")
    assert all(child.poll() is None for child in robot.children)


def test_a_map_saved_and_loaded_relocalizes_and_one_without_scenes_says_why_not(
    probe, nodes, model, tmp_path
):
    robot = Robot(probe, nodes, model)
    robot.drive(1, DRIVE[:10])
    folder, bare = tmp_path / "map", tmp_path / "bare"
    answer = probe.call(SaveMap, "save_map", SaveMap.Request(path=str(folder)))
    assert answer.ok, answer.message
    assert verify_map(folder).part("scenes").count == 10
    robot.drive(11, DRIVE[10:12])
    assert probe.call(SaveMap, "save_map", SaveMap.Request(path=str(folder))).ok
    assert (read_manifest(folder).saves, read_manifest(folder).part("scenes").count) == (2, 12)
    *_, relocalizer = robot.children
    relocalizer.terminate()
    relocalizer.communicate(timeout=20)
    probe.until(lambda: probe.node.count_subscribers("/keyframe") == 3)
    probe.spin(1.0)  # until pose_graph knows it too
    assert probe.call(SaveMap, "save_map", SaveMap.Request(path=str(bare))).ok
    assert not read_manifest(bare).has("scenes")
    nodes.stop()
    probe.until(lambda: probe.node.count_subscribers("/keyframe") == 1)

    woken = Robot(probe, nodes, model, map=str(folder))
    probe.until(lambda: "received graph" in probe.status("gnn_relocalization"))
    answer = relocalize_in_time(probe, GALLERY.view(3.1), camera_info=camera_info())
    assert answer.ok, answer.reason
    assert x_of(answer.pose) == pytest.approx(3.1, abs=0.08)
    assert (answer.session, answer.searched) == (0, 12)
    answer = probe.call(LoadMap, "load_map", LoadMap.Request(path=str(bare)))
    assert answer.ok, answer.message
    answer = relocalize(probe, GALLERY.view(3.1), camera_info=camera_info())
    assert not answer.ok
    assert "has no scenes" in answer.reason
    assert probe.call(LoadMap, "load_map", LoadMap.Request(path=str(folder))).ok
    assert probe.call(Trigger, "begin_session", Trigger.Request()).success
    woken.drive(300, DRIVE[2:8], carried=70.0)
    probe.until(lambda: bool(woken.poses))
    assert x_of(woken.poses[-1]) == pytest.approx(
        DRIVE[2 + woken.poses[-1].header.stamp.sec - 300], abs=0.15
    )


def test_what_is_missing_around_the_node_is_said(probe, nodes, model):
    nodes.start("gnn_relocalization", s3e_model=model, verification_timeout=0.5)
    assert "no image has come" in relocalize(probe).reason
    image = GALLERY.view(1.0)
    assert "pose_graph has told of no keyframe" in relocalize(probe, image).reason
    camera = probe.publisher(Image, "camera/image_raw")
    keyframes = probe.publisher(Keyframe, "keyframe", LATCHED)
    graph = probe.publisher(PoseGraph, "graph", LATCHED)
    camera.publish(image_msg(image, SECOND))
    keyframes.publish(keyframe(0, SECOND, 1.0))
    probe.until(lambda: probe.status("gnn_relocalization").get("keyframes_in_graph") == "1")
    place = PoseGraphNodeMsg(id=0, anchored=True)
    place.pose.orientation.w = 1.0
    graph.publish(PoseGraph(nodes=[place]))
    probe.until(lambda: probe.status("gnn_relocalization").get("received graph") == "1")
    assert "loop_closure is not running" in relocalize(probe, image).reason
    silent = Node("silent", context=probe.context)  # never spun: it never answers
    silent.create_service(VerifyImage, "loop_closure/verify_image", lambda _, answer: answer)
    probe.spin(1.0)
    assert "did not answer within" in relocalize(probe, image).reason
    silent.destroy_node()


def test_it_does_not_start_without_a_model(nodes):
    child = nodes.start("gnn_relocalization", s3e_model="")
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert "vpr train s3e" in output
