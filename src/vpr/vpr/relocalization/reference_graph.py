"""The reference graph: aggregated features of all keyframes, kept up as they arrive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vpr.relocalization.graph_network import LAYERS, GraphNetwork, chain
from vpr.relocalization.query import distribution, inverse_cross_entropy


class ReferenceGraphError(ValueError):
    """A node, an edge or a query that the graph cannot take; says why."""


@dataclass(frozen=True)
class GraphQuery:
    """Similarities of a query sub-graph's newest keyframe to the reference.

    Attributes:
        ids: (k,) int64 reference keyframes, best first.
        similarities: (k,) float32 in (0, 1], equation 2 over that of the query with itself.
        searched: how many nodes were compared.
    """

    ids: NDArray[np.int64]
    similarities: NDArray[np.float32]
    searched: int


class ReferenceGraph:
    """Embeddings as nodes, odometry and loops as edges.

    A node's aggregated feature depends on what is at most three edges away (three SAGEConv
    layers), so a new node or edge renews those alone; the rest of the graph is not touched.
    """

    def __init__(self, network: GraphNetwork) -> None:
        self.network = network.eval()
        self._ids: list[int] = []
        self._rows: dict[int, int] = {}
        self._embeddings = torch.zeros(0, network.dimension)
        self._features = torch.zeros(0, network.dimension)
        self._beside: list[set[int]] = []
        self.recomputed = 0  # nodes whose feature was computed, over the graph's life

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, keyframe_id: int) -> bool:
        return keyframe_id in self._rows

    @property
    def features(self) -> torch.Tensor:
        """(N, D) aggregated features in the order the keyframes came."""
        return self._features[: len(self)]

    def add(
        self, keyframe_id: int, embedding: NDArray[np.float32], beside: int | None = None
    ) -> None:
        """Add a keyframe, tied to ``beside`` by an odometry edge unless it begins a session.

        Raises:
            ReferenceGraphError: known already, unknown neighbour, or an embedding of another
                dimension or with values that are not finite.
        """
        if keyframe_id in self._rows:
            raise ReferenceGraphError(f"keyframe {keyframe_id} is in the graph already")
        if embedding.shape != (self.network.dimension,) or not np.isfinite(embedding).all():
            raise ReferenceGraphError(
                f"keyframe {keyframe_id}: embedding {embedding.shape} is not finite or not "
                f"({self.network.dimension},)"
            )
        neighbour = None if beside is None else self._row(beside)
        row = len(self)
        self._reserve(row + 1)
        self._embeddings[row] = torch.from_numpy(embedding)
        self._ids.append(keyframe_id)
        self._rows[keyframe_id] = row
        self._beside.append(set())
        if neighbour is not None:
            self._beside[row].add(neighbour)
            self._beside[neighbour].add(row)
        self._renew({row})

    def connect(self, one: int, other: int) -> None:
        """Add a loop edge between two keyframes.

        Raises:
            ReferenceGraphError: one of them is unknown, or they are the same.
        """
        if one == other:
            raise ReferenceGraphError(f"keyframe {one} cannot be tied to itself")
        a, b = self._row(one), self._row(other)
        self._beside[a].add(b)
        self._beside[b].add(a)
        self._renew({a, b})

    @torch.no_grad()
    def query(
        self, embeddings: NDArray[np.float32], k: int, excluded: frozenset[int] = frozenset()
    ) -> GraphQuery:
        """The nodes most similar to the newest of (Q, D) successive embeddings.

        Raises:
            ReferenceGraphError: an empty graph, or embeddings of another dimension.
        """
        if not len(self):
            raise ReferenceGraphError("the reference graph is empty: nothing to relocalize in")
        if embeddings.ndim != 2 or embeddings.shape[1] != self.network.dimension:
            raise ReferenceGraphError(
                f"query {embeddings.shape} is not (Q, {self.network.dimension})"
            )
        nodes = torch.from_numpy(np.ascontiguousarray(embeddings, np.float32))
        newest = distribution(self.network(nodes, chain(len(nodes)))[-1:])
        own = inverse_cross_entropy(newest, newest)
        scores = (inverse_cross_entropy(newest, distribution(self.features)) / own)[0].numpy()
        allowed = np.array([i not in excluded for i in self._ids])
        rows = np.flatnonzero(allowed)
        rows = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        ids = np.array(self._ids, np.int64)[rows]
        return GraphQuery(ids, scores[rows].astype(np.float32), int(allowed.sum()))

    def _row(self, keyframe_id: int) -> int:
        if keyframe_id not in self._rows:
            raise ReferenceGraphError(f"keyframe {keyframe_id} is not in the graph")
        return self._rows[keyframe_id]

    def _reserve(self, count: int) -> None:
        missing = count - len(self._embeddings)
        if missing > 0:
            more = torch.zeros(max(missing, len(self._embeddings), 64), self.network.dimension)
            self._embeddings = torch.cat([self._embeddings, more])
            self._features = torch.cat([self._features, more.clone()])

    @torch.no_grad()
    def _renew(self, changed: set[int]) -> None:
        """Recompute the nodes that a change reaches, on the sub-graph that they depend on.

        The input holds the mean of a node's edge embeddings, one edge more than its layers reach.
        """
        stale = self._within(changed, LAYERS + 1)
        rows = sorted(self._within(stale, LAYERS + 1))
        place = {row: i for i, row in enumerate(rows)}
        pairs = [(place[a], place[b]) for b in rows for a in self._beside[b] if a in place]
        edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
        renewed = self.network(self._embeddings[rows], edges)
        fresh = sorted(stale)
        self._features[fresh] = renewed[[place[row] for row in fresh]]
        self.recomputed += len(fresh)

    def _within(self, rows: set[int], steps: int) -> set[int]:
        reached, edge = set(rows), set(rows)
        for _ in range(steps):
            edge = {b for a in edge for b in self._beside[a]} - reached
            reached |= edge
        return reached
