"""Reading, checking and fingerprinting network weights."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pth", ".pt")


class WeightsError(ValueError):
    """Weights that are missing, corrupt or of another network; names the file and first layer."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors``, ``.pth`` or ``.pt`` file, on the CPU. Never runs its code.

    Args:
        path: the file, or a folder that holds one such file.

    Raises:
        WeightsError: missing or unreadable file, or one that is not a state dict.
    """
    if path.is_dir():
        path = _only_file_of(path)
    if not path.is_file():
        raise WeightsError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is corrupt or not a weights file: {cause}") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise WeightsError(f"{path} holds no state dict (layer names to tensors)")
    return dict(state)


def _only_file_of(folder: Path) -> Path:
    found = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise WeightsError(f"{folder} must hold one weights file, it holds {names}")
    return found[0]


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load all weights of a network.

    Raises:
        WeightsError: naming the first layer, in the network's order, that is missing, has another
            shape or is not finite; or the first layer the network does not have.
    """
    expected = network.state_dict()
    for name, tensor in expected.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in state:
            raise WeightsError(f"{source}: layer '{name}' {tuple(tensor.shape)} is missing")
        given = state[name]
        if given.shape != tensor.shape:
            raise WeightsError(
                f"{source}: layer '{name}' is {tuple(given.shape)}, the network has "
                f"{tuple(tensor.shape)}"
            )
        if given.is_floating_point() and not bool(torch.isfinite(given).all()):
            raise WeightsError(f"{source}: layer '{name}' holds values that are not finite")
    unknown = next((name for name in state if name not in expected), None)
    if unknown is not None:
        raise WeightsError(f"{source}: the network has no layer '{unknown}'")
    network.load_state_dict(dict(state), strict=False)


def weights_fingerprint(network: nn.Module) -> bytes:
    """SHA-256 over names and values of a network's weights: equal weights, equal digest."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()
