"""Sessions of a map on disk: merged, deleted, anchored anew, and exported."""

import json

import cv2
import gtsam
import numpy as np
import pymap3d
import pytest
from typer.testing import CliRunner

from vpr.cli import app
from vpr.config import LoopClosureConfig, PoseGraphConfig, SequenceMatchingConfig
from vpr.geometry import pose_from_xy_yaw, quaternion_of
from vpr.graph.edges import PoseGraphError
from vpr.graph.pose_graph import PoseGraph
from vpr.graph.sessions import summaries
from vpr.graph.storage import load_graph, save_graph
from vpr.maps.anchoring import MapMatcher
from vpr.maps.export import export_map
from vpr.maps.folder import MapError, PartWriter, begin_revision, commit, open_part, read_manifest
from vpr.maps.sessions import delete_session, merge_maps, reanchor_session, verify_map
from vpr.places.memory import PlaceMemory
from vpr.places.recognizer import PlaceRecognizer
from vpr.records import CameraModel, ClosureState, GpsFix, LoopClosure
from vpr.verification.depth_cells import HEIGHT, WIDTH, DepthCells
from vpr.verification.features import LocalFeatures, thumbnail_of
from vpr.verification.loop_closer import LoopCloser
from vpr.verification.state import StoredFeatures

MODEL, SECOND = "net@1", 10**9
ONE_CLOSURE_JOINS = PoseGraphConfig.from_file(joining_closures=1)
CAMERA = CameraModel(640, 480, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]))
ORIGIN = (48.1, 11.5, 500.0)
HEADING = 0.7  # of the map's x axis, from east


def place(number):
    values = np.random.default_rng(number).normal(size=16).astype(np.float32)
    return values / np.linalg.norm(values)


def features(number):
    count = 3 + number % 5
    random = np.random.default_rng(number)
    return LocalFeatures(
        random.uniform(0, 400, (count, 2)).astype(np.float32),
        np.ones(count, np.float32),
        np.full(count, number, np.float32),
        random.integers(0, 255, (count, 32), np.uint8),
        np.full(count, np.nan, np.float32),
        CAMERA,
        thumbnail_of(random.integers(0, 255, (30, 40, 3), np.uint8), 20 + number % 3),
        None if number % 5 else seen_cells(random),
    )


def seen_cells(random):
    size = (HEIGHT, WIDTH)
    near = random.uniform(0.1, 1.0, size).astype(np.float16)
    return DepthCells(near, random.integers(0, 255, size, np.uint8))


def assert_same_features(found, expected):
    np.testing.assert_array_equal(found.descriptors, expected.descriptors)
    np.testing.assert_array_equal(found.thumbnail, expected.thumbnail)
    assert (found.cells is None) == (expected.cells is None)
    if expected.cells is not None:
        np.testing.assert_array_equal(found.cells.near, expected.cells.near)
        np.testing.assert_array_equal(found.cells.shown, expected.cells.shown)


def fix(x):
    east, north = x * np.cos(HEADING), x * np.sin(HEADING)
    return GpsFix(*(float(v) for v in pymap3d.enu2geodetic(east, north, 0.0, *ORIGIN)))


def closure(query, reference, pose):
    return LoopClosure(
        query,
        0,
        0,
        reference,
        0,
        0,
        ClosureState.VERIFIED,
        "same houses",
        relative_pose=pose,
        covariance=np.eye(6) * 1e-4,
    )


class Suite:
    """The three engines as the nodes drive them, along x, a keyframe a metre."""

    def __init__(self):
        self.recognizer = PlaceRecognizer(SequenceMatchingConfig.from_file())
        self.closer = LoopCloser(LoopClosureConfig.from_file())
        self.graph = PoseGraph(ONE_CLOSURE_JOINS)

    def drive(self, first, count, offset=0.0):
        """``offset`` is where the session's odometry believes to start."""
        session = self.recognizer.begin_session()
        for i in range(count):
            seen = self.recognizer.observe(
                SECOND * (1000 * session + i + 1),
                place(first + i),
                MODEL,
                odometry=pose_from_xy_yaw(offset + i, 0, 0),
                fix=fix(first + i),
                frame_id=f"camera{session}",
            )
            self.graph.add_keyframe(seen.keyframe)
            self.closer.add_keyframe(seen.keyframe, features(first + i) if i else None)

    def tie(self, query, reference, x):
        return self.graph.add_closure(closure(query, reference, pose_from_xy_yaw(x, 0, 0)))

    def save(self, folder):
        revision = begin_revision(folder)
        digests = []
        for name, save in (
            ("features", self.closer.save),
            ("places", self.recognizer.save),
            ("graph", lambda writer: save_graph(writer, self.graph.state())),
        ):
            with PartWriter(folder, revision, name) as writer:
                digests.append(save(writer))
        commit(folder, revision, digests, MODEL)
        return folder


