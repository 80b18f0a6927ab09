"""One candidate: do two views show one place, and from where was the query taken?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vpr.config import LoopClosureConfig
from vpr.geometry import rotation_angle, translation_norm
from vpr.records import PlaceMatch, Pose
from vpr.verification.dense_alignment import Alignment
from vpr.verification.features import LocalFeatures
from vpr.verification.keyframe_views import KeyframeView, KeyframeViews
from vpr.verification.matching import Matched
from vpr.verification.overlaid_views import Demand, ViewOverlays, in_words
from vpr.verification.plausibility import Pair, is_checkable, odometry_contradicts
from vpr.verification.relative_pose import RelativePose, metric_pose, weak_pose
from vpr.verification.two_view import TwoView, agreeing_matches, shortcoming


class Refused(Exception):
    """A candidate that fails a test."""

    def __init__(self, key: str, reason: str, inliers: int = 0) -> None:
        super().__init__(reason)
        self.key = key
        self.inliers = inliers


def refuse_if(key: str, reason: str, inliers: int = 0) -> None:
    if reason:
        raise Refused(key, reason, inliers)


@dataclass(frozen=True)
class Candidate:
    """A place match that nothing forbids, before its images are compared."""

    match: PlaceMatch
    query: KeyframeView
    reference: KeyframeView
    query_features: LocalFeatures
    reference_features: LocalFeatures
    pair: Pair


@dataclass(frozen=True)
class Examined:
    """What a candidate that passed rests on.

    Attributes:
        inliers: matched corners that agree with one motion.
        overlay: how well the views lie over each other, in words; empty where that is not known.
    """

    measured: RelativePose
    inliers: int
    overlay: str


class Examination:
    """Matched corners, the pose they give, and what the views show laid over each other from it.

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
        self.config = config
        self._views, self._overlays = views, overlays
        self._base_T_camera = base_T_camera
        self._demand = Demand.after_corners(config)

    def __call__(self, candidate: Candidate, matched: Matched, alone: bool = False) -> Examined:
        """The measured pose.

        Args:
            alone: no odometry and no other closure will confirm it.

        Raises:
            Refused: the first test that fails.
        """
        query, reference = candidate.query_features, candidate.reference_features
        views = agreeing_matches(query, reference, matched, self.config)
        refuse_if(*shortcoming(views, self.config), views.inliers)
        if alone:
            self._check_unconfirmed(views, "no other image")
        measured = self._measure(candidate, views)
        laid = self._laid_over(candidate, measured, views.inliers)
        if laid is not None:
            pose, covariance = self._overlays.between_bases(laid)
            measured = replace(measured, pose=pose, covariance=covariance)
        else:
            self._check_corners(candidate, measured, views)
        self._check_pose(measured, views)
        contradiction = odometry_contradicts(candidate.pair, measured, self.config)
        refuse_if("contradicts_odometry", contradiction, views.inliers)
        return Examined(measured, views.inliers, "" if laid is None else in_words(laid))

    def _laid_over(
        self, candidate: Candidate, measured: RelativePose, inliers: int
    ) -> Alignment | None:
        """The views laid over each other from there; None where that cannot be judged."""
        query = self._overlays.view(candidate.query)
        reference = self._overlays.view(candidate.reference)
        if query is None or reference is None or not measured.metric:
            return None
        laid = self._overlays.laid_over(query, reference, measured.pose)
        if laid.overlap < self._demand.overlap:
            return None
        if shortcoming := self._demand.shortcoming(laid):
            reason = f"{inliers} matches agree with one motion, but {shortcoming}"
            raise Refused("views_disagree", reason, inliers)
        return laid

    def _check_corners(self, candidate: Candidate, measured: RelativePose, views: TwoView) -> None:
        """What corners need where nothing else of the views confirms them."""
        features = candidate.query_features, candidate.reference_features
        calibrated = not any(one.camera.assumed for one in features)
        if calibrated and not measured.metric and not is_checkable(candidate.pair):
            self._check_unconfirmed(views, "neither odometry, GPS nor depth")
        if measured.metric and measured.coverage < self.config.min_landmark_coverage:
            raise Refused(
                "landmark_coverage",
                f"the {measured.inliers} landmarks that agree cover {measured.coverage:.0%} of the "
                "image: too little for a sure pose, "
                f"{self.config.min_landmark_coverage:.0%} needed",
                views.inliers,
            )

    def _check_unconfirmed(self, views: TwoView, without: str) -> None:
        """Twin houses share a few dozen matches; only more than that can stand alone."""
        if views.inliers < self.config.min_inliers_unconfirmed:
            raise Refused(
                "too_few_inliers",
                f"{views.inliers} of {views.matches} matches agree with one motion, "
                f"{self.config.min_inliers_unconfirmed} needed where {without} can confirm it",
                views.inliers,
            )

    def _measure(self, candidate: Candidate, views: TwoView) -> RelativePose:
        """From the landmarks of the reference, else of the query; without any, without scale.

        Where there are landmarks a pose that they do not confirm is refused, not weakened.
        """
        confirmable = False
        for view, of_reference in ((candidate.reference, True), (candidate.query, False)):
            landmarks = self._views.landmarks(view)
            if landmarks is None or landmarks.known.sum() < self.config.min_landmarks:
                continue
            confirmable = True
            pose = metric_pose(
                candidate.query_features,
                candidate.reference_features,
                views,
                landmarks,
                of_reference,
                self._base_T_camera,
                self.config,
            )
            if pose is not None:
                return pose
        if confirmable:
            raise Refused(
                "too_few_landmarks",
                f"{views.inliers} matches agree with one motion, but fewer than "
                f"{self.config.min_landmarks} of known depth with one distance",
                views.inliers,
            )
        return weak_pose(views, self.config)

    def _check_pose(self, measured: RelativePose, views: TwoView) -> None:
        config = self.config
        if not measured.metric:
            scale = max(views.view_scale, 1.0 / max(views.view_scale, 1e-6))
            if scale > config.max_view_scale:
                raise Refused(
                    "view_scale",
                    f"things look {scale:.1f} times larger in one view: seen from too far apart",
                    views.inliers,
                )
            return
        apart, turned = translation_norm(measured.pose), rotation_angle(measured.pose)
        if apart > config.max_translation or turned > config.max_rotation:
            raise Refused(
                "too_far",
                f"the same things, but from {apart:.1f} m and {np.degrees(turned):.0f} degrees "
                f"away; {config.max_translation:.1f} m and "
                f"{np.degrees(config.max_rotation):.0f} degrees allowed",
                views.inliers,
            )
