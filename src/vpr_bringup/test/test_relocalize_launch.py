"""relocalize.launch.py with the embedded bag ends in a verified closure and a path.

Run by `colcon test`, by pytest, or by `launch_test` on this file; skipped where ROS 2's launch is
not installed.
"""

import time
import unittest
from pathlib import Path

import pytest

# Not `launch` itself: the workspace's folder of that name would do for an import.
pytest.importorskip("launch_testing_ros", reason="ROS 2's launch_testing_ros is not on PyPI")

import launch_testing
import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare
from launch_testing.actions import ReadyToTest
from launch_testing.asserts import assertExitCodes
from nav_msgs.msg import Path as PathMsg
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from vpr_interfaces.msg import LoopClosure

BAG = Path(__file__).resolve().parents[3] / "bags" / "demo"
NAMESPACE = "launch_test"
TIMEOUT = 300.0  # s; the bag's own length and the start of seven processes, generously


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    relocalize = PathJoinSubstitution(
        [FindPackageShare("vpr_bringup"), "launch", "relocalize.launch.py"]
    )
    arguments = {"bag": str(BAG), "namespace": NAMESPACE}
    return LaunchDescription(
        [
            IncludeLaunchDescription(relocalize, launch_arguments=arguments.items()),
            ReadyToTest(),
        ]
    )


class TestWhileRunning(unittest.TestCase):
    def setUp(self) -> None:
        self.context = rclpy.Context()  # its own: the global one belongs to the main thread
        self.context.init()
        self.node = rclpy.create_node("listener", namespace=NAMESPACE, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def tearDown(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def test_closes_a_loop_and_publishes_the_path(self) -> None:
        verified: list[LoopClosure] = []
        paths: list[PathMsg] = []

        def on_closure(closure: LoopClosure) -> None:
            if closure.state == LoopClosure.VERIFIED:
                verified.append(closure)

        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(LoopClosure, "loop_closures", on_closure, 100)
        self.node.create_subscription(PathMsg, "path", paths.append, latched)
        deadline = time.monotonic() + TIMEOUT
        while not (verified and paths) and time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.5)

        assert verified, "no verified closure on loop_closures"
        assert verified[0].has_relative_pose
        assert paths, "nothing on path"
        assert len(paths[-1].poses) > 1


@launch_testing.post_shutdown_test()
class TestAfterShutdown(unittest.TestCase):
    def test_every_process_ends_cleanly(self, proc_info) -> None:  # type: ignore[no-untyped-def]
        assertExitCodes(proc_info)