@pytest.fixture
def three(tmp_path):
    """Sessions of 30, 20 and 10 keyframes: 1 tied to 0, 2 tied to 1 alone."""
    suite = Suite()
    suite.drive(0, 30)
    suite.drive(5, 20, offset=100.0)
    suite.drive(10, 10, offset=-50.0)
    suite.tie(30, 5, 0.0)
    suite.tie(50, 35, 0.0)
    return suite.save(tmp_path / "map")


@pytest.fixture
def other(tmp_path):
    suite = Suite()
    suite.drive(8, 15, offset=7.0)
    return suite.save(tmp_path / "other")


def graph_of(folder):
    return load_graph(open_part(folder, "graph"))


def table_of(folder):
    return {s.session: (s.keyframes, s.anchored, dict(s.ties)) for s in summaries(graph_of(folder))}


def test_sessions_are_listed(three):
    assert table_of(three) == {
        0: (30, True, {1: 1}),
        1: (20, True, {0: 1, 2: 1}),
        2: (10, True, {1: 1}),
    }
    first = summaries(graph_of(three))[0]
    assert first.metres == pytest.approx(29.0, abs=0.1)
    assert (first.last_ns - first.first_ns) == 29 * SECOND


def test_a_session_is_deleted_from_every_part_and_what_hung_on_it_waits(three):
    delete_session(three, 1)
    verify_map(three)
    assert table_of(three) == {0: (30, True, {}), 2: (10, False, {})}
    memory = PlaceMemory.of_map(open_part(three, "places"))
    assert memory.column("ids").tolist() == [*range(30), *range(50, 60)]
    np.testing.assert_allclose(memory.descriptor(30), place(10), atol=1e-3)
    stored = StoredFeatures(open_part(three, "features"))
    assert len(stored) == 40
    for keyframe, seen in ((3, 3), (50, None), (55, 15)):
        _, found, _ = stored.remembered(stored.index_of(keyframe))
        assert (found is None) == (seen is None)
        if found is not None:
            assert_same_features(found, features(seen))
    assert [part.count for part in read_manifest(three).parts] == [40, 40, 40]


def test_the_first_session_can_be_deleted_and_the_next_is_the_map(three):
    delete_session(three, 0)
    assert table_of(three) == {1: (20, True, {2: 1}), 2: (10, True, {1: 1})}


def test_a_session_that_is_not_there_is_named(three):
    with pytest.raises(PoseGraphError, match=r"no session 7 \(it has: 0, 1, 2\)"):
        delete_session(three, 7)
    with pytest.raises(PoseGraphError, match="no session 7"):
        reanchor_session(three, 7)
    verify_map(three)


def test_an_untied_session_waits_and_keeps_its_refused_ties(three):
    reanchor_session(three, 1)
    assert table_of(three) == {0: (30, True, {}), 1: (20, False, {2: 1}), 2: (10, False, {1: 1})}
    refused = [e for e in graph_of(three).edges if e.state is ClosureState.REJECTED]
    assert [(e.from_id, e.to_id) for e in refused] == [(5, 30)]
    assert "anchored anew" in refused[0].reason
    verify_map(three)


def test_a_session_placed_by_hand_goes_there_with_all_that_hangs_on_it(three):
    pose = pose_from_xy_yaw(12.0, 3.0, 0.1)
    reanchor_session(three, 1, pose, np.eye(6) * 0.01)
    state = graph_of(three)
    assert (state.pieces == 0).all()
    graph = PoseGraph.restore(PoseGraphConfig.from_file(), state)
    nodes = {node.id: node for node in graph.nodes()}
    np.testing.assert_allclose(nodes[30].pose, pose, atol=1e-3)
    np.testing.assert_allclose(nodes[50].pose, pose @ pose_from_xy_yaw(5, 0, 0), atol=0.05)
    assert all(node.anchored for node in nodes.values())


def test_a_pose_that_cannot_be_used_is_refused(three):
    with pytest.raises(PoseGraphError, match="not finite"):
        reanchor_session(three, 1, np.full((4, 4), np.nan), np.eye(6))
    with pytest.raises(PoseGraphError, match="all zero"):
        reanchor_session(three, 1, np.eye(4), np.zeros((6, 6)))
    assert table_of(three)[1][1]


