"""The inner layers of a backbone in one pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpr.models.backbone import Backbone

LAST_FEATURES = "last"  # the layer name that stands for the backbone's output map
RgbBatch = NDArray[np.uint8]  # (B, H, W, 3), or with more channels behind RGB
Activations = Callable[[RgbBatch], tuple[Tensor, ...]]


class _AllLayersSeenError(Exception):
    """Ends the network's run early; never leaves this module."""


class LayerActivations(nn.Module):
    """Images to the activations of ``layers``, in their order.

    Input (B, H, W, 3 + extra_channels) uint8, RGB first, output one (B, C, h, w) float32 a layer.
    What lies behind the last wanted layer is not computed.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone, layers: Sequence[str], extra_channels: int = 0) -> None:
        super().__init__()
        self.network = backbone.network
        self._features = backbone.features
        self._layers = tuple(dict.fromkeys(layers))
        self._found: dict[str, Tensor] = {}
        halves = (0.5,) * extra_channels  # what is not colour goes in as -1..1
        self.channels = 3 + extra_channels
        self.register_buffer("shift", torch.tensor((*backbone.mean, *halves)) * 255.0)
        self.register_buffer("scale", torch.tensor((*backbone.std, *halves)) * 255.0)
        for layer in self._layers:
            if layer != LAST_FEATURES:
                self._keep_output(layer, backbone.layer(layer))

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        self._found.clear()
        batch = ((rgb.float() - self.shift) / self.scale).permute(0, 3, 1, 2)
        with contextlib.suppress(_AllLayersSeenError):
            self._found[LAST_FEATURES] = self._features(batch)
        return tuple(self._found[layer].float() for layer in self._layers)

    def _keep_output(self, name: str, layer: nn.Module) -> None:
        def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self._found[name] = output
            if len(self._found) == len(self._layers):
                raise _AllLayersSeenError

        layer.register_forward_hook(keep)


def in_pytorch(network: LayerActivations, device: torch.device, mixed: bool) -> Activations:
    """The network on a device, with automatic mixed precision on CUDA if ``mixed``."""
    network.eval().to(device)
    network.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(rgb: RgbBatch) -> tuple[Tensor, ...]:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, enabled=mixed and device.type == "cuda"),
        ):
            activations: tuple[Tensor, ...] = network(torch.from_numpy(rgb).to(device))
        return activations

    return run
