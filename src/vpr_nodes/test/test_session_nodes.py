"""Sessions through real nodes: a carried robot goes on in the old map; sessions are edited."""

import pytest
from conftest import LATCHED
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from std_srvs.srv import Trigger
from test_place_nodes import SECOND, closure, descriptor, everybody_listens, odometry
from vpr_interfaces.msg import Descriptor, Keyframe, LoopClosure, PlaceMatches, PoseGraph
from vpr_interfaces.srv import AdoptModel, EditSession, ListSessions, LoadMap, SaveMap

from vpr.maps.folder import open_part, read_manifest
from vpr.maps.sessions import verify_map
from vpr.models.descriptor_model import DescriptorModel
from vpr.models.head import DescriptorHead
from vpr.places.memory import PlaceMemory

SUITE = ("sequence_matching", "loop_closure", "pose_graph")
DRIVE = 12  # keyframes


class Suite:
    """The three nodes of a map and what they say; drives are 1 m a second."""

    def __init__(self, probe, nodes, **pose_graph):
        self.probe = probe
        extra = {"pose_graph": {"publish_period": 0.05} | pose_graph}
        self.children = [nodes.start(name, **extra.get(name, {})) for name in SUITE]
        self.keyframes = probe.hear(Keyframe, "keyframe")
        self.matches = probe.hear(PlaceMatches, "matches")
        self.graphs = probe.hear(PoseGraph, "graph", LATCHED)
        self.corrections = probe.hear(TransformStamped, "map_to_odom")
        self.jumps = probe.hear(TransformStamped, "map_to_odom_jump")
        self.seen = probe.publisher(Descriptor, "descriptor")
        self.pose = probe.publisher(Odometry, "odometry")
        self.closures = probe.publisher(LoopClosure, "loop_closures")
        everybody_listens(probe)

    def drive(self, begin, x, places):
        """See some places one after the other, from an odometry position on."""
        for i, place in enumerate(places):
            wanted = len(self.keyframes) + 1
            self.pose.publish(odometry((begin + i) * SECOND, x + i))
            self.seen.publish(descriptor((begin + i) * SECOND, place))
            self.probe.until(lambda n=wanted: len(self.keyframes) == len(self.matches) == n)
        self.probe.until(
            lambda: bool(self.graphs) and self.graphs[-1].nodes[-1].id == self.keyframes[-1].id
        )

    def sessions(self):
        return self.probe.call(ListSessions, "list_sessions", ListSessions.Request()).sessions

    def edit(self, service, session, closures=()):
        request = EditSession.Request(session=session, closures=list(closures))
        return self.probe.call(EditSession, service, request)

    def close(self, query, reference, x, session):
        """Tie the newest session by closures of two keyframes, and wait until it has its place."""
        for back in (1, 0):
            self.closures.publish(tie(query - back, reference - back, x, session))
        self.probe.until(lambda: self.graphs[-1].nodes[-1].anchored)


def tie(query, reference, x, session):
    message = closure(query, reference, x)
    message.query_session = session
    return message


@pytest.fixture
def suite(probe, nodes):
    """The robot drove the map, was carried 1 km by its odometry, and found its place again."""
    suite = Suite(probe, nodes)
    suite.drive(1, 0, range(DRIVE))
    suite.drive(DRIVE + 1, 1000, range(3, 3 + 8))
    assert [k.session for k in suite.keyframes] == [0] * DRIVE + [1] * 8
    assert not suite.graphs[-1].nodes[-1].anchored
    return suite


def test_a_carried_robot_relocalizes_and_goes_on_in_the_old_map(probe, suite):
    best = suite.matches[-1].candidates[0]
    assert (best.reference_id, best.reference_session) == (10, 0)
    suite.close(19, best.reference_id, 0.5, session=1)
    newest = suite.graphs[-1].nodes[-1]
    assert newest.pose.position.x == pytest.approx(10.5, abs=0.05)
    probe.until(lambda: bool(suite.corrections))
    shift = suite.corrections[-1].transform.translation.x
    assert shift == pytest.approx(10.5 - 1007.0, abs=0.05)
    (jump,) = suite.jumps  # from where session 0 had it, the identity
    assert jump.transform.translation.x == pytest.approx(shift)
    suite.drive(DRIVE + 9, 1008, [40, 41])  # beyond what was mapped
    assert suite.graphs[-1].nodes[-1].anchored
    assert suite.graphs[-1].nodes[-1].pose.position.x == pytest.approx(12.5, abs=0.05)


