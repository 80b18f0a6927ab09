"""The trainable head of a descriptor: from the frozen trunk's features to the learned embedding."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vpr.models.whitening import Whitening

HeadKind = Literal["linear", "fc6_fc7"]
HIDDEN = 4096  # units of fc6, as in AlexNet


class DescriptorHead(nn.Module):
    """Features (B, D) to embeddings (B, d).

    ``linear`` is one affine map; ``fc6_fc7`` are the two fully connected layers that Pillai &
    Leonard V-C retrain on AlexNet's pool5.

    Args:
        normalised: embeddings have unit length. Otherwise their distances are what the margin
            made of them, in units of their own, and no cosine means anything.
    """

    def __init__(self, kind: HeadKind, features: int, embedding: int, normalised: bool) -> None:
        super().__init__()
        self.kind, self.normalised = kind, normalised
        self.features, self.embedding = features, embedding
        if kind == "linear":
            self.layers = nn.Sequential(nn.Linear(features, embedding))
        else:
            self.layers = nn.Sequential(
                nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, embedding)
            )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return functional.normalize(y) if self.normalised else y

    @torch.no_grad()
    def begin_at(self, whitening: Whitening) -> None:
        """Make a linear head whiten; dimensions that the whitening lacks stay zero."""
        layer = self.layers[0]
        assert isinstance(layer, nn.Linear)
        count = whitening.projection.shape[1]
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[:count] = torch.from_numpy(whitening.projection.T.copy())
        layer.bias[:count] = -torch.from_numpy(whitening.mean @ whitening.projection)

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Multiply all embeddings of an unnormalised head."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(factor)
        last.bias.mul_(factor)

    def copy(self) -> DescriptorHead:
        """The same head with weights of its own, on the CPU."""
        twin = DescriptorHead(self.kind, self.features, self.embedding, self.normalised)
        twin.load_state_dict({n: t.detach().cpu().clone() for n, t in self.state_dict().items()})
        return twin.eval()

    def apply_to(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (B, d) float32 of features (B, D), on the device of the head."""
        device = next(self.parameters()).device
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(device)
            return np.asarray(self(batch).float().cpu().numpy(), np.float32)

    @property
    def fingerprint(self) -> str:
        """Of weights and kind: equal heads, equal fingerprint."""
        return tensors_fingerprint(self.state_dict(), f"{self.kind} {self.normalised}")


def tensors_fingerprint(tensors: Mapping[str, Tensor], salt: str = "") -> str:
    """SHA-256 over names and values."""
    digest = hashlib.sha256(salt.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
