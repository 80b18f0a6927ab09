import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.places.descriptors import DescriptorRows, dot_products


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 40), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_dot_products_are_those_of_the_widened_rows(count, dimension, seed):
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, dimension)).astype(np.float16)
    descriptor = generator.standard_normal(dimension, dtype=np.float32)
    expected = rows.astype(np.float64) @ descriptor.astype(np.float64)
    np.testing.assert_allclose(dot_products(rows, descriptor), expected, atol=1e-4)


def test_smallest_halves_and_those_that_are_not_finite_are_what_they_are():
    rows = np.array([[6e-8], [-0.0], [np.inf], [np.nan]], np.float16)  # 6e-8 is subnormal
    found = dot_products(rows, np.ones(1, np.float32))
    np.testing.assert_array_equal(found, rows[:, 0].astype(np.float32))


def test_rows_of_a_file_are_compared_where_they_are(tmp_path):
    rows = np.random.default_rng(1).standard_normal((9, 8)).astype(np.float16)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float16, "r", shape=rows.shape)
    descriptor = np.ones(16, np.float32)[::2]
    np.testing.assert_array_equal(dot_products(mapped, descriptor), dot_products(rows, descriptor))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_new_rows_are_compared_too(count):
    rows = DescriptorRows(3)
    given = np.eye(5, 3, dtype=np.float32)[:count]
    rows.extend(given)
    found = rows.similarities(np.array([1.0, 2.0, 3.0], np.float32))
    np.testing.assert_allclose(found, given @ [1.0, 2.0, 3.0])
