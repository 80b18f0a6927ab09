"""Verification of place matches: every candidate ends VERIFIED or REJECTED with a reason.

A candidate must pass, in this order: what odometry and GPS allow; enough matches that agree with
one epipolar geometry, keep their layout and are spread over the image; a sure and plausible
relative pose; where both have depth, all that they show, laid over each other from there; what
odometry says of that pose; and further closures of other keyframes that tell the same story.
Look-alike places fail the first or the last three. Loops that no look proposes, but the pose graph
expects, are ``vpr.verification.expected_loops``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from vpr.config import LoopClosureConfig
from vpr.geometry import pose_from_quaternion
from vpr.maps.folder import Part, PartDigest, PartWriter
from vpr.records import (
    CameraModel,
    ClosureState,
    Image,
    Keyframe,
    LoopClosure,
    PlaceMatch,
    PlaceMatches,
)
from vpr.verification.agreement import Agreement, Sighting, verified
from vpr.verification.depth_cells import Depth, DepthCells
from vpr.verification.examination import Candidate, Examination, Refused, refuse_if
from vpr.verification.expected_loops import ExpectedLoops
from vpr.verification.expected_views import MapPoses
from vpr.verification.features import (
    FeatureExtractor,
    LocalFeatures,
    OrbFeatures,
    fitted_camera,
)
from vpr.verification.keyframe_views import KeyframeView, KeyframeViews
from vpr.verification.matching import FeatureMatcher, Matched, NearestMatcher, load_kernel
from vpr.verification.overlaid_views import ViewOverlays, load_kernels
from vpr.verification.plausibility import (
    gps_forbids,
    odometry_forbids,
)

NO_DESCRIPTOR = np.zeros(0, np.float32)  # places are compared before verification


def feature_extractor(config: LoopClosureConfig) -> FeatureExtractor:
    """The extractor of ``config.features``.

    Raises:
        ConfigError: its package is not installed.
    """
    if config.features == "orb":
        return OrbFeatures(config)
    from vpr.verification.xfeat import XFeatFeatures  # PyTorch takes its time to load

    return XFeatFeatures(config)


def feature_matcher(config: LoopClosureConfig) -> FeatureMatcher:
    """The matcher of ``config.matcher``, for those features.

    Raises:
        ConfigError: its package is not installed, or the configured GPU is not there.
    """
    if config.features == "orb":
        return NearestMatcher(config)
    from vpr.verification.learned_matching import matcher_of

    return matcher_of(config)


class LoopCloser:
    """Keeps the local features of keyframes and verifies place matches against them.

    A candidate ends VERIFIED or REJECTED; ``rejected_by`` is one of no_features,
    too_few_features, contradicts_odometry, contradicts_gps, too_few_inliers, layout,
    inlier_share, coverage, too_few_landmarks, landmark_coverage, view_scale, too_far,
    views_disagree, not_as_expected, contradicts_closure, better_candidate, no_agreement.
    """

    def __init__(self, config: LoopClosureConfig) -> None:
        self.config = config = config.for_these_features()
        self._extractor = feature_extractor(config)
        self._matcher = feature_matcher(config)
        values = config.camera_in_base
        self._base_T_camera = pose_from_quaternion(values[:3], values[3:])
        self._views = KeyframeViews(config, self._base_T_camera)
        self._overlays = ViewOverlays(self._base_T_camera)
        parts = config, self._views, self._overlays, self._base_T_camera
        self._examine, self._expected = Examination(*parts), ExpectedLoops(*parts)
        self._agreement = Agreement(config)
        load_kernel()
        if config.overlay:
            load_kernels()

    def __len__(self) -> int:
        return len(self._views)

    def __contains__(self, keyframe_id: int) -> bool:
        return self._views.get(keyframe_id) is not None

    def extract(self, image: Image, depth: Depth | None, camera: CameraModel) -> LocalFeatures:
        """Local features of an image.

        Args:
            depth: registered depth image, float metres or uint16 in ``depth_scale`` units.

        Raises:
            ImageUnusable: the image does not fit the camera model, or is empty.
        """
        features = self._extractor(image, depth, camera)
        if depth is None or camera.assumed or not self.config.overlay:
            return features
        fitted = fitted_camera(camera, image.shape[1], image.shape[0])
        cells = DepthCells.of(image, depth, fitted, self.config.depth_scale)
        return replace(features, cells=cells)

    def add_keyframe(
        self, keyframe: Keyframe, features: LocalFeatures | None, problem: str = ""
    ) -> None:
        """Remember a keyframe; without features, ``problem`` says why its image gave none."""
        self._views.add(keyframe, features, problem or "its image was never received")

    def verify(self, matches: PlaceMatches) -> list[LoopClosure]:
        """Judge the candidates of one query.

        A good one without a second that agrees is returned as CANDIDATE; it is returned again as
        VERIFIED or REJECTED by a later call, or by ``flush``.
        """
        verdicts: list[LoopClosure] = []
        good: Sighting | None = None
        own = self._views.get(matches.query_id), f"keyframe {matches.query_id}"
        possible = self._possible(matches, verdicts, own)
        views = [candidate.reference_features for candidate in possible]
        matched = self._matcher(possible[0].query_features, views) if possible else iter(())
        for candidate in possible:
            if good is not None:
                reason = f"keyframe {good.closure.reference_id} is the better candidate"
                key = "better_candidate"
                verdicts.append(self._rejected(matches, candidate.match, key, reason))
                continue
            try:
                sighting = self._sighting(matches, candidate, next(matched))
                contradiction = self._agreement.contradiction(sighting)
                refuse_if("contradicts_closure", contradiction, sighting.closure.inliers)
                good = sighting
            except Refused as refused:
                verdicts.append(self._refused(matches, candidate.match, refused))
        verdicts = _in_order(verdicts, matches)
        if good is not None:
            verdicts += self._agreement.consider(good)
        return verdicts + self._agreement.expired(matches.query_id)

    def compare(self, features: LocalFeatures, matches: PlaceMatches) -> list[LoopClosure]:
        """Judge the candidates of an image that is no keyframe: each VERIFIED or REJECTED at once.

        No odometry and no second closure will confirm any of them, so each needs
        ``min_inliers_unconfirmed``. The image is not remembered.
        """
        keyframe = Keyframe(
            matches.query_id, matches.query_session, matches.query_stamp_ns, NO_DESCRIPTOR, ""
        )
        query = KeyframeView(keyframe, features, path=0.0, index=-1)
        verdicts: list[LoopClosure] = []
        possible = self._possible(matches, verdicts, (query, "the image"))
        views = [candidate.reference_features for candidate in possible]
        matched = self._matcher(features, views) if possible else iter(())
        for candidate in possible:
            try:
                sighting = self._sighting(matches, candidate, next(matched), alone=True)
            except Refused as refused:
                verdicts.append(self._refused(matches, candidate.match, refused))
            else:
                verdicts.append(verified(sighting, "by this image alone"))
        return _in_order(verdicts, matches)

    def map_is(self, poses: MapPoses | None) -> None:
        """Learn where the pose graph has the keyframes; None where that is not known."""
        self._expected.map_is(poses)

    def expected_loops(self, keyframe_id: int) -> list[LoopClosure]:
        """Verdicts on the keyframes that this one should overlap by the map, where all have depth.

        Each is VERIFIED or REJECTED at once; what ``verify`` says does not depend on them.
        """
        return self._expected.closures(keyframe_id)

    def flush(self) -> list[LoopClosure]:
        """Final verdicts on all candidates that wait, as at the end of a session."""
        return self._agreement.flush()

    def save(self, writer: PartWriter) -> PartDigest:
        """Write what a map does not have yet of the keyframes' features.

        Raises:
            FeatureStateError, MapError: it is the map of other keyframes, or can't be written.
        """
        return writer.finish(len(self), self._views.save(writer))

    def load(self, part: Part) -> None:
        """Replace all keyframes by those of a map.

        Raises:
            FeatureStateError, MapError: the map is damaged or contradicts itself; nothing is
                changed then.
        """
        self._views.load(part)
        self._overlays.forget()
        self._expected.map_is(None)
        self._agreement = Agreement(self.config)

    # One candidate

    def _possible(
        self,
        matches: PlaceMatches,
        verdicts: list[LoopClosure],
        own: tuple[KeyframeView | None, str],
    ) -> list[Candidate]:
        """The candidates that neither odometry nor GPS forbids; verdicts on the others."""
        possible = []
        for match in matches.candidates:
            try:
                query, query_features = self._usable(*own)
                reference, reference_features = self._usable(
                    self._views.get(match.reference_id), f"keyframe {match.reference_id}"
                )
                pair = self._views.pair(query, reference)
                refuse_if("contradicts_odometry", odometry_forbids(pair, self.config))
                refuse_if("contradicts_gps", gps_forbids(pair, self.config))
            except Refused as refused:
                verdicts.append(self._refused(matches, match, refused))
                continue
            possible.append(
                Candidate(match, query, reference, query_features, reference_features, pair)
            )
        return possible

    def _sighting(
        self, matches: PlaceMatches, candidate: Candidate, matched: Matched, alone: bool = False
    ) -> Sighting:
        found = self._examine(candidate, matched, alone)
        closure = self._closure(
            matches,
            candidate.match,
            state=ClosureState.CANDIDATE,
            reason="geometry agrees, waiting for a second closure that agrees",
            inliers=found.inliers,
            relative_pose=found.measured.pose,
            covariance=found.measured.covariance,
        )
        return Sighting(closure, candidate.pair, found.measured, found.overlay)

    def _usable(self, view: KeyframeView | None, name: str) -> tuple[KeyframeView, LocalFeatures]:
        if view is None:
            raise Refused("no_features", f"{name} is not known here")
        if view.features is None:
            raise Refused("no_features", f"{name}: {view.problem}")
        if len(view.features) < self.config.min_inliers:
            raise Refused(
                "too_few_features",
                f"{name} has only {len(view.features)} features: blank or blurred",
            )
        return view, view.features

    # Verdicts

    def _closure(self, matches: PlaceMatches, match: PlaceMatch, **fields: Any) -> LoopClosure:
        return LoopClosure(
            query_id=matches.query_id,
            query_session=matches.query_session,
            query_stamp_ns=matches.query_stamp_ns,
            reference_id=match.reference_id,
            reference_session=match.reference_session,
            reference_stamp_ns=match.reference_stamp_ns,
            probability=match.probability,
            **fields,
        )

    def _refused(self, matches: PlaceMatches, match: PlaceMatch, refused: Refused) -> LoopClosure:
        return self._rejected(matches, match, refused.key, str(refused), refused.inliers)

    def _rejected(
        self, matches: PlaceMatches, match: PlaceMatch, key: str, reason: str, inliers: int = 0
    ) -> LoopClosure:
        return self._closure(
            matches,
            match,
            state=ClosureState.REJECTED,
            reason=reason,
            rejected_by=key,
            inliers=inliers,
        )


def _in_order(verdicts: list[LoopClosure], matches: PlaceMatches) -> list[LoopClosure]:
    """The verdicts in the order of the candidates."""
    rank = {match.reference_id: index for index, match in enumerate(matches.candidates)}
    return sorted(verdicts, key=lambda verdict: rank[verdict.reference_id])
