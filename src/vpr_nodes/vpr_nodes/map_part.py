"""One node's part of a map: written when pose_graph asks, loaded at start or on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from vpr_interfaces.srv import LoadMap, SaveMap

from vpr.maps.folder import MapError, read_part, write_part
from vpr_nodes.vpr_node import VprNode

Arrays = Mapping[str, NDArray[Any]]


class MapPart:
    """Services ``~/save_part`` and ``~/load_part`` of a node.

    Args:
        state: arrays and JSON-able metadata of all that is to be kept.
        restore: takes them back; raises ValueError for what it cannot take.
        count: how many things ``state`` keeps.
    """

    def __init__(
        self,
        node: VprNode,
        name: str,
        state: Callable[[], tuple[Arrays, Mapping[str, Any]]],
        restore: Callable[[Arrays, Mapping[str, Any]], None],
        count: Callable[[], int],
    ) -> None:
        self._node, self._name = node, name
        self._state, self._restore, self._count = state, restore, count
        node.create_service(SaveMap, "~/save_part", self._save)
        node.create_service(LoadMap, "~/load_part", self._load)

    def load(self, folder: Path) -> int:
        """Load this part of a map; returns how many things it holds.

        Raises:
            MapError, ValueError: the map is damaged or does not fit; nothing is changed then.
        """
        arrays, metadata = read_part(folder, self._name)
        self._restore(arrays, metadata)
        self._node.get_logger().info(f"{self._count()} {self._name} loaded from {folder}")
        return self._count()

    def _save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        try:
            arrays, metadata = self._state()
            digest = write_part(
                Path(request.path), request.revision, self._name, arrays, metadata, self._count()
            )
        except (MapError, ValueError) as error:
            response.ok, response.message = False, str(error)
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
