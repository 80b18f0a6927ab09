"""The pose graph in a map: what is new and what moved is added, and all comes back."""

import numpy as np
import pytest
from saved_part import changed_part, saved_part

from vpr.config import PoseGraphConfig
from vpr.geometry import pose_from_xy_yaw, relative
from vpr.graph.edges import PoseGraphError
from vpr.graph.pose_graph import PoseGraph
from vpr.graph.storage import is_worn, load_graph, save_graph
from vpr.records import ClosureState, Keyframe, LoopClosure


def keyframe(number, x, session=0):
    descriptor = np.zeros(0, np.float32)
    return Keyframe(
        number, session, 10**9 * (number + 1), descriptor, "net@1", pose_from_xy_yaw(x, 0, 0)
    )


def closure(graph_query, reference, pose):
    return LoopClosure(
        graph_query,
        0,
        0,
        reference,
        0,
        0,
        ClosureState.VERIFIED,
        "looks älike",
        relative_pose=pose,
        covariance=np.eye(6) * 1e-4,
    )


@pytest.fixture
def graph():
    graph = PoseGraph(PoseGraphConfig.from_file())
    for i in range(20):
        graph.add_keyframe(keyframe(i, float(i)))
    return graph


def same(found, state):
    for name, array in state.arrays().items():
        np.testing.assert_allclose(found.arrays()[name], array, atol=2e-4, err_msg=name)
    assert found.metadata() == state.metadata()


def kept(folder, graph):
    return saved_part(folder, "graph", lambda writer: save_graph(writer, graph.state()))


def test_a_drive_that_goes_on_adds_only_its_rows(graph, tmp_path):
    folder = tmp_path / "map"
    same(load_graph(kept(folder, graph)), graph.state())
    graph.add_keyframe(keyframe(20, 20.0))
    part = kept(folder, graph)
    same(load_graph(part), graph.state())
    assert part.table("nodes").rows == 21
    assert "nodes_changes" not in part.tables


def test_a_closure_moves_what_was_saved_and_a_refused_one_is_kept_with_its_reason(graph, tmp_path):
    folder = tmp_path / "map"
    kept(folder, graph)
    assert graph.add_closure(closure(19, 10, pose_from_xy_yaw(8.5, 0.3, 0))).state == 1
    graph.add_closure(closure(18, 1, pose_from_xy_yaw(90.0, 0, 0)))
    part = kept(folder, graph)
    found = load_graph(part)
    same(found, graph.state())
    assert "looks älike" in [edge.reason for edge in found.edges]
    assert 0 < part.table("nodes_changes").rows < 20
    graph.add_closure(closure(17, 10, pose_from_xy_yaw(6.6, 0.3, 0)))
    same(load_graph(kept(folder, graph)), graph.state())
    same(load_graph(kept(tmp_path / "copy", graph)), graph.state())


def test_a_map_with_more_changes_than_rows_is_worn(graph, tmp_path):
    folder = tmp_path / "map"
    state = graph.state()
    for i in range(7):
        state.poses[:, 0, 3] += 0.1
        part = saved_part(folder, "graph", lambda writer: save_graph(writer, state))
        assert is_worn(part) == (i > 4)
    same(load_graph(part), state)


def test_the_map_of_another_graph_is_not_added_to(graph, tmp_path):
    folder = tmp_path / "map"
    kept(folder, graph)
    other = PoseGraph(graph.config)
    for i in range(5):
        other.add_keyframe(keyframe(i, float(i)))
    with pytest.raises(PoseGraphError, match="the map has 20 nodes, here are only 5"):
        kept(folder, other)
    for i in range(30, 50):
        other.add_keyframe(keyframe(i, float(i)))
    with pytest.raises(PoseGraphError, match="keyframes are others"):
        kept(folder, other)


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("nodes", lambda a: a.pop("poses"), "'poses' is missing"),
        ("edges", lambda a: a.update(edge_kind=a["edge_kind"] + 9), "unknown kind"),
        ("reasons", lambda a: a.update(length=a["length"] + 1), "don't add up"),
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(graph, tmp_path, table, change, words):
    graph.add_closure(closure(19, 10, relative(np.eye(4), pose_from_xy_yaw(9, 0, 0))))
    part = changed_part(
        tmp_path / "map", "graph", lambda writer: save_graph(writer, graph.state()), table, change
    )
    with pytest.raises(PoseGraphError, match=words):
        load_graph(part)
