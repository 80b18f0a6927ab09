"""What leaving measurements out would change, against solving anew without them."""

import numpy as np
import pytest
from test_graph_condensing import drive

from vpr.graph import leverage
from vpr.graph.leverage import Leverage
from vpr.graph.solution import factor_of, initial_values, solve_batch


@pytest.mark.parametrize("dimension", [3, 6])
@pytest.mark.parametrize("group", [slice(3, 4), slice(2, 6)])
@pytest.mark.parametrize("small", [0, 90], ids=["large", "small"])
def test_savings_and_errors_are_those_of_the_graph_solved_without_them(
    monkeypatch, dimension, group, small
):
    monkeypatch.setattr(leverage, "SMALL", small)
    graph = drive(dimension)
    factors = [factor_of(graph, m) for m in graph.measurements]
    start = initial_values(graph, graph.order)
    whole = solve_batch(graph, factors, start, relative_tolerance=1e-9)
    left_out = graph.closures[group]
    saved, errors = Leverage(graph, factors, whole.values).without(left_out)
    rest = [factor for i, factor in enumerate(factors) if i not in left_out]
    solved = solve_batch(graph, rest, whole.values, relative_tolerance=1e-9)
    assert saved == pytest.approx(whole.error - solved.error, rel=0.01)
    expected = [factors[i].error(solved.values) for i in left_out]
    np.testing.assert_allclose(errors, expected, rtol=0.02)
