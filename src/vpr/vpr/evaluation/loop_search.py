"""Two ways to close loops by what a retrieval method finds alike, asked keyframe by keyframe.

``by_features`` is how VINS-Mono closes loops from its bag of words: one try a keyframe, judged by
matched corners. ``Overlaid`` tries several views, also such as the pose graph expects to show the
same, and lays them over each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.evaluation.view_search import Similarities
from vpr.evaluation.view_verification import ViewVerifier
from vpr.geometry import relative
from vpr.records import Pose
from vpr.relocalization.rgbd import RgbdSequence
from vpr.verification.dense_alignment import Alignment, DepthView, align
from vpr.verification.depth_cells import DepthCells
from vpr.verification.expected_views import best_apart, expected_views
from vpr.verification.overlaid_views import FLOOR, Demand
from vpr.verification.relative_pose import RelativePose

RECENT = 20  # keyframes that are no loop yet


@dataclass(frozen=True)
class Loop:
    """A verified loop; ``motion`` is reference_T_query between the cameras."""

    query: int
    reference: int
    motion: RelativePose


Believed = Callable[[], Sequence[Pose]]  # where the graph has all keyframes, asked if needed
Closing = Callable[[int, Believed], list[Loop]]  # loops of the newest keyframe


def by_features(similarities: Similarities, verify: ViewVerifier) -> Closing:
    """The most similar earlier view, where its local features agree."""

    def closed(query: int, _: Believed) -> list[Loop]:
        if query <= RECENT:
            return []
        reference = int(similarities[query, : query - RECENT].argmax())
        motion = verify(query, reference)
        return [] if motion is None else [Loop(query, reference, motion)]

    return closed


class OverlaidViews:
    """Views of a sequence laid over each other, from where local features or a graph begin."""

    def __init__(
        self, sequence: RgbdSequence, verify: ViewVerifier, config: LoopClosureConfig
    ) -> None:
        self.config = config
        self._verify = verify
        self._views = [
            _view(sequence, row, config.depth_scale) for row in range(len(sequence.images))
        ]
        self._known: dict[tuple[int, int], Alignment | None] = {}

    def by_features(self, query: int, reference: int) -> Alignment | None:
        """Beginning from where local features put the query; None where they do not agree."""
        pair = (query, reference)
        if pair not in self._known:
            start = self._verify(query, reference)
            self._known[pair] = None if start is None else self.by_graph(*pair, start.pose)
        return self._known[pair]

    def by_graph(self, query: int, reference: int, expected: Pose) -> Alignment | None:
        """Beginning from reference_T_query; None where one of the two has no depth."""
        one, other = self._views[query], self._views[reference]
        return None if one is None or other is None else align(one, other, expected)

    def expected(self, query: int, count: int, poses: Sequence[Pose]) -> NDArray[np.intp]:
        """Those of the first rows that show some of what the query shows, if all are there."""
        own, placed = self._views[query], np.stack(poses)
        near = np.linalg.norm(placed[:count, :3, 3] - placed[query, :3, 3], axis=1)
        rows = np.flatnonzero(near < self.config.expected_reach)
        if own is None:
            return rows[:0]
        found, _ = expected_views(
            own,
            poses[query],
            placed[rows],
            rows,
            self._views.__getitem__,
            self.config.expected_share,
        )
        return found


def _view(sequence: RgbdSequence, row: int, depth_scale: float) -> DepthView | None:
    cells = DepthCells.of(sequence.images[row], sequence.depths[row], sequence.camera, depth_scale)
    return None if cells is None else DepthView.of(cells, sequence.camera)


class Overlaid:
    """Loops to the most similar views, and to the most similar of those the graph expects."""

    def __init__(self, similarities: Similarities, views: OverlaidViews) -> None:
        self._similarities = similarities
        self._views = views
        self._after_corners = Demand.after_corners(views.config)
        self._as_expected = Demand.as_expected(views.config)

    def __call__(self, query: int, believed: Believed) -> list[Loop]:
        """Loops of the newest keyframe; ``believed`` are all poses, its own included."""
        if query <= RECENT:
            return []
        poses, earlier = believed(), query - RECENT
        alike = self._most_similar(query, np.arange(earlier))
        expected = self._most_similar(query, self._views.expected(query, earlier, poses))
        loops = []
        for row in dict.fromkeys([*alike, *expected]):
            found = self._views.by_features(query, row) if row in alike else None
            closed = found if found is not None and self._after_corners.met(found) else None
            if closed is None and row in expected:
                start = relative(poses[row], poses[query])
                found = self._views.by_graph(query, row, start)
                closed = found if found is not None and self._as_expected.met(found) else None
            if closed is not None:
                loops.append(Loop(query, row, _measured(closed)))
        return loops

    def _most_similar(self, query: int, rows: NDArray[np.intp]) -> list[int]:
        return best_apart(rows, self._similarities[query, rows], self._views.config)


def _measured(found: Alignment) -> RelativePose:
    return RelativePose(
        found.pose, found.covariance + FLOOR, found.cells, found.overlap, metric=True
    )
