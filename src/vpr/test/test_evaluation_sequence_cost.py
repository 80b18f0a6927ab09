import pytest

from vpr.evaluation import sequence_cost
from vpr.evaluation.kept_rows import KeptRowsError
from vpr.evaluation.sequence_cost import matching_costs


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(sequence_cost, "_alone", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(sequence_cost, "QUERIES", 20)


def test_a_row_has_the_step_and_all_peers():
    (cost,) = matching_costs((600,), (3,))
    assert (cost.places, cost.length) == (600, 3)
    assert cost.exact.recall > 0.9
    assert cost.approximate.recall > 0.9
    assert cost.same_nearest_in_half_precision > 0.9
    spent = (cost.exact.milliseconds, cost.exact.flat, cost.hnsw, cost.convolution, cost.numpy_loop)
    assert all(milliseconds > 0.0 for milliseconds in spent)


def test_peers_that_take_long_in_a_large_map_are_measured_if_wanted(monkeypatch):
    for limit in ("CLUSTERED_LIMIT", "LOOP_LIMIT", "CONVOLUTION_LIMIT", "HNSW_LIMIT"):
        monkeypatch.setattr(sequence_cost, limit, 100)
    (quick,) = matching_costs((300,), (2,))
    assert (quick.clustered, quick.hnsw, quick.convolution, quick.numpy_loop) == (None,) * 4
    (every,) = matching_costs((300,), (2,), every_peer=True)
    assert None not in (every.clustered, every.hnsw, every.convolution, every.numpy_loop)


def test_a_run_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sequence_cost, "_loop", cut)
        with pytest.raises(KeyboardInterrupt):
            matching_costs((300,), (2,), tmp_path)
    monkeypatch.setattr(sequence_cost, "_step_cost", cut)  # all of them are kept
    monkeypatch.setattr(sequence_cost, "add_places", cut)
    matching_costs((300,), (2,), tmp_path)
    monkeypatch.setattr(sequence_cost, "QUERIES", 21)
    with pytest.raises(KeptRowsError, match="queries"):
        matching_costs((300,), (2,), tmp_path)
