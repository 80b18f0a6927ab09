"""The main job from end to end: the embedded bag through the real nodes, judged by its truth."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="the workspace is not built and sourced")

from vpr_bringup.demo import DemoError, DemoOptions, run_demo

RATE = 0.8  # slower than real time: a busy test machine must not decide the figures


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Results of one run of the demo."""
    out = tmp_path_factory.mktemp("demo")
    run_demo(DemoOptions(out=out, rate=RATE))
    return out


@pytest.fixture(scope="module")
def summary(demo):
    """Its figures."""
    return json.loads((demo / "summary.json").read_text())


def test_no_closure_is_wrong_where_the_naive_matcher_often_is(summary):
    assert summary["verified_precision"] == 1.0
    assert summary["naive_precision"] < 0.8


def test_most_revisits_are_closed_and_the_drift_is_gone(summary):
    assert summary["revisit_recall"] >= 0.6
    assert summary["ate_after_m"] <= 0.35 * summary["ate_before_m"]


def test_every_candidate_has_a_verdict_with_a_reason(summary, demo):
    from vpr.evaluation.recording import read_run
    from vpr.records import ClosureState

    closures = read_run(demo / "recording").closures
    assert len(closures) == summary["closures_verified"] + summary["closures_rejected"]
    assert all(closure.state != ClosureState.CANDIDATE for closure in closures)
    assert all(closure.reason for closure in closures)


def test_everything_there_is_to_see_is_there(demo):
    for name in ("trajectory.png", "similarity.png", "pairs.png", "attention.png", "report.html"):
        assert (demo / name).stat().st_size > 10_000, name
    assert (demo / "dataset" / "manifest.json").exists()


def test_evo_reads_the_trajectories_and_agrees(demo, summary):
    evo = Path(sys.executable).parent / "evo_ape"
    command = [evo, "tum", demo / "truth.tum", demo / "corrected.tum", "-a"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rmse = next(line.split()[1] for line in printed.splitlines() if line.strip()[:4] == "rmse")
    assert float(rmse) == pytest.approx(summary["ate_after_m"], abs=0.01)


def test_a_refused_node_is_named_with_its_last_words(tmp_path):
    options = DemoOptions(out=tmp_path, parameters={"embedding.image_width": 3})
    with pytest.raises(DemoError, match=r"(?s)embedding ended .*embedding\.image_width = 3"):
        run_demo(options)
