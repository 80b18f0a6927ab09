"""Segmenters behind one interface: an image in, activations and labels of 19 classes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vpr.config import SegmentationConfig
from vpr.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from vpr.models.compiled import CompiledNetwork, compiled_where_possible
from vpr.models.device import chosen_device
from vpr.models.espnetv2 import EspNetV2, espnetv2_scale
from vpr.models.light_segmenter import LightSegmenter
from vpr.models.torchvision_import import import_torchvision
from vpr.models.weights import WeightsError, load_weights, read_state_dict
from vpr.records import Image
from vpr.semantics.classes import (
    CLASS_COUNT,
    VOC_BACKGROUND,
    VOC_BACKGROUND_CLASS,
    VOC_CLASS_COUNT,
    VOC_TO_CITYSCAPES,
)

EMBEDDED_WEIGHTS = Path(__file__).parent / "light_simulated_towns.safetensors"
HALF = (0.5,) * 3
ESPNET_CLASSES = CLASS_COUNT + 1  # the authors' networks have "unlabelled" as their last
COMPILED_SHAPES = 8  # kept at a time: a camera has one, a folder of images may have several
COMMON_ASPECT = (3, 4)  # rows to columns of most cameras: compiled for before the first image
SEGMENTERS = ("light", "deeplabv3plus_resnet101", "espnetv2", "torchvision:NAME")


class SegmentationError(ValueError):
    """An image that cannot be segmented, or a segmenter that does not exist; says why."""


@dataclass(frozen=True)
class Segmentation:
    """What stands where in an image.

    ``likelihoods`` (19, h, w) float32 of the classes, which sum to 1 at each pixel, on the
    segmenter's device; h and w have the image's aspect but may be smaller than it. What is asked
    of them is computed there, and only the answer is copied.
    """

    likelihoods: Tensor

    @property
    def activations(self) -> NDArray[np.float32]:
        """(19, h, w) the likelihoods as an array."""
        return np.asarray(self.likelihoods.cpu().numpy(), np.float32)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(h, w) the likeliest class of each pixel, a Cityscapes train id."""
        return np.asarray(self.likelihoods.argmax(dim=0).to(torch.uint8).cpu().numpy(), np.uint8)

    def likelihood_of(self, classes: NDArray[np.intp]) -> NDArray[np.float32]:
        """(h, w) how likely each pixel is of any of the classes, 0..1."""
        chosen = torch.from_numpy(classes).to(self.likelihoods.device)
        total = self.likelihoods.index_select(0, chosen).sum(dim=0).clamp(0.0, 1.0)
        return np.asarray(total.cpu().numpy(), np.float32)

    def resized(self, width: int, height: int) -> Segmentation:
        """The same at another size."""
        scaled = functional.interpolate(
            self.likelihoods[None], (height, width), mode="bilinear", align_corners=False
        )
        return Segmentation(scaled[0])


class Segmenter(Protocol):
    """Anything that says what stands where."""

    def __call__(self, image: Image) -> Segmentation:
        """Segment (H, W, 3) BGR or (H, W) grey uint8 of any size.

        Raises:
            SegmentationError: not an 8-bit image with 1 or 3 channels.
        """
        ...


@dataclass(frozen=True)
class _Network:
    """A network with what it wants to be given and what its output means."""

    module: nn.Module
    logits: Callable[[Tensor], Tensor]  # normalised (B, 3, H, W) to (B, K, h, w)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stride: int  # px; height and width of its input are multiples of this
    classes: Callable[[Tensor], Tensor]  # likelihoods (B, K, h, w) to (B, 19, h, w)


class _Logits(nn.Module):
    """A network's logits alone, to be compiled."""

    def __init__(self, network: _Network) -> None:
        super().__init__()
        self.module = network.module
        self._logits = network.logits

    def forward(self, batch: Tensor) -> Tensor:
        return self._logits(batch)


