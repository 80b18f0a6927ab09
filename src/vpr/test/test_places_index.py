"""Three indices that must agree with brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr.places.index import make_index

KINDS = ("exact", "kd_tree", "graph")


def descriptors(count, dimension=8, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_in_nothing(kind):
    index = make_index(kind, 8)
    assert len(index.nearest(descriptors(1)[0], 3).rows) == 0
    assert len(index.within(descriptors(1)[0], 1.0).rows) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_places_added_one_by_one_are_found(kind):
    rows, index = descriptors(300), make_index(kind, 8)
    for number, row in enumerate(rows):
        index.add(row[None])
        if number % 37 == 0:
            found = index.nearest(rows[number // 2], 1)
            assert found.rows.tolist() == [number // 2]
            assert found.distances[0] == pytest.approx(0.0, abs=2e-3)
    assert len(index) == 300


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 20), st.floats(0.1, 1.5), st.integers(0, 1000))
def test_exact_and_kd_tree_are_brute_force(count, k, radius, seed):
    rows, query = descriptors(count, seed=seed), descriptors(1, seed=seed + 1)[0]
    distances = np.linalg.norm(rows - query, axis=1)
    for kind in ("exact", "kd_tree"):
        index = make_index(kind, 8)
        for part in np.array_split(rows, 1 + count // 70):
            index.add(part)
        nearest = index.nearest(query, k)
        np.testing.assert_allclose(nearest.distances, np.sort(distances)[:k], atol=1e-4)
        np.testing.assert_allclose(distances[nearest.rows], nearest.distances, atol=1e-4)
        near = index.within(query, radius)
        assert (np.diff(near.distances) >= 0).all()
        sure = set(np.flatnonzero(distances < radius - 1e-4).tolist())
        maybe = set(np.flatnonzero(distances < radius + 1e-4).tolist())
        assert sure <= set(near.rows.tolist()) <= maybe


def test_the_graph_finds_most_of_the_nearest():
    rows, queries = descriptors(3000, 32), descriptors(40, 32, seed=9)
    exact, graph = make_index("exact", 32), make_index("graph", 32)
    exact.add(rows)
    graph.add(rows)
    shares = []
    for query in queries:
        truth = set(exact.nearest(query, 10).rows.tolist())
        shares.append(len(truth & set(graph.nearest(query, 10).rows.tolist())) / 10)
    assert np.mean(shares) > 0.95
