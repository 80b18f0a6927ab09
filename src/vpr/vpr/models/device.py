"""Where networks run."""

from __future__ import annotations

import torch

from vpr.config import ConfigError


class DeviceError(ConfigError):
    """A GPU that was asked for and is not there."""


def chosen_device(name: str) -> torch.device:
    """The device of a configuration's ``auto``, ``cpu`` or ``cuda``; ``auto`` takes a GPU if any.

    Raises:
        DeviceError: ``cuda`` where PyTorch finds no GPU; never the CPU in its place.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise DeviceError("device = 'cuda', but PyTorch finds no GPU: allowed here are auto, cpu")
    return torch.device("cuda" if found and name != "cpu" else "cpu")
