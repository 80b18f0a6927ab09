"""What every node shares: checked parameters, lifecycle, guarded callbacks and diagnostics."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from vpr.config import ConfigError, NodeConfig, shared_parameters
from vpr.images.decoding import ImageError
from vpr_nodes.health import Health

# Best effort takes both reliable and best-effort cameras. Deep enough to bridge a slow frame.
SENSOR = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.RELIABLE)
# What later stages build on also reaches those that start, or discover the publisher, late.
REMEMBERED = QoSProfile(
    depth=1000,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)
LATCHED = QoSProfile(
    depth=1,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)
LEAVE_PATIENCE = 3  # s
STEADY = Clock(clock_type=ClockType.STEADY_TIME)


class VprNode(LifecycleNode):
    """A lifecycle node that configures and activates itself unless ``autostart`` is false.

    Subclasses name their ``Config`` and implement ``setup`` (engine and publishers) and
    ``start`` (subscriptions). Whatever a callback raises is counted and said on /diagnostics;
    it never ends the process.
    """

    Config: ClassVar[type[NodeConfig]]
    config: Any

    def __init__(self, **options: Any) -> None:
        cv2.setNumThreads(1)  # nodes share the cores; threads of one that wait only hold up another
        super().__init__(
            self.Config.node_name, automatically_declare_parameters_from_overrides=True, **options
        )
        self._declare_parameters()
        self.health = Health(f"{self.get_fully_qualified_name().lstrip('/')}")
        self.start_error = ""
        self._inputs: list[Any] = []
        self._timers_of_activation: list[Any] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def setup(self) -> None:
        """Build the engine and the publishers from ``self.config``."""
        raise NotImplementedError

    def start(self) -> None:
        """Create subscriptions with ``listen`` and timers with ``every``."""
        raise NotImplementedError

    def finish(self) -> None:
        """Last words before the process ends, as closing a file."""

    def destroy_node(self) -> None:
        """Leave the graph, with the state machine that rclpy leaves behind.

        It would keep the DDS participant, and its shared memory would outlive the process.
        """
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def _declare_parameters(self) -> None:
        defaults = self.Config.from_file()
        for name, field in self.Config.model_fields.items():
            if not self.has_parameter(name):
                descriptor = ParameterDescriptor(
                    dynamic_typing=True,  # the model checks types: 5 is a fine float
                    additional_constraints=", ".join(str(rule) for rule in field.metadata),
                )
                self.declare_parameter(name, getattr(defaults, name), descriptor)

    def _parameter_values(self) -> dict[str, Any]:
        given = self.get_parameters_by_prefix("")
        ours = set(self.Config.model_fields)
        elsewhere = {"use_sim_time", "start_type_description_service"} | shared_parameters()
        unknown = [
            name
            for name in given
            if name not in ours | elsewhere and not name.startswith("qos_overrides")
        ]
        values = {name: given[name].value for name in ours}
        return values | {name: given[name].value for name in unknown}

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters and build the engine; refuse to start with the reason in words."""
        try:
            self.config = self.Config.checked(self._parameter_values())
            self.setup()
        except (ConfigError, ImportError, OSError, RuntimeError, ValueError) as error:
            self.start_error = str(error)
            self.get_logger().fatal(f"cannot start: {error}")
            return TransitionCallbackReturn.FAILURE
        period = self.config.diagnostics_period
        self._diagnostics_timer = self.create_timer(period, self._publish_health, clock=STEADY)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start listening."""
        self.start()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; what was learnt is kept."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for timer in self._timers_of_activation:
            self.destroy_timer(timer)
        self._inputs.clear()
        self._timers_of_activation.clear()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget everything; configure builds anew."""
        self.destroy_timer(self._diagnostics_timer)
        return super().on_cleanup(state)

    def autostart(self) -> bool:
        """Configure and activate, unless a lifecycle manager is to do it. False when refused."""
        if self.has_parameter("autostart") and self.get_parameter("autostart").value is False:
            return True
        steps = (self.trigger_configure, self.trigger_activate)
        return all(step() == TransitionCallbackReturn.SUCCESS for step in steps)

    def listen(
        self,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile,
        without: str = "",
    ) -> None:
        """Subscribe with a guarded callback; ``without`` tells what its silence means."""
        if without:
            self.health.expect(topic, without)

        def guarded(message: Any) -> None:
            self.health.arrived(topic)
            self.guard(callback, message)

        def lost(event: Any) -> None:
            self.health.drop("lost_in_transport", f"{event.total_count} messages lost on {topic}")

        events = SubscriptionEventCallbacks(message_lost=lost)
        self._inputs.append(
            self.create_subscription(message_type, topic, guarded, qos, event_callbacks=events)
        )

    def every(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back by wall clock while active."""
        timer = self.create_timer(seconds, lambda: self.guard(callback), clock=STEADY)
        self._timers_of_activation.append(timer)

    def guard(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Run a callback; bad input is a counted drop, a fault of ours is said as an error."""
        try:
            callback(*arguments)
        except (ImageError, ValueError) as error:
            reason = getattr(error, "reason", type(error).__name__)
            self.health.drop(str(reason), str(error))
            self.get_logger().warning(f"dropped: {error}", throttle_duration_sec=2.0)
        except Exception as error:
            if not self.context.ok():
                return  # interrupted in the middle of a callback
            self.health.failed = f"internal error: {error}"
            self.health.drop("internal_error", repr(error))
            self.get_logger().error(traceback.format_exc(), throttle_duration_sec=2.0)

    def timed(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run a unit of work and record how long it took."""
        started = time.perf_counter()
        result = work(*arguments)
        self.health.processed(time.perf_counter() - started)
        return result

    def _publish_health(self) -> None:
        message = DiagnosticArray(status=[self.health.status()])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


N = TypeVar("N", bound=VprNode)


def run(
    node_class: type[N], until: Callable[[N], bool] = lambda _: False, poll: float = 0.1
) -> None:
    """Process entry point of one node: exit status 0 when stopped, 2 when refused at start.

    Args:
        until: the process also ends once this is true of the node; asked every ``poll`` seconds.
    """
    node: N | None = None
    refused = False
    try:
        rclpy.init()
        node = node_class()
        refused = not node.autostart()
        _yield_cores(node)
        executor = executor_of(node)
        while rclpy.ok() and not refused and not until(node):
            executor.spin_once(timeout_sec=poll)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # else the signal to stop came in the middle of publishing
            raise
    finally:
        with suppress(KeyboardInterrupt):  # a second Ctrl-C during the clean-up
            if node is not None:
                node.finish()
    if node is not None:
        leave([node], 2 if refused or node.start_error else 0)


def executor_of(node: VprNode) -> Executor:
    """The configured executor with the node.

    Raises:
        ImportError: rclpy has none of that kind, as before 7.1.4.
    """
    if node.get_parameter("executor").value == "events":
        from rclpy.experimental import EventsExecutor  # not there in older ones

        executor = EventsExecutor()
    else:
        executor = SingleThreadedExecutor()
    executor.add_node(node)
    return executor


def _yield_cores(node: VprNode) -> None:
    """Lower the priority of the thread that works; those that receive messages keep theirs."""
    niceness = node.get_parameter("niceness").value
    if isinstance(niceness, int) and niceness > 0:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def leave(nodes: Sequence[VprNode], status: int) -> None:
    """Tell the other participants and end the process.

    Fast DDS was seen to wait for ever in its destructors, so SIGALRM ends it after a while.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LEAVE_PATIENCE)
    for node in nodes:
        node.destroy_node()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
