"""Model files of earlier versions and damaged ones."""

import json

import numpy as np
import pytest
import torch

from vpr.models.descriptor_model import HEADER, DescriptorModel, DescriptorModelError, write_tensors
from vpr.models.head import DescriptorHead

THRESHOLD = {
    "distance": 1.11, "wanted_precision": 0.95, "wanted_drives": 0.95, "confidence": 0.95,
    "assured_drives": 0.9504, "drives": 59, "accepted": 594,
}  # fmt: skip


def header(**changes):
    """As version 1 wrote it: one pair of curves over plain distances, nothing of sequences."""
    head = {"kind": "linear", "features": 8, "embedding": 4, "normalised": True}
    calibration = {
        "best": {"distances": [0.85, 1.1, 1.3], "probabilities": [0.99, 0.9, 0.1]},
        "further": {"distances": [1.0, 1.3], "probabilities": [0.6, 0.0]},
        "thresholds": [THRESHOLD],
    }
    return {
        "format": "vpr-descriptor", "schema_version": 1, "base": "net@base", "heads": [head],
        "calibration": calibration, "provenance": {"training": ["a"]},
    } | changes  # fmt: skip


def written(path, values):
    tensors = {
        f"head0.{name}": tensor
        for name, tensor in DescriptorHead("linear", 8, 4, True).state_dict().items()
    }
    write_tensors(path, tensors, {HEADER: json.dumps(values)})
    return path


def test_a_file_of_version_1_describes_and_is_calibrated_as_it_was(tmp_path):
    torch.manual_seed(0)
    model = DescriptorModel.load(written(tmp_path / "old.safetensors", header()))
    views = np.eye(8, dtype=np.float32)[:3]
    described = model.forward_from("net@base", views)
    np.testing.assert_allclose(np.linalg.norm(described, axis=1), 1.0, rtol=1e-5)
    assert model.sequence_calibration is None
    impostors = model.impostor_distances(described)
    few = model.calibration([1.1, 1.3], impostors[1:], 10)
    many = model.calibration([1.1, 1.3], impostors[1:], 100_000)
    np.testing.assert_allclose(few, [0.9, 0.0])
    np.testing.assert_array_equal(few, many)
    assert model.calibration.thresholds[0].model_dump() == THRESHOLD


def test_a_file_of_version_1_written_anew_is_the_same(tmp_path):
    old = DescriptorModel.load(written(tmp_path / "old.safetensors", header()))
    old.save(tmp_path / "new.safetensors")
    new = DescriptorModel.load(tmp_path / "new.safetensors")
    assert new.name == old.name
    assert new.calibration == old.calibration


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 4}, r"version 4, this reads vpr-descriptor up to 3"),
        ({"format": "sequence-transform"}, r"has format sequence-transform"),
        ({"calibration": {"best": {"distances": [1.0]}}}, r"is not a trained descriptor"),
        ({"heads": [{"kind": "linear", "features": 8, "embedding": 5, "normalised": True}]},
         r"head 0 does not fit"),
    ],
)  # fmt: skip
def test_a_newer_a_foreign_and_a_damaged_file_are_refused_in_words(tmp_path, changes, said):
    path = written(tmp_path / "model.safetensors", header(**changes))
    with pytest.raises(DescriptorModelError, match=said):
        DescriptorModel.load(path)
