"""All closures judged together, where a false one has hardly a residual."""

from pathlib import Path

import numpy as np
import pytest

from vpr.graph.g2o import read_g2o
from vpr.graph.outliers import with_false_closures
from vpr.graph.retrial import Retrial
from vpr.graph.solution import factor_of, initial_values, solve_batch

INTEL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "g2o" / "intel.g2o"


@pytest.mark.skipif(not INTEL.exists(), reason="intel.g2o is not beside the checkout")
def test_a_false_closure_at_the_end_of_a_drive_is_taken_out():
    graph, false = with_false_closures(read_g2o(INTEL), 0.3, seed=1)
    true = frozenset(graph.closures) - false
    place = {vertex: i for i, vertex in enumerate(graph.order)}
    lone = max(false, key=lambda i: place[graph.measurements[i].to_id])
    factors = [factor_of(graph, m) for m in graph.measurements]
    inside = [factors[i] for i in sorted(graph.trusted | true | {lone})]
    bent = solve_batch(graph, inside, initial_values(graph, graph.order)).values
    assert factors[lone].error(bent) < 1.0  # nothing is behind it that would show it
    belief = Retrial(graph, factors, ()).judge(len(graph.order), true | {lone}, bent)
    assert belief.kept == true
    assert np.isfinite(belief.cost)
    assert belief.saving > 1.0
