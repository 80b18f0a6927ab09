"""Time a frame of VLocNet++ takes, beside a bare ResNet-50 on the same image."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch

from vpr.models.torchvision_import import import_torchvision
from vpr.models.vlocnet import SMALL, VLocNet, VLocNetConfig

NETWORKS: Mapping[str, VLocNetConfig] = MappingProxyType(
    {"VLocNet++": VLocNetConfig(), "VLocNet++, small": SMALL}
)
WARM_UP = 3  # frames before the first that is timed

Row = dict[str, object]


def latency_rows(
    device: str, frames: int, networks: Mapping[str, VLocNetConfig] = NETWORKS
) -> list[Row]:
    """Median and 95th percentile of ``frames`` single frames, each with its predecessor's memory.

    On CUDA in bfloat16, as the node runs there.
    """
    resnet = import_torchvision().models.resnet50(weights=None).to(device).eval()
    whole = VLocNetConfig()
    image = torch.zeros(1, 3, whole.image_height, whole.image_width, device=device)
    rows = [_row("ResNet-50, forward alone", lambda: resnet(image), device, frames, resnet)]
    for name, config in networks.items():
        network = VLocNet(config).to(device).eval()
        rows.append(_row(name, _stepping(network, device), device, frames, network))
    return rows


def _stepping(network: VLocNet, device: str) -> Callable[[], object]:
    config = network.config
    image = torch.zeros(1, 3, config.image_height, config.image_width, device=device)
    with torch.inference_mode(), _mixed(device):
        _, memory = network.step(image)
    return lambda: network.step(image, memory)


def _row(
    name: str, forward: Callable[[], object], device: str, frames: int, network: torch.nn.Module
) -> Row:
    seconds = []
    with torch.inference_mode(), _mixed(device):
        for _ in range(WARM_UP + frames):
            started = time.perf_counter()
            forward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    p50, p95 = 1e3 * np.percentile(seconds[WARM_UP:], [50, 95])
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return {
        "network": name, "device": device, "parameters_M": millions,
        "p50_ms": float(p50), "p95_ms": float(p95),
    }  # fmt: skip


def _mixed(device: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
