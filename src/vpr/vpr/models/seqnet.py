"""SeqNet: a temporal convolution over frozen single-image descriptors.

Garg & Milford, "SeqNet: Learning Descriptors for Sequence-Based Hierarchical Place Recognition",
RA-L 2021; with a window of one frame it is the transform that SeqMatchNet learns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from vpr.models.weights import WeightsError, load_weights, read_state_dict, weights_fingerprint

MODEL_KEY = "seqnet"  # of the file's metadata


class SeqNet(nn.Module):
    """(B, T, D) descriptors to (B, T - window + 1, D') L2-normalised ones.

    Attributes:
        source: ``name@hash`` of the model whose descriptors it was trained on; empty if unknown.
        training_record: what it was trained on and how, for people.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: int,
        source: str = "",
        training_record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, outputs, window)
        self.source = source
        self.training_record = dict(training_record or {})

    @property
    def window(self) -> int:
        """Frames that a descriptor is made of."""
        return int(self.convolution.kernel_size[0])

    @property
    def dimension(self) -> int:
        """Length of a new descriptor."""
        return int(self.convolution.out_channels)

    @property
    def model(self) -> str:
        """``seqnet@hash`` over weights and source: names the descriptors that it makes."""
        return f"seqnet@{weights_fingerprint(self).hex()[:12]}"

    def forward(self, descriptors: Tensor) -> Tensor:
        transformed = self.convolution(descriptors.transpose(1, 2)).transpose(1, 2)
        return functional.normalize(transformed, dim=-1)

    @torch.inference_mode()
    def encode(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D) to (N - window + 1, D')."""
        given = torch.from_numpy(np.ascontiguousarray(descriptors, np.float32))
        return np.asarray(self(given[None])[0].numpy(), np.float32)

    def check_input(self, dimension: int) -> None:
        """Raises WeightsError unless descriptors have the length that it was trained on."""
        if dimension != self.convolution.in_channels:
            raise WeightsError(
                f"{self.model} transforms descriptors of {self.convolution.in_channels} values "
                f"({self.source or 'of an unnamed model'}), these have {dimension}"
            )

    def check_source(self, model: str) -> None:
        """Raises WeightsError when descriptors are of another model than it was trained on."""
        if self.source and model and model != self.source:
            raise WeightsError(
                f"{self.model} was trained on descriptors of {self.source}, these are of {model}"
            )

    @torch.no_grad()
    def start_as_projection(self, directions: NDArray[np.float32]) -> None:
        """Begin as ``mean over the window @ directions``, (D, D')."""
        each = torch.from_numpy(np.ascontiguousarray(directions.T, np.float32)) / self.window
        self.convolution.weight.copy_(each[:, :, None].expand(-1, -1, self.window))
        self.take_off(np.zeros(len(directions), np.float32))

    @torch.no_grad()
    def take_off(self, mean: NDArray[np.float32]) -> None:
        """Transform what descriptors are more than a mean (D,): the bias is as that wants it."""
        assert self.convolution.bias is not None
        of_mean = self.convolution.weight.sum(dim=2) @ torch.from_numpy(mean.astype(np.float32))
        self.convolution.bias.copy_(-of_mean)


def save_seqnet(network: SeqNet, path: Path) -> None:
    """Write a transform as safetensors, replacing the file only once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    convolution = network.convolution
    about = {
        "inputs": convolution.in_channels,
        "outputs": network.dimension,
        "window": network.window,
        "source": network.source,
        "training_record": network.training_record,
    }
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, unfinished, metadata={MODEL_KEY: json.dumps(about)})
    unfinished.replace(path)


def read_seqnet(path: Path) -> SeqNet:
    """A transform as ``save_seqnet`` wrote it.

    Raises:
        WeightsError: missing or damaged file, or not such a transform.
    """
    state = read_state_dict(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[MODEL_KEY])
        network = SeqNet(
            int(about["inputs"]),
            int(about["outputs"]),
            int(about["window"]),
            str(about["source"]),
            about["training_record"],
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} is not a transform of 'vpr train sequence'") from error
    load_weights(network, state, path.name)
    return network.eval()
