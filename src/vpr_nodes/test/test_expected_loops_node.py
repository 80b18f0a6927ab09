"""loop_closure with depth: loops that only the graph expects, through real nodes, and its maps."""

import numpy as np
import pytest
from conftest import LATCHED, image_msg
from made_up_gallery import CAMERA_IN_BASE
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image
from test_gnn_relocalization_node import GALLERY, camera_info, depth_msg
from test_place_nodes import SECOND, descriptor, everybody_listens, odometry
from vpr_interfaces.msg import Descriptor, Keyframe, LoopClosure, PoseGraph, PoseGraphEdge
from vpr_interfaces.srv import LoadMap, SaveMap

from vpr.maps.folder import open_part
from vpr.maps.sessions import verify_map
from vpr.verification.stored_cells import StoredCells

THERE = np.arange(0.0, 4.0, 0.5)  # m along the wall
BACK = THERE[-2::-1] + 0.2


class Robot:
    """Three nodes, a camera with depth before the wall, and a place recognizer that knows none."""

    def __init__(self, probe, nodes, **loop_closure):
        self.probe = probe
        depth = {"depth_topic_used": True, "camera_in_base": CAMERA_IN_BASE}
        nodes.start("sequence_matching", min_probability=1.0)
        nodes.start("pose_graph", publish_period=0.05)
        nodes.start("loop_closure", expected_min_driven=3.6, **depth, **loop_closure)
        self.keyframes = probe.hear(Keyframe, "keyframe")
        self.closures = probe.hear(LoopClosure, "loop_closures")
        self.graphs = probe.hear(PoseGraph, "graph", LATCHED)
        self.camera = probe.publisher(Image, "camera/image_raw")
        self.depth = probe.publisher(Image, "camera/depth/image_raw")
        self.info = probe.publisher(CameraInfo, "camera/camera_info")
        self.odometry = probe.publisher(Odometry, "odometry")
        self.seen = probe.publisher(Descriptor, "descriptor")
        everybody_listens(probe)

    def drive(self, begin, positions, depth=depth_msg):
        """Keyframes along the wall, one a second; each is in the graph before the next comes.

        Odometry is off by 1 cm a second.
        """
        for second, x in enumerate(positions, begin):
            now = second * SECOND
            known = len(self.keyframes)
            self.info.publish(camera_info())
            self.depth.publish(depth(now))
            self.camera.publish(image_msg(GALLERY.view(x), now))
            self.odometry.publish(odometry(now, x + 0.01 * second))
            self.seen.publish(descriptor(now, second))
            self.probe.until(lambda wanted=known + 1: len(self.keyframes) == wanted)
            self.probe.until(
                lambda newest=self.keyframes[-1].id: (
                    bool(self.graphs) and self.graphs[-1].nodes[-1].id == newest
                )
            )
            self.probe.spin(0.2)  # until loop_closure has the graph, which the probe cannot see


def test_a_way_back_that_nothing_recognises_is_closed_by_the_map(probe, nodes, tmp_path):
    robot = Robot(probe, nodes)
    robot.drive(1, THERE)
    assert not robot.closures
    robot.drive(9, BACK)
    verified = [c for c in robot.closures if c.state == LoopClosure.VERIFIED]
    assert len(verified) > 5
    places = [*THERE, *BACK]
    for closure in verified:
        assert "the map expects" in closure.reason
        truth = places[closure.query_id] - places[closure.reference_id]
        assert closure.relative_pose.pose.position.x == pytest.approx(truth, abs=0.03)
        assert closure.probability == pytest.approx(0.98)
    probe.until(lambda: any(edge.kind == PoseGraphEdge.CLOSURE for edge in robot.graphs[-1].edges))
    newest = robot.graphs[-1].nodes[-1].pose.position.x
    assert newest == pytest.approx(BACK[-1] + 0.01, abs=0.05)  # odometry had it 15 cm off
    folder = tmp_path / "map"
    answer = probe.call(SaveMap, "save_map", SaveMap.Request(path=str(folder)))
    assert answer.ok, answer.message
    verify_map(folder)
    assert StoredCells(open_part(folder, "features")).ids.tolist() == list(range(15))
    answer = probe.call(LoadMap, "load_map", LoadMap.Request(path=str(folder)))
    assert answer.ok, answer.message


def test_depth_that_says_nothing_is_counted_and_expects_nothing(probe, nodes):
    robot = Robot(probe, nodes)

    def holes(now):
        message = depth_msg(now)
        message.data = bytes(len(message.data))
        return message

    robot.drive(1, THERE[:4], holes)
    robot.drive(5, BACK[-4:])
    assert all(c.state != LoopClosure.VERIFIED for c in robot.closures)
    probe.until(lambda: probe.status("loop_closure").get("dropped depth_unusable") == "4")