def test_maps_merge_and_nothing_is_lost(three, other, tmp_path):
    folder = tmp_path / "both"
    merge_maps(folder, [three, other, other])
    verify_map(folder)
    assert {s: row[:2] for s, row in table_of(folder).items()} == {
        0: (30, True),
        1: (20, True),
        2: (10, True),
        3: (15, False),
        4: (15, False),
    }
    memory = PlaceMemory.of_map(open_part(folder, "places"))
    assert memory.column("ids").tolist() == list(range(90))
    assert memory.session_starts.tolist() == [0, 30, 50, 60, 75]
    np.testing.assert_allclose(memory.descriptor(77), place(10), atol=1e-3)
    stored = StoredFeatures(open_part(folder, "features"))
    for keyframe, seen in ((5, 5), (7, 7), (77, 10), (82, 15)):
        _, found, _ = stored.remembered(stored.index_of(keyframe))
        assert_same_features(found, features(seen))
    frames = open_part(folder, "places")
    names = np.array(frames.metadata["frame_ids"])[frames.table("keyframes").arrays()["frames"]]
    assert names[[0, 30, 50, 60]].tolist() == ["camera0", "camera1", "camera2", "camera0"]
    again = PoseGraph.restore(ONE_CLOSURE_JOINS, graph_of(folder))
    verdict = again.add_closure(closure(60, 8, np.eye(4)))
    assert verdict.anchored_sessions == (3,)


def test_maps_that_do_not_go_together_are_refused(three, other, tmp_path):
    with pytest.raises(MapError, match="two maps or more"):
        merge_maps(tmp_path / "out", [three])
    with pytest.raises(MapError, match="holds a map already"):
        merge_maps(other, [three, other])
    document = json.loads((other / "manifest.json").read_text())
    suite = Suite()
    suite.drive(0, 3)
    strange = suite.save(tmp_path / "strange")
    manifest = read_manifest(strange)
    commit(strange, manifest.revision, manifest.parts, "other@2", manifest)
    with pytest.raises(MapError, match="made with model 'other@2', not with 'net@1'"):
        merge_maps(tmp_path / "out", [three, strange])
    assert json.loads((other / "manifest.json").read_text()) == document


def test_a_session_that_was_forgotten_stays_so_in_a_merged_map(three, tmp_path):
    suite = Suite()
    suite.drive(0, 5)
    suite.drive(0, 5)
    suite.recognizer.forget_session(0)
    second = suite.save(tmp_path / "second")
    merge_maps(tmp_path / "merged", [three, second])
    sessions = len(summaries(graph_of(three)))
    metadata = open_part(tmp_path / "merged", "places").metadata
    assert metadata["forgotten_sessions"] == [sessions]


def test_waiting_sessions_are_matched_in_order_against_the_anchored_ones(three, other, tmp_path):
    """The features here are too few for any closure; what is searched is what counts."""
    folder = tmp_path / "both"
    merge_maps(folder, [three, other])
    seen = []
    matcher = MapMatcher(folder, progress=lambda done, count, session: seen.append(session))
    asked = []
    matcher._closer.verify = lambda matches: asked.append(matches) or []
    result = matcher.anchor()
    assert (result.closures, result.anchored, result.waiting) == (0, (), (3,))
    assert seen == [3] * 15
    assert {m.query_session for m in asked} == {3}
    assert asked[-1].searched == 60
    assert asked[-1].candidates[0].reference_id in (22, 47)  # the same place in sessions 0 and 1


def test_tum_holds_what_is_in_the_map_in_order_of_time(three, tmp_path):
    reanchor_session(three, 2)
    assert export_map(three, tmp_path / "out" / "map.tum", "tum") == 50
    rows = np.loadtxt(tmp_path / "out" / "map.tum")
    state = graph_of(three)
    assert rows.shape == (50, 8)
    assert (np.diff(rows[:, 0]) > 0).all()
    np.testing.assert_allclose(rows[:, 1:4], state.poses[:50, :3, 3], atol=1e-6)
    np.testing.assert_allclose(rows[7, 4:], quaternion_of(state.poses[7]), atol=1e-6)


