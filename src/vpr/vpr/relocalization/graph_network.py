"""The graph network: three SAGEConv layers over embeddings of keyframes (S3E-GNN III-B, Fig. 6)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

LAYERS = 3
BEGINNING = 0.02  # of random weights
RAISED = 3.0  # deviations of an embedding's values


class GraphNetwork(nn.Module):
    """Node embeddings and the pose graph's edges to aggregated features in (0, 1).

    An edge's embedding is that of its two ends one after the other; the mean over a node's edges
    is laid beside its own embedding at the input. It begins by passing on each node's embedding of
    unit length, moved so far up that no ReLU cuts it, and little of what is beside it.
    """

    def __init__(self, dimension: int = 128) -> None:
        super().__init__()
        self.dimension = dimension
        self.edge = nn.Linear(2 * dimension, dimension)
        widths = (2 * dimension, *([dimension] * LAYERS))
        layers = [SAGEConv(a, b) for a, b in pairwise(widths)]
        spread = dimension**0.5  # brings the values of a unit vector to deviation 1
        for layer, gain, bias in zip(
            layers, (spread, 1.0, 1.0), (RAISED, 0.0, -RAISED), strict=True
        ):
            _pass_on(layer, gain, bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """(N, D) embeddings and (2, E) int64 edges, both ways, to (N, D) values in (0, 1)."""
        features = torch.cat([nodes, self._edge_features(nodes, edges)], dim=1)
        for layer in self.layers[:-1]:
            features = torch.relu(layer(features, edges))
        return torch.sigmoid(self.layers[-1](features, edges))

    def _edge_features(self, nodes: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        embedded = torch.relu(self.edge(torch.cat([nodes[source], nodes[target]], dim=1)))
        total = torch.zeros_like(nodes).index_add(0, target, embedded)
        count = torch.bincount(target, minlength=len(nodes)).clamp(min=1)
        return total / count[:, None]


@torch.no_grad()
def _pass_on(layer: SAGEConv, gain: float, bias: float) -> None:
    """Let a layer begin with ``gain`` times a node's first values plus ``bias``."""
    for weight in (layer.lin_l.weight, layer.lin_r.weight):
        weight.mul_(BEGINNING)
    layer.lin_l.bias.fill_(bias)
    layer.lin_r.weight[:, : layer.out_channels] += gain * torch.eye(layer.out_channels)


def chain(count: int) -> Tensor:
    """(2, E) edges both ways along ``count`` successive keyframes; none for a single one."""
    rows = torch.arange(max(count - 1, 0))
    return torch.stack([torch.cat([rows, rows + 1]), torch.cat([rows + 1, rows])])


def chains(count: int, length: int) -> Tensor:
    """(2, E) edges of ``count`` chains of ``length`` keyframes each, one after the other."""
    starts = torch.arange(count) * length
    return (chain(length)[:, None] + starts[None, :, None]).reshape(2, -1)
