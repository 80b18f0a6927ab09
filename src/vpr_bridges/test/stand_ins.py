"""Stand-in hosts for the bridges, in processes of their own, and the interfaces they need."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Nodes, Probe, domain_id, nodes, probe
from std_msgs.msg import String

__all__ = ["built_hosts", "domain_id", "host_interfaces", "hosts", "nodes", "probe"]
INTERFACES = Path(__file__).parent / "host_interfaces"
HOSTS = Path(__file__).parent / "stand_in_hosts"
BUILD_PATIENCE = 900  # s
SEARCH_PATHS = ("AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH")


class Hosts:
    """Starts a stand-in host and its bridge, and hears the host's reports."""

    def __init__(self, nodes: Nodes, probe: Probe) -> None:
        self.nodes = nodes
        self.reports = probe.hear(String, "stand_in/report", 1000)
        self.probe = probe

    def start(
        self,
        host: str,
        bridge: str = "",
        host_parameters: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> None:
        """Start the host's process and the bridge, of the same name where none is given."""
        words = [f"{name}:={value}" for name, value in (host_parameters or {}).items()]
        arguments = ["--ros-args", *(part for word in words for part in ("-p", word))]
        child = subprocess.Popen(
            [sys.executable, str(HOSTS / f"{host}.py"), *(arguments if words else ())],
            env=self.nodes.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.nodes.children.append(child)
        self.nodes.start(bridge or host, package="vpr_bridges", **parameters)

    def connected(self, topic: str) -> None:
        """Wait until host and bridge have found each other on a topic."""
        node = self.probe.node
        self.until(lambda: min(node.count_publishers(topic), node.count_subscribers(topic)) > 0)
        self.probe.spin(0.5)

    def said(self, **fields: Any) -> list[dict[str, Any]]:
        """The host's reports that have these values, or merely these fields where ``...``."""
        reports = (json.loads(message.data) for message in self.reports)
        return [
            report
            for report in reports
            if all(
                name in report and value in (..., report[name]) for name, value in fields.items()
            )
        ]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to be true; tell what the host said when it never is."""
        try:
            self.probe.until(condition)
        except AssertionError as error:
            raise AssertionError(f"{error}; the host said {self.said()[-5:]}") from error


@pytest.fixture
def hosts(nodes: Nodes, probe: Probe) -> Hosts:
    """Starter of stand-in hosts whose messages are installed."""
    return Hosts(nodes, probe)


@pytest.fixture
def built_hosts(hosts: Hosts, host_interfaces: Path) -> Hosts:
    """Starter of stand-in hosts whose messages the test has built."""
    add_prefixes(hosts.nodes.environment, host_interfaces)
    return hosts


@pytest.fixture(scope="session")
def host_interfaces() -> Path:
    """Prefix of the hosts' interfaces, built once for each content of their definitions."""
    colcon = shutil.which("colcon")
    if colcon is None:
        pytest.skip("colcon is not on PATH to build the hosts' interface definitions with")
    digest = hashlib.sha256(f"{sys.prefix} {sys.version}".encode())
    for file in sorted(path for path in INTERFACES.rglob("*") if path.is_file()):
        digest.update(file.read_bytes())
    prefix = Path(tempfile.gettempdir()) / f"vpr_host_interfaces_{digest.hexdigest()[:12]}"
    if not prefix.is_dir():
        build(colcon, prefix)
    return prefix


def build(colcon: str, prefix: Path) -> None:
    """Build all interface packages into a prefix, which appears when it is whole."""
    environment = dict(os.environ)
    underlay = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if (Path(sys.prefix) / "share" / "rosidl_cmake").is_dir():  # ROS from wheels
        underlay.append(sys.prefix)
        environment["PATH"] = os.pathsep.join([f"{sys.prefix}/bin", environment["PATH"]])
    environment["AMENT_PREFIX_PATH"] = os.pathsep.join(filter(None, underlay))
    environment["CMAKE_PREFIX_PATH"] = environment["AMENT_PREFIX_PATH"]
    with tempfile.TemporaryDirectory(prefix="vpr_interfaces_", dir=prefix.parent) as scratch:
        command = [colcon, "--log-base", "log", "build", "--merge-install"]
        command += ["--base-paths", str(INTERFACES), "--cmake-args", "-DBUILD_TESTING=OFF"]
        done = subprocess.run(
            command,
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        (Path(scratch) / "install").rename(prefix)


def add_prefixes(environment: dict[str, str], prefix: Path) -> None:
    """What sourcing the prefix's setup file would do."""
    packages = next((prefix / "lib").glob("python*/site-packages"))
    for name, path in zip(SEARCH_PATHS, (prefix, prefix / "lib", packages), strict=True):
        environment[name] = os.pathsep.join(filter(None, [str(path), environment.get(name, "")]))
