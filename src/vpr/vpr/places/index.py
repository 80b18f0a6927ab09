"""Nearest descriptors among the remembered ones: Pillai & Leonard IV-C.

Three ways behind one interface, all growing as places are added: every descriptor compared
(exact), a forest of KD-trees (exact, the paper's choice) and a navigable graph (approximate).
``make_index`` takes a name; ``auto`` takes what was measured to be fastest, see there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vpr.places.growable import GrowableArray

IndexKind = Literal["auto", "exact", "kd_tree", "graph"]
Rows = NDArray[np.int64]
Distances = NDArray[np.float32]
GRAPH_LINKS = 32  # neighbours of a node of the navigable graph
GRAPH_EFFORT = 128  # candidates kept while searching it
SMALLEST_TREE = 64  # places compared one by one until they make a tree


@dataclass(frozen=True)
class Neighbours:
    """Rows and L2 distances of what was found, nearest first."""

    rows: Rows
    distances: Distances


class DescriptorIndex(ABC):
    """Grows by ``add``; answers k nearest and all within a radius. Distances are L2."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    @abstractmethod
    def __len__(self) -> int:
        """How many descriptors are in it."""

    @abstractmethod
    def add(self, descriptors: NDArray[np.float32]) -> None:
        """Append (N, D) descriptors; they get the next rows."""

    @abstractmethod
    def nearest(self, descriptor: NDArray[np.float32], k: int) -> Neighbours:
        """The k nearest (k-NN), fewer where there are fewer."""

    @abstractmethod
    def within(self, descriptor: NDArray[np.float32], radius: float) -> Neighbours:
        """All at most ``radius`` away (epsilon-NN)."""


class ExactIndex(DescriptorIndex):
    """Compares with all: one matrix-vector product."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._rows: GrowableArray[np.float32] = GrowableArray((dimension,), np.float32)
        self._squares: GrowableArray[np.float32] = GrowableArray((), np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, descriptors: NDArray[np.float32]) -> None:
        """Append (N, D) descriptors."""
        self._rows.extend(descriptors)
        self._squares.extend(np.einsum("nd,nd->n", descriptors, descriptors))

    def nearest(self, descriptor: NDArray[np.float32], k: int) -> Neighbours:
        """The k nearest."""
        squared = self._squared(descriptor)
        k = min(k, len(squared))
        if k == 0:
            return _sorted(np.empty(0, np.int64), np.empty(0, np.float32))
        rows = np.argpartition(squared, k - 1)[:k]
        return _sorted(rows, np.sqrt(squared[rows]))

    def within(self, descriptor: NDArray[np.float32], radius: float) -> Neighbours:
        """All at most ``radius`` away."""
        squared = self._squared(descriptor)
        rows = np.flatnonzero(squared <= radius**2)
        return _sorted(rows, np.sqrt(squared[rows]))

    def _squared(self, descriptor: NDArray[np.float32]) -> NDArray[np.float32]:
        dots = self._rows.rows @ descriptor
        squared = self._squares.rows - 2.0 * dots + descriptor @ descriptor
        return np.asarray(np.maximum(squared, 0.0), np.float32)


class KdTreeIndex(DescriptorIndex):
    """KD-trees of doubling size, so that each place is rebuilt into a tree log(N) times at most.

    Bentley & Saxe, "Decomposable searching problems", 1980. The newest places, too few for a
    tree, are compared one by one.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._rows: GrowableArray[np.float32] = GrowableArray((dimension,), np.float32)
        self._trees: list[tuple[int, cKDTree]] = []  # first row and tree, largest first
        self._planted = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, descriptors: NDArray[np.float32]) -> None:
        """Append (N, D) descriptors."""
        self._rows.extend(descriptors)
        if len(self) - self._planted >= SMALLEST_TREE:
            self._plant()

    def nearest(self, descriptor: NDArray[np.float32], k: int) -> Neighbours:
        """The k nearest."""
        rows, distances = self._loose(descriptor)
        for first, tree in self._trees:
            found, where = tree.query(descriptor, k=np.arange(1, min(k, tree.n) + 1))
            rows.append(where.astype(np.int64) + first)
            distances.append(found.astype(np.float32))
        best = _sorted(np.concatenate(rows), np.concatenate(distances))
        return Neighbours(best.rows[:k], best.distances[:k])

    def within(self, descriptor: NDArray[np.float32], radius: float) -> Neighbours:
        """All at most ``radius`` away."""
        rows, distances = self._loose(descriptor)
        for first, tree in self._trees:
            where = np.asarray(tree.query_ball_point(descriptor, radius), np.int64) + first
            rows.append(where)
            distances.append(_lengths(self._rows.rows[where] - descriptor))
        found = _sorted(np.concatenate(rows), np.concatenate(distances))
        count = int(np.searchsorted(found.distances, np.float32(radius), "right"))
        return Neighbours(found.rows[:count], found.distances[:count])

    def _loose(
        self, descriptor: NDArray[np.float32]
    ) -> tuple[list[Rows], list[NDArray[np.float32]]]:
        rows = np.arange(self._planted, len(self))
        return [rows], [_lengths(self._rows.rows[rows] - descriptor)]

    def _plant(self) -> None:
        """Merge the newest trees that are no larger than what is added to them."""
        first = self._planted
        while self._trees and self._trees[-1][1].n <= len(self) - first:
            first, _ = self._trees.pop()
        self._trees.append((first, cKDTree(self._rows.rows[first:].copy())))
        self._planted = len(self)


