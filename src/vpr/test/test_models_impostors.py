import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.models.descriptor_model import DescriptorModel
from vpr.models.head import DescriptorHead
from vpr.models.impostors import NEAREST, Impostors


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 8))
def test_the_distance_is_the_mean_to_the_nearest_ones(seed, count, dimension):
    rng = np.random.default_rng(seed)
    others = rng.normal(size=(count, dimension)).astype(np.float32)
    views = rng.normal(size=(5, dimension)).astype(np.float32)
    apart = np.sort(np.linalg.norm(views[:, None] - others[None], axis=2), axis=1)
    expected = apart[:, :NEAREST].mean(axis=1)
    np.testing.assert_allclose(Impostors(others).distances(views), expected, rtol=1e-4, atol=1e-3)


def test_they_are_kept_with_the_model(tmp_path):
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    head = DescriptorHead("linear", 8, 4, normalised=True).eval()
    model = DescriptorModel("net@base", (head,), impostors=Impostors(rows))
    model.save(tmp_path / "model.safetensors")
    loaded = DescriptorModel.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.impostors.descriptors, rows)
    assert loaded.impostor_distances(rows[:1])[0] == pytest.approx(
        np.sort(np.linalg.norm(rows - rows[0], axis=1))[:NEAREST].mean(), abs=1e-3
    )


def test_a_model_without_them_takes_nothing_off_a_distance():
    model = DescriptorModel("net@base", ())
    np.testing.assert_array_equal(model.impostor_distances(np.ones((3, 4), np.float32)), 0.0)
