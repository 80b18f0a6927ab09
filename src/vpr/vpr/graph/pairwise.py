"""The largest set of closures that agree two by two (Mangelsdorf et al., ICRA 2018).

Two closures and the two stretches of odometry between their ends make a loop, which has to come
back to its beginning within its uncertainty. Let X be poses by odometry alone and z a closure from
a to b. Then C = X_a z X_b^-1 is the correction of the world that the closure asks for, and the
loop of closures i and j comes back when C_i C_j^-1 is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vpr.graph.g2o import G2oGraph, Matrix, continued

SEEDS = 20  # the greedy search for a clique begins at this many of the best-connected closures


@dataclass(frozen=True)
class Corrections:
    """N closures as corrections of the world, with what is uncertain about each.

    The drifts of two closures are compared where both begin in one drive, and both end in one.
    """

    matrices: Matrix  # (N, k, k) C of each closure, homogeneous
    adjoints: Matrix  # (N, d, d) of C
    own: Matrix  # (N, d, d) covariance of the closure itself, in the world
    from_drift: Matrix  # (N, d, d) covariance of odometry from the first vertex, in the world
    to_drift: Matrix


def consistent_closures(graph: G2oGraph, closures: Sequence[int], gate: float) -> frozenset[int]:
    """Numbers of the closures in the largest agreeing set that a greedy search finds.

    Args:
        gate: squared Mahalanobis distance within which a loop comes back.
    """
    agreeing = closing_chi2(graph, closures) <= gate
    return frozenset(closures[i] for i in largest_clique(agreeing))


def closing_chi2(graph: G2oGraph, closures: Sequence[int]) -> NDArray[np.float64]:
    """(N, N) squared Mahalanobis distances by which loops of two closures miss their beginning.

    The diagonal is infinite: a closure says nothing about itself.
    """
    chi2 = np.full((len(closures), len(closures)), np.inf)
    if closures:
        corrections = corrections_of(graph, closures)
        for i in range(len(closures) - 1):
            chi2[i, i + 1 :] = chi2[i + 1 :, i] = loop_chi2(corrections, i, graph.dimension)
    return chi2


def _odometry(graph: G2oGraph) -> tuple[dict[int, Any], dict[int, Matrix]]:
    """Poses along the tree, and the covariance gathered on the way in the world's tangent space."""
    first = graph.order[0]
    poses = {first: graph.initial[first]}
    drift: dict[int, Matrix] = {first: np.zeros((graph.dimension, graph.dimension))}
    for vertex, number in zip(graph.order[1:], graph.tree, strict=True):
        m = graph.measurements[number]
        known = m.from_id if vertex == m.to_id else m.to_id
        poses[vertex] = continued(m, vertex, poses[known])
        change = poses[m.to_id].AdjointMap()
        drift[vertex] = drift[known] + change @ np.linalg.inv(m.information) @ change.T
    return poses, drift


def corrections_of(graph: G2oGraph, closures: Sequence[int]) -> Corrections:
    """One row a closure, for at least one closure."""
    poses, drift = _odometry(graph)
    elements, own, from_drift, to_drift = [], [], [], []
    for number in closures:
        m = graph.measurements[number]
        reached = poses[m.from_id].compose(m.measured)
        elements.append(reached.compose(poses[m.to_id].inverse()))
        change = reached.AdjointMap()
        own.append(change @ np.linalg.inv(m.information) @ change.T)
        from_drift.append(drift[m.from_id])
        to_drift.append(drift[m.to_id])
    return Corrections(
        np.array([element.matrix() for element in elements]),
        np.array([element.AdjointMap() for element in elements]),
        np.array(own),
        np.array(from_drift),
        np.array(to_drift),
    )


def loop_chi2(c: Corrections, i: int, dimension: int) -> NDArray[np.float64]:
    """(N - i - 1,) squared Mahalanobis distances of the loops of closure i with all later ones."""
    later = np.arange(i + 1, len(c.matrices))
    return paired_chi2(c, np.full(len(later), i), later, dimension)


def paired_chi2(
    c: Corrections, one: NDArray[np.int64], other: NDArray[np.int64], dimension: int
) -> NDArray[np.float64]:
    """(M,) squared Mahalanobis distances of the loops of M pairs of closures."""
    errors = _tangent(c.matrices[one] @ _inverses(c.matrices[other]), dimension)
    change = c.adjoints[one]
    covariance = c.own[one] + c.own[other] + _between(c.from_drift[one], c.from_drift[other])
    between = _between(c.to_drift[one], c.to_drift[other])
    covariance = covariance + change @ between @ change.transpose(0, 2, 1)
    solved = np.linalg.solve(covariance, errors[:, :, None])[:, :, 0]
    return np.asarray(np.einsum("nd,nd->n", errors, solved))


def _inverses(transforms: Matrix) -> Matrix:
    """Inverses of rigid transforms (N, k, k), homogeneous."""
    result = transforms.copy()
    result[:, :-1, :-1] = turned = transforms[:, :-1, :-1].transpose(0, 2, 1)
    result[:, :-1, -1:] = -turned @ transforms[:, :-1, -1:]
    return result


def _tangent(transforms: Matrix, dimension: int) -> Matrix:
    """(N, d) first-order tangent vectors at the identity, in GTSAM's order."""
    shifts = transforms[:, :-1, -1]
    if dimension == 3:
        turns = np.arctan2(transforms[:, 1, 0], transforms[:, 0, 0])[:, None]
        return np.hstack([shifts, turns])
    return np.hstack([Rotation.from_matrix(transforms[:, :3, :3]).as_rotvec(), shifts])


def _between(one: Matrix, others: Matrix) -> Matrix:
    """Covariance gathered between two vertices: the later one's less the earlier one's."""
    difference = others - one
    sign = np.sign(np.trace(difference, axis1=-2, axis2=-1))
    return np.asarray(difference * sign[:, None, None])


def largest_clique(agreeing: NDArray[np.bool_]) -> list[int]:
    """Indices of the largest set that agrees throughout, by a greedy search.

    Args:
        agreeing: (N, N) symmetric, False on the diagonal.
    """
    degrees = agreeing.sum(axis=1)
    cliques = [
        grown_clique(agreeing, int(seed)) for seed in np.argsort(-degrees, kind="stable")[:SEEDS]
    ]
    return max(cliques, key=len, default=[])


def grown_clique(agreeing: NDArray[np.bool_], seed: int) -> list[int]:
    """A clique around one member: the candidate that leaves most others is added until none is."""
    clique, candidates = [seed], np.flatnonzero(agreeing[seed])
    inner = agreeing[np.ix_(candidates, candidates)]
    stay = np.ones(len(candidates), bool)
    degrees = inner.sum(axis=1)
    if (degrees == len(candidates) - 1).all():  # as usual
        return [seed, *candidates.tolist()]
    while stay.any():
        best = int(np.argmax(np.where(stay, degrees, -1)))
        clique.append(int(candidates[best]))
        leave = stay & ~inner[best]
        degrees -= inner[leave].sum(axis=0)
        stay &= inner[best]
    return clique