class NetworkSegmenter:
    """A segmentation network made ready: resizing, normalisation, softmax, label set.

    Args:
        config: network, weights, input width, device, runtime and precision.

    Raises:
        SegmentationError: unknown network, or its library is missing.
        DeviceError: a GPU that is not there.
        WeightsError: weights that cannot be had or do not fit; names the first layer.
        RuntimeUnavailableError: the runtime asked for cannot run the network.
    """

    def __init__(self, config: SegmentationConfig) -> None:
        if config.threads > 0:
            torch.set_num_threads(config.threads)
        self._device = chosen_device(config.device)
        self._mixed = config.mixed_precision and self._device.type == "cuda"
        self._width = config.network_width
        self._threads, self._runtime = config.threads, config.runtime
        self._network = make_network(config.segmenter, config.segmenter_weights)
        module = self._network.module.to(self._device)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        scale = torch.tensor(self._network.std, device=self._device) * 255.0
        shift = torch.tensor(self._network.mean, device=self._device) * 255.0
        self._scale, self._shift = scale.view(1, 3, 1, 1), shift.view(1, 3, 1, 1)
        self._compiled: dict[torch.Size, CompiledNetwork] = {}
        self._compiles = True
        self._compiled_for(self.batch(np.zeros((*COMMON_ASPECT, 3), np.uint8)))

    def __call__(self, image: Image) -> Segmentation:
        return Segmentation(self.likelihoods(self.batch(image))[0])

    def batch(self, image: Image) -> Tensor:
        """The image as the network sees it, (1, 3, h, w) normalised RGB on its device."""
        check_image(image)
        rows, columns = image.shape[:2]
        size = (
            _multiple(self._width, self._network.stride),
            _multiple(self._width * rows / columns, self._network.stride),
        )
        shrinks = columns >= size[0]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        small = cv2.resize(image, size, interpolation=how)
        rgb = cv2.cvtColor(small, cv2.COLOR_GRAY2RGB if small.ndim == 2 else cv2.COLOR_BGR2RGB)
        pixels = torch.from_numpy(rgb[None]).to(self._device, non_blocking=True)
        return (pixels.permute(0, 3, 1, 2).float() - self._shift) / self._scale

    def logits(self, batch: Tensor) -> Tensor:
        """The network's forward pass alone, (1, K, h, w)."""
        if (compiled := self._compiled_for(batch)) is not None:
            return compiled(batch.numpy())[0]
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=self._mixed):
            return self._network.logits(batch)

    def likelihoods(self, batch: Tensor) -> Tensor:
        """Likelihoods (1, 19, h, w) of a ``batch``."""
        with torch.inference_mode():
            return self._network.classes(self.logits(batch).float().softmax(dim=1))

    def _compiled_for(self, batch: Tensor) -> CompiledNetwork | None:
        """The network for inputs of this shape; None where PyTorch runs it."""
        shape = batch.shape
        if self._compiles and shape not in self._compiled:
            if len(self._compiled) == COMPILED_SHAPES:
                self._compiled.clear()
            compiled = compiled_where_possible(
                _Logits(self._network), batch, self._threads, self._runtime, self._device
            )
            if compiled is None:
                self._compiles = False
            else:
                self._compiled[shape] = compiled
        return self._compiled.get(shape)


def make_network(name: str, weights: str) -> _Network:
    """Build a segmentation network by name; see ``SEGMENTERS``.

    Args:
        weights: ``embedded`` (with ``light``), ``library`` (torchvision's own, downloaded),
            ``none`` (random, for tests), or a ``.safetensors``, ``.pth`` or ``.pt`` file, or a
            folder that holds one.

    Raises:
        SegmentationError: unknown network, or its library is missing.
        WeightsError: weights that cannot be had or do not fit.
    """
    if weights == "embedded" and name != "light":
        raise WeightsError(f"no weights for {name} are embedded: give library, none or a file")
    library, _, inner = name.rpartition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if library == "torchvision":
            return _torchvision(inner, weights)
        makers = {
            "light": _light,
            "deeplabv3plus_resnet101": _deeplabv3plus,
            "espnetv2": _espnetv2,
        }
        if name not in makers:
            raise SegmentationError(f"unknown segmenter '{name}': {', '.join(SEGMENTERS)}")
        if weights == "library":
            raise WeightsError(f"no library publishes weights for {name}: give a file")
        return makers[name](weights)


