"""Which keyframes should show what the newest one shows, if the pose graph is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.geometry import relative
from vpr.places.maxima import distinct_maxima
from vpr.records import Pose
from vpr.verification.dense_alignment import DepthView, expected_overlap

GLANCES = 32  # points of the newest view that are looked for in all views in reach
NEAREST_ROWS = 2048  # in reach that are looked at so, and of these
LOOKED_AT = 48  # that are looked at with what hides what

ViewOf = Callable[[int], DepthView | None]


@dataclass(frozen=True)
class MapPoses:
    """Where a pose graph has the keyframes that have a place in the map.

    Attributes:
        ids: (N,) ascending. sessions, stamps_ns: (N,) of them.
        poses: (N, 4, 4) map_T_base.
        tied: (K,) ids of keyframes at the ends of closures that the graph holds.
    """

    ids: NDArray[np.int64]
    sessions: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]
    tied: NDArray[np.int64]
    driven: NDArray[np.float64] = field(init=False)  # (N,) m, over all sessions
    untied: NDArray[np.float64] = field(init=False)  # (N,) m to the nearest that is tied

    def __post_init__(self) -> None:
        steps = np.linalg.norm(np.diff(self.poses[:, :3, 3], axis=0), axis=1)
        driven = np.concatenate([[0.0], np.cumsum(steps)])[: len(self.ids)]
        object.__setattr__(self, "driven", driven)
        object.__setattr__(self, "untied", self._untied(driven))

    def __len__(self) -> int:
        return len(self.ids)

    def row_of(self, keyframe_id: int) -> int | None:
        """Row of a keyframe, None where it has no place in the map."""
        row = int(np.searchsorted(self.ids, keyframe_id))
        return row if row < len(self) and self.ids[row] == keyframe_id else None

    def _untied(self, driven: NDArray[np.float64]) -> NDArray[np.float64]:
        result = np.full(len(self), np.inf)
        ends = np.flatnonzero(np.isin(self.ids, self.tied))
        if not len(ends):
            return result
        rows = np.arange(len(self))
        after = np.searchsorted(ends, rows)
        for neighbour in (ends[np.maximum(after - 1, 0)], ends[np.minimum(after, len(ends) - 1)]):
            own = self.sessions[neighbour] == self.sessions
            away = np.where(own, np.abs(driven - driven[neighbour]), np.inf)
            np.minimum(result, away, out=result)
        return result


@dataclass(frozen=True)
class Whereabouts:
    """Where a keyframe is by the graph and by odometry since.

    Attributes:
        pose: map_T_base. row: of the keyframe that the odometry goes on from.
        since: m driven since that one.
    """

    pose: Pose
    row: int
    since: float

    def drift(self, poses: MapPoses, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """(M,) metres driven by which the graph's view of these keyframes from here can drift."""
        to_tied = self.since + poses.untied[self.row] + poses.untied[rows]
        own = poses.sessions[rows] == poses.sessions[self.row]
        direct = self.since + np.abs(poses.driven[self.row] - poses.driven[rows])
        return np.where(own, np.minimum(direct, to_tied), to_tied)


def in_reach(
    poses: MapPoses, here: Whereabouts, config: LoopClosureConfig
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Rows of keyframes that the newest one may close a loop with, and their drift in m."""
    near = np.abs(poses.poses[:, :3, 3] - here.pose[:3, 3]).max(axis=1) < config.expected_reach
    rows = np.flatnonzero(near)
    own = poses.sessions[rows] == poses.sessions[here.row]
    away = np.linalg.norm(poses.poses[rows, :3, 3] - here.pose[:3, 3], axis=1)
    driven = here.since + poses.driven[here.row] - poses.driven[rows]
    drift = config.drift_translation * here.drift(poses, rows)
    kept = (away < config.expected_reach) & (drift <= config.expected_max_drift)
    kept &= ~own | (driven >= config.expected_min_driven)
    return rows[kept], drift[kept]


def expected_views(
    query: DepthView,
    map_T_query: Pose,
    map_T_cameras: NDArray[np.float64],
    rows: NDArray[np.intp],
    view_of: ViewOf,
    least: float,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Those of the rows whose views should show some of what the query shows, and how much.

    Args:
        map_T_query, map_T_cameras: (4, 4) and (M, 4, 4), of the query's camera and those of the
            rows.
        rows: (M,) ascending, by which ``view_of`` knows them.
        least: share of the query's cells that counts.

    Returns:
        ascending rows; shares of the query's cells. A view that is None shows nothing.
    """
    away = np.linalg.norm(map_T_cameras[:, :3, 3] - map_T_query[:3, 3], axis=1)
    near = np.argsort(away, kind="stable")[:NEAREST_ROWS]
    glanced = _in_frustum(query, map_T_query, map_T_cameras[near])
    best = np.argsort(-glanced, kind="stable")[:LOOKED_AT]
    kept = np.sort(near[best[glanced[best] > 0.0]])
    rows, map_T_cameras = rows[kept], map_T_cameras[kept]
    shares = np.zeros(len(rows))
    for number, row in enumerate(rows.tolist()):
        view = view_of(row)
        if view is not None:
            start = relative(map_T_cameras[number], map_T_query)
            shares[number] = expected_overlap(query, view, start)
    return rows[shares > least], shares[shares > least]


def best_apart(
    rows: NDArray[np.intp], scores: NDArray[np.float64], config: LoopClosureConfig
) -> list[int]:
    """Rows of the highest scores that are some keyframes apart, best first."""
    if not len(rows) or not config.expected_loops:
        return []
    chosen = distinct_maxima(
        scores.astype(np.float32), config.expected_loops, config.expected_separation, rows
    )
    return [int(row) for row in rows[chosen]]


def _in_frustum(
    query: DepthView, map_T_query: Pose, map_T_cameras: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(M,) shares of some of the query's points that lie in each camera's image, seen or hidden.

    All cameras are taken for the query's.
    """
    points = query.points.reshape(-1, 3)
    points = points[np.isfinite(points[:, 2])]
    points = points[:: max(len(points) // GLANCES, 1)]
    if not len(points):
        return np.zeros(len(map_T_cameras))
    in_map = points @ map_T_query[:3, :3].T + map_T_query[:3, 3]
    offsets = in_map[None] - map_T_cameras[:, None, :3, 3]
    seen = np.einsum("mpi,mij->mpj", offsets, map_T_cameras[:, :3, :3])
    ahead = seen[:, :, 2] > 0.0
    depth = np.where(ahead, seen[:, :, 2], 1.0)
    column = query.lens[0] * seen[:, :, 0] / depth + query.lens[2]
    row = query.lens[1] * seen[:, :, 1] / depth + query.lens[3]
    height, width = query.points.shape[:2]
    inside = ahead & (column >= 0) & (column < width - 1) & (row >= 0) & (row < height - 1)
    return np.asarray(inside.mean(axis=1))
