"""Reading g2o files strictly, writing them back, and optimizing them."""

import json
import re
from pathlib import Path

import gtsam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from vpr.cli import app
from vpr.graph.g2o import G2oError, read_g2o, write_g2o
from vpr.graph.optimization import optimize
from vpr.graph.outliers import with_false_closures
from vpr.graph.pairwise import consistent_closures
from vpr.graph.retrial import gate_of
from vpr.graph.solution import UnsolvableGraph

G2O = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "g2o"
INFORMATION = "100 0 0 100 0 1000"


def laps(count=80, a_lap=40, noise=0.0, seed=0):
    """Two laps of a square-ish drive in the plane with closures in the second, as g2o lines."""
    rng = np.random.default_rng(seed)
    truth = [gtsam.Pose2()]
    for _ in range(count - 1):
        truth.append(truth[-1].compose(gtsam.Pose2(1.0, 0.0, 2 * np.pi / a_lap)))
    pairs = [(i, i + 1) for i in range(count - 1)]
    pairs += [(i - a_lap, i) for i in range(a_lap, count, 2)]
    lines = []
    for a, b in pairs:
        step = truth[a].between(truth[b]).retract(noise * rng.normal(size=3) * (0.1, 0.1, 0.03))
        lines.append(f"EDGE_SE2 {a} {b} {step.x()} {step.y()} {step.theta()} {INFORMATION}")
    return lines


def written(tmp_path, lines):
    path = tmp_path / "graph.g2o"
    path.write_text("\n".join(lines) + "\n")
    return path


def refusal(tmp_path, lines):
    with pytest.raises(G2oError) as caught:
        read_g2o(written(tmp_path, lines))
    return str(caught.value)


def needs(name):
    if not (G2O / name).exists():
        pytest.skip(f"{name} of the shared g2o files is not here")
    return G2O / name


def test_order_tree_and_closures_of_a_drive(tmp_path):
    graph = read_g2o(written(tmp_path, laps()))
    assert graph.order == tuple(range(80))
    assert graph.tree == tuple(range(79))
    assert graph.closures == list(range(79, 99))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("EDGE_SE2_XY 0 1 1 2 1 0 1", "unknown tag EDGE_SE2_XY"),
        ("EDGE_SE2 0 1 1 0 nan 1 0 0 1 0 1", "not finite"),
        ("EDGE_SE2 0 1 1 0 one 1 0 0 1 0 1", "no number"),
        ("EDGE_SE2 0 1 1 0 0 1 2 0 1 0 1", "not positive definite"),
        ("EDGE_SE2 0 1 1 0 0 0 0 0 0 0 0", "not positive definite"),
        ("EDGE_SE2 0 1 1 0 0 1 0 0 1 0", "8 numbers after its ids, not 9"),
        ("EDGE_SE2 0 0 1 0 0 1 0 0 1 0 1", "to itself"),
        ("EDGE_SE2 0 -1 1 0 0 1 0 0 1 0 1", "'-1' is no vertex id"),
        ("VERTEX_SE3:QUAT 0 0 0 0 0 0 0 1", "don't mix"),
        ("FIX 700", "fixed vertex 700 is missing"),
        ("EDGE_SE2 0 1 1e18 0 0 1 0 0 1 0 1", "pose is out of range"),
        ("VERTEX_SE2 900 0 -1e300 0", "pose is out of range"),
        ("EDGE_SE2 0 1 1 0 0 1e300 0 0 1e300 0 1e300", "information is out of range"),
        ("EDGE_SE2 0 1 1 0 0 5e-324 0 0 5e-324 0 5e-324", "information is out of range"),
        ("EDGE_SE2 0 1 1 0 0 1e-310 0 0 1 0 1", "not positive definite"),
        ("EDGE_SE2 0 1 1 0 0 1 1e300 0 1 0 1", "information is out of range"),
    ],
)
def test_bad_lines_are_refused_with_their_place(tmp_path, line, words):
    message = refusal(tmp_path, [*laps(), line])
    assert "graph.g2o:100: " in message
    assert words in message


