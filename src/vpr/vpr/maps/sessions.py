"""Maps put together and sessions taken out, on disk and in one step.

Rows go from map to map in pieces, so that no map needs to fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.graph.sessions import joined, offsets, tied, untied, without_session
from vpr.graph.state import GraphState
from vpr.graph.storage import load_graph, save_graph
from vpr.maps.folder import (
    MANIFEST,
    Manifest,
    Part,
    PartDigest,
    PartWriter,
    begin_revision,
    commit,
    open_part,
    read_manifest,
)
from vpr.maps.table import PIECE_ROWS, MapError, Table
from vpr.places.memory import FORGOTTEN
from vpr.places.memory import TABLE as KEYFRAMES
from vpr.records import Covariance, Pose
from vpr.relocalization.storage import PART as SCENES
from vpr.relocalization.storage import TABLE as NODES
from vpr.verification.state import ENDS, VIEWS
from vpr.verification.stored_cells import PIECE_VIEWS
from vpr.verification.stored_cells import TABLE as CELLS

REANCHORED = "taken back: the session was to be anchored anew"
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Source:
    """A map whose rows are taken over, all but a session, with new numbers."""

    folder: Path
    id_offset: int = 0
    session_offset: int = 0
    left_out: int | None = None

    def part(self, name: str) -> Part:
        return open_part(self.folder, name)

    def has(self, name: str) -> bool:
        return read_manifest(self.folder).has(name)

    def pieces(
        self, table: Table, size: int = PIECE_ROWS
    ) -> Iterator[tuple[Arrays, NDArray[np.bool_]]]:
        """Rows of a table of keyframes, renumbered, and which of them are wanted."""
        for start in range(0, table.rows, size):
            rows = dict(table.rows_between(start, start + size))
            wanted = np.ones(len(rows["ids"]), bool)
            if self.left_out is not None:
                wanted = rows["sessions"] != self.left_out
            rows["ids"] = rows["ids"] + self.id_offset
            rows["sessions"] = rows["sessions"] + self.session_offset
            yield rows, wanted


def delete_session(folder: Path, session: int) -> Manifest:
    """Write a map anew without one of its sessions.

    Raises:
        MapError, PoseGraphError: the map is damaged, has no such session, or can't be written; it
            is as it was then.
    """
    state = without_session(load_graph(open_part(folder, "graph")), session)
    return _write(folder, [_Source(folder, left_out=session)], state)


def reanchor_session(
    folder: Path, session: int, pose: Pose | None = None, covariance: Covariance | None = None
) -> Manifest:
    """Take back what ties a session to the others, and place it by hand where a pose is given.

    Without a pose it waits for its next closures to the map.

    Args:
        pose: map_T_base of the session's first keyframe.
        covariance: of the pose, geometry_msgs order.

    Raises:
        MapError, PoseGraphError: as ``delete_session``; or a pose that can't be used.
    """
    state = untied(load_graph(open_part(folder, "graph")), session, REANCHORED)
    if pose is not None and covariance is not None:
        state = tied(state, session, pose, covariance)
    return replace_graph(folder, state)


def merge_maps(folder: Path, sources: Sequence[Path]) -> Manifest:
    """Write several maps into a new one: ids and sessions are renumbered in the order given.

    The first map's frame is that of the result; sessions of the others are not tied to it yet,
    see ``vpr.maps.anchoring``.

    Raises:
        MapError: fewer than two maps, of different models, or damaged; or there is a map in the
            folder already.
    """
    if len(sources) < 2:
        raise MapError("merging needs two maps or more")
    if (folder / MANIFEST).exists():
        raise MapError(f"{folder} holds a map already; choose another folder")
    model = read_manifest(sources[0]).model
    state = load_graph(open_part(sources[0], "graph", model))
    taken = [_Source(sources[0])]
    for source in sources[1:]:
        other = load_graph(open_part(source, "graph", model))
        taken.append(_Source(source, *_offsets(taken[-1], state)))
        state = joined(state, other)
    return _write(folder, taken, state)


def replace_graph(folder: Path, state: GraphState) -> Manifest:
    """Save another state of a map's graph; what did not change is not written again.

    Raises:
        MapError, PoseGraphError: the state is of another map, or can't be written.
    """
    before = read_manifest(folder)
    with PartWriter(folder, before.revision, "graph") as writer:
        graph = save_graph(writer, state)
    others = [digest for digest in before.parts if digest.name != "graph"]
    return commit(folder, before.revision, [*others, graph], before.model, before)


def verify_map(folder: Path) -> Manifest:
    """Read and check every row of every part.

    Raises:
        MapError: damage, with file and rows.
        PoseGraphError, StateError, FeatureStateError, SceneStateError: the map contradicts itself.
    """
    from vpr.places.memory import PlaceMemory
    from vpr.relocalization.storage import StoredScenes
    from vpr.verification.state import StoredFeatures

    manifest = read_manifest(folder)
    for digest in manifest.parts:
        for table in Part(folder, manifest, digest.name).tables.values():
            table.verify()
    load_graph(Part(folder, manifest, "graph")).check()
    if (places := Part(folder, manifest, "places")).tables:
        PlaceMemory.of_map(places).check()
    if (features := Part(folder, manifest, "features")).tables:
        StoredFeatures(features)
    if manifest.has(SCENES) and (scenes := Part(folder, manifest, SCENES)).tables:
        StoredScenes.of_map(scenes)
    return manifest


def _offsets(last: _Source, state: GraphState) -> tuple[int, int]:
    """Numbers from which on neither the graph nor the places of the maps so far have any."""
    ids, sessions = offsets(state)
    part = last.part("places")
    if part.tables and part.table(KEYFRAMES).rows:
        newest = part.table(KEYFRAMES).rows_between(-1, None)
        ids = max(ids, int(newest["ids"][0]) + last.id_offset + 1)
        sessions = max(sessions, int(newest["sessions"][0]) + last.session_offset + 1)
    return ids, sessions


def _write(folder: Path, sources: Sequence[_Source], state: GraphState) -> Manifest:
    model = read_manifest(sources[0].folder).model
    revision = begin_revision(folder)
    digests: list[PartDigest] = []
    with PartWriter(folder, revision, "places") as writer:
        digests.append(_write_places(writer, sources))
    with PartWriter(folder, revision, "features") as writer:
        digests.append(_write_features(writer, sources))
    if any(source.has(SCENES) for source in sources):
        with PartWriter(folder, revision, SCENES) as writer:
            digests.append(_write_scenes(writer, sources))
    with PartWriter(folder, revision, "graph") as writer:
        digests.append(save_graph(writer, state))
    return commit(folder, revision, digests, model)


def _write_places(writer: PartWriter, sources: Sequence[_Source]) -> PartDigest:
    frames: dict[str, int] = {}
    metadata: dict[str, Any] = {}
    forgotten: list[int] = []
    count = 0
    for source in sources:
        part = source.part("places")
        if not part.tables:
            continue
        metadata = part.metadata
        forgotten += [s + source.session_offset for s in metadata.get(FORGOTTEN, ())]
        number = [frames.setdefault(f, len(frames)) for f in part.metadata["frame_ids"]]
        for rows, wanted in source.pieces(part.table(KEYFRAMES)):
            rows["frames"] = np.array(number, np.int64)[rows["frames"]]
            writer.append(KEYFRAMES, {name: column[wanted] for name, column in rows.items()})
            count += int(wanted.sum())
    ours = {"frame_ids": list(frames)} | ({FORGOTTEN: forgotten} if forgotten else {})
    return writer.finish(count, {n: v for n, v in metadata.items() if n != FORGOTTEN} | ours)


def _write_scenes(writer: PartWriter, sources: Sequence[_Source]) -> PartDigest:
    """Scene embeddings of the maps that have any; all of one model, as those of places are."""
    metadata: dict[str, Any] = {}
    count = 0
    for source in sources:
        if not source.has(SCENES) or not (part := source.part(SCENES)).tables:
            continue
        if metadata and metadata["model"] != part.metadata["model"]:
            raise MapError(
                f"{source.folder} has scene embeddings of {part.metadata['model']}, the maps "
                f"before it of {metadata['model']}: their graphs can't be joined"
            )
        metadata = part.metadata
        for rows, wanted in source.pieces(part.table(NODES)):
            writer.append(NODES, {name: column[wanted] for name, column in rows.items()})
            count += int(wanted.sum())
    return writer.finish(count, metadata)


def _write_features(writer: PartWriter, sources: Sequence[_Source]) -> PartDigest:
    cameras: dict[tuple[Any, ...], int] = {}
    metadata: dict[str, Any] = {}
    written = dict.fromkeys(ENDS, 0)
    count = 0
    for source in sources:
        part = source.part("features")
        if not part.tables:
            continue
        if metadata and metadata["feature"] != part.metadata["feature"]:
            raise MapError(f"{source.folder} has other local features than the maps before it")
        metadata = part.metadata
        number = [cameras.setdefault(tuple(c), len(cameras)) for c in metadata["cameras"]]
        read = dict.fromkeys(ENDS, 0)
        for views, wanted in source.pieces(part.table(VIEWS)):
            for table, column in ENDS.items():
                begin, read[table] = read[table], int(views[column][-1])
                sizes = np.diff(views[column], prepend=begin)
                rows, kept = (
                    part.table(table).rows_between(begin, read[table]),
                    wanted.repeat(sizes),
                )
                writer.append(table, {name: values[kept] for name, values in rows.items()})
                views[column] = written[table] + np.cumsum(sizes * wanted)
                written[table] = int(views[column][-1])
            views["cameras"] = np.array([*number, 0], np.int64)[views["cameras"]]
            writer.append(VIEWS, {name: column[wanted] for name, column in views.items()})
            count += int(wanted.sum())
        if CELLS in part.tables:
            for rows, wanted in source.pieces(part.table(CELLS), PIECE_VIEWS):
                writer.append(CELLS, {name: column[wanted] for name, column in rows.items()})
    return writer.finish(count, metadata and metadata | {"cameras": [list(c) for c in cameras]})
