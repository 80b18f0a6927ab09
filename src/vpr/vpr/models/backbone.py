"""Backbones by name: the embedded EfficientNet-Lite0, or any network of timm or torchvision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpr.models.efficientnet_lite0 import EfficientNetLite0, embedded_weights_file
from vpr.models.inflation import RGB, first_convolution, inflate_first_convolution
from vpr.models.torchvision_import import import_torchvision
from vpr.models.weights import WeightsError, load_weights, read_state_dict, weights_fingerprint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RANDOM_WEIGHTS_SEED = 0
FOLDED = "_conv_stem.bias"  # a layer that EfficientNet-Lite0 has only with its norms folded in


class BackboneError(ValueError):
    """A backbone or layer that does not exist, or whose library is not installed."""


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier, ready for inference.

    ``features`` takes normalised RGB (B, 3, H, W) to a map (B, C, h, w). ``mean`` and ``std`` are
    what its input is normalised with, for RGB in 0..1. ``fingerprint`` identifies the weights.
    """

    name: str
    network: nn.Module
    features: Callable[[Tensor], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: bytes

    def layer(self, path: str) -> nn.Module:
        """The inner layer with this dotted path.

        Raises:
            BackboneError: no such layer; names those at the first level that fails.
        """
        module = self.network
        for part in path.split("."):
            children = dict(module.named_children())
            if part not in children:
                known = ", ".join(children) or "none"
                raise BackboneError(
                    f"{self.name} has no layer '{path}': '{part}' is not in {known}"
                )
            module = children[part]
        return module

    def sequence(self) -> dict[str, nn.Module]:
        """The network's modules in the order they are declared, lists of modules opened up."""
        found: dict[str, nn.Module] = {}
        for name, child in self.network.named_children():
            if isinstance(child, nn.ModuleList | nn.Sequential):
                found |= {f"{name}.{inner}": module for inner, module in child.named_children()}
            else:
                found[name] = child
        return found


def make_backbone(name: str, weights: str, extra_channels: int = 0) -> Backbone:
    """Build a network and its weights.

    Args:
        name: ``efficientnet_lite0``, ``timm:NAME`` or ``torchvision:NAME``.
        weights: ``embedded`` (only with efficientnet_lite0), ``library`` (what timm or torchvision
            publish for the network, downloaded by them), ``none`` (random, always the same), or
            the path of a ``.safetensors``, ``.pth`` or ``.pt`` file.
        extra_channels: input channels behind RGB. Weights for RGB alone are inflated; a file may
            hold weights for all channels.

    Raises:
        BackboneError: unknown network, or its library is missing.
        WeightsError: weights that cannot be had or do not fit.
    """
    library, _, network_name = name.rpartition(":")
    makers = {"": _make_embedded, "timm": _make_timm, "torchvision": _make_torchvision}
    if library not in makers:
        raise BackboneError(f"unknown backbone library '{library}': use timm or torchvision")
    if weights == "embedded" and library:
        raise WeightsError(f"no weights for {name} are embedded: give library, none or a file")
    if weights == "library" and not library:
        raise WeightsError(f"{name} belongs to no library: give embedded, none or a file")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_WEIGHTS_SEED)
        return makers[library](network_name, weights, extra_channels)


def _make_embedded(name: str, weights: str, extra_channels: int) -> Backbone:
    if name != "efficientnet_lite0":
        raise BackboneError(f"unknown backbone '{name}': efficientnet_lite0, timm:NAME, ...")
    network = EfficientNetLite0()
    file = str(embedded_weights_file()) if weights == "embedded" else weights
    state = _read_file(file)
    if FOLDED in state:  # fine-tuned after folding
        network.fold_batch_norms()
    _load(network, state, Path(file).name, extra_channels)
    fingerprint = weights_fingerprint(network)
    if FOLDED not in state:
        network.fold_batch_norms()
    return Backbone(name, network, network, (0.5,) * 3, (0.5,) * 3, fingerprint)


def _make_timm(name: str, weights: str, extra_channels: int) -> Backbone:
    try:
        import_torchvision()  # timm imports it too
        import timm
    except ModuleNotFoundError as error:
        raise BackboneError(f"backbone timm:{name} needs timm and torchvision") from error
    if name.split(".")[0] not in timm.list_models():
        raise BackboneError(f"timm has no network '{name}'")
    try:
        network: Any = timm.create_model(name, pretrained=weights == "library")
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"timm could not fetch weights of '{name}': {error}") from error
    _load_file(network, weights, extra_channels)
    network.eval()

    def features(x: Tensor) -> Tensor:
        return _as_map(network.forward_features(x), x, getattr(network, "num_prefix_tokens", 0))

    settings = network.pretrained_cfg
    return Backbone(
        f"timm:{name}",
        network,
        features,
        tuple(settings.get("mean", IMAGENET_MEAN)),
        tuple(settings.get("std", IMAGENET_STD)),
        weights_fingerprint(network),
    )


def _make_torchvision(name: str, weights: str, extra_channels: int) -> Backbone:
    try:
        models = import_torchvision().models
    except ModuleNotFoundError as error:
        raise BackboneError(f"backbone torchvision:{name} needs the package torchvision") from error
    if name not in models.list_models(module=models):
        raise BackboneError(f"torchvision has no network '{name}'")
    try:
        network = models.get_model(name, weights="DEFAULT" if weights == "library" else None)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"torchvision could not fetch weights of '{name}': {error}") from error
    _load_file(network, weights, extra_channels)
    network.eval()
    features = _torchvision_features(name, network)
    fingerprint = weights_fingerprint(network)
    return Backbone(
        f"torchvision:{name}", network, features, IMAGENET_MEAN, IMAGENET_STD, fingerprint
    )


def _torchvision_features(name: str, network: nn.Module) -> Callable[[Tensor], Tensor]:
    children = dict(network.named_children())
    if "features" in children:
        return children["features"]
    if "layer4" in children:  # the ResNet family
        names = list(children)
        return nn.Sequential(*(children[child] for child in names[: names.index("layer4") + 1]))
    raise BackboneError(f"torchvision:{name} has no convolutional feature map to pool")


def _load_file(network: nn.Module, weights: str, extra_channels: int) -> None:
    _load(network, _read_file(weights), Path(weights).name, extra_channels)


def _read_file(weights: str) -> dict[str, Tensor]:
    """The state dict of a file; empty where the weights come from elsewhere."""
    return {} if weights in ("none", "library") else read_state_dict(Path(weights).expanduser())


def _load(network: nn.Module, state: dict[str, Tensor], name: str, extra_channels: int) -> None:
    layer = f"{first_convolution(network)[0]}.weight" if extra_channels else ""
    already = layer in state and state[layer].shape[1] == RGB + extra_channels
    if already:
        inflate_first_convolution(network, extra_channels)
    if state:
        load_weights(network, state, name)
    if extra_channels and not already:
        inflate_first_convolution(network, extra_channels)


def _as_map(features: Tensor, image: Tensor, prefix_tokens: int) -> Tensor:
    """A transformer's tokens (B, N, C) laid out as (B, C, h, w); a map is returned as it is."""
    if features.ndim == 4:
        return features
    tokens = features[:, prefix_tokens:]
    cells, (height, width) = tokens.shape[1], image.shape[-2:]
    rows = max(1, round((cells * height / width) ** 0.5))
    if cells % rows:
        raise BackboneError(f"{cells} tokens do not form a grid over a {width}x{height} image")
    return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, cells // rows)
