"""composed: several nodes in one process, sharing one CUDA context and one copy of each model.

``--nodes segmentation embedding ...`` picks them; the default is all that need no argument.
The node names, parameters and topics are those of the separate executables.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from importlib import import_module

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.utilities import remove_ros_args

from vpr_nodes.vpr_node import VprNode, leave

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
        executor = MultiThreadedExecutor(num_threads=len(names))
        for name in names:
            nodes.append(node_class(name)())
            executor.add_node(nodes[-1])
        refused = not all(node.autostart() for node in nodes)
        if not refused:
            executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        with suppress(KeyboardInterrupt):
            for node in nodes:
                node.finish()
    if nodes:
        leave(nodes, 2 if refused else 0)


if __name__ == "__main__":
    main()
