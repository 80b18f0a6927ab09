"""The keyframes that verification remembers: their features, and landmarks made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.geometry import relative, translation_norm
from vpr.records import Keyframe, Pose
from vpr.verification.features import LocalFeatures
from vpr.verification.landmarks import Landmarks, Neighbour, camera_step, from_depth, triangulated
from vpr.verification.plausibility import Pair
from vpr.verification.state import pack_features, unpack_features

KINDS = {"orb": "ORB", "xfeat": "XFeat"}  # by the name in the configuration
NEIGHBOUR_SEARCH = 12  # keyframes looked through on each side for a triangulation baseline
BASELINE_LIMIT = 4.0  # times the wanted baseline; features are no longer matched beyond it


@dataclass
class KeyframeView:
    """A keyframe as verification remembers it.

    Attributes:
        features: None where the image was lost; ``problem`` then says why.
        path: metres driven in its session until here.
        index: position among all keyframes.
    """

    keyframe: Keyframe
    features: LocalFeatures | None
    path: float
    index: int
    problem: str = ""
    landmarks: Landmarks | None = None


class KeyframeViews:
    """All views of a map in order.

    52 bytes a feature are kept: 41 KiB a keyframe at 800 features; 16 bytes more where landmarks
    were made, which happens once a keyframe is matched.
    """

    def __init__(self, config: LoopClosureConfig, base_T_camera: Pose) -> None:
        self.config = config
        self._base_T_camera = base_T_camera
        self._kind = KINDS[config.features]
        self._views: dict[int, KeyframeView] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._views)

    def get(self, keyframe_id: int) -> KeyframeView | None:
        """The view of a keyframe, if it is known."""
        return self._views.get(keyframe_id)

    def add(self, keyframe: Keyframe, features: LocalFeatures | None, problem: str) -> None:
        """Append a view; odometry that is not finite counts as missing."""
        if keyframe.odometry is not None and not np.isfinite(keyframe.odometry).all():
            keyframe = replace(keyframe, odometry=None)
        view = KeyframeView(keyframe, features, self._path(keyframe), len(self._order), problem)
        self._views[keyframe.id] = view
        self._order.append(keyframe.id)

    def pair(self, query: KeyframeView, reference: KeyframeView) -> Pair:
        """The two keyframes with the distances driven until each."""
        return Pair(query.keyframe, reference.keyframe, query.path, reference.path)

    def landmarks(self, view: KeyframeView) -> Landmarks | None:
        """Metric points of a view's features; kept once keyframes on both sides are known."""
        if view.landmarks is not None or view.features is None:
            return view.landmarks
        if np.isfinite(view.features.depths).sum() >= self.config.min_landmarks:
            view.landmarks = from_depth(view.features, self.config)
            return view.landmarks
        before, after = self._neighbour(view, -1), self._neighbour(view, 1)
        found = [neighbour for neighbour in (before, after) if neighbour is not None]
        if not found:
            return None
        landmarks = triangulated(view.features, found, self.config)
        if after is not None:  # until then the newest keyframe may yet get better ones
            view.landmarks = landmarks
        return landmarks

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and JSON-able metadata of all views."""
        views = [self._views[keyframe_id] for keyframe_id in self._order]
        return pack_features(
            [(view.keyframe, view.features, view.path) for view in views], self._kind
        )

    def restore(self, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
        """Replace all views by a saved state.

        Raises:
            FeatureStateError: the state is incomplete or contradicts itself.
        """
        self._views = {
            keyframe.id: KeyframeView(keyframe, features, path, index)
            for index, (keyframe, features, path) in enumerate(
                unpack_features(arrays, metadata, self._kind)
            )
        }
        self._order = list(self._views)

    def _path(self, keyframe: Keyframe) -> float:
        """Metres driven, by the last keyframe of the session that knew where it was."""
        for keyframe_id in reversed(self._order):
            before = self._views[keyframe_id]
            if before.keyframe.session != keyframe.session:
                break
            if keyframe.odometry is None:
                return before.path
            if before.keyframe.odometry is not None:
                step = relative(before.keyframe.odometry, keyframe.odometry)
                return before.path + translation_norm(step)
        return 0.0

    def _neighbour(self, view: KeyframeView, side: int) -> Neighbour | None:
        """The nearest keyframe of the session on one side that is a baseline away."""
        own = view.keyframe.odometry
        if own is None:
            return None
        wanted = self.config.triangulation_baseline
        for steps in range(1, NEIGHBOUR_SEARCH + 1):
            index = view.index + side * steps
            if not 0 <= index < len(self._order):
                return None
            other = self._views[self._order[index]]
            if other.keyframe.session != view.keyframe.session:
                return None
            if other.keyframe.odometry is None or other.features is None:
                continue
            baseline = translation_norm(relative(own, other.keyframe.odometry))
            if baseline > BASELINE_LIMIT * wanted:
                return None
            if baseline >= wanted:
                motion = camera_step(own, other.keyframe.odometry, self._base_T_camera)
                return Neighbour(other.features, motion, steps)
        return None
