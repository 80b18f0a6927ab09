"""Two views with depth laid over each other, as evidence for or against one place.

Matched corners are satisfied by a wallpaper that repeats, one period off. Where both views have
depth, all that they show has to fit as well: what does gives a surer pose, what does not is no
revisit, however many corners agree.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Self

import numpy as np

from vpr.config import LoopClosureConfig
from vpr.geometry import inverse
from vpr.places import maxima
from vpr.records import CameraModel, Covariance, Pose
from vpr.uncertain_pose import between
from vpr.verification.dense_alignment import Alignment, DepthView, align
from vpr.verification.depth_cells import DepthCells
from vpr.verification.keyframe_views import KeyframeView

FLOOR = np.diag([0.01**2] * 3 + [0.004**2] * 3)  # m and rad; of a perfect fit of coarse depth
VIEWS_KEPT = 128  # that were used last; 120 kB each, three times as much once laid over another


@dataclass(frozen=True)
class Demand:
    """What two views that lie over each other must reach to show one place, see ``Alignment``."""

    overlap: float
    agreement: float
    correlation: float

    @classmethod
    def after_corners(cls, config: LoopClosureConfig) -> Self:
        """Of a beginning by matched corners, which may be a period of the wallpaper off."""
        return cls(
            config.overlay_min_overlap,
            config.overlay_min_agreement,
            config.overlay_min_correlation,
        )

    @classmethod
    def as_expected(cls, config: LoopClosureConfig) -> Self:
        """Of a beginning where the pose graph has the two."""
        return cls(
            config.expected_min_overlap,
            config.expected_min_agreement,
            config.expected_min_correlation,
        )

    def met(self, found: Alignment) -> bool:
        """Whether nothing falls short."""
        return not self.shortcoming(found)

    def shortcoming(self, found: Alignment) -> str:
        """What falls short, in words; else empty."""
        if found.overlap < self.overlap:
            return f"they share {found.overlap:.0%} of what they show, {self.overlap:.0%} needed"
        if found.agreement >= self.agreement and found.correlation >= self.correlation:
            return ""
        return (
            f"of what both should show {found.agreement:.0%} is there and its brightness "
            f"correlates by {found.correlation:.2f}; {self.agreement:.0%} and "
            f"{self.correlation:.2f} needed"
        )


def in_words(found: Alignment) -> str:
    """How well two views lie over each other."""
    return (
        f"laid over each other, {found.agreement:.0%} of {found.cells} cells agree and correlate "
        f"by {found.correlation:.2f}"
    )


class ViewOverlays:
    """Lays keyframes' views over each other; those used last are kept ready.

    Args:
        base_T_camera: where the camera sits on the robot.
    """

    def __init__(self, base_T_camera: Pose) -> None:
        self._base_T_camera = base_T_camera
        self._camera_T_base = inverse(base_T_camera)
        self._ready: OrderedDict[int, DepthView] = OrderedDict()

    def forget(self) -> None:
        """Keyframes are numbered anew."""
        self._ready.clear()

    def view(self, seen: KeyframeView) -> DepthView | None:
        """What a keyframe shows; None without depth."""
        features = seen.features
        if features is None or features.cells is None:
            return None
        if not seen.is_keyframe:
            return DepthView.of(features.cells, features.camera)
        known = self._ready.get(seen.keyframe.id)
        if known is None:
            known = self._ready[seen.keyframe.id] = DepthView.of(features.cells, features.camera)
            if len(self._ready) > VIEWS_KEPT:
                self._ready.popitem(last=False)
        self._ready.move_to_end(seen.keyframe.id)
        return known

    def laid_over(self, query: DepthView, reference: DepthView, start: Pose) -> Alignment:
        """From where ``start`` (reference_T_query between base_link frames) puts the query."""
        between_cameras = self._camera_T_base @ start @ self._base_T_camera
        return align(query, reference, between_cameras)

    def between_bases(self, found: Alignment) -> tuple[Pose, Covariance]:
        """reference_T_query between base_link frames, covariance in the reference's axes."""
        covariance = found.covariance + FLOOR
        return between(self._base_T_camera, found.pose, covariance, self._camera_T_base)


def load_kernels() -> None:
    """Compile now, or load from numba's cache, rather than at the first loop."""
    cells = DepthCells(np.ones((12, 16), np.float16), np.zeros((12, 16), np.uint8))
    view = DepthView.of(cells, CameraModel.from_horizontal_fov(16, 12, 60.0))
    align(view, view, np.eye(4))
    maxima.load_kernels()
