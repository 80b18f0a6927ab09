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

from vpr.evaluation.view_search import Similarities
from vpr.evaluation.view_verification import ViewVerifier
from vpr.geometry import relative
from vpr.places.maxima import distinct_maxima
from vpr.records import Pose
from vpr.relocalization.rgbd import RgbdSequence
from vpr.verification.dense_alignment import Alignment, DepthView, align, expected_overlap
from vpr.verification.relative_pose import RelativePose

RECENT = 20  # keyframes that are no loop yet
PROPOSALS = 3  # views a keyframe of either kind
SEPARATION = 3  # keyframes; two proposals are at least this far apart
IN_REACH = 6.0  # m by the graph, within which a view may show the same
EXPECTED = 0.12  # share of the cells that the graph must expect to see again
FLOOR = np.diag([0.01**2] * 3 + [0.004**2] * 3)  # m and rad; of a perfect fit of coarse depth


@dataclass(frozen=True)
class Loop:
    """A verified loop; ``motion`` is reference_T_query between the cameras."""

    query: int
    reference: int
    motion: RelativePose


Believed = Callable[[], Sequence[Pose]]  # where the graph has all keyframes, asked if needed
Closing = Callable[[int, Believed], list[Loop]]  # loops of the newest keyframe


@dataclass(frozen=True)
class Demand:
    """What two views that lie over each other must reach to be a loop, see ``Alignment``."""

    overlap: float
    agreement: float
    correlation: float

    def met(self, found: Alignment) -> bool:
        """Whether nothing falls short."""
        return (
            found.overlap >= self.overlap
            and found.agreement >= self.agreement
            and found.correlation >= self.correlation
        )


# A beginning by matched corners may be a period of the wallpaper off, one by the graph is not.
BY_FEATURES, BY_GRAPH = Demand(0.15, 0.95, 0.5), Demand(0.08, 0.85, 0.3)


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

    def __init__(self, sequence: RgbdSequence, verify: ViewVerifier) -> None:
        self._verify = verify
        self._views = [
            DepthView.of(image, depth, sequence.camera)
            for image, depth in zip(sequence.images, sequence.depths, strict=True)
        ]
        self._known: dict[tuple[int, int], Alignment | None] = {}

    def by_features(self, query: int, reference: int) -> Alignment | None:
        """Beginning from where local features put the query; None where they do not agree."""
        pair = (query, reference)
        if pair not in self._known:
            start = self._verify(query, reference)
            self._known[pair] = None if start is None else self.by_graph(*pair, start.pose)
        return self._known[pair]

    def by_graph(self, query: int, reference: int, expected: Pose) -> Alignment:
        """Beginning from reference_T_query."""
        return align(self._views[query], self._views[reference], expected)

    def expected(
        self, query: int, rows: NDArray[np.intp], poses: Sequence[Pose]
    ) -> NDArray[np.intp]:
        """Those of the rows that show some of what the query shows, if the poses are right."""
        own = self._views[query]
        shares = [
            expected_overlap(own, self._views[row], relative(poses[row], poses[query]))
            for row in rows
        ]
        return rows[np.array(shares, float) > EXPECTED]


class Overlaid:
    """Loops to the most similar views, and to the most similar of those the graph expects."""

    def __init__(self, similarities: Similarities, views: OverlaidViews) -> None:
        self._similarities = similarities
        self._views = views

    def __call__(self, query: int, believed: Believed) -> list[Loop]:
        """Loops of the newest keyframe; ``believed`` are all poses, its own included."""
        if query <= RECENT:
            return []
        poses = believed()
        rows = np.arange(query - RECENT)
        alike = self._most_similar(query, rows)
        places = np.stack([pose[:3, 3] for pose in poses])
        near = rows[np.linalg.norm(places[rows] - places[query], axis=1) < IN_REACH]
        expected = self._most_similar(query, self._views.expected(query, near, poses))
        loops = []
        for row in dict.fromkeys([*alike, *expected]):
            found = self._views.by_features(query, row) if row in alike else None
            closed = found if found is not None and BY_FEATURES.met(found) else None
            if closed is None and row in expected:
                start = relative(poses[row], poses[query])
                found = self._views.by_graph(query, row, start)
                closed = found if BY_GRAPH.met(found) else None
            if closed is not None:
                loops.append(Loop(query, row, _measured(closed)))
        return loops

    def _most_similar(self, query: int, rows: NDArray[np.intp]) -> list[int]:
        if not len(rows):
            return []
        scores = self._similarities[query, rows]
        return [int(rows[i]) for i in distinct_maxima(scores, PROPOSALS, SEPARATION, rows)]


def _measured(found: Alignment) -> RelativePose:
    return RelativePose(
        found.pose, found.covariance + FLOOR, found.cells, found.overlap, metric=True
    )
