"""The keyframes that verification remembers: their features, and landmarks made of them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vpr.config import LoopClosureConfig
from vpr.geometry import relative, translation_norm
from vpr.maps.folder import Part, PartWriter
from vpr.records import Keyframe, Pose
from vpr.verification.features import LocalFeatures
from vpr.verification.landmarks import Landmarks, Neighbour, camera_step, from_depth, triangulated
from vpr.verification.plausibility import Pair
from vpr.verification.state import FeatureSaver, StoredFeatures

KINDS = {"orb": "ORB", "xfeat": "XFeat"}  # by the name in the configuration
NEIGHBOUR_SEARCH = 12  # keyframes looked through on each side for a triangulation baseline
VIEWS_KEPT = 512  # of those on disk; the last that were looked at stay in memory
BASELINE_LIMIT = 4.0  # times the wanted baseline; features are no longer matched beyond it


@dataclass
class KeyframeView:
    """A keyframe as verification remembers it.

    Attributes:
        features: None where the image was lost; ``problem`` then says why.
        path: metres driven in its session until here.
        index: position among all keyframes; negative for an image that is none of them.
    """

    keyframe: Keyframe
    features: LocalFeatures | None
    path: float
    index: int
    problem: str = ""
    landmarks: Landmarks | None = None

    @property
    def is_keyframe(self) -> bool:
        """Whether it is remembered."""
        return self.index >= 0


class KeyframeViews:
    """All views of a map in order: first those that a map on disk has, then the new ones.

    52 bytes a feature are kept (148 of XFeat): 41 KiB a keyframe at 800 features; 16 bytes more
    where landmarks were made, which happens once a keyframe is matched. 14 KiB more with depth.
    """

    def __init__(self, config: LoopClosureConfig, base_T_camera: Pose) -> None:
        self.config = config
        self._base_T_camera = base_T_camera
        self._kind = KINDS[config.features]
        self._stored: StoredFeatures | None = None
        self._recent: OrderedDict[int, KeyframeView] = OrderedDict()  # of the stored, by index
        self._new: list[KeyframeView] = []
        self._index: dict[int, int] = {}  # of the new ones, by keyframe id

    def __len__(self) -> int:
        return self._stored_count + len(self._new)

    def get(self, keyframe_id: int) -> KeyframeView | None:
        """The view of a keyframe, if it is known.

        Raises:
            MapError: the map that it is read from is damaged.
        """
        index = self._index.get(keyframe_id)
        if index is None and self._stored is not None:
            index = self._stored.index_of(keyframe_id)
        return None if index is None else self._at(index)

    def add(self, keyframe: Keyframe, features: LocalFeatures | None, problem: str) -> None:
        """Append a view; odometry that is not finite counts as missing."""
        if keyframe.odometry is not None and not np.isfinite(keyframe.odometry).all():
            keyframe = replace(keyframe, odometry=None)
        view = KeyframeView(keyframe, features, self._path(keyframe), len(self), problem)
        self._index[keyframe.id] = view.index
        self._new.append(view)

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

    def save(self, writer: PartWriter) -> dict[str, Any]:
        """Write the views that a map does not have yet; returns the metadata.

        Raises:
            FeatureStateError: the map holds other keyframes than the first ones here.
            MapError: as ``PartWriter.append``.
        """
        saver = FeatureSaver(writer, self._stored, self._kind)
        if saver.saved > len(self):
            saver.refuse(f"the map has {saver.saved} keyframes, here are only {len(self)}")
        if saver.saved and saver.last_id != self._at(saver.saved - 1).keyframe.id:
            saver.refuse(f"keyframe {saver.last_id} of the map is another one than here")
        saver.add_stored()
        new = self._new[max(0, saver.saved - self._stored_count) :]
        saver.add([(view.keyframe, view.features, view.path) for view in new])
        return saver.metadata

    def load(self, part: Part) -> None:
        """Replace all views by those of a map, which stay on disk until they are asked for.

        Raises:
            FeatureStateError: the map's features are of another kind or contradict themselves.
            MapError: the map is damaged.
        """
        self._stored = StoredFeatures(part, self._kind) if part.tables else None
        self._recent.clear()
        self._new.clear()
        self._index.clear()

    @property
    def _stored_count(self) -> int:
        return 0 if self._stored is None else len(self._stored)

    def _at(self, index: int) -> KeyframeView:
        if self._stored is None or index >= len(self._stored):
            return self._new[index - self._stored_count]
        view = self._recent.get(index)
        if view is None:
            view = self._recent[index] = KeyframeView(*self._stored.remembered(index), index)
            if len(self._recent) > VIEWS_KEPT:
                self._recent.popitem(last=False)
        self._recent.move_to_end(index)
        return view

    def _path(self, keyframe: Keyframe) -> float:
        """Metres driven, by the last keyframe of the session that knew where it was."""
        for index in reversed(range(len(self))):
            before = self._at(index)
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
            if not 0 <= index < len(self):
                return None
            other = self._at(index)
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