def test_missing_double_and_disconnected_vertices(tmp_path):
    vertices = [f"VERTEX_SE2 {i} 0 0 0" for i in range(3)]
    edge = "EDGE_SE2 {} {} 1 0 0 1 0 0 1 0 1"
    missing = refusal(tmp_path, [*vertices, edge.format(0, 1), edge.format(1, 7)])
    assert missing.endswith("graph.g2o:5: vertex 7 is missing")
    double = refusal(tmp_path, [*vertices, vertices[1]])
    assert double.endswith("graph.g2o:4: vertex 1 is given a second time")
    apart = refusal(tmp_path, [edge.format(0, 1), edge.format(5, 6)])
    assert "disconnected: 2 of 4 vertices, such as 5" in apart
    assert "disconnected" in refusal(tmp_path, [*vertices, edge.format(0, 1)])
    assert refusal(tmp_path, vertices).endswith("has no edge")


MAGNITUDES = st.sampled_from(
    [
        "0",
        "5e-324",
        "1e-310",
        "1e-200",
        "1e-16",
        "1e-12",
        "1e-3",
        "1e3",
        "1e8",
        "1e16",
        "1e18",
        "1e150",
        "1e300",
        "1.8e308",
    ]
)


@settings(max_examples=25, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 23), st.integers(3, 11), MAGNITUDES, st.sampled_from(["", "-"])),
        min_size=1,
        max_size=3,
    ),
    robust=st.sampled_from(["none", "gnc", "pcm"]),
    incremental=st.booleans(),
)
def test_absurd_magnitudes_are_refused_or_solved(tmp_path_factory, changes, robust, incremental):
    """Whatever three numbers of a file say, no pose and no error comes out as NaN."""
    lines = laps(count=18, a_lap=8, noise=0.3)[:24]
    for line, word, magnitude, sign in changes:
        words = lines[line % len(lines)].split()
        words[word] = sign + magnitude
        lines[line % len(lines)] = " ".join(words)
    path = tmp_path_factory.mktemp("absurd") / "graph.g2o"
    path.write_text("\n".join(lines) + "\n")
    assert outcome(path, robust, incremental) in ("solved", "unsolvable", "refused with its line")


def outcome(path, robust, incremental):
    """What became of a file; NaN among its poses or in its error is no outcome."""
    try:
        result = optimize(read_g2o(path), robust, incremental)
    except G2oError as error:
        placed = re.match(rf"{re.escape(str(path))}:\d+: .*(range|definite|not finite)", str(error))
        return "refused with its line" if placed else str(error)
    except UnsolvableGraph as error:
        return "unsolvable" if "can't be solved: " in str(error) else str(error)
    numbers = [result.error, *np.ravel([pose.matrix() for pose in result.poses.values()])]
    return "solved" if np.isfinite(numbers).all() else "not a number"


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("robust", ["none", "gnc"])
@pytest.mark.parametrize(("odometry", "closures"), [("1e16", "1e-12"), ("1e-12", "1e16")])
def test_a_graph_of_extremes_is_solved_or_said_to_be_unsolvable(
    tmp_path, robust, incremental, odometry, closures
):
    lines = laps(noise=0.3)
    for i, line in enumerate(lines):
        own = odometry if i < 79 else closures
        lines[i] = line.replace(INFORMATION, f"{own} 0 0 {own} 0 {own}")
    path = written(tmp_path, lines)
    assert outcome(path, robust, incremental) in ("solved", "unsolvable")


