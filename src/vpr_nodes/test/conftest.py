"""Real nodes in processes and a DDS domain of their own, and a probe to talk to them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="the workspace is not built and sourced")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from vpr.config import DEFAULT_CONFIG_FILE  # noqa: E402

# as the runners and the launch file have it; before any node is made
os.environ.setdefault(
    "FASTRTPS_DEFAULT_PROFILES_FILE", str(DEFAULT_CONFIG_FILE.with_name("fastdds.xml"))
)
PATIENCE = 40.0  # s; how long a test waits before it fails, not what it measures
FIRST_DOMAIN = 20 + os.getpid() % 60
_domains = itertools.count()
LATCHED = QoSProfile(depth=10, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


class Probe:
    """Publishes to the nodes under test and hears what they publish."""

    def __init__(self, domain_id: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = Node("probe", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[str, list[Any]] = {}
        self._publishers: dict[str, Any] = {}
        self.hear(DiagnosticArray, "/diagnostics")

    def hear(self, message_type: type, topic: str, qos: Any = 100) -> list[Any]:
        """Collect everything published on a topic."""
        received = self.heard.setdefault(topic, [])
        self.node.create_subscription(message_type, topic, received.append, qos)
        return received

    def publisher(self, message_type: type, topic: str, qos: Any = 100) -> Any:
        """A publisher that somebody already listens to."""
        if topic not in self._publishers:
            publisher = self.node.create_publisher(message_type, topic, qos)
            self._publishers[topic] = publisher
            self.until(lambda: publisher.get_subscription_count() > 0)
            self.spin(0.5)  # the other side discovers on its own: best effort loses until then
        return self._publishers[topic]

    def spin(self, seconds: float) -> None:
        """Let messages come in for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Spin until a condition holds; fail the test when it never does."""
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, service_type: type, name: str, request: Any) -> Any:
        """Call a service and return its answer."""
        client = self.node.create_client(service_type, name)
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def status(self, node: str) -> dict[str, str]:
        """The latest /diagnostics values of a node, and its message under ``message``."""
        for array in reversed(self.heard["/diagnostics"]):
            for status in array.status:
                if status.name.rsplit("/", 1)[-1] == node:
                    values = {value.key: value.value for value in status.values}
                    return values | {"message": status.message}
        return {}

    def close(self) -> None:
        """Leave the domain."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class Nodes:
    """Child processes of the nodes under test."""

    def __init__(self, domain_id: int) -> None:
        self.environment = os.environ | {"ROS_DOMAIN_ID": str(domain_id)}
        self.children: list[subprocess.Popen[str]] = []

    def start(
        self,
        executable: str,
        *arguments: str,
        own: Sequence[str] = (),
        package: str = "vpr_nodes",
        **parameters: Any,
    ) -> subprocess.Popen[str]:
        """Start an executable of a package with parameters; returns its process.

        ``arguments`` are ROS's, ``own`` are the executable's.
        """
        words = [*own, "--ros-args", *arguments]
        for name, value in {"diagnostics_period": 0.1, **parameters}.items():
            shown = str(value).lower() if isinstance(value, bool) else value
            words += ["-p", f"{name}:={shown!r}" if shown == "" else f"{name}:={shown}"]
        child = subprocess.Popen(
            [sys.executable, "-c", f"from {package}.{executable} import main; main()", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.children.append(child)
        return child

    def stop(self) -> None:
        """End all of them."""
        for child in self.children:
            child.terminate()
        for child in self.children:
            try:
                child.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()


@pytest.fixture
def domain_id() -> int:
    """A DDS domain that no other test uses at the same time."""
    return (FIRST_DOMAIN + next(_domains)) % 100 + 1


@pytest.fixture
def probe(domain_id: int) -> Iterator[Probe]:
    """A node of the test's own in its domain."""
    probe = Probe(domain_id)
    yield probe
    probe.close()


@pytest.fixture
def nodes(domain_id: int) -> Iterator[Nodes]:
    """Starter of nodes in the test's domain; stops them afterwards."""
    nodes = Nodes(domain_id)
    yield nodes
    nodes.stop()


def textured(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A random but smooth BGR picture; the same seed gives the same picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def image_msg(pixels: np.ndarray, stamp_ns: int, encoding: str = "bgr8", padding: int = 0) -> Image:
    """Raw image message, each row followed by ``padding`` bytes."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    if padding:
        rows = np.hstack([rows, np.full((height, padding), 99, np.uint8)])
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    message.header.stamp.sec = stamp_ns // 10**9
    message.header.stamp.nanosec = stamp_ns % 10**9
    message.header.frame_id = "camera_optical"
    message.data = rows.tobytes()
    return message
