"""Networks compiled for the CPU by OpenVINO: about twice as fast as PyTorch there."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

logger = logging.getLogger(__name__)

CompiledNetwork = Callable[[NDArray[Any]], tuple[Tensor, ...]]


class RuntimeUnavailableError(RuntimeError):
    """A runtime that is not installed, or cannot run this network; says which and why."""


def compiled_where_possible(
    network: nn.Module, example: Tensor, threads: int, runtime: str, device: torch.device
) -> CompiledNetwork | None:
    """The network as a configuration's ``runtime`` wants it; None where PyTorch runs it.

    Args:
        runtime: ``pytorch``, ``openvino``, or ``auto`` for OpenVINO where there is one and no GPU.

    Raises:
        RuntimeUnavailableError: ``openvino`` that is not installed, cannot take this network or
            would have to run on a GPU.
    """
    if device.type != "cpu" and runtime == "openvino":
        raise RuntimeUnavailableError("runtime openvino runs on the CPU: set device cpu or auto")
    if device.type != "cpu" or runtime == "pytorch":
        return None
    try:
        return compiled_for_cpu(network, example, threads)
    except RuntimeUnavailableError as error:
        if runtime == "openvino":
            raise
        logger.warning("PyTorch runs the network, more slowly: %s", error)
        return None


def compiled_for_cpu(network: nn.Module, example: Tensor, threads: int) -> CompiledNetwork:
    """The network in full precision, for inputs of the example's shape and any batch size.

    Args:
        example: (B, ...) an input on the CPU.
        threads: CPU threads; 0 is OpenVINO's choice.

    Raises:
        RuntimeUnavailableError: OpenVINO is not installed, or cannot take this network.
    """
    try:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    except ImportError as error:
        raise RuntimeUnavailableError("runtime openvino: openvino is not installed") from error
    frontend = FrontEndManager().load_by_framework("pytorch")
    options: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # some CPUs default to bfloat16
    }
    if threads > 0:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        decoder = TorchScriptPythonDecoder(_traced(network, example))  # must outlive the conversion
        model = frontend.convert(frontend.load(decoder))
        model.reshape({0: openvino.PartialShape([-1, *example.shape[1:]])})
        request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RuntimeUnavailableError(f"OpenVINO cannot run this network: {reason}") from error

    def run(batch: NDArray[Any]) -> tuple[Tensor, ...]:
        request.infer({0: batch})
        outputs = (request.get_output_tensor(i).data for i in range(len(model.outputs)))
        return tuple(torch.from_numpy(output.copy()) for output in outputs)

    return run


def _traced(network: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    with torch.inference_mode(), warnings.catch_warnings():
        # paddings become constants, as they are: the input's height and width are fixed
        warnings.simplefilter("ignore")
        traced: torch.jit.ScriptModule = torch.jit.trace(  # type: ignore[no-untyped-call]
            network.eval(), example, check_trace=False
        )
    return traced
