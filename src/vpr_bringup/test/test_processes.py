"""Nodes as child processes: they end with whoever started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="the workspace is not built and sourced")

PATIENCE = 40.0  # s
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is on Linux alone")


def children_of(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def until(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def started(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "vpr.cli", "record", str(folder)],
        env=os.environ | {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100)},
        stdout=subprocess.PIPE,
        text=True,
    )


def runs(process_id):
    try:
        return "(zombie)" not in Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return False


@linux
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_no_node_is_left_behind_however_the_runner_is_ended(tmp_path, ending):
    runner = started(tmp_path / "bag")
    (node,) = until(lambda: children_of(runner))
    runner.send_signal(ending)
    printed, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 0
    assert "recorded" in printed
    until(lambda: not runs(node))


@linux
def test_no_node_outlives_a_runner_that_was_killed(tmp_path):
    runner = started(tmp_path / "bag")
    try:
        (node,) = until(lambda: children_of(runner))
        until(lambda: "_rclpy_pybind11" in Path(f"/proc/{node}/maps").read_text())
    finally:
        runner.kill()
        runner.wait()
    until(lambda: not runs(node))


@linux
def test_a_child_whose_parent_has_gone_already_ends():
    code = "from vpr_bringup.orphans import end_with; end_with(1); print('goes on')"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 1
    assert "has ended" in child.stderr
    assert not child.stdout
