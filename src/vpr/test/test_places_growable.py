import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vpr.places.growable import GrowableArray


@given(st.lists(st.integers(0, 150), max_size=6), st.integers(0, 200))
def test_rows_equal_those_of_a_dense_array(batches, singles):
    generator = np.random.default_rng(0)
    array = GrowableArray((3,), np.float32)
    dense = np.empty((0, 3), np.float32)
    for count in batches:
        rows = generator.normal(size=(count, 3)).astype(np.float32)
        array.extend(rows)
        dense = np.concatenate([dense, rows])
    for _ in range(singles):
        row = generator.normal(size=3).astype(np.float32)
        array.append(row)
        dense = np.concatenate([dense, row[None]])
    np.testing.assert_array_equal(array.rows, dense)
    assert len(array) == len(dense)
    assert array.rows.flags.c_contiguous


def test_scalars_and_matrices_are_rows_too():
    numbers, poses = GrowableArray((), np.int64), GrowableArray((4, 4), np.float64)
    numbers.append(7)
    poses.append(np.eye(4))
    assert numbers.rows.tolist() == [7]
    np.testing.assert_array_equal(poses.rows[0], np.eye(4))
