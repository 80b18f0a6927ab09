import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr.evaluation.recall import (
    average_precision,
    precision_recall,
    recall_at,
    recall_at_full_precision,
)

MATCHES = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30)


def brute_force(matches, relevant):
    """Precision and recall at every threshold, counted one by one."""
    points = []
    for threshold in sorted({score for score, _ in matches}, reverse=True):
        accepted = [hit for score, hit in matches if score >= threshold]
        points.append((sum(accepted) / len(accepted), sum(accepted) / relevant))
    return points


@given(MATCHES, st.integers(0, 5))
def test_the_curve_and_its_figures_equal_brute_force(matches, missed):
    relevant = max(1, sum(hit for _, hit in matches) + missed)
    scores, hits = zip(*matches, strict=True)
    curve = precision_recall(scores, hits, relevant)
    points = brute_force(matches, relevant)
    np.testing.assert_allclose(np.column_stack([curve.precision, curve.recall]), points)
    area, before = 0.0, 0.0
    for precision, recall in points:
        area += precision * (recall - before)
        before = recall
    assert average_precision(curve) == pytest.approx(area)
    perfect = [recall for precision, recall in points if precision == 1.0]
    assert recall_at_full_precision(curve) == pytest.approx(max(perfect, default=0.0))


def test_a_false_match_with_the_highest_confidence_leaves_no_recall_at_full_precision():
    curve = precision_recall([0.9, 0.8, 0.7], [False, True, True], 3)
    assert recall_at_full_precision(curve) == 0.0
    assert average_precision(curve) == pytest.approx((1 / 2 + 2 / 3) / 3)


def test_equal_confidences_are_accepted_together():
    curve = precision_recall([0.9, 0.9], [True, False], 2)
    assert curve.precision.tolist() == [0.5]
    assert recall_at_full_precision(curve) == 0.0


@given(
    st.lists(
        st.tuples(st.permutations(range(6)), st.frozensets(st.integers(0, 5))),
        min_size=1,
        max_size=10,
    ),
    st.integers(1, 6),
)
def test_recall_at_k_equals_brute_force(queries, k):
    ranked, correct = zip(*queries, strict=True)
    asked = [(order, truth) for order, truth in queries if truth]
    expected = sum(bool(set(order[:k]) & truth) for order, truth in asked) / max(1, len(asked))
    assert recall_at(k, ranked, correct) == pytest.approx(expected)


def test_no_query_gives_no_recall():
    curve = precision_recall([], [], 0)
    assert recall_at_full_precision(curve) == average_precision(curve) == 0.0
    assert recall_at(1, [], []) == 0.0
