import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.verification.matching import match_descriptors


def by_brute_force(a, b, ratio, max_distance):
    bits_a, bits_b = np.unpackbits(a, axis=1), np.unpackbits(b, axis=1)
    distances = (bits_a[:, None, :] != bits_b[None, :, :]).sum(axis=2)
    pairs = set()
    for i, row in enumerate(distances):
        j = int(row.argmin())
        second = np.partition(row, 1)[1]
        if distances[:, j].argmin() == i and row[j] <= max_distance and row[j] < ratio * second:
            pairs.add((i, j))
    return pairs


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 40),
    columns=st.integers(2, 40),
    shared=st.integers(0, 20),
    ratio=st.floats(0.5, 1.0),
    seed=st.integers(0, 1000),
)
def test_mutual_nearest_neighbours_that_pass_the_ratio_test(rows, columns, shared, ratio, seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (rows, 32), dtype=np.uint8)
    b = rng.integers(0, 256, (columns, 32), dtype=np.uint8)
    common = min(shared, rows, columns)
    b[:common] = a[:common] ^ rng.integers(0, 2, (common, 32), dtype=np.uint8)

    found = match_descriptors(a, b, ratio, max_distance=64)

    assert set(zip(*map(np.ndarray.tolist, found), strict=True)) == by_brute_force(a, b, ratio, 64)


def test_the_most_distinctive_match_comes_first():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (10, 32), dtype=np.uint8)
    b = a.copy()
    b[:9, :3] ^= 0xFF  # all but the last differ

    rows, columns = match_descriptors(a, b, ratio=0.9, max_distance=64)

    assert rows[0] == columns[0] == 9
    assert len(rows) == 10


def test_too_few_descriptors_match_nothing():
    none = np.zeros((0, 32), np.uint8)
    one = np.zeros((1, 32), np.uint8)
    many = np.random.default_rng(0).integers(0, 256, (9, 32), dtype=np.uint8)
    for a, b in ((none, many), (many, none), (one, many), (none, none)):
        rows, columns = match_descriptors(a, b, ratio=1.0, max_distance=256)
        assert len(rows) == len(columns) == 0
