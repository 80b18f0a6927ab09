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


def children_of(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def until(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of children on Linux alone")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_no_node_is_left_behind_however_the_runner_is_ended(tmp_path, ending):
    runner = subprocess.Popen(
        [sys.executable, "-m", "vpr.cli", "record", str(tmp_path / "bag")],
        env=os.environ | {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100)},
        stdout=subprocess.PIPE,
        text=True,
    )
    (node,) = until(lambda: children_of(runner))
    runner.send_signal(ending)
    printed, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 0
    assert "recorded" in printed
    assert not Path(f"/proc/{node}").exists()
