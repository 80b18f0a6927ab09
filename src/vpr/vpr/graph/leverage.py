"""What leaving measurements out of a solved graph would change, to first order.

For linear least squares with whitened residuals e and the hat matrix A, leaving out the block G
lowers the cost by e_G' (I - A_GG)^-1 e_G / 2, and the block's residuals become (I - A_GG)^-1 e_G
(Baarda, A Testing Procedure for Use in Geodetic Networks, 1968). One factorization serves all small
blocks. A large one takes its own: by Woodbury's identity (I - A_GG)^-1 is I + J_G N^-1 J_G', with N
the normal matrix without the block, and one solution is enough.

Which blocks are worth that, a few solutions tell of all. With M = I - A_GG and any weights u,
e_G' M^-1 e_G >= (u' e_G)^2 / u' M u; weights that are right for each measurement by itself are near
those for the block. I - A is a projection: what it makes of random vectors shows M, and u' M u up
to a factor near one however small that is (Johnson & Lindenstrauss, 1984).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gtsam
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from scipy.sparse.linalg import splu

from vpr.graph.g2o import G2oGraph
from vpr.graph.solution import prior_of

SMALL = 90  # residuals of a block at most, to solve for each of them
PROBES = 32  # random vectors: what they show is right within a factor of two, mostly
TINY = float(np.finfo(np.float64).eps)  # what cannot be told from nothing


class Leverage:
    """A graph at its solution; measurements by their row among ``factors``."""

    def __init__(self, graph: G2oGraph, factors: Sequence[Any], values: gtsam.Values) -> None:
        self._dimension = graph.dimension
        everything = gtsam.NonlinearFactorGraph()
        for factor in (*factors, prior_of(graph)):
            everything.add(factor)
        rows, columns, entries = everything.linearize(values).sparseJacobian_()
        unknowns = graph.dimension * len(graph.order)
        shape = ((len(factors) + 1) * graph.dimension, unknowns + 1)
        places = rows.astype(np.int64) - 1, columns.astype(np.int64) - 1
        whole = csr_array((entries, places), shape=shape)
        self._jacobian, self._residuals = whole[:, :unknowns], whole[:, [unknowns]].toarray()[:, 0]
        self._normal = (self._jacobian.T @ self._jacobian).tocsc()
        self._solver = _factorized(self._normal)

    def savings(self, groups: Iterable[Sequence[int]]) -> NDArray[np.float64]:
        """About the least that leaving each group of measurements out saves."""
        vectors = np.random.default_rng(0).standard_normal((len(self._residuals), PROBES))
        solved = self._solver.solve(self._jacobian.T @ vectors)
        shown = (vectors - self._jacobian @ solved).reshape(-1, self._dimension, PROBES)
        residuals = self._residuals.reshape(-1, self._dimension, 1)
        blocks = shown @ shown.transpose(0, 2, 1) / PROBES + TINY * np.eye(self._dimension)
        weights = np.linalg.solve(blocks, residuals)
        gains, bends = (weights * residuals).sum(axis=(1, 2)), (weights * shown).sum(axis=1)
        found = [
            gains[rows].sum() ** 2 / max(np.square(bends[rows].sum(axis=0)).mean(), TINY)
            for rows in groups
        ]
        return np.array(found) / 2.0

    def without(self, measurements: Iterable[int]) -> tuple[float, NDArray[np.float64]]:
        """Cost saved by leaving measurements out, and what each would cost in the graph that is
        left: half its squared whitened residual."""
        size = self._dimension
        rows = np.concatenate([np.arange(m * size, (m + 1) * size) for m in measurements])
        jacobian, residuals = self._jacobian[rows], self._residuals[rows]
        if len(rows) <= SMALL:
            hat = jacobian @ self._solver.solve(jacobian.T.toarray())
            left = np.linalg.solve(np.eye(len(rows)) - hat, residuals)
        else:
            solver = _factorized(self._normal - (jacobian.T @ jacobian).tocsc())
            left = residuals + jacobian @ solver.solve(jacobian.T @ residuals)
        return float(residuals @ left / 2.0), np.square(left).reshape(-1, size).sum(axis=1) / 2.0


def _factorized(normal: csc_array) -> Any:
    return splu(normal, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
