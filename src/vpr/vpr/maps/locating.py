"""Where in a saved map an image was taken, without any node: for one photo and for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vpr.config import LoopClosureConfig, PoseGraphConfig, RelocalizationConfig
from vpr.graph.edges import EdgeKind
from vpr.graph.pose_graph import PoseGraph
from vpr.graph.storage import load_graph
from vpr.maps.folder import open_part
from vpr.maps.table import MapError
from vpr.records import CameraModel, ClosureState, Image
from vpr.relocalization.located import NotLocated, Relocalization, located
from vpr.relocalization.relocalizer import Relocalizer
from vpr.relocalization.storage import PART
from vpr.verification.depth_cells import Depth
from vpr.verification.loop_closer import LoopCloser


class MapLocator:
    """A map that images are relocalized in, as the service ``relocalize`` does.

    Args:
        params_file: parameters laid over the shipped ones.
        overrides: of gnn_relocalization.

    Raises:
        MapError, ValueError: the map is damaged, or has no scene embeddings of this model.
    """

    def __init__(self, folder: Path, params_file: Path | None = None, **overrides: Any) -> None:
        self._config = RelocalizationConfig.from_file(params_file, **overrides)
        self._closure_config = LoopClosureConfig.from_file(params_file)
        self._relocalizer = Relocalizer(self._config)
        self._relocalizer.load(open_part(folder, PART))
        if self._relocalizer.remark:
            raise MapError(self._relocalizer.remark)
        self._closer = LoopCloser(self._closure_config)
        self._closer.load(open_part(folder, "features"))
        state = load_graph(open_part(folder, "graph"))
        graph = PoseGraph.restore(PoseGraphConfig.from_file(params_file), state)
        self._places = {node.id: node.pose for node in graph.nodes() if node.anchored}
        loops = [
            (edge.from_id, edge.to_id)
            for edge in graph.edges()
            if edge.kind is EdgeKind.CLOSURE and edge.state is ClosureState.VERIFIED
        ]
        self._relocalizer.map_is((node.id for node in graph.nodes()), self._places, loops)

    def locate(
        self, image: Image, depth: Depth | None = None, camera: CameraModel | None = None
    ) -> Relocalization:
        """The image's pose in the map.

        Args:
            camera: None assumes the configured field of view.

        Raises:
            PatchError, ImageUnusable: an image that says nothing, or is not of this camera.
            NotLocated: it is not found in the map, or in two places of it.
        """
        height, width = image.shape[:2]
        fov = self._closure_config.assumed_horizontal_fov
        camera = camera or CameraModel.from_horizontal_fov(width, height, fov)
        matches = self._relocalizer.locate(image, 0)
        if not matches.candidates:
            raise NotLocated(matches.explanation)
        features = self._closer.extract(image, depth, camera)
        return located(self._closer.compare(features, matches), self._places, self._config)
