import numpy as np
import pytest

from vpr.evaluation.candidates import Curve, JudgedCandidates, fitted_curve
from vpr.evaluation.places import EvaluationError


def drawn(curve, count, seed):
    """Candidates that are right as often as a curve says."""
    generator = np.random.default_rng(seed)
    scores = generator.uniform(0.0, 4.0, count)
    chances = 1.0 / (1.0 + np.exp((curve.midpoint - scores) / curve.width))
    right = generator.random(count) < chances
    return JudgedCandidates("drawn", scores, np.zeros(count, np.int64), right)


def test_fit_finds_the_curve_that_candidates_were_drawn_from():
    true = Curve(2.0, 0.3)
    fitted = fitted_curve([drawn(true, 4000, seed) for seed in (1, 2)])
    assert fitted.midpoint == pytest.approx(true.midpoint, abs=0.05)
    assert fitted.width == pytest.approx(true.width, abs=0.05)
    unseen = drawn(true, 4000, 3)
    assert fitted.expected_error(unseen) < 0.02 < Curve(3.0, 0.3).expected_error(unseen)


def test_best_and_further_candidates_are_told_apart():
    judged = JudgedCandidates.of("drive", [(3.0, 0, True), (1.0, 1, False), (2.5, 0, False)])
    assert judged.best().scores.tolist() == [3.0, 2.5]
    assert judged.further().right.tolist() == [False]


@pytest.mark.parametrize("right", [[True, True], [False, False]])
def test_no_curve_is_fitted_to_one_verdict(right):
    judged = JudgedCandidates.of("drive", [(1.0, 0, right[0]), (2.0, 0, right[1])])
    with pytest.raises(EvaluationError, match="no curve fits"):
        fitted_curve([judged])


def test_no_curve_is_fitted_where_higher_scores_are_wrong():
    judged = JudgedCandidates.of("drive", [(1.0, 0, True), (1.1, 0, True), (2.0, 0, False)])
    with pytest.raises(EvaluationError, match="higher score"):
        fitted_curve([judged])
