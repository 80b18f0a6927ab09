"""The Generalised Contrastive Loss and its pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr.learning.graded import GradedPairs, GradedPairsError, generalised_contrastive_loss


def loss_at(distance: float, similarity: float, margin: float = 0.5) -> float:
    first, second = torch.zeros(1, 2), torch.tensor([[distance, 0.0]])
    return float(generalised_contrastive_loss(first, second, torch.tensor([similarity]), margin))


@given(st.floats(0.01, 2.0), st.floats(0.1, 1.5))
def test_at_the_ends_it_is_the_contrastive_loss(distance: float, margin: float) -> None:
    assert loss_at(distance, 1.0, margin) == pytest.approx(0.5 * distance**2, abs=1e-5)
    apart = max(margin - distance, 0.0)
    assert loss_at(distance, 0.0, margin) == pytest.approx(0.5 * apart**2, abs=1e-5)


@given(st.floats(0.05, 0.95))
def test_between_them_the_best_distance_shrinks_with_similarity(similarity: float) -> None:
    best = (1.0 - similarity) * 0.5
    for other in (best - 0.01, best + 0.01):
        assert loss_at(best, similarity) < loss_at(other, similarity)


def test_equal_descriptors_have_a_finite_gradient() -> None:
    first = torch.zeros(3, 4, requires_grad=True)
    generalised_contrastive_loss(
        first, torch.zeros(3, 4), torch.tensor([0.0, 0.5, 1.0]), 0.5
    ).backward()
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


def test_pairs_are_drawn_by_kind_with_their_similarity() -> None:
    similarity = np.zeros((30, 40), np.float32)
    similarity[np.arange(30), np.arange(30)] = 0.9
    similarity[np.arange(30), np.arange(30) + 1] = 0.3
    query, reference, psi = GradedPairs(similarity).draw(np.random.default_rng(0), 4000)
    np.testing.assert_array_equal(psi, similarity[query, reference])
    assert (psi >= 0.5).mean() == pytest.approx(0.5, abs=0.03)
    assert (psi == 0.0).mean() == pytest.approx(0.25, abs=0.03)


def test_a_kind_that_does_not_occur_is_named() -> None:
    with pytest.raises(GradedPairsError, match="a little alike"):
        GradedPairs(np.eye(4, dtype=np.float32))
