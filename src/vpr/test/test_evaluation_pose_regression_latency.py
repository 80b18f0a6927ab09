"""The time of a frame has a row a network, beside the bare ResNet-50's."""

import pytest
import torch
from made_up_room import CONFIG

from vpr.evaluation.pose_regression_latency import latency_rows
from vpr.models.device import DeviceError, chosen_device

torch.set_num_threads(1)  # two would wait for each other on a busy machine


def test_a_row_a_network() -> None:
    rows = latency_rows("cpu", 2, {"tiny": CONFIG})
    assert [row["network"] for row in rows] == ["ResNet-50, forward alone", "tiny"]
    assert round(float(str(rows[0]["parameters_M"])), 1) == 25.6
    assert all(0.0 < float(str(row["p50_ms"])) <= float(str(row["p95_ms"])) for row in rows)


def test_a_device_is_chosen_by_its_name_only() -> None:
    assert chosen_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match="device = 'gpu': allowed here are auto, cpu, cuda"):
        chosen_device("gpu")
