"""torchvision, importable beside a CPU build of torch.

The torchvision wheel of the package index is built against CUDA. Beside a CPU torch its compiled
operators do not load, and its Python part then fails at import because it registers shape rules
for two operators that nobody defined. Defining their schemas lets the models import; the operators
themselves (nms and the like) stay unavailable, and no classification backbone uses them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

NMS_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_schemas: list[Any] = []  # a schema lives as long as its library object


def import_torchvision() -> ModuleType:
    """The package ``torchvision``, with ``torchvision.models`` imported.

    Raises:
        ModuleNotFoundError: when torchvision is not installed.
    """
    try:
        importlib.import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _define_missing_operators()
        importlib.import_module("torchvision.models")
    return sys.modules["torchvision"]


def _define_missing_operators() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left behind
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    library.define(f"nms{NMS_SCHEMA}")
    library.define(f"qnms{NMS_SCHEMA}")
    _schemas.append(library)
