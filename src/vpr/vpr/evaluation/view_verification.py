"""One verification for all retrieval methods: two views of an RGB-D sequence to a relative pose."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vpr.config import LoopClosureConfig
from vpr.relocalization.rgbd import RgbdSequence
from vpr.verification.features import LocalFeatures, OrbFeatures
from vpr.verification.landmarks import from_depth
from vpr.verification.relative_pose import RelativePose, metric_pose
from vpr.verification.two_view import match_views, shortcoming


class ViewVerifier:
    """ORB features, two-view geometry and perspective-n-point with the reference's depth.

    What loop_closure asks of two views is asked here too; answers are remembered.
    """

    def __init__(self, sequence: RgbdSequence, params_file: Path | None = None) -> None:
        self._sequence = sequence
        self._config = LoopClosureConfig.from_file(params_file).for_these_features()
        self._extract = OrbFeatures(self._config)
        self._features: dict[int, LocalFeatures] = {}
        self._known: dict[tuple[int, int], RelativePose | None] = {}

    def __call__(self, query: int, reference: int) -> RelativePose | None:
        """reference_T_query between the cameras; None where the views do not agree."""
        pair = (query, reference)
        if pair not in self._known:
            self._known[pair] = self._verified(query, reference)
        return self._known[pair]

    def _verified(self, query: int, reference: int) -> RelativePose | None:
        seen, known = self._view(query), self._view(reference)
        views = match_views(seen, known, self._config)
        if shortcoming(views, self._config)[0]:
            return None
        landmarks = from_depth(known, self._config)
        return metric_pose(seen, known, views, landmarks, True, np.eye(4), self._config)

    def _view(self, row: int) -> LocalFeatures:
        if row not in self._features:
            sequence = self._sequence
            self._features[row] = self._extract(
                sequence.images[row], sequence.depths[row], sequence.camera
            )
        return self._features[row]
