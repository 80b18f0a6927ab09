"""What the bridges share: the process entry point, closures that wait for a host's keyframes."""

from __future__ import annotations

import time
from collections import deque
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

from nav_msgs.msg import Odometry
from rclpy.logging import get_logger
from vpr_interfaces.msg import Keyframe as KeyframeMsg
from vpr_interfaces.msg import LoopClosure as LoopClosureMsg

from vpr.config import BindingConfig
from vpr.messages import closure_of, keyframe_of, pose_of, stamp_ns
from vpr.records import ClosureState, LoopClosure
from vpr_bridges.bindings import HostClosure, KeyframeBindings, Unbound
from vpr_nodes.vpr_node import RELIABLE, REMEMBERED, SENSOR, VprNode, run

RETRY_PERIOD = 0.1  # s


class BindingBridge(VprNode):
    """Gives verified closures to a host that has keyframes of its own.

    Subclasses tell ``self.bindings`` of the host's keyframes and implement ``send``.
    """

    Config: ClassVar[type[BindingConfig]]
    config: BindingConfig

    def setup(self) -> None:
        self.bindings = KeyframeBindings(self.config)
        self.waiting: deque[tuple[float, LoopClosure]] = deque()

    def start(self) -> None:
        self.listen(KeyframeMsg, "keyframe", self._on_keyframe, REMEMBERED, "nothing to bind")
        self.listen(LoopClosureMsg, "loop_closures", self._on_closure, RELIABLE)
        self.listen(
            Odometry,
            "odometry",
            self._on_odometry,
            SENSOR,
            without="closures only between keyframes at exactly the host's stamps",
        )
        self.every(RETRY_PERIOD, self.retry)

    def send(self, closure: HostClosure, ours: LoopClosure) -> None:
        """Hand a closure to the host."""
        raise NotImplementedError

    def send_rejected(self, closure: HostClosure, ours: LoopClosure) -> None:
        """Tell the host of a refused closure; most have no way to hear it."""

    def retry(self) -> None:
        """Send the waiting closures whose keyframes the host has; drop those it never will."""
        self.bindings.settle()
        for _ in range(len(self.waiting)):
            since, closure = self.waiting.popleft()
            late = time.monotonic() - since > self.config.patience
            if late:
                self.bindings.settle(at_once=True)
            try:
                carried = self.bindings.carried_over(closure)
            except Unbound as unbound:
                if late or unbound.final:
                    self._drop(closure, unbound)
                else:
                    self.waiting.append((since, closure))
                continue
            if closure.state == ClosureState.VERIFIED:
                self.timed(self.send, carried, closure)
            else:
                self.send_rejected(carried, closure)

    def _drop(self, closure: LoopClosure, unbound: Unbound) -> None:
        if closure.state != ClosureState.VERIFIED:
            return
        name = f"closure {closure.query_id} -> {closure.reference_id}"
        self.health.drop(unbound.reason, f"{name}: {unbound}")
        self.get_logger().warning(f"{name} was not given to the host: {unbound}")

    def _on_keyframe(self, message: KeyframeMsg) -> None:
        self.bindings.add_keyframe(keyframe_of(message))
        self.retry()

    def _on_closure(self, message: LoopClosureMsg) -> None:
        closure = closure_of(message)
        if closure.state != ClosureState.CANDIDATE:
            self.waiting.append((time.monotonic(), closure))
            self.retry()

    def _on_odometry(self, message: Odometry) -> None:
        self.bindings.add_odometry(stamp_ns(message.header.stamp), pose_of(message.pose.pose))


def host_messages(package: str, kind: str = "msg") -> ModuleType:
    """The host's messages (``kind`` msg) or services (srv).

    Raises:
        ImportError: the package is not installed.
    """
    return import_module(f"{package}.{kind}")


def run_bridge(node_class: type[VprNode], *packages: str) -> None:
    """Process entry point; without the host's message packages one line is said and that is all.

    The exit status is then 0: the suite that was started with the bridge goes on.
    """
    name: Any = node_class.Config.node_name
    for package in packages:
        try:
            host_messages(package)
        except ImportError:
            get_logger(name).warning(
                f"the message package {package} is not installed: no bridge, the rest runs"
            )
            return
    run(node_class)