class GraphIndex(DescriptorIndex):
    """Navigable small-world graph (Malkov & Yashunin 2020) of FAISS: approximate.

    Its epsilon-NN looks at ``GRAPH_EFFORT`` neighbours, so that a radius that holds more misses
    the farther ones.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._graph = faiss.IndexHNSWFlat(dimension, GRAPH_LINKS)
        self._graph.hnsw.efSearch = GRAPH_EFFORT

    def __len__(self) -> int:
        return int(self._graph.ntotal)

    def add(self, descriptors: NDArray[np.float32]) -> None:
        """Append (N, D) descriptors."""
        self._graph.add(np.ascontiguousarray(descriptors, np.float32))

    def nearest(self, descriptor: NDArray[np.float32], k: int) -> Neighbours:
        """The k nearest."""
        if len(self) == 0:
            return Neighbours(np.empty(0, np.int64), np.empty(0, np.float32))
        squared, rows = self._graph.search(descriptor[None], min(k, len(self)))
        found = rows[0] >= 0
        return _sorted(rows[0][found], np.sqrt(np.maximum(squared[0][found], 0.0)))

    def within(self, descriptor: NDArray[np.float32], radius: float) -> Neighbours:
        """All found that are at most ``radius`` away."""
        near = self.nearest(descriptor, GRAPH_EFFORT)
        count = int(np.searchsorted(near.distances, np.float32(radius), "right"))
        return Neighbours(near.rows[:count], near.distances[:count])


def make_index(kind: IndexKind, dimension: int) -> DescriptorIndex:
    """An index by name.

    ``auto`` is exact: descriptors have hundreds of values, where a KD-tree visits nearly all of
    its leaves and loses to one matrix product. Of 1,000 places nothing finds faster; of 10,000
    the graph saves a millisecond a query, beyond that it is the one to choose where a missed
    neighbour now and then does no harm. ``vpr.evaluation.search_time`` measures it.
    """
    kinds: dict[str, type[DescriptorIndex]] = {
        "auto": ExactIndex,
        "exact": ExactIndex,
        "kd_tree": KdTreeIndex,
        "graph": GraphIndex,
    }
    return kinds[kind](dimension)


def _lengths(differences: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.linalg.norm(differences, axis=1), np.float32)


def _sorted(rows: Rows, distances: NDArray[np.float32]) -> Neighbours:
    order = np.argsort(distances, kind="stable")
    return Neighbours(rows[order].astype(np.int64), distances[order].astype(np.float32))
