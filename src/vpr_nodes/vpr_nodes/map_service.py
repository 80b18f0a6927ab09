"""Whole maps: ``save_map`` and ``load_map``, which the pose_graph node serves.

Saving asks every node for its part and commits them together; loading reads the manifest and has
every node load its part. A map that cannot be read whole changes nothing on disk. Saving again to
the map that was loaded or saved last adds what is new; ``autosave_period`` does so by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.client import Client
from vpr_interfaces.srv import LoadMap, SaveMap

from vpr.graph.pose_graph import PoseGraph
from vpr.graph.storage import is_worn, load_graph, save_graph
from vpr.maps.folder import (
    MANIFEST,
    Manifest,
    PartDigest,
    PartOutdated,
    PartWriter,
    begin_revision,
    commit,
    open_part,
    read_manifest,
)
from vpr.maps.table import MapError
from vpr_nodes.answers import answer_of
from vpr_nodes.vpr_node import STEADY

if TYPE_CHECKING:
    from vpr_nodes.pose_graph import PoseGraphNode

# Part -> the node that has it, in the order they are saved. Keyframes come from sequence_matching:
# saved last, it knows every keyframe that another part speaks of.
PARTS = {"features": "loop_closure", "places": "sequence_matching"}
# The same of nodes that need not run: a map is whole without them.
OPTIONAL_PARTS = {"scenes": "gnn_relocalization"}


class MapService:
    """Services ``save_map`` and ``load_map`` of the suite."""

    def __init__(self, node: PoseGraphNode) -> None:
        self._node = node
        self._held: Manifest | None = None  # what the suite's memory continues
        self._folder: Path | None = None  # where that is
        self._saving = False
        self._edits = 0
        self._saved_counters: dict[str, int] = {}
        group = ReentrantCallbackGroup()  # a service that waits for other services' answers
        self._savers = {
            name: node.create_client(SaveMap, f"{owner}/save_part", callback_group=group)
            for name, owner in (OPTIONAL_PARTS | PARTS).items()
        }
        self._loaders = {
            name: node.create_client(LoadMap, f"{owner}/load_part", callback_group=group)
            for name, owner in (PARTS | OPTIONAL_PARTS).items()
        }
        node.create_service(SaveMap, "save_map", self._save, callback_group=group)
        node.create_service(LoadMap, "load_map", self._load, callback_group=group)
        if node.config.autosave_period > 0.0:
            period = node.config.autosave_period
            node.create_timer(period, self._autosave, callback_group=group, clock=STEADY)

    def load_graph(self, folder: Path) -> int:
        """Replace the node's graph by a map's; returns its keyframes.

        Raises:
            MapError, PoseGraphError: the map is damaged; the graph stays as it was.
        """
        manifest = read_manifest(folder)
        state = load_graph(open_part(folder, "graph"))
        self._node.adopt(PoseGraph.restore(self._node.config, state), manifest.model)
        self._held, self._folder = manifest, folder
        self._node.get_logger().info(f"graph of {len(state.ids)} keyframes loaded from {folder}")
        return len(state.ids)

    def begin_anew(self) -> None:
        """Have the next save write the whole map: what is on disk is not its beginning any more."""
        self._held = None
        self._edits += 1

    async def save(self, folder: Path) -> Manifest:
        """Save the suite's map; what the folder has of it already is not written again.

        Raises:
            MapError, ValueError: the map was not saved; what the folder held is as it was.
        """
        if self._saving:
            raise MapError("a map is being saved at this moment: try again")
        self._saving = True
        edits, counters = self._edits, dict(self._node.graph.counters)
        try:
            manifest = await self._write(folder)
        finally:
            self._saving = False
        self._held = manifest if edits == self._edits else None
        self._folder, self._saved_counters = folder, counters
        return manifest

    async def _write(self, folder: Path) -> Manifest:
        self._check_ready(self._savers)
        before = read_manifest(folder) if (folder / MANIFEST).exists() else None
        grows = before is not None and before.is_state_of(self._held)
        if grows and is_worn(open_part(folder, "graph")):
            grows = False
        if grows and before is not None:
            try:
                return await self._write_revision(folder, before.revision, before)
            except PartOutdated as outdated:
                self._node.get_logger().info(str(outdated))
        return await self._write_revision(folder, begin_revision(folder), None)

    async def _write_revision(
        self, folder: Path, revision: str, after: Manifest | None
    ) -> Manifest:
        digests = {"graph": self._save_graph(folder, revision, whole=after is None)}
        for name, client in self._running(self._savers):
            request = SaveMap.Request(path=str(folder), revision=revision)
            answer = await self._answer(name, client, request)
            if not answer.ok:
                raise (PartOutdated if answer.outdated else MapError)(answer.message)
            digests[name] = PartDigest.model_validate_json(answer.digest)
        for name in OPTIONAL_PARTS:
            if after is not None and name not in digests and after.has(name):
                digests[name] = after.part(name)  # as it was when its node last ran
        # keyframes told before a model was adopted still name the one they came with
        model = str(digests["places"].metadata.get("model", self._node.model))
        return commit(folder, revision, digests.values(), model, after)

    async def _autosave(self) -> None:
        """Add what is new to the map at hand; until one was saved or loaded there is none."""
        if self._folder is None or self._saving or self._is_saved():
            return
        try:
            await self.save(self._folder)
        except (MapError, ValueError) as error:
            self._node.get_logger().error(f"map not saved: {error}")

    def _is_saved(self) -> bool:
        """Whether nothing came since the last save, and no node lagged behind the others then."""
        if self._held is None or dict(self._node.graph.counters) != self._saved_counters:
            return False
        return len({self._held.part(name).count for name in ("graph", *PARTS)}) == 1

    async def load(self, folder: Path) -> int:
        """Have every node load its part of a map; returns its keyframes.

        Raises:
            MapError, ValueError: a part is damaged or a node is missing. Every part is looked at
                before the first is taken.
        """
        for name in ("graph", *PARTS):
            open_part(folder, name)
        self._check_ready(self._loaders)
        running = self._running(self._loaders)
        manifest = read_manifest(folder)
        for name, _ in running:
            if name in OPTIONAL_PARTS and manifest.has(name):
                open_part(folder, name)
        for name, client in running:
            answer = await self._answer(name, client, LoadMap.Request(path=str(folder)))
            if not answer.ok:
                raise MapError(answer.message)
        return self.load_graph(folder)

    async def _answer(self, part: str, client: Client, request: Any) -> Any:
        answer = await answer_of(self._node, client, request)
        if answer is None:
            raise MapError(f"{(PARTS | OPTIONAL_PARTS)[part]} gave no answer: it stopped or hangs")
        return answer

    @staticmethod
    def _running(clients: Mapping[str, Client]) -> list[tuple[str, Client]]:
        """The clients whose node runs."""
        return [(name, client) for name, client in clients.items() if client.service_is_ready()]

    @staticmethod
    def _check_ready(clients: Mapping[str, Client]) -> None:
        away = [node for name, node in PARTS.items() if not clients[name].service_is_ready()]
        if away:
            raise MapError(f"not running: {', '.join(away)}; a map is made of every node's part")

    def _save_graph(self, folder: Path, revision: str, whole: bool) -> PartDigest:
        graph = self._node.graph
        if whole:  # takes as long as a batch solution, which an increment must not
            graph.settle()
        with PartWriter(folder, revision, "graph") as writer:
            return save_graph(writer, graph.state())

    async def _save(self, request: SaveMap.Request, response: SaveMap.Response) -> Any:
        try:
            manifest = await self.save(Path(request.path))
        except (MapError, ValueError) as error:
            response.ok, response.message = False, str(error)
            self._node.get_logger().error(f"map not saved: {error}")
            return response
        response.ok = True
        response.keyframes = manifest.part("graph").count
        response.closures = self._node.graph.counters["closures"]
        response.message = f"{response.keyframes} keyframes saved to {request.path}"
        self._node.get_logger().info(response.message)
        return response

    async def _load(self, request: LoadMap.Request, response: LoadMap.Response) -> Any:
        folder = Path(request.path)
        try:
            response.keyframes = await self.load(folder)
        except (MapError, ValueError) as error:
            response.ok, response.message = False, str(error)
            self._node.get_logger().error(f"map not loaded: {error}")
            return response
        response.ok = True
        response.closures = self._node.graph.counters["closures"]
        response.message = f"{response.keyframes} keyframes loaded from {folder}"
        return response
