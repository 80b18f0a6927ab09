"""Loops that the pose graph expects, found by laying the views of both keyframes over each other.

No look has to be alike: a lap driven the other way round shares walls with the first that no
matching finds. Against a graph that confirms itself, only keyframes are tried that can have drifted
apart little since closures tied them, what is found must lie where that drift allows, and nothing
of it counts as evidence for what matched corners find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vpr.config import LoopClosureConfig
from vpr.geometry import relative, rotation_angle, translation_norm
from vpr.records import ClosureState, LoopClosure, Pose
from vpr.verification.dense_alignment import Alignment, DepthView
from vpr.verification.expected_views import (
    MapPoses,
    Whereabouts,
    best_apart,
    expected_views,
    in_reach,
)
from vpr.verification.keyframe_views import KeyframeView, KeyframeViews
from vpr.verification.overlaid_views import Demand, ViewOverlays, in_words
from vpr.verification.plausibility import gps_forbids, odometry_contradicts
from vpr.verification.relative_pose import RelativePose


@dataclass(frozen=True)
class _Expected:
    """A keyframe that should show some of what the query shows."""

    view: KeyframeView
    depth_view: DepthView
    start: Pose  # reference_T_query between base_link frames, by the graph
    drift: float  # m
    share: float  # of the query's cells


class ExpectedLoops:
    """Tries each keyframe against those that the graph expects it to overlap.

    Args:
        base_T_camera: where the camera sits on the robot.
    """

    def __init__(
        self,
        config: LoopClosureConfig,
        views: KeyframeViews,
        overlays: ViewOverlays,
        base_T_camera: Pose,
    ) -> None:
        self._config, self._views, self._overlays = config, views, overlays
        self._base_T_camera = base_T_camera
        self._demand = Demand.as_expected(config)
        self._poses: MapPoses | None = None

    def map_is(self, poses: MapPoses | None) -> None:
        """Learn where the pose graph has the keyframes; None where that is not known."""
        self._poses = poses

    def closures(self, keyframe_id: int) -> list[LoopClosure]:
        """A verdict on each keyframe that the graph expects this one to overlap."""
        query, poses = self._views.get(keyframe_id), self._poses
        if query is None or poses is None or not len(poses) or not self._config.expected_loops:
            return []
        depth_view = self._overlays.view(query)
        here = None if depth_view is None else self._whereabouts(query, poses)
        if depth_view is None or here is None:
            return []
        return [
            self._verdict(query, depth_view, expected)
            for expected in self._expected(depth_view, here, poses)
        ]

    def _whereabouts(self, query: KeyframeView, poses: MapPoses) -> Whereabouts | None:
        """By odometry since the newest keyframe of its session that the graph has."""
        row = int(np.searchsorted(poses.ids, query.keyframe.id, "right")) - 1
        last = self._known(poses, row) if row >= 0 else None
        if last is None or last.keyframe.session != query.keyframe.session:
            return None
        if last.keyframe.odometry is None or query.keyframe.odometry is None:
            return None
        step = relative(last.keyframe.odometry, query.keyframe.odometry)
        return Whereabouts(poses.poses[row] @ step, row, abs(query.path - last.path))

    def _known(self, poses: MapPoses, row: int) -> KeyframeView | None:
        """The keyframe of a row, if the graph speaks of the same map."""
        view = self._views.get(int(poses.ids[row]))
        if view is None or view.keyframe.stamp_ns != poses.stamps_ns[row]:
            return None
        return view

    def _expected(self, query: DepthView, here: Whereabouts, poses: MapPoses) -> list[_Expected]:
        config = self._config

        def view_of(row: int) -> DepthView | None:
            known = self._known(poses, row)
            return None if known is None else self._overlays.view(known)

        rows, drifts = in_reach(poses, here, config)
        drift_of = dict(zip(rows.tolist(), drifts.tolist(), strict=True))
        rows, shares = expected_views(
            query, here.pose @ self._base_T_camera, poses.poses[rows] @ self._base_T_camera,
            rows, view_of, config.expected_share,
        )  # fmt: skip
        share_of = dict(zip(rows.tolist(), shares.tolist(), strict=True))
        found = []
        for row in best_apart(rows, shares, config):
            view, depth_view = self._known(poses, row), view_of(row)
            if view is not None and depth_view is not None:
                start = relative(poses.poses[row], here.pose)
                found.append(_Expected(view, depth_view, start, drift_of[row], share_of[row]))
        return found

    def _verdict(
        self, query: KeyframeView, depth_view: DepthView, expected: _Expected
    ) -> LoopClosure:
        found = self._overlays.laid_over(depth_view, expected.depth_view, expected.start)
        pose, covariance = self._overlays.between_bases(found)
        problem = self._problem(query, expected, found, pose)
        common: dict[str, Any] = {
            "query_id": query.keyframe.id,
            "query_session": query.keyframe.session,
            "query_stamp_ns": query.keyframe.stamp_ns,
            "reference_id": expected.view.keyframe.id,
            "reference_session": expected.view.keyframe.session,
            "reference_stamp_ns": expected.view.keyframe.stamp_ns,
        }
        why = f"the map expects {expected.share:.0%} of the view there"
        if problem[0]:
            return LoopClosure(
                **common,
                state=ClosureState.REJECTED,
                reason=f"{why}, but {problem[1]}",
                rejected_by=problem[0],
            )
        away = f"{translation_norm(pose):.2f} m and {np.degrees(rotation_angle(pose)):.1f} degrees"
        return LoopClosure(
            **common,
            state=ClosureState.VERIFIED,
            reason=f"{why}; {in_words(found)}, {away} away",
            probability=self._config.expected_probability,
            inliers=found.cells,
            relative_pose=pose,
            covariance=covariance,
        )

    def _problem(
        self, query: KeyframeView, expected: _Expected, found: Alignment, pose: Pose
    ) -> tuple[str, str]:
        """Key and words of what speaks against it; both empty where nothing does."""
        if shortcoming := self._demand.shortcoming(found):
            return "views_disagree", shortcoming
        moved = float(np.linalg.norm(pose[:3, 3] - expected.start[:3, 3]))
        allowed = self._config.expected_slack + expected.drift
        if moved > allowed:
            return "not_as_expected", (
                f"its views fit {moved:.1f} m from where the map has them; drift explains "
                f"{allowed:.1f} m"
            )
        pair = self._views.pair(query, expected.view)
        measured = RelativePose(pose, found.covariance, found.cells, found.overlap, metric=True)
        if reason := odometry_contradicts(pair, measured, self._config):
            return "contradicts_odometry", reason
        reason = gps_forbids(pair, self._config)
        return "contradicts_gps" if reason else "", reason
