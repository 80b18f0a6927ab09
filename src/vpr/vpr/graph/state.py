"""The pose graph at rest: plain arrays and words, to be written to a map and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.graph.edges import (
    Edge,
    EdgeKind,
    PoseGraphError,
    covariance_problem,
    pose_problem,
)
from vpr.graph.fixes import Geodetic
from vpr.records import ClosureState

_NODE_ARRAYS = {
    "ids": (np.int64, ()),
    "sessions": (np.int64, ()),
    "stamps_ns": (np.int64, ()),
    "pieces": (np.int64, ()),
    "poses": (np.float64, (4, 4)),
    "odometry": (np.float64, (4, 4)),
}
_EDGE_ARRAYS = {
    "edge_from": (np.int64, ()),
    "edge_to": (np.int64, ()),
    "edge_kind": (np.int64, ()),
    "edge_state": (np.int64, ()),
    "edge_chi2": (np.float64, ()),
    "edge_measured": (np.float64, (4, 4)),
    "edge_covariance": (np.float64, (6, 6)),
}


@dataclass(frozen=True)
class GraphState:
    """N keyframes in ascending order of id, and the edges between them."""

    ids: NDArray[np.int64]  # (N,)
    sessions: NDArray[np.int64]  # (N,)
    stamps_ns: NDArray[np.int64]  # (N,)
    pieces: NDArray[np.int64]  # (N,) which connected piece a keyframe is in; 0 is the map
    poses: NDArray[np.float64]  # (N, 4, 4) in the frame of the piece
    odometry: NDArray[np.float64]  # (N, 4, 4) odom_T_base, NaN where there was none
    edges: tuple[Edge, ...]
    origin: Geodetic | None = None  # of the ENU frame that edges of kind FIX begin in

    def check(self) -> None:
        """Raise ``PoseGraphError`` where the parts contradict each other."""
        count = len(self.ids)
        for name, (_, shape) in _NODE_ARRAYS.items():
            if getattr(self, name).shape != (count, *shape):
                found = getattr(self, name).shape
                raise PoseGraphError(f"graph array '{name}' is {found}, not {(count, *shape)}")
        if count and (np.diff(self.ids) <= 0).any():
            raise PoseGraphError("graph keyframe ids do not ascend")
        if not np.isfinite(self.poses).all():
            raise PoseGraphError("graph has a pose that is not finite")
        if count and not np.array_equal(np.unique(self.pieces), np.arange(self.pieces.max() + 1)):
            raise PoseGraphError("graph pieces are not numbered from 0")
        if self.origin is None and any(edge.kind is EdgeKind.FIX for edge in self.edges):
            raise PoseGraphError("graph has GPS fixes, but no origin of them")
        known = set(self.ids.tolist())
        for edge in self.edges:
            if edge.from_id not in known or edge.to_id not in known:
                raise PoseGraphError(f"graph edge {edge.from_id} - {edge.to_id} has no such ends")
            if problem := covariance_problem(edge.covariance) or pose_problem(edge.measured):
                raise PoseGraphError(f"graph edge {edge.from_id} - {edge.to_id}: {problem}")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All numbers, by name."""
        edges = self.edges
        columns: dict[str, list[Any]] = {
            "edge_from": [edge.from_id for edge in edges],
            "edge_to": [edge.to_id for edge in edges],
            "edge_kind": [int(edge.kind) for edge in edges],
            "edge_state": [int(edge.state) for edge in edges],
            "edge_chi2": [edge.chi2 for edge in edges],
            "edge_measured": [edge.measured for edge in edges],
            "edge_covariance": [edge.covariance for edge in edges],
        }
        result: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _NODE_ARRAYS}
        for name, (dtype, shape) in _EDGE_ARRAYS.items():
            result[name] = np.array(columns[name], dtype).reshape(-1, *shape)
        return result

    def metadata(self) -> dict[str, Any]:
        """All words, JSON-able: reasons of the edges that have one, by the edge's number."""
        return {
            "reasons": {str(i): edge.reason for i, edge in enumerate(self.edges) if edge.reason},
            "origin": self.origin,
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
    ) -> GraphState:
        """Inverse of ``arrays`` and ``metadata``.

        Raises:
            PoseGraphError: an array is missing or has another type or shape.
        """
        for name, (dtype, shape) in (_NODE_ARRAYS | _EDGE_ARRAYS).items():
            if name not in arrays:
                raise PoseGraphError(f"graph array '{name}' is missing")
            found = arrays[name]
            if found.dtype != dtype or found.shape[1:] != shape:
                raise PoseGraphError(f"graph array '{name}' is {found.dtype} {found.shape}")
        lengths = {len(arrays[name]) for name in _EDGE_ARRAYS}
        if len(lengths) > 1:
            raise PoseGraphError(f"graph edge arrays have different lengths: {sorted(lengths)}")
        nodes = {name: np.asarray(arrays[name]) for name in _NODE_ARRAYS}
        edges = _edges(arrays, metadata.get("reasons", {}))
        return cls(**nodes, edges=edges, origin=_origin(metadata.get("origin")))


def _origin(values: Any) -> Geodetic | None:
    if values is None:
        return None
    try:
        latitude, longitude, altitude = map(float, values)
    except (TypeError, ValueError) as error:
        raise PoseGraphError(f"graph has an origin that is none: {values}") from error
    return latitude, longitude, altitude


def _edges(arrays: Mapping[str, NDArray[Any]], reasons: Mapping[str, str]) -> tuple[Edge, ...]:
    try:
        return tuple(
            Edge(
                from_id=int(arrays["edge_from"][i]),
                to_id=int(arrays["edge_to"][i]),
                kind=EdgeKind(int(arrays["edge_kind"][i])),
                state=ClosureState(int(arrays["edge_state"][i])),
                measured=np.asarray(arrays["edge_measured"][i]),
                covariance=np.asarray(arrays["edge_covariance"][i]),
                reason=reasons.get(str(i), ""),
                chi2=float(arrays["edge_chi2"][i]),
            )
            for i in range(len(arrays["edge_from"]))
        )
    except ValueError as error:
        raise PoseGraphError(f"graph has an edge of unknown kind: {error}") from error
