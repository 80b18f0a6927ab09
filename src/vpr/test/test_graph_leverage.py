"""What leaving measurements out would change, against solving anew without them."""

from dataclasses import replace
from functools import partial

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


@pytest.mark.parametrize("dimension", [3, 6])
def test_savings_of_all_groups_at_once_are_near_those_of_each(dimension):
    graph = drive(dimension)
    factors = [factor_of(graph, m) for m in graph.measurements]
    solved = solve_batch(graph, factors, initial_values(graph, graph.order))
    of_drive = Leverage(graph, factors, solved.values)
    single = [[i] for i in graph.closures]
    exact = [of_drive.without(group)[0] for group in single]
    ratios = of_drive.savings(single) / exact
    assert (ratios > 0.3).all()
    assert (ratios < 3.0).all()
    groups = [graph.closures[:3], graph.closures[3:]]
    bounds = of_drive.savings(groups)
    assert (bounds <= [2.0 * of_drive.without(group)[0] for group in groups]).all()
    assert (bounds > 0.0).all()


def test_what_fits_perfectly_saves_nothing():
    graph = drive(3)
    perfect = replace(graph, measurements=tuple(map(partial(_exact, graph), graph.measurements)))
    factors = [factor_of(perfect, m) for m in perfect.measurements]
    values = initial_values(perfect, perfect.order)
    savings = Leverage(perfect, factors, values).savings([[i] for i in perfect.closures])
    np.testing.assert_allclose(savings, 0.0, atol=1e-9)


def _exact(graph, measurement):
    ends = graph.initial[measurement.from_id], graph.initial[measurement.to_id]
    return replace(measurement, measured=ends[0].between(ends[1]))
