"""One node's part of a map: written when pose_graph asks, loaded at start or on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vpr_interfaces.srv import LoadMap, SaveMap

from vpr.maps.folder import Part, PartDigest, PartOutdated, PartWriter, open_part, read_manifest
from vpr.maps.table import MapError
from vpr_nodes.vpr_node import VprNode


class MapPart:
    """Services ``~/save_part`` and ``~/load_part`` of a node.

    Args:
        save: writes what the map does not have yet; raises ValueError where it can't.
        load: takes a part of a map; raises ValueError for what it cannot take.
        without: told where a map has no such part, and why; None refuses such a map.
    """

    def __init__(
        self,
        node: VprNode,
        name: str,
        save: Callable[[PartWriter], PartDigest],
        load: Callable[[Part], None],
        without: Callable[[str], None] | None = None,
    ) -> None:
        self._node, self._name, self._without = node, name, without
        self._save_to, self._load_from = save, load
        node.create_service(SaveMap, "~/save_part", self._save)
        node.create_service(LoadMap, "~/load_part", self._load)

    def load(self, folder: Path) -> int:
        """Load this part of a map; returns how many things it holds.

        Raises:
            MapError, ValueError: the map is damaged or does not fit; nothing is changed then.
        """
        if self._without is not None and not read_manifest(folder).has(self._name):
            remark = f"the map in {folder} has no {self._name}: it was saved without this node"
            self._without(remark)
            self._node.get_logger().warning(remark)
            return 0
        part = open_part(folder, self._name)
        self._load_from(part)
        self._node.get_logger().info(f"{part.count} {self._name} loaded from {folder}")
        return part.count

    def _save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        try:
            with PartWriter(Path(request.path), request.revision, self._name) as writer:
                digest = self._save_to(writer)
        except (MapError, ValueError) as error:
            response.ok, response.message = False, str(error)
            response.outdated = isinstance(error, PartOutdated)
            return response
        response.ok, response.digest = True, digest.model_dump_json()
        response.keyframes = digest.count
        return response

    def _load(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        try:
            response.keyframes = self.load(Path(request.path))
            response.ok = True
        except (MapError, ValueError) as error:
            response.ok, response.message = False, str(error)
            self._node.get_logger().error(str(error))
        return response
