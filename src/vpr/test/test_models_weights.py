import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vpr.models.weights import WeightsError, load_weights, read_state_dict, weights_fingerprint


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def state():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_both_file_types_give_the_same_weights(suffix, state, tmp_path):
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    loaded = network()
    load_weights(loaded, read_state_dict(file), file.name)
    torch.testing.assert_close(loaded[0].weight, state["0.weight"])


def test_a_folder_is_taken_for_the_one_weights_file_in_it(state, tmp_path):
    with pytest.raises(WeightsError, match="must hold one weights file, it holds none"):
        read_state_dict(tmp_path)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert set(read_state_dict(tmp_path)) == set(state)
    torch.save(state, tmp_path / "older.pth")
    with pytest.raises(WeightsError, match=r"it holds model\.safetensors, older\.pth"):
        read_state_dict(tmp_path)


def test_a_training_checkpoint_is_unwrapped(state, tmp_path):
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "checkpoint.pth")
    assert set(read_state_dict(tmp_path / "checkpoint.pth")) == set(state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_and_missing_files_are_refused(suffix, state, tmp_path):
    file = tmp_path / f"weights{suffix}"
    with pytest.raises(WeightsError, match="no weights file"):
        read_state_dict(file)
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(WeightsError, match="corrupt"):
        read_state_dict(file)


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    class Intruder:
        def __reduce__(self):
            return print, ("executed",)

    torch.save(Intruder(), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="corrupt"):
        read_state_dict(tmp_path / "weights.pth")


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("1.weight"), "'1.weight' .* is missing"),
        (lambda s: s.update({"2.weight": torch.zeros(5, 4)}), "'2.weight' is"),
        (lambda s: s["0.bias"].fill_(float("nan")), "'0.bias' holds values"),
        (lambda s: s.update({"9.bias": torch.zeros(1)}), "no layer '9.bias'"),
    ],
)
def test_the_first_mismatching_layer_is_named(change, message, state):
    change(state)
    with pytest.raises(WeightsError, match=message):
        load_weights(network(), state, "file.pth")


def test_the_fingerprint_follows_the_weights():
    first, second = network(), network()
    assert weights_fingerprint(first) == weights_fingerprint(second)
    with torch.no_grad():
        second[2].bias[0] += 1e-6
    assert weights_fingerprint(first) != weights_fingerprint(second)
