"""Which layers of a backbone learn: the X first and the Y last, "X-Y", or all of them."""

from __future__ import annotations

import re

from torch import nn

ALL = "All"
NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


class FreezingError(ValueError):
    """A scheme that cannot be read, or with more layers than the network has."""


def layers_of(network: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
    """The network's layers in order: its children with weights, lists of blocks opened up.

    A normalisation belongs to the layer before it; a classifier is no layer of a descriptor.
    """
    children: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            children |= {f"{name}.{inner}": block for inner, block in child.named_children()}
        else:
            children[name] = child
    layers: dict[str, tuple[nn.Module, ...]] = {}
    for name, child in children.items():
        if isinstance(child, nn.Linear) or next(child.parameters(), None) is None:
            continue
        if isinstance(child, NORMS) and layers:
            last = next(reversed(layers))
            layers[last] += (child,)
        else:
            layers[name] = (child,)
    return layers


def freeze(network: nn.Module, scheme: str) -> list[str]:
    """Let only the layers of a scheme learn; returns their names.

    Args:
        scheme: ``"X-Y"`` for the X first and the Y last layers, or ``"All"``.

    Raises:
        FreezingError: a scheme of another form, or more layers than there are.
    """
    layers = layers_of(network)
    names = list(layers)
    if scheme != ALL:
        found = re.fullmatch(r"(\d+)-(\d+)", scheme)
        if found is None:
            raise FreezingError(f"freezing scheme '{scheme}' is neither 'X-Y' nor '{ALL}'")
        first, last = int(found[1]), int(found[2])
        if first + last > len(names):
            raise FreezingError(f"scheme {scheme}: the network has {len(names)} layers")
        names = names[:first] + names[len(names) - last :]
    network.requires_grad_(False)
    for name in names:
        for module in layers[name]:
            module.requires_grad_(True)
    return names
