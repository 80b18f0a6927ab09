"""Which keyframes edges tie together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vpr.graph.edges import Edge
from vpr.records import ClosureState


def connected_pieces(ids: NDArray[np.int64], edges: Iterable[Edge]) -> NDArray[np.int64]:
    """(N,) number of the piece each keyframe is in; verified edges tie, however long the way.

    Args:
        ids: (N,) ascending; every edge has both ends among them.
    """
    good = [edge for edge in edges if edge.state is ClosureState.VERIFIED]
    rows, count = edge_rows(ids, good), len(ids)
    links = coo_array((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def edge_rows(ids: NDArray[np.int64], edges: Sequence[Edge]) -> NDArray[np.int64]:
    """(E, 2) rows of both ends among ascending ids."""
    ends = np.array([(edge.from_id, edge.to_id) for edge in edges], np.int64).reshape(-1, 2)
    return np.asarray(np.searchsorted(ids, ends), np.int64)
