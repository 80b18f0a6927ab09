"""A map for other programs: TUM trajectories, g2o graphs, PLY for viewers, GeoJSON for maps.

And for people: a sheet of the closures in it, each by the thumbnails of its two keyframes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import gtsam
import matplotlib
import numpy as np
import pymap3d
from numpy.typing import NDArray

from vpr.evaluation.pictures import ImagePair, draw_pairs
from vpr.evaluation.trajectory import StampedPoses, write_tum
from vpr.geometry import pose_from_xy_yaw
from vpr.graph.edges import EdgeKind
from vpr.graph.lie_group import SE3
from vpr.graph.state import GraphState
from vpr.graph.storage import load_graph
from vpr.maps.folder import open_part
from vpr.maps.table import MapError
from vpr.places.memory import TABLE
from vpr.records import ClosureState, Image, Pose
from vpr.verification.state import StoredFeatures

Vectors = NDArray[np.float64]
FORMATS = ("tum", "g2o", "ply", "geojson", "png")
SHEET_PAIRS = 12  # closures on the sheet, of all evenly
SHORTEST_BASE = 1.0  # m; a map whose fixes all lie closer together has no heading


def export_map(folder: Path, out: Path, kind: str) -> int:
    """Write the keyframes that have their place in the map; returns how many.

    Args:
        kind: one of ``FORMATS``.

    Raises:
        MapError, PoseGraphError: the map is damaged, has no such keyframe, or no fixes to place
            it on the earth (geojson), or no closures with pictures (png).
    """
    state = load_graph(open_part(folder, "graph"))
    anchored = np.flatnonzero(state.pieces == 0)
    if not len(anchored):
        raise MapError(f"{folder} has no keyframe with a place in the map: nothing to export")
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "tum":
        order = anchored[np.argsort(state.stamps_ns[anchored], kind="stable")]
        write_tum(out, StampedPoses(tuple(state.stamps_ns[order].tolist()), (*state.poses[order],)))
    elif kind == "g2o":
        _write_g2o(out, state, anchored)
    elif kind == "ply":
        _write_ply(out, state, anchored)
    elif kind == "geojson":
        _write_geojson(out, state, anchored, _fixes(folder, state.ids))
    elif kind == "png":
        _draw_closures(out, state, folder)
    else:
        raise MapError(f"'{kind}' is none of the formats {', '.join(FORMATS)}")
    return len(anchored)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name to write to, which takes the file's place once all is written."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    yield unfinished
    unfinished.replace(path)


def _verified(state: GraphState, rows: NDArray[np.int64]) -> list[Any]:
    """Edges that take part in the solution, between the given keyframes."""
    chosen = set(state.ids[rows].tolist())
    return [
        edge
        for edge in state.edges
        if edge.state is ClosureState.VERIFIED and {edge.from_id, edge.to_id} <= chosen
    ]


def _write_g2o(out: Path, state: GraphState, rows: NDArray[np.int64]) -> None:
    group, graph, values = SE3(), gtsam.NonlinearFactorGraph(), gtsam.Values()
    for row in rows.tolist():
        values.insert(int(state.ids[row]), group.element(state.poses[row]))
    for edge in _verified(state, rows):
        covariance = group.tangent_covariance(edge.covariance, edge.measured)
        noise = gtsam.noiseModel.Gaussian.Covariance(covariance)
        ends = edge.from_id, edge.to_id
        graph.add(group.between(*ends, group.element(edge.measured), noise))
    with _replacing(out) as path:
        gtsam.writeG2o(graph, values, str(path))


def _write_ply(out: Path, state: GraphState, rows: NDArray[np.int64]) -> None:
    """A point a keyframe, a colour a session, and the edges as lines; binary, little-endian."""
    colours = (255 * matplotlib.colormaps["tab10"](np.arange(10))[:, :3]).round().astype(np.uint8)
    points = np.zeros(
        len(rows), [("xyz", "<f4", 3), ("rgb", "u1", 3), ("session", "<i4"), ("id", "<i4")]
    )
    points["xyz"] = state.poses[rows, :3, 3]
    points["session"], points["id"] = state.sessions[rows], state.ids[rows]
    points["rgb"] = colours[state.sessions[rows] % len(colours)]
    ends = [(edge.from_id, edge.to_id) for edge in _verified(state, rows)]
    lines = np.searchsorted(state.ids[rows], np.array(ends, np.int64).reshape(-1, 2))
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment keyframes and edges of a vpr map, metres\n"
        f"element vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        "property int session\nproperty int id\n"
        f"element edge {len(lines)}\nproperty int vertex1\nproperty int vertex2\nend_header\n"
    )
    with _replacing(out) as path:
        path.write_bytes(header.encode() + points.tobytes() + lines.astype("<i4").tobytes())


@dataclass(frozen=True)
class _Fixes:
    rows: NDArray[np.int64]  # (M,) of the graph's keyframes
    geodetic: Vectors  # (M, 3) latitude, longitude (degrees), altitude (m)


def _fixes(folder: Path, ids: NDArray[np.int64]) -> _Fixes:
    part = open_part(folder, "places")
    if not part.tables:
        return _Fixes(np.zeros(0, np.int64), np.zeros((0, 3)))
    table = part.table(TABLE)
    fixes = table.column("fixes", "<f8", (3,)).all()
    known = table.column("ids", "<i8").all()
    rows = np.searchsorted(ids, known)
    inside = rows < len(ids)
    inside[inside] = ids[rows[inside]] == known[inside]
    inside &= np.isfinite(fixes).all(axis=1)
    return _Fixes(rows[inside], fixes[inside])


def _write_geojson(out: Path, state: GraphState, rows: NDArray[np.int64], fixes: _Fixes) -> None:
    """A line a session in WGS-84 (RFC 7946), where the fixes of its keyframes put the map."""
    used = np.isin(fixes.rows, rows)
    origin = fixes.geodetic[used][:1]
    enu_T_map = _georeference(
        state.poses[fixes.rows[used], :3, 3], fixes.geodetic[used], origin.ravel()
    )
    east, north, up = (enu_T_map[:3, :3] @ state.poses[rows, :3, 3].T) + enu_T_map[:3, 3:]
    latitude, longitude, altitude = pymap3d.enu2geodetic(east, north, up, *origin[0])
    positions = np.stack([longitude, latitude, altitude], axis=1)
    features = []
    for session in np.unique(state.sessions[rows]).tolist():
        own = state.sessions[rows] == session
        line = positions[own].tolist()
        shape = {"type": "LineString", "coordinates": line if len(line) > 1 else line * 2}
        properties = {
            "session": session,
            "keyframes": len(line),
            "first_stamp_ns": int(state.stamps_ns[rows][own].min()),
            "last_stamp_ns": int(state.stamps_ns[rows][own].max()),
        }
        features.append({"type": "Feature", "geometry": shape, "properties": properties})
    with _replacing(out) as path:
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}) + "\n")


def _draw_closures(out: Path, state: GraphState, folder: Path) -> None:
    part = open_part(folder, "features")
    views = StoredFeatures(part) if part.tables else None
    pairs = []
    for edge in state.edges:
        if edge.kind is not EdgeKind.CLOSURE or views is None:
            continue
        seen = [_thumbnail(views, keyframe) for keyframe in (edge.from_id, edge.to_id)]
        reference, query = seen
        if reference is not None and query is not None:
            verified = edge.state is ClosureState.VERIFIED
            name = f"{edge.to_id} in {edge.from_id}"
            pairs.append(ImagePair(query, reference, verified, f"{name}: {edge.reason}"))
    if not pairs:
        raise MapError(f"{folder} has no closure between keyframes with thumbnails: no sheet")
    shown = np.linspace(0, len(pairs) - 1, min(SHEET_PAIRS, len(pairs))).round().astype(int)
    draw_pairs(out, [pairs[index] for index in shown])


def _thumbnail(views: StoredFeatures, keyframe_id: int) -> Image | None:
    row = views.index_of(keyframe_id)
    jpeg = np.zeros(0, np.uint8) if row is None else views.thumbnail(row)
    image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR) if len(jpeg) else None
    return None if image is None else np.asarray(image, np.uint8)


def _georeference(positions: Vectors, geodetic: Vectors, origin: Vectors) -> Pose:
    """enu_T_map by least squares over heading and shift; up is up in both.

    A straight road is enough, which is not so for a full rotation.
    """
    if len(positions) < 2:
        raise MapError(f"only {len(positions)} keyframes of the map have a fix; GeoJSON needs 2")
    enu = np.stack(pymap3d.geodetic2enu(*geodetic.T, *origin), axis=1)
    a, b = positions - positions.mean(axis=0), enu - enu.mean(axis=0)
    if np.linalg.norm(a[:, :2], axis=1).max() < SHORTEST_BASE:
        raise MapError("all fixes of the map are at one spot: they give it no heading")
    cross = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    pose = pose_from_xy_yaw(0.0, 0.0, float(np.arctan2(cross, (a[:, :2] * b[:, :2]).sum())))
    pose[:3, 3] = enu.mean(axis=0) - pose[:3, :3] @ positions.mean(axis=0)
    return pose
