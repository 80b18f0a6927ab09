"""The nodes as child processes: the same executables and params file that the launch file uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from vpr.config import DEFAULT_CONFIG_FILE

TRANSPORT_FILE = DEFAULT_CONFIG_FILE.with_name("fastdds.xml")
TRANSPORT_CHOICES = (
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTDDS_BUILTIN_TRANSPORTS",
)
SUITE = (
    "segmentation",
    "embedding",
    "sequence_matching",
    "loop_closure",
    "pose_graph",
    "gps_image_sync",
)
# those of the suite that always listen, for a player to wait for
IMAGE_LISTENERS = 3  # segmentation, embedding, loop_closure
ODOMETRY_LISTENERS = 2  # sequence_matching, pose_graph
# executables of vpr_bridges, one a host SLAM; the node of each is NAME_bridge
BRIDGES = ("vins_mono", "vins_fusion", "rtabmap", "swarm_slam", "pose_graph_tools", "orb_slam3")
# still running, done, or done but for Fast DDS's destructors (see vpr_nodes.vpr_node.leave)
CLEAN_ENDS = (None, 0, -signal.SIGALRM)
STOP_PATIENCE = 8.0  # s from SIGINT until SIGKILL
# of a service manager, a container or a closed terminal: no node must be left behind
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


class NodeStopped(RuntimeError):
    """A node's process ended by itself, as when its parameters are refused."""


@dataclass(frozen=True)
class RosOptions:
    """What every node is started with."""

    params_file: Path | None = None
    namespace: str = ""
    log_level: str = "info"
    use_sim_time: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)  # "node.parameter" or "parameter"
    remaps: Sequence[str] = ()  # "from:=to"

    def arguments(self, nodes: Sequence[str], scratch: Path) -> list[str]:
        """Command-line arguments after the executable.

        ``parameters`` travel in a file keyed by each node's full name: nothing else wins over a
        node's own section of a params file.
        """
        words = ["--ros-args", "--log-level", self.log_level]
        words += ["-p", f"use_sim_time:={str(self.use_sim_time).lower()}"]
        if self.params_file is not None:
            words += ["--params-file", str(self.params_file.resolve())]
        namespace = f"/{self.namespace.strip('/')}" if self.namespace.strip("/") else ""
        if namespace:
            words += ["-r", f"__ns:={namespace}"]
        for remap in self.remaps:
            words += ["-r", remap]
        overrides = {
            f"{namespace}/{node}": {"ros__parameters": values}
            for node in nodes
            if (values := self._values_of(node))
        }
        if overrides:
            handle, name = tempfile.mkstemp(dir=scratch, suffix=".yaml", text=True)
            with os.fdopen(handle, "w") as file:
                yaml.safe_dump(overrides, file)
            words += ["--params-file", name]
        return words

    def _values_of(self, node: str) -> dict[str, Any]:
        values = {}
        for name, value in self.parameters.items():
            owner, _, parameter = name.rpartition(".")
            if owner in ("", node):
                values[parameter] = value
        return values


def transport_environment() -> dict[str, str]:
    """What lets raw images through Fast DDS; empty where the environment has its own choice."""
    if any(name in os.environ for name in TRANSPORT_CHOICES):
        return {}
    return {TRANSPORT_CHOICES[0]: str(TRANSPORT_FILE.resolve())}


class NodeProcesses:
    """Child processes that are stopped together; use it as a context manager, in the main thread.

    Meanwhile SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does, and so stop them too.
    Where this process is killed outright, the kernel interrupts them.
    Output goes to the terminal, or to one file a process in ``log_folder``.
    """

    def __init__(self, log_folder: Path | None = None, domain_id: int | None = None) -> None:
        self._log_folder = log_folder
        self._environment = os.environ | transport_environment()
        if domain_id is not None:
            self._environment["ROS_DOMAIN_ID"] = str(domain_id)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="vpr_")

    def __enter__(self) -> Self:
        self._handlers = {
            ending: signal.signal(ending, signal.default_int_handler) for ending in ENDINGS
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            for ending, handler in self._handlers.items():
                signal.signal(ending, handler)

    def start(
        self,
        executable: str,
        options: RosOptions,
        nodes: Sequence[str] = (),
        extra: Sequence[str] = (),
        package: str = "vpr_nodes",
    ) -> None:
        """Start an executable that holds ``nodes``, by default one of its name."""
        code = (
            f"from vpr_bringup.orphans import end_with; end_with({os.getpid()}); "
            f"from {package}.{executable} import main; main()"
        )
        command = [sys.executable, "-c", code]
        command += [*extra, *options.arguments(nodes or [executable], Path(self._scratch.name))]
        output = None
        if self._log_folder is not None:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            output = (self._log_folder / f"{executable}.log").open("wb")
        self._children[executable] = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT if output else None,
            env=self._environment, start_new_session=True,
        )  # fmt: skip
        if output is not None:
            output.close()

    def start_suite(
        self, options: RosOptions, composed: bool, nodes: Sequence[str] = SUITE
    ) -> None:
        """Start the nodes, one process each or all in one."""
        if composed:
            self.start("composed", options, nodes, ["--nodes", *nodes])
            return
        for node in nodes:
            self.start(node, options)

    def start_bridge(self, host: str, options: RosOptions) -> None:
        """Start the bridge to a host, one of ``BRIDGES``.

        Raises:
            ValueError: there is no such bridge.
        """
        if host not in BRIDGES:
            raise ValueError(f"no bridge to '{host}'; there are {', '.join(BRIDGES)}")
        self.start(host, options, [f"{host}_bridge"], package="vpr_bridges")

    def check(self) -> None:
        """Raise when a process has ended by itself.

        Raises:
            NodeStopped: names it, its exit status and the last lines it said.
        """
        for name, child in self._children.items():
            if child.poll() not in CLEAN_ENDS:
                raise NodeStopped(f"{name} ended with status {child.returncode}\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 8) -> str:
        """The last lines a process said; empty when it spoke to the terminal."""
        if self._log_folder is None:
            return ""
        text = (self._log_folder / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def running(self, name: str) -> bool:
        """Whether a started process still runs."""
        return self._children[name].poll() is None

    def wait_while_running(self, seconds: float = 0.2) -> None:
        """Block until interrupted or until every process has ended.

        Raises:
            NodeStopped: one of them was refused at start or failed.
        """
        while any(child.poll() is None for child in self._children.values()):
            self.check()
            time.sleep(seconds)
        self.check()

    def stop_one(self, name: str) -> None:
        """Stop one process and wait for it."""
        _stop([self._children[name]])

    def stop(self) -> None:
        """Stop all processes: SIGINT, then SIGKILL for those that stay."""
        _stop(list(self._children.values()))
        self._scratch.cleanup()


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_PATIENCE
    for child in children:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
