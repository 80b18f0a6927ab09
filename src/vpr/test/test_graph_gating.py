"""The gate of a growing graph: bounds decide as the joint marginal would."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph_condensing import drive, grown

from vpr.graph.gating import ClosureGate
from vpr.graph.growing import GrowingGraph
from vpr.graph.outliers import with_false_closures
from vpr.graph.retrial import gate_of


@pytest.mark.parametrize("dimension", [3, 6])
@given(seed=st.integers(0, 50))
@settings(max_examples=4, deadline=None)
def test_the_gate_decides_as_the_joint_marginal_does(dimension, seed):
    clean = drive(dimension, seed=seed, noise=1.0)
    graph, _ = with_false_closures(clean, 0.5, seed)
    growing, gate = grown(clean), gate_of(graph)
    bounded = ClosureGate(graph, growing, gate)
    bounded.add(clean.trusted | set(clean.closures))
    for number in graph.closures:
        measurement = graph.measurements[number]
        assert bounded.admits(measurement) == (growing.chi2(measurement) <= gate)


@pytest.mark.parametrize("dimension", [3, 6])
def test_few_closures_need_a_marginal(monkeypatch, dimension):
    clean = drive(dimension)
    graph, _ = with_false_closures(clean, 0.5, seed=1)
    growing = grown(clean)
    bounded = ClosureGate(graph, growing, gate_of(graph))
    bounded.add(clean.trusted | set(clean.closures))
    asked = []
    chi2 = GrowingGraph.chi2
    monkeypatch.setattr(GrowingGraph, "chi2", lambda g, m: asked.append(m) or chi2(g, m))
    for number in graph.closures:
        bounded.admits(graph.measurements[number])
    assert len(asked) < 0.2 * len(graph.closures)


def test_without_a_path_the_marginal_is_asked():
    clean = drive(3)
    graph, _ = with_false_closures(clean, 0.5, seed=1)
    growing, gate = grown(clean), gate_of(graph)
    bounded = ClosureGate(graph, growing, gate)
    bounded.add(clean.trusted)
    bounded.renew([])
    measurements = [graph.measurements[number] for number in graph.closures]
    inside = [growing.chi2(measurement) <= gate for measurement in measurements]
    assert list(map(bounded.admits, measurements)) == inside
    assert not all(inside)
