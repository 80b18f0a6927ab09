"""Graphs made for measuring, and what is measured on them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vpr.cli import app
from vpr.commands import graph_figures as command
from vpr.evaluation import graph_figures, graph_outliers
from vpr.evaluation.graph_figures import graph_tasks, judged_rows, measure
from vpr.evaluation.graph_growth import growth_row
from vpr.evaluation.graph_outliers import PEER_LIMIT, outlier_row, peer_row, trajectory_error
from vpr.evaluation.graph_report import draw_growth, draw_outliers, growth_table, outlier_table
from vpr.evaluation.live_graph import live_row
from vpr.evaluation.made_graphs import (
    city_graph,
    drive_graph,
    read_kitti_poses,
    revisits,
    sphere_graph,
)

KITTI = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "kitti_poses"


def two_laps(tmp_path, frames=600, a_lap=300):
    """Two laps of a circle of 300 m, as a KITTI pose file; poses of it."""
    rows = []
    for i in range(frames):
        angle = 2 * np.pi * i / a_lap
        c, s = np.cos(angle), np.sin(angle)
        x, z = 48.0 * (1 - c), 48.0 * s
        rows.append([c, 0, s, x, 0, 1, 0, 0, -s, 0, c, z])
    np.savetxt(tmp_path / "poses.txt", rows)
    return read_kitti_poses(tmp_path / "poses.txt")


def test_kitti_poses_go_forward_along_their_heading(tmp_path):
    poses = two_laps(tmp_path)
    steps = [one.between(two) for one, two in itertools.pairwise(poses)]
    assert all(step.x() > 0.9 and abs(step.y()) < 0.05 for step in steps)
    (tmp_path / "bad.txt").write_text("1 2 3\n")
    with pytest.raises(ValueError, match="12 finite numbers"):
        read_kitti_poses(tmp_path / "bad.txt")


def test_revisits_are_true_and_far_apart_in_time(tmp_path):
    poses = two_laps(tmp_path)
    pairs = revisits(poses)
    assert len(pairs) == 60
    assert all(later - earlier == 300 for earlier, later in pairs)


@pytest.mark.parametrize("model", ["measured", "weak"])
def test_a_drive_drifts_and_closing_it_helps(tmp_path, model):
    made = drive_graph(two_laps(tmp_path), model, seed=1)
    row = outlier_row("laps", made, 0.5, 10, seed=1)
    assert row["clean_m"] < 0.8 * row["odometry_m"]
    assert row["judged_m"] <= 1.1 * row["clean_m"] < peer_row(made, 0.5, 10, 1)["believed_m"]
    assert (row["precision"], row["recall"]) == (1.0, 1.0)
    assert "laps, 50%" in outlier_table([row])


def test_a_peer_that_does_not_end_is_stopped_and_the_table_says_so(monkeypatch):
    def endless(_graph):
        while True:
            pass

    monkeypatch.setattr(graph_outliers, "plain_gnc", endless)
    monkeypatch.setattr(graph_outliers, "PEER_LIMIT", 1)
    made = city_graph(120, 3)
    peers = peer_row(made, 0.3, 1, seed=1)
    assert peers["gnc_m"] is None
    row = outlier_row("city", made, 0.3, 1, seed=1)
    joined = judged_rows({"outliers city": row}, {"peers city": peers})
    assert f"| > {PEER_LIMIT} s / not run |" in outlier_table(joined)
    assert "| not run / not run |" in outlier_table([row])


@pytest.mark.parametrize("made", [city_graph(150, 3), sphere_graph(5, 12, 3)], ids=["2-D", "3-D"])
def test_made_worlds_are_consistent_with_their_truth(made):
    graph = made.graph
    assert graph.closures
    for m in graph.measurements:
        expected = made.truth[m.from_id].between(made.truth[m.to_id])
        residual = m.measured.localCoordinates(expected)
        assert residual @ m.information @ residual < 40.0
    assert trajectory_error(made.truth, made) == pytest.approx(0.0, abs=1e-6)


def test_growth_is_measured_beside_gtsam(tmp_path):
    row = growth_row("city", city_graph(150, 3).graph)
    assert row["error_ratio"] <= 1.01
    assert len(row["steps_ms"]["ours"]) == len(row["steps_ms"]["gtsam"]) == 149
    assert growth_table([row]).splitlines()[2].startswith("| city | 150, ")
    assert draw_growth(tmp_path / "growth.png", row).read_bytes()[:4] == b"\x89PNG"


def test_the_live_graph_lets_true_revisits_in(tmp_path):
    row = live_row("laps", two_laps(tmp_path))
    assert (row["keyframes"], row["closures"], row["verified"]) == (600, 60, 60)
    assert row["closure_p95_ms"] >= row["closure_p50_ms"] > 0.0


def test_a_stopped_run_goes_on(tmp_path):
    asked = []

    def task(name):
        return name, lambda: asked.append(name) or {"name": name}

    measure([task("a")], tmp_path, lambda _: None)
    rows = measure([task("b"), task("a")], tmp_path, lambda _: None)
    assert asked == ["a", "b"]
    assert list(rows) == ["b", "a"]


def test_without_data_only_made_graphs_are_measured():
    names = [name for name, _ in graph_tasks(None)]
    assert names
    assert all("made" in name for name in names)
    assert len(set(names)) == len(names)


def test_the_command_fills_the_tables_between_their_marks(tmp_path, monkeypatch):
    made = city_graph(120, 3)
    tasks = [
        ("growth city", lambda: growth_row("city", made.graph)),
        ("outliers city", lambda: outlier_row("city", made, 0.3, 1, 1)),
    ]
    monkeypatch.setattr(graph_figures, "graph_tasks", lambda *_: tasks)
    readme = tmp_path / "README.md"
    earlier = [command.OUTLIERS[0], "| city, 30% | 1 m |", "| park, 30% | 2 m |"]
    lines = ["head", *command.GROWTH, *earlier, command.OUTLIERS[1], "tail", ""]
    readme.write_text("\n".join(lines))
    options = ["--out", str(tmp_path / "out"), "--readme", str(readme)]
    result = CliRunner().invoke(app, ["eval", "graph", *options])
    assert result.exit_code == 0, result.output
    text = readme.read_text()
    assert "| city | 120, " in text
    assert text.count("| city, 30% |") == 1
    assert "| city, 30% | 1 m |" not in text
    assert "| park, 30% | 2 m |" in text  # not measured this time
    assert text.startswith("head\n")
    assert text.endswith("tail\n")
    assert (tmp_path / "out" / "growth_city.png").exists()
    readme.write_text("no marks\n")
    assert CliRunner().invoke(app, ["eval", "graph", *options]).exit_code == 2
    assert readme.read_text() == "no marks\n"


def test_a_folder_without_the_data_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["eval", "graph", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "has no g2o/ and kitti_poses/" in " ".join(result.output.split())


def test_real_revisits_of_kitti():
    if not (KITTI / "05.txt").exists():
        pytest.skip("KITTI's poses are not here")
    poses = read_kitti_poses(KITTI / "05.txt")
    pairs = revisits(poses)
    assert len(pairs) == 78
    offsets = [poses[one].between(poses[two]).translation() for one, two in pairs]
    assert max(np.linalg.norm(offset) for offset in offsets) <= 3.0


def test_pictures_leave_out_graphs_without_truth(tmp_path):
    row = {"graph": "a", "share": 0.1, "group": 1, "clean_m": 0.0, "judged_m": 0.0}
    assert draw_outliers(tmp_path / "a.png", [row]).exists()