def test_a_robot_carried_unseen_by_its_odometry_begins_a_session_when_told(probe, suite):
    answer = probe.call(Trigger, "begin_session", Trigger.Request())
    assert answer.success
    assert answer.message == "the next keyframe begins session 2"
    suite.drive(DRIVE + 9, 1008, range(8))
    assert suite.keyframes[-1].session == 2
    assert suite.matches[-1].candidates[0].reference_id == 7
    suite.close(suite.keyframes[-1].id, 7, 0.0, session=2)
    assert suite.graphs[-1].nodes[-1].pose.position.x == pytest.approx(7.0, abs=0.05)


def test_sessions_are_listed_reanchored_and_deleted_and_the_map_keeps_that(probe, suite, tmp_path):
    suite.close(19, 10, 0.5, session=1)
    assert [(s.id, s.keyframes, s.anchored, s.closures) for s in suite.sessions()] == [
        (0, 12, True, 2),
        (1, 8, True, 2),
    ]
    assert suite.edit("reanchor_session", 1).message.endswith("waits for its first closure")
    assert [s.anchored for s in suite.sessions()] == [True, False]
    answer = suite.edit("reanchor_session", 1, [tie(12, 3, 0.0, session=1)])
    assert answer.message.endswith("is in its place")
    assert not suite.edit("delete_session", 9).ok
    assert "is being driven" in suite.edit("delete_session", 1).message

    probe.call(Trigger, "begin_session", Trigger.Request())
    suite.drive(DRIVE + 9, 0, range(8))
    folder = str(tmp_path / "map")
    assert probe.call(SaveMap, "save_map", SaveMap.Request(path=folder)).keyframes == 28
    answer = suite.edit("delete_session", 1)
    assert answer.ok, answer.message
    assert [s.id for s in suite.sessions()] == [0, 2]
    assert probe.call(SaveMap, "save_map", SaveMap.Request(path=folder)).keyframes == 20
    assert probe.call(LoadMap, "load_map", LoadMap.Request(path=folder)).ok
    assert [s.id for s in suite.sessions()] == [0, 2]
    suite.drive(2000, 0, range(8))
    found = {c.reference_session for m in suite.matches[-8:] for c in m.candidates}
    assert found <= {0, 2}
    assert found


def test_a_map_grows_on_disk_while_driving_and_outlives_nodes_that_are_killed(
    probe, nodes, tmp_path
):
    folder = tmp_path / "map"
    suite = Suite(probe, nodes, autosave_period=0.2)
    suite.drive(1, 0, range(5))
    assert probe.call(SaveMap, "save_map", SaveMap.Request(path=str(folder))).ok
    suite.drive(6, 5, range(5, 30))
    probe.until(lambda: {part.count for part in read_manifest(folder).parts} == {30})
    for child in suite.children:
        child.kill()
    assert verify_map(folder).saves > 1


def test_a_map_is_written_anew_once_its_places_are_described_by_a_trained_model(
    probe, nodes, tmp_path
):
    trained = DescriptorModel("net@1", (DescriptorHead("linear", 64, 16, normalised=True).eval(),))
    trained.save(tmp_path / "trained.safetensors")
    suite = Suite(probe, nodes)
    suite.drive(1, 0, range(5))
    folder = tmp_path / "map"
    save = SaveMap.Request(path=str(folder))
    assert probe.call(SaveMap, "save_map", save).ok
    request = AdoptModel.Request(path=str(tmp_path / "trained.safetensors"))
    assert probe.call(AdoptModel, "sequence_matching/adopt_model", request).redescribed == 5
    answer = probe.call(SaveMap, "save_map", save)
    assert answer.ok, answer.message
    manifest = verify_map(folder)
    assert (manifest.revision, manifest.model) == ("000002", trained.name)
    suite.drive(6, 5, range(5, 8))
    assert probe.call(SaveMap, "save_map", save).ok
    assert (read_manifest(folder).revision, read_manifest(folder).saves) == ("000002", 2)
    assert probe.call(LoadMap, "load_map", LoadMap.Request(path=str(folder))).keyframes == 8
    places = PlaceMemory.of_map(open_part(folder, "places"))
    assert (places.model, places.dimension, len(places)) == (trained.name, 16, 8)
