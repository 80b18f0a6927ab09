import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.models.pooling import gem_pool


def features(seed, channels=3, rows=6, columns=8):
    return torch.from_numpy(
        np.random.default_rng(seed).normal(size=(2, channels, rows, columns)).astype(np.float32)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 2.0, 3.0, 5.0]))
def test_every_cell_holds_its_generalised_mean(seed, p):
    maps = features(seed)
    pooled = gem_pool(maps, p, (2, 4)).reshape(2, 3, 2, 4).numpy()
    for row in range(2):
        for column in range(4):
            cell = maps[:, :, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2].numpy()
            positive = cell if p == 1.0 else np.maximum(cell, 1e-6)
            expected = np.mean(positive**p, axis=(2, 3)) ** (1 / p) if p > 1 else cell.mean((2, 3))
            np.testing.assert_allclose(pooled[:, :, row, column], expected, rtol=1e-4, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_even_attention_changes_nothing(seed, level):
    maps = features(seed)
    attention = torch.full((2, 1, 24, 32), level)
    torch.testing.assert_close(
        gem_pool(maps, 3.0, (3, 1), attention), gem_pool(maps, 3.0, (3, 1)), rtol=1e-3, atol=1e-5
    )


def test_attention_picks_where_to_look():
    maps = torch.ones((1, 1, 2, 2))
    maps[0, 0, 0, 0] = 7.0
    attention = torch.zeros((1, 1, 2, 2))
    attention[0, 0, 0, 0] = 1.0
    assert gem_pool(maps, 3.0, (1, 1), attention).item() == pytest.approx(7.0, rel=1e-4)


def test_a_large_exponent_approaches_the_maximum():
    maps = features(0).abs()
    torch.testing.assert_close(gem_pool(maps, 20.0, (1, 1)), maps.amax((2, 3)), rtol=0.2, atol=0.0)
