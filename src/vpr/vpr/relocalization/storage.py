"""Scene embeddings in a map on disk: a part of their own, which other maps need not have.

Only what the encoder made is kept. The aggregated features come of it by one pass of the graph
network, and the loops are those of the map's pose graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.maps.folder import Part, PartDigest, PartOutdated, PartWriter

PART = "scenes"
TABLE = "nodes"


class SceneStateError(ValueError):
    """Saved embeddings that contradict themselves."""


@dataclass(frozen=True)
class StoredScenes:
    """N keyframes in the order of their ids, which ascend with time and session.

    Attributes:
        ids, sessions, stamps_ns: (N,) int64.
        embeddings: (N, D) float32.
    """

    ids: NDArray[np.int64]
    sessions: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    embeddings: NDArray[np.float32]

    @classmethod
    def of_map(cls, part: Part) -> StoredScenes:
        """The embeddings of a map.

        Raises:
            SceneStateError: numbers that do not ascend, or embeddings that are not finite.
            MapError: the map is damaged.
        """
        table = part.table(TABLE)
        ids, sessions, stamps_ns = (
            np.array(table.column(name, "int64").all()) for name in ("ids", "sessions", "stamps_ns")
        )
        embeddings = np.array(table.column("embeddings", "float32", (None,)).all())
        scenes = cls(ids, sessions, stamps_ns, embeddings)
        if (np.diff(scenes.ids) <= 0).any() or (np.diff(scenes.sessions) < 0).any():
            raise SceneStateError("ids or sessions of the saved scenes do not ascend")
        if not np.isfinite(embeddings).all():
            raise SceneStateError("a saved scene embedding is not finite")
        return scenes

    def beside(self) -> list[int | None]:
        """The keyframe before each in its session; None where it begins one."""
        follows = np.diff(self.sessions, prepend=-1) == 0
        before = np.roll(self.ids, 1).tolist()
        return [i if goes_on else None for i, goes_on in zip(before, follows, strict=True)]


def save_scenes(writer: PartWriter, scenes: StoredScenes, model: str) -> PartDigest:
    """Write the keyframes that a map does not have yet.

    Raises:
        PartOutdated: the map has other keyframes than the first ones here, or of another model.
        MapError: as ``PartWriter.append``.
    """
    saved = writer.saved(TABLE)
    part = writer.saved_part()
    if part is not None and saved:
        last = int(part.table(TABLE).column("ids", "int64")[saved - 1])
        same = saved <= len(scenes.ids) and int(scenes.ids[saved - 1]) == last
        if not same or part.metadata.get("model") != model:
            raise PartOutdated("the scenes changed since the map was saved")
    if saved < len(scenes.ids):
        columns = ("ids", "sessions", "stamps_ns", "embeddings")
        writer.append(TABLE, {name: getattr(scenes, name)[saved:] for name in columns})
    return writer.finish(len(scenes.ids), {"model": model})
