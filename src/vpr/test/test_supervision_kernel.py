"""The similarity kernel of equation 6."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr.supervision.kernel import SimilarityKernel, Viewpoints, turn_between

KERNEL = SimilarityKernel.from_frustum(np.radians(80.0), 20.0)
angles = st.floats(-20.0, 20.0)


def lap(repeats=2, count=30):
    """Laps round a circle of 40 m."""
    turn = np.tile(np.linspace(0, 2 * np.pi, count, endpoint=False), repeats)
    positions = 40.0 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return Viewpoints(positions, turn + np.pi / 2)


def test_half_a_frustum_is_a_similarity_of_one_half():
    half_turn = np.radians(40.0)
    half_width = 20.0 * np.tan(half_turn) / 2
    start = Viewpoints(np.zeros((1, 2)), np.zeros(1))
    turned = Viewpoints(np.zeros((1, 2)), np.array([half_turn]))
    moved = Viewpoints(np.array([[half_width, 0.0]]), np.zeros(1))
    assert KERNEL.matrices(start, turned).R[0, 0] == pytest.approx(0.5)
    assert KERNEL.matrices(start, turned).t[0, 0] == 1.0
    assert KERNEL.matrices(start, moved).t[0, 0] == pytest.approx(0.5)
    assert KERNEL.matrices(moved, turned).Rt[0, 0] == pytest.approx(0.25)


@given(angles, angles)
def test_a_turn_is_the_shorter_way_round(a, b):
    turn = float(turn_between(np.array(a), np.array(b)))
    assert 0.0 <= turn <= np.pi
    assert np.cos(turn) == pytest.approx(np.cos(a - b), abs=1e-9)
    assert turn == pytest.approx(float(turn_between(np.array(b), np.array(a))), abs=1e-9)


def test_the_self_similarity_of_two_laps_has_an_off_diagonal():
    views = lap()
    matrices = KERNEL.matrices(views, views)
    np.testing.assert_allclose(matrices.Rt, matrices.Rt.T)
    np.testing.assert_allclose(np.diag(matrices.Rt), 1.0)
    np.testing.assert_allclose(np.diag(matrices.Rt, 30), 1.0)
    assert matrices.Rt[0, 15] < 1e-6  # the other side of the circle, looking back
    np.testing.assert_allclose(matrices.Rt, matrices.t * matrices.R)


def test_pairs_agree_with_the_matrix():
    views = lap(1)
    rows, columns = np.triu_indices(len(views))
    of_pairs = KERNEL.of_pairs(views[rows], views[columns])
    np.testing.assert_allclose(of_pairs, KERNEL.matrices(views, views).Rt[rows, columns])


@pytest.mark.parametrize("similarity", [0.4, 0.8, 0.9])
def test_reach_is_where_the_translation_similarity_falls_below(similarity):
    reach = KERNEL.reach(similarity)
    assert np.exp(-KERNEL.translation_gamma * reach**2) == pytest.approx(similarity)
