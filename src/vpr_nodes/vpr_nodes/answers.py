"""Answers of other nodes' services, which nobody waits for once the node has stopped."""

from __future__ import annotations

import time
from typing import Any

from rclpy.client import Client
from rclpy.node import Node

from vpr_nodes.vpr_node import STEADY

LOOK_PERIOD = 1.0  # s
PATIENCE = 600.0  # s, for the largest map on a slow disk


async def answer_of(node: Node, client: Client, request: Any) -> Any:
    """What a service answers; None when it is gone, or goes before it answered, or hangs.

    A node that was killed is missed when its lease in DDS ends (Fast DDS: 20 s), one that lives and
    does not answer after ``PATIENCE``.
    """
    if not client.service_is_ready():
        return None
    future = client.call_async(request)

    deadline = time.monotonic() + PATIENCE

    def look() -> None:
        if not client.service_is_ready() or time.monotonic() > deadline:
            future.cancel()

    watch = node.create_timer(LOOK_PERIOD, look, client.callback_group, clock=STEADY)
    try:
        return await future
    finally:
        node.destroy_timer(watch)