def test_a_quaternion_that_is_none_is_refused(tmp_path):
    edge = "EDGE_SE3:QUAT 0 1 1 0 0 0 0 0 0.5 " + " ".join(
        "1" if row == column else "0" for row in range(6) for column in range(row, 6)
    )
    assert "quaternion has length 0.5" in refusal(tmp_path, [edge])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(tmp_path_factory, data):
    """One byte anywhere is replaced: the file is refused in words or read as a valid graph."""
    raw = bytearray(("\n".join(laps(count=12, a_lap=8)) + "\n").encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "graph.g2o"
    path.write_bytes(bytes(raw))
    try:
        graph = read_g2o(path)
    except G2oError as error:
        refused = str(error)
    else:
        refused = ""
        assert len(graph.tree) == len(graph.order) - 1
    assert not refused or refused.startswith(str(path))


@pytest.mark.parametrize("name", ["smallGrid3D.g2o", "intel.g2o"])
def test_agrees_with_the_reader_of_gtsam_and_survives_writing(tmp_path, name):
    path = needs(name)
    graph = read_g2o(path)
    factors, _ = gtsam.readG2o(str(path), graph.dimension == 6)
    assert factors.size() == len(graph.measurements)
    for i in (0, len(graph.measurements) // 2, len(graph.measurements) - 1):
        theirs, ours = factors.at(i), graph.measurements[i]
        assert theirs.keys() == [ours.from_id, ours.to_id]
        assert theirs.measured().equals(ours.measured, 1e-9)
        np.testing.assert_allclose(theirs.noiseModel().information(), ours.information, rtol=1e-6)
    write_g2o(tmp_path / "copy.g2o", graph, graph.initial, set(range(len(graph.measurements))))
    copy = read_g2o(tmp_path / "copy.g2o")
    assert copy.order == graph.order
    assert copy.measurements[-1].measured.equals(graph.measurements[-1].measured, 1e-9)
    np.testing.assert_allclose(
        copy.measurements[-1].information, graph.measurements[-1].information, rtol=1e-9
    )


@pytest.mark.parametrize(
    ("name", "batch_error"), [("smallGrid3D.g2o", 517.925), ("intel.g2o", 22.502)]
)
@pytest.mark.parametrize("incremental", [False, True])
def test_reaches_the_batch_error(name, batch_error, incremental):
    result = optimize(read_g2o(needs(name)), "none", incremental)
    assert result.error <= 1.001 * batch_error
    assert not result.retracted


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("robust", ["gnc", "pcm"])
@pytest.mark.parametrize("group", [1, 5])
def test_false_closures_are_retracted_and_true_ones_kept(tmp_path, robust, incremental, group):
    clean = read_g2o(written(tmp_path, laps(count=120, noise=0.5)))
    graph, false = with_false_closures(clean, 0.5, seed=4, group=group)
    assert len(false) == len(clean.closures)
    result = optimize(graph, robust, incremental)
    assert result.kept == frozenset(clean.closures)
    assert result.retracted == false
    assert result.error == pytest.approx(optimize(clean, "none", False).error, rel=1e-3)


def test_false_closures_spoil_a_graph_that_believes_them(tmp_path):
    clean = read_g2o(written(tmp_path, laps(noise=0.5)))
    graph, false = with_false_closures(clean, 0.3, seed=1)
    result = optimize(graph, "none", True)
    assert false <= result.kept
    assert result.error > 10 * optimize(clean, "none", True).error


def test_members_of_a_group_agree_pairwise_and_true_closures_all_do(tmp_path):
    clean = read_g2o(written(tmp_path, laps(count=120, noise=0.5)))
    graph, false = with_false_closures(clean, 0.2, seed=3, group=5)
    gate = gate_of(graph)
    assert consistent_closures(graph, sorted(false)[:5], gate) == frozenset(sorted(false)[:5])
    assert consistent_closures(graph, clean.closures, gate) == frozenset(clean.closures)
    assert consistent_closures(graph, [], gate) == frozenset()


def test_false_closures_are_the_same_for_one_seed(tmp_path):
    graph = read_g2o(written(tmp_path, laps()))
    ends = [
        [(m.from_id, m.to_id) for m in with_false_closures(graph, 0.5, seed)[0].measurements]
        for seed in (1, 1, 2)
    ]
    assert ends[0] == ends[1] != ends[2]


def test_command_writes_figures_and_a_graph_that_reads_back(tmp_path):
    path = written(tmp_path, laps(noise=0.5))
    options = ["--incremental", "--robust", "gnc", "--outliers", "30", "--seed", "5"]
    files = ["--json", str(tmp_path / "f.json"), "--output", str(tmp_path / "out.g2o")]
    result = CliRunner().invoke(app, ["graph", "optimize", str(path), *options, *files])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "f.json").read_text())
    assert set(figures["step_ms"]) == {"p50", "p95", "max"}
    assert (figures["closures_kept"], figures["closures_retracted"]) == (20, 9)
    assert (figures["precision"], figures["recall"]) == (1.0, 1.0)
    copy = read_g2o(tmp_path / "out.g2o")
    assert len(copy.closures) == 20
    assert optimize(copy, "none", False).error == pytest.approx(figures["final_error"], rel=1e-6)


def test_command_refuses_in_a_sentence(tmp_path):
    bad = written(tmp_path, ["EDGE_SE9 0 1"])
    for path, words in ((bad, "unknown tag EDGE_SE9"), (tmp_path / "none.g2o", "No such file")):
        result = CliRunner().invoke(app, ["graph", "optimize", str(path)])
        assert result.exit_code == 2
        assert words in result.output
