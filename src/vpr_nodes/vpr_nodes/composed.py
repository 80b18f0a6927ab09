"""composed: several nodes in one process, sharing one CUDA context and one copy of each model.

``--nodes segmentation embedding ...`` picks them; the default is all that need no argument.
The node names, parameters and topics are those of the separate executables.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

import rclpy
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.utilities import remove_ros_args

from vpr_nodes.vpr_node import VprNode, executor_of, leave

POLL_PERIOD = 0.2  # s
SUITE = (
    "segmentation",
    "embedding",
    "sequence_matching",
    "loop_closure",
    "pose_graph",
    "gps_image_sync",
)


def node_class(name: str) -> type[VprNode]:
    """The node of a module of this package, e.g. ``embedding`` -> ``EmbeddingNode``."""
    module = import_module(f"vpr_nodes.{name}")
    found: type[VprNode] = getattr(module, "".join(map(str.title, name.split("_"))) + "Node")
    return found


def main() -> None:
    """Process entry point: exit status 2 when a node is refused at start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", nargs="+", choices=SUITE, default=list(SUITE))
    names = parser.parse_args(remove_ros_args(sys.argv)[1:]).nodes
    nodes: list[VprNode] = []
    refused = False
    try:
        rclpy.init()
        nodes += [node_class(name)() for name in names]
        refused = not all(node.autostart() for node in nodes)
        if not refused:
            _spin(nodes)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        with suppress(KeyboardInterrupt):
            for node in nodes:
                node.finish()
    if nodes:
        leave(nodes, 2 if refused else 0)


def _spin(nodes: Sequence[VprNode]) -> None:
    """Spin each node in a thread of its own until the context ends.

    One executor for all was 30 times slower: rclpy looks through every entity of every node for
    each message.
    """
    threads = []
    for node in nodes:
        threads.append(threading.Thread(target=_spin_one, args=[executor_of(node)], daemon=True))
        threads[-1].start()
    for thread in threads:
        while thread.is_alive():
            thread.join(POLL_PERIOD)  # so that Ctrl-C is heard in between


def _spin_one(executor: Executor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()


if __name__ == "__main__":
    main()
