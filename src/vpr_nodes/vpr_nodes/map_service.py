"""Whole maps: ``save_map`` and ``load_map``, which the pose_graph node serves.

Saving asks every node for its part and commits them together; loading reads the manifest and has
every node load its part. A map that cannot be read whole changes nothing on disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from vpr_interfaces.srv import LoadMap, SaveMap

from vpr.graph.pose_graph import PoseGraph
from vpr.graph.state import GraphState
from vpr.maps.folder import (
    MapError,
    PartDigest,
    begin_revision,
    commit,
    read_manifest,
    read_part,
    write_part,
)

if TYPE_CHECKING:
    from vpr_nodes.pose_graph import PoseGraphNode

PARTS = {"places": "sequence_matching", "features": "loop_closure"}  # part -> the node that has it


class MapService:
    """Services ``save_map`` and ``load_map`` of the suite."""

    def __init__(self, node: PoseGraphNode) -> None:
        self._node = node
        group = ReentrantCallbackGroup()  # a service that waits for other services' answers
        self._savers = {
            name: node.create_client(SaveMap, f"{owner}/save_part", callback_group=group)
            for name, owner in PARTS.items()
        }
        self._loaders = {
            name: node.create_client(LoadMap, f"{owner}/load_part", callback_group=group)
            for name, owner in PARTS.items()
        }
        node.create_service(SaveMap, "save_map", self._save, callback_group=group)
        node.create_service(LoadMap, "load_map", self._load, callback_group=group)

    def load_graph(self, folder: Path) -> int:
        """Replace the node's graph by a map's; returns its keyframes.

        Raises:
            MapError, PoseGraphError: the map is damaged; the graph stays as it was.
        """
        arrays, metadata = read_part(folder, "graph")
        state = GraphState.from_arrays(arrays, metadata)
        self._node.adopt(PoseGraph.restore(self._node.config, state), read_manifest(folder).model)
        self._node.get_logger().info(f"graph of {len(state.ids)} keyframes loaded from {folder}")
        return len(state.ids)

    async def _save(self, request: SaveMap.Request, response: SaveMap.Response) -> Any:
        try:
            digests = await self._write_parts(Path(request.path))
        except (MapError, ValueError) as error:
            response.ok, response.message = False, str(error)
            self._node.get_logger().error(f"map not saved: {error}")
            return response
        response.ok = True
        response.keyframes = next(d.count for d in digests if d.name == "graph")
        response.closures = self._node.graph.counters["closures"]
        response.message = f"{response.keyframes} keyframes saved to {request.path}"
        self._node.get_logger().info(response.message)
        return response

    async def _write_parts(self, folder: Path) -> list[PartDigest]:
        revision = begin_revision(folder)
        digests = []
        for name, client in self._savers.items():
            if not client.service_is_ready():
                raise MapError(f"the {PARTS[name]} node is not running: its part cannot be saved")
            answer = await client.call_async(SaveMap.Request(path=str(folder), revision=revision))
            if not answer.ok:
                raise MapError(answer.message)
            digests.append(PartDigest.model_validate_json(answer.digest))
        graph = self._node.graph
        graph.settle()
        state = graph.state()
        digests.append(
            write_part(folder, revision, "graph", state.arrays(), state.metadata(), len(state.ids))
        )
        commit(folder, revision, digests, self._node.model)
        return digests

    async def _load(self, request: LoadMap.Request, response: LoadMap.Response) -> Any:
        folder = Path(request.path)
        try:
            for name in ("graph", *PARTS):  # all are looked at before the first is taken
                read_part(folder, name)
            for name, client in self._loaders.items():
                if not client.service_is_ready():
                    raise MapError(f"the {PARTS[name]} node is not running: it cannot load a map")
                answer = await client.call_async(LoadMap.Request(path=str(folder)))
                if not answer.ok:
                    raise MapError(answer.message)
            response.keyframes = self.load_graph(folder)
        except (MapError, ValueError) as error:
            response.ok, response.message = False, str(error)
            self._node.get_logger().error(f"map not loaded: {error}")
            return response
        response.ok = True
        response.closures = self._node.graph.counters["closures"]
        response.message = f"{response.keyframes} keyframes loaded from {folder}"
        return response
