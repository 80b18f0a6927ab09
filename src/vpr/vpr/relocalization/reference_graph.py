"""The reference graph: aggregated features of all keyframes, kept up as they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vpr.places.growable import GrowableArray
from vpr.relocalization.graph_network import LAYERS, GraphNetwork, chain
from vpr.relocalization.query import ETA, distribution, inverse_cross_entropy


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
        self._ids: GrowableArray[np.int64] = GrowableArray((), np.int64)
        self._rows: dict[int, int] = {}
        self._embeddings: GrowableArray[np.float32] = GrowableArray(
            (network.dimension,), np.float32
        )
        self._features: GrowableArray[np.float32] = GrowableArray((network.dimension,), np.float32)
        # what equation 2 takes of a feature, kept so that a query is one product
        self._logarithms: GrowableArray[np.float32] = GrowableArray(
            (network.dimension,), np.float32
        )
        self._beside: list[set[int]] = []
        self._loops: set[tuple[int, int]] = set()  # ids, the smaller first
        self.recomputed = 0  # nodes whose feature was computed, over the graph's life

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, keyframe_id: int) -> bool:
        return keyframe_id in self._rows

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) keyframes in the order they came."""
        return self._ids.rows

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """(N, D) what the encoder made of each, in that order."""
        return self._embeddings.rows

    @property
    def features(self) -> torch.Tensor:
        """(N, D) aggregated features, in that order."""
        return torch.from_numpy(self._features.rows)

    def add(
        self, keyframe_id: int, embedding: NDArray[np.float32], beside: int | None = None
    ) -> None:
        """Add a keyframe, tied to ``beside`` by an odometry edge unless it begins a session.

        Raises:
            ReferenceGraphError: known already, unknown neighbour, or an embedding of another
                dimension or with values that are not finite.
        """
        self.extend([keyframe_id], embedding[None], [beside])

    def extend(
        self,
        keyframe_ids: Sequence[int],
        embeddings: NDArray[np.float32],
        beside: Sequence[int | None],
    ) -> None:
        """Add many keyframes in one go, as those of a map; ``beside`` may name one among them.

        Raises:
            ReferenceGraphError: as ``add``; nothing is added then.
        """
        self._check(keyframe_ids, embeddings, beside)
        first = len(self)
        for keyframe_id in keyframe_ids:
            self._rows[keyframe_id] = len(self._ids)
            self._ids.append(keyframe_id)
            self._beside.append(set())
        for array in (self._embeddings, self._features, self._logarithms):
            array.extend(embeddings)  # the last two until they are computed, a few lines on
        for row, neighbour in enumerate(beside, start=first):
            if neighbour is not None:
                self._tie(row, self._rows[neighbour])
        self._renew(set(range(first, len(self))))

    def connect(self, one: int, other: int) -> None:
        """Add a loop edge between two keyframes.

        Raises:
            ReferenceGraphError: one of them is unknown, or they are the same.
        """
        if one == other:
            raise ReferenceGraphError(f"keyframe {one} cannot be tied to itself")
        self._row(one), self._row(other)
        self.set_loops({*self._loops, (one, other)})

    def set_loops(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Have these loop edges and no others; only what differs from before is renewed.

        Pairs of keyframes that are not here, or that odometry ties already, are left out.
        """
        known = {(min(a, b), max(a, b)) for a, b in pairs if a != b and a in self and b in self}
        steps = {(a, b) for a, b in known if self._rows[b] in self._beside[self._rows[a]]}
        wanted = known - (steps - self._loops)
        gone, new = self._loops - wanted, wanted - self._loops
        for a, b in gone:
            self._beside[self._rows[a]].discard(self._rows[b])
            self._beside[self._rows[b]].discard(self._rows[a])
        for a, b in new:
            self._tie(self._rows[a], self._rows[b])
        self._loops = wanted
        changed = {self._rows[end] for pair in gone | new for end in pair}
        if changed:
            self._renew(changed)

    @torch.no_grad()
    def similarities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) similarity of every node to the newest of (Q, D) successive embeddings.

        Equation 2 over that of the query with itself: in (0, 1], one for the query's own feature.

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
        own = float(inverse_cross_entropy(newest, newest))
        entropies = -(self._logarithms.rows @ newest[0].numpy())
        return np.asarray(1.0 / (own * (ETA + entropies)), np.float32)

    def query(
        self, embeddings: NDArray[np.float32], k: int, excluded: frozenset[int] = frozenset()
    ) -> GraphQuery:
        """The nodes most similar to the newest of (Q, D) successive embeddings.

        Raises:
            ReferenceGraphError: as ``similarities``.
        """
        scores = self.similarities(embeddings)
        left_out = [self._rows[i] for i in excluded if i in self._rows]
        scores[left_out] = -np.inf
        searched = len(self) - len(left_out)
        count = min(k, searched)
        rows = np.argpartition(-scores, count - 1)[:count] if count else np.empty(0, np.intp)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        return GraphQuery(self.ids[rows], scores[rows], searched)

    def _check(
        self,
        keyframe_ids: Sequence[int],
        embeddings: NDArray[np.float32],
        beside: Sequence[int | None],
    ) -> None:
        known = [i for i in keyframe_ids if i in self._rows]
        if known or len(set(keyframe_ids)) < len(keyframe_ids):
            named = f"keyframe {known[0]}" if known else "one of the keyframes"
            raise ReferenceGraphError(f"{named} is in the graph already")
        wanted = (len(keyframe_ids), self.network.dimension)
        if embeddings.shape != wanted or not np.isfinite(embeddings).all():
            raise ReferenceGraphError(
                f"keyframe {keyframe_ids[0]}: embedding {embeddings.shape[1:]} is not finite or "
                f"not ({self.network.dimension},)"
            )
        new = set(keyframe_ids)
        for neighbour in beside:
            if neighbour is not None and neighbour not in new:
                self._row(neighbour)

    def _row(self, keyframe_id: int) -> int:
        if keyframe_id not in self._rows:
            raise ReferenceGraphError(f"keyframe {keyframe_id} is not in the graph")
        return self._rows[keyframe_id]

    def _tie(self, a: int, b: int) -> None:
        self._beside[a].add(b)
        self._beside[b].add(a)

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
        renewed = self.network(torch.from_numpy(self.embeddings[rows]), edges)
        fresh = sorted(stale)
        features = renewed[[place[row] for row in fresh]]
        self._features.rows[fresh] = features.numpy()
        self._logarithms.rows[fresh] = torch.log(distribution(features)).numpy()
        self.recomputed += len(fresh)

    def _within(self, rows: set[int], steps: int) -> set[int]:
        reached, edge = set(rows), set(rows)
        for _ in range(steps):
            edge = {b for a in edge for b in self._beside[a]} - reached
            reached |= edge
        return reached
