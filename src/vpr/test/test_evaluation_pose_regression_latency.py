"""The time of a frame has a row a network, beside the bare ResNet-50's."""

import torch
from made_up_room import CONFIG

from vpr.evaluation.pose_regression_latency import latency_rows

torch.set_num_threads(1)  # two would wait for each other on a busy machine


def test_a_row_a_network() -> None:
    rows = latency_rows("cpu", 2, {"tiny": CONFIG})
    assert [row["network"] for row in rows] == ["ResNet-50, forward alone", "tiny"]
    assert round(float(str(rows[0]["parameters_M"])), 1) == 25.6
    assert all(0.0 < float(str(row["p50_ms"])) <= float(str(row["p95_ms"])) for row in rows)