def test_g2o_is_read_back_as_the_same_graph(three, tmp_path):
    assert export_map(three, tmp_path / "map.g2o", "g2o") == 60
    graph, values = gtsam.readG2o(str(tmp_path / "map.g2o"), True)
    state = graph_of(three)
    assert values.size() == 60
    assert graph.size() == sum(e.state is ClosureState.VERIFIED for e in state.edges)
    np.testing.assert_allclose(values.atPose3(33).matrix(), state.poses[33], atol=1e-5)
    first = next(e for e in state.edges if (e.from_id, e.to_id) == (5, 30))
    factor = next(graph.at(i) for i in range(graph.size()) if list(graph.at(i).keys()) == [5, 30])
    covariance = np.linalg.inv(factor.noiseModel().information())
    np.testing.assert_allclose(
        np.diag(covariance), np.diag(first.covariance)[[3, 4, 5, 0, 1, 2]], rtol=1e-5
    )
    np.testing.assert_allclose(factor.measured().matrix(), first.measured, atol=1e-5)


def test_ply_has_a_point_a_keyframe_and_a_line_an_edge(three, tmp_path):
    assert export_map(three, tmp_path / "map.ply", "ply") == 60
    content = (tmp_path / "map.ply").read_bytes()
    header, body = content.split(b"end_header\n", 1)
    assert b"element vertex 60" in header
    assert b"element edge 59" in header  # 29 + 19 + 9 steps and two closures
    assert len(body) == 60 * (12 + 3 + 8) + 59 * 8
    x = np.frombuffer(body[23 * 29 :], "<f4", 1)[0]
    assert x == pytest.approx(29.0, abs=0.05)


def test_closures_are_drawn_by_their_thumbnails(three, tmp_path):
    with pytest.raises(MapError, match="no closure between keyframes with thumbnails"):
        export_map(three, tmp_path / "none.png", "png")  # both its closures lost an image
    suite = Suite()
    suite.drive(0, 8)
    suite.drive(2, 4)
    suite.tie(9, 3, 0.0)
    export_map(suite.save(tmp_path / "seen"), tmp_path / "closures.png", "png")
    sheet = cv2.imread(str(tmp_path / "closures.png"))
    assert min(sheet.shape[:2]) > 200


def test_geojson_lies_where_the_fixes_were(three, tmp_path):
    assert export_map(three, tmp_path / "map.geojson", "geojson") == 60
    document = json.loads((tmp_path / "map.geojson").read_text())
    lines = document["features"]
    assert [line["properties"]["session"] for line in lines] == [0, 1, 2]
    for line, first in zip(lines, (0, 5, 10), strict=True):
        for i, (longitude, latitude, altitude) in enumerate(line["geometry"]["coordinates"]):
            truth = fix(first + i)
            away = pymap3d.geodetic2enu(
                latitude, longitude, altitude, truth.latitude, truth.longitude, truth.altitude
            )
            assert np.linalg.norm(away) < 0.2


def test_a_map_without_fixes_or_of_an_unknown_format_is_not_exported(other, tmp_path):
    suite = Suite()
    suite.graph.add_keyframe(
        suite.recognizer.observe(SECOND, place(0), MODEL, odometry=np.eye(4)).keyframe
    )
    bare = suite.save(tmp_path / "bare")
    with pytest.raises(MapError, match="only 0 keyframes of the map have a fix"):
        export_map(bare, tmp_path / "x.geojson", "geojson")
    with pytest.raises(MapError, match="'kml' is none of the formats tum"):
        export_map(other, tmp_path / "x.kml", "kml")
    assert not list(tmp_path.glob("x.*"))


def test_the_command_line_does_all_of_it(three, other, tmp_path):
    def run(*arguments, status=0):
        result = CliRunner().invoke(app, ["map", *map(str, arguments)])
        assert result.exit_code == status, result.output
        return result.output

    both = tmp_path / "both"
    assert "75 keyframes of 2 maps" in run("merge", both, three, other, "--no-search")
    assert "is sound" in run("verify", both)
    listing = run("info", both)
    assert "keypoints" in listing
    assert "waits for a closure" in listing
    assert "waiting: 3" in run("anchor", both)
    pose = ["8", "0", "0", "0", "0", "0", "1"]
    assert "session 3 placed" in run("reanchor", both, 3, "--pose", *pose)
    assert "waits" not in run("sessions", both)
    assert "75 keyframes" in run("export", both, tmp_path / "all.g2o")
    assert "55 keyframes remain" in run("delete-session", both, 1)
    assert "no session 1" in run("delete-session", both, 1, status=2)
    (both / read_manifest(both).revision / "places.keyframes.descriptors").write_bytes(b"")
    assert "places.keyframes.descriptors" in run("verify", both, status=2)
