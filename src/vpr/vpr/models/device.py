"""Where networks run."""

from __future__ import annotations

import torch

from vpr.config import ConfigError

DEVICES = ("auto", "cpu", "cuda")


class DeviceError(ConfigError):
    """A device that there is none of that name, or a GPU that is not there."""


def chosen_device(name: str) -> torch.device:
    """The device of a configuration's ``auto``, ``cpu`` or ``cuda``; ``auto`` takes a GPU if any.

    Raises:
        DeviceError: another name; or ``cuda`` where PyTorch finds no GPU, never the CPU in its
            place.
    """
    if name not in DEVICES:
        raise DeviceError(f"device = '{name}': allowed here are {', '.join(DEVICES)}")
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise DeviceError("device = 'cuda', but PyTorch finds no GPU: allowed here are auto, cpu")
    return torch.device("cuda" if found and name != "cpu" else "cpu")
