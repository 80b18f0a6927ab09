"""Markov localization: a belief over places, moved by odometry and weighed by what is seen.

Fox, Burgard and Thrun, "Markov localization for mobile robots in dynamic environments", JAIR 1999.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from vpr.records import Pose

POSITION_SIGMA = 0.3  # m, of a step and of the grid of places
HEADING_SIGMA = 0.35  # rad, the same
REACH = 2.5  # of these scaled distances, beyond which nothing moves
FEWEST = 0.5  # summed kernel of a place within the grid; a move out of it loses belief
CARRIED = 0.005  # of the belief, that may be anywhere at the next view


class PlaceBelief:
    """P(camera at each of S places).

    Args:
        poses: (S, 4, 4) map_T_camera; the camera looks along z.
    """

    def __init__(self, poses: NDArray[np.float64]) -> None:
        self._poses = poses
        self._places = cKDTree(_scaled(poses))
        self.lost()

    def lost(self) -> None:
        """Nothing is known any more."""
        self.shares: NDArray[np.float64] = np.full(len(self._poses), 1.0 / len(self._poses))

    def move(self, motion: Pose) -> None:
        """Follow the camera by before_T_after, as of odometry."""
        moved = cKDTree(_scaled(self._poses @ motion))
        near = moved.sparse_distance_matrix(self._places, REACH, output_type="coo_matrix")
        near.data = np.exp(-(near.data**2))
        kernel = csr_matrix(near)
        total = np.asarray(kernel.sum(axis=1)).ravel()
        went = (self.shares / np.maximum(total, FEWEST)) @ kernel
        anywhere = 1.0 / len(self._poses)
        if (kept := float(went.sum())) > 0.0:
            self.shares = (1.0 - CARRIED) * went / kept + CARRIED * anywhere
        else:
            self.lost()

    def see(self, log_likelihoods: NDArray[np.float32]) -> None:
        """Weigh by how likely a view is at each place, (S,)."""
        weighed = self.shares * np.exp(log_likelihoods - log_likelihoods.max())
        self.shares = weighed / weighed.sum()


def followed(
    poses: NDArray[np.float64],
    log_likelihoods: NDArray[np.float32],
    motions: Sequence[Pose | None],
) -> NDArray[np.float32]:
    """(Q, S) beliefs after each of Q successive views; each knows of those before it alone.

    Args:
        poses: (S, 4, 4) places.
        log_likelihoods: (Q, S).
        motions: Q, since the view before; None where the camera was lost since.
    """
    belief = PlaceBelief(poses)
    result = np.empty(log_likelihoods.shape, np.float32)
    for row, (motion, seen) in enumerate(zip(motions, log_likelihoods, strict=True)):
        if motion is None:
            belief.lost()
        else:
            belief.move(motion)
        belief.see(seen)
        result[row] = belief.shares
    return result


def _scaled(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S, 6) whose squared distances are the exponents of the kernel."""
    position = poses[:, :3, 3] / POSITION_SIGMA
    heading = poses[:, :3, 2] / HEADING_SIGMA
    return np.asarray(np.concatenate([position, heading], axis=1) / np.sqrt(2.0), np.float64)
