"""What local features and matchers tell apart: pairs of images of one place, and of two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.evaluation.places import EvaluationError, image_files, read_ground_truth, read_image
from vpr.records import CameraModel
from vpr.verification.features import LocalFeatures
from vpr.verification.loop_closer import feature_extractor, feature_matcher
from vpr.verification.two_view import agreeing_matches, shortcoming

CHOICES = (("orb", "nearest"), ("xfeat", "nearest"), ("xfeat", "lightglue"))
ELSEWHERE = (12, 40, 80)  # frames after a right reference: other places of the same kind


@dataclass(frozen=True)
class VerificationFigures:
    """How one choice of features and matcher judged the pairs.

    Attributes:
        right_passed: share of the pairs of one place that pass all tests on two images, 0..1.
        right_inliers: their median count of inliers.
        wrong_passed: how many pairs of two places pass, of ``wrong``.
        wrong_inliers: the most inliers that a pair of two places has.
        extraction_ms, matching_ms: medians, of an image and of a pair.
    """

    features: str
    matcher: str
    right_passed: float
    right_inliers: float
    wrong_passed: int
    wrong: int
    wrong_inliers: int
    extraction_ms: float
    matching_ms: float


def evaluate_verification(
    reference: Path,
    query: Path,
    ground_truth: Path,
    choice: tuple[str, str],
    every: int = 1,
    params_file: Path | None = None,
    progress: Callable[[], None] = lambda: None,
) -> VerificationFigures:
    """Compare every so-many-th query with its right references and with places elsewhere.

    Only what two images alone can say is judged: no odometry, no depth, no further closures. The
    field of view is the configured guess.

    Args:
        reference, query, ground_truth: as `vpr.evaluation.places.evaluate_places`.
        choice: ``features`` and ``matcher`` of the configuration.
        progress: called after every query.

    Raises:
        EvaluationError: images or a ground truth that cannot be evaluated.
        ConfigError: a wrong configuration, or a package that is not installed.
    """
    features, matcher = choice
    config = LoopClosureConfig.from_file(params_file, features=features, matcher=matcher)
    config = config.for_these_features()
    references, queries = image_files(reference), image_files(query)
    correct = read_ground_truth(ground_truth, len(queries), len(references))
    extractor, match = _Extraction(config), feature_matcher(config)
    right: list[tuple[bool, int]] = []
    wrong: list[tuple[bool, int]] = []
    matching: list[float] = []
    for index in range(0, len(queries), every):
        truth = sorted(correct[index])
        if truth:
            middle = truth[len(truth) // 2]
            away = [(middle + step) % len(references) for step in ELSEWHERE]
            others = [place for place in away if place not in correct[index]]
            own = extractor(queries[index])
            for place, judged in [(middle, right), *((other, wrong) for other in others)]:
                view = extractor(references[place])
                begin = time.perf_counter()
                matched = next(match(own, [view]))
                matching.append(time.perf_counter() - begin)
                agreement = agreeing_matches(own, view, matched, config)
                judged.append((not shortcoming(agreement, config)[0], agreement.inliers))
        progress()
    if not right or not wrong:
        raise EvaluationError(f"{ground_truth} has no pairs of one place and of two to compare")
    return _figures(choice, np.array(right), np.array(wrong), extractor.seconds, matching)


class _Extraction:
    """Features of image files, each made once."""

    def __init__(self, config: LoopClosureConfig) -> None:
        self._fov = np.radians(config.assumed_horizontal_fov)
        self._extract = feature_extractor(config)
        self._known: dict[Path, LocalFeatures] = {}
        self.seconds: list[float] = []

    def __call__(self, file: Path) -> LocalFeatures:
        if file not in self._known:
            image = read_image(file)
            height, width = image.shape[:2]
            focal = width / 2 / np.tan(self._fov / 2)
            matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
            camera = CameraModel(width, height, matrix, assumed=True)
            begin = time.perf_counter()
            self._known[file] = self._extract(image, None, camera)
            self.seconds.append(time.perf_counter() - begin)
        return self._known[file]


def _figures(
    choice: tuple[str, str],
    right: NDArray[np.int64],
    wrong: NDArray[np.int64],
    extraction: list[float],
    matching: list[float],
) -> VerificationFigures:
    return VerificationFigures(
        *choice,
        right_passed=float(right[:, 0].mean()),
        right_inliers=float(np.median(right[:, 1])),
        wrong_passed=int(wrong[:, 0].sum()),
        wrong=len(wrong),
        wrong_inliers=int(wrong[:, 1].max()),
        extraction_ms=1e3 * float(np.median(extraction)),
        matching_ms=1e3 * float(np.median(matching)),
    )