def check_image(image: Image) -> None:
    """Refuse what is no image.

    Raises:
        SegmentationError: not 8-bit, empty, or of another number of channels than 1 or 3.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise SegmentationError(f"not an 8-bit image: {image.dtype} array of shape {image.shape}")
    if image.ndim == 3 and image.shape[2] != 3:
        raise SegmentationError(f"an image has 1 or 3 channels, not {image.shape[2]}")


def _light(weights: str) -> _Network:
    network = LightSegmenter(CLASS_COUNT)
    _load(network, str(EMBEDDED_WEIGHTS) if weights == "embedded" else weights)
    network.fold_batch_norms()
    return _Network(network, network, HALF, HALF, 32, _as_they_are)


def _deeplabv3plus(weights: str) -> _Network:
    """Chen et al. 2018, by segmentation-models-pytorch; its file has that library's layer names."""
    try:
        import_torchvision()
        from segmentation_models_pytorch import DeepLabV3Plus
    except ModuleNotFoundError as error:
        raise SegmentationError(
            "deeplabv3plus_resnet101 needs the package segmentation-models-pytorch"
        ) from error
    network = DeepLabV3Plus("resnet101", encoder_weights=None, classes=CLASS_COUNT)
    _load(network, weights)
    return _Network(network.eval(), network, IMAGENET_MEAN, IMAGENET_STD, 32, _as_they_are)


def _espnetv2(weights: str) -> _Network:
    state = {} if weights == "none" else read_state_dict(Path(weights).expanduser())
    network = EspNetV2(ESPNET_CLASSES, espnetv2_scale(state))
    if weights != "none":
        load_weights(network, state, Path(weights).name)
    return _Network(network.eval(), network, IMAGENET_MEAN, IMAGENET_STD, 32, _without_unlabelled)


def _torchvision(name: str, weights: str) -> _Network:
    """torchvision's segmentation networks, whose published weights know the Pascal VOC classes."""
    try:
        models: Any = import_torchvision().models
    except ModuleNotFoundError as error:
        raise SegmentationError(f"torchvision:{name} needs the package torchvision") from error
    known = models.list_models(module=models.segmentation)
    if name not in known:
        raise SegmentationError(f"torchvision has no '{name}': {', '.join(known)}")
    published = weights == "library"
    options: dict[str, Any] = (
        {"weights": "DEFAULT"} if published else {"weights": None, "weights_backbone": None}
    )
    if not published and not name.startswith("lraspp"):
        options["aux_loss"] = True  # as in the published files
    try:
        network = models.get_model(name, **options)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"torchvision could not fetch weights of '{name}': {error}") from error
    if weights not in ("none", "library"):
        _load(network, weights)
    return _Network(
        network.eval(),
        lambda batch: network(batch)["out"],
        IMAGENET_MEAN,
        IMAGENET_STD,
        32,
        _from_voc,
    )


def _load(network: nn.Module, weights: str) -> None:
    if weights != "none":
        path = Path(weights).expanduser()
        load_weights(network, read_state_dict(path), path.name)


def _as_they_are(likelihoods: Tensor) -> Tensor:
    return likelihoods


def _without_unlabelled(likelihoods: Tensor) -> Tensor:
    """The 19 classes of 20, made to sum to 1 again."""
    kept = likelihoods[:, :CLASS_COUNT]
    return kept / kept.sum(dim=1, keepdim=True).clamp(min=1e-6)


def _from_voc(likelihoods: Tensor) -> Tensor:
    """Pascal VOC's classes as Cityscapes'; what has no counterpart is left out of the sum."""
    if likelihoods.shape[1] != VOC_CLASS_COUNT:
        return likelihoods
    batch, _, rows, columns = likelihoods.shape
    mapped = likelihoods.new_zeros((batch, CLASS_COUNT, rows, columns))
    mapped[:, VOC_BACKGROUND_CLASS] = likelihoods[:, VOC_BACKGROUND]
    for voc, cityscapes in VOC_TO_CITYSCAPES.items():
        mapped[:, cityscapes] += likelihoods[:, voc]
    return mapped / mapped.sum(dim=1, keepdim=True).clamp(min=1e-6)


def _multiple(pixels: float, stride: int) -> int:
    return max(1, round(pixels / stride)) * stride
