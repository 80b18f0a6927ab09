"""Poses by odometry alone, and the covariance gathered on the way, in runs of unbroken odometry."""

from __future__ import annotations

from typing import Any

import numpy as np

from vpr.graph.lie_group import Matrix


class Runs:
    """Poses as they are appended; a place is the number of a pose.

    Poses and covariances are held in the frame of the run's first pose; covariances are in its
    tangent space, gathered on the way: that of a stretch is a difference of two.

    Args:
        element_type: ``gtsam.Pose2`` or ``gtsam.Pose3``.
    """

    def __init__(self, element_type: Any, dimension: int) -> None:
        self.poses: list[Any] = []
        self.drifts: list[Matrix] = []
        self._type = element_type
        self._dimension = dimension
        self._begins: list[int] = []

    def copied(self) -> Runs:
        """The same poses, to be gone on with apart from these."""
        other = Runs(self._type, self._dimension)
        other.poses, other.drifts = list(self.poses), list(self.drifts)
        other._begins = list(self._begins)
        return other

    def __len__(self) -> int:
        return len(self.poses)

    def begin_run(self) -> None:
        """Append a pose that odometry does not tie to the one before."""
        self._begins.append(len(self))
        self.poses.append(self._type())
        self.drifts.append(np.zeros((self._dimension, self._dimension)))

    def extend_run(self, pose: Any, drift: Matrix) -> None:
        """Append the next pose of the run, and what its step adds to the covariance."""
        self._begins.append(self._begins[-1])
        self.poses.append(pose)
        self.drifts.append(self.drifts[-1] + drift)

    def begin(self, place: int) -> int:
        """Where the run of a place begins."""
        return self._begins[place]

    def stretch(self, one: int, other: int) -> tuple[Any, Matrix]:
        """one_T_other by odometry and its covariance, of two places of one run, in order."""
        back = self.poses[other].inverse().AdjointMap()
        covariance = back @ (self.drifts[other] - self.drifts[one]) @ back.T
        return self.poses[one].between(self.poses[other]), covariance

    def continued(self, one: int, pose: Any, place: int) -> Any:
        """Pose of a place by odometry alone from that of another in its run."""
        return pose.compose(self.poses[one].between(self.poses[place]))

    def shared(self, one: int, pose: Any, other: int, other_pose: Any) -> tuple[Any, Matrix]:
        """What lies between two places follows from their poses by this.

        Returns:
            the frame of the run as given at ``one``, and the weight (d,) in its tangent space by
            which the covariance up to a place says how far that is moved.
        """
        moved = pose.compose(self.poses[one].inverse())
        asked = moved.inverse().compose(other_pose).compose(self.poses[other].inverse())
        whole = self.drifts[other] - self.drifts[one]
        return moved, np.linalg.solve(whole, self._type.Logmap(asked))

    def inside(self, one: int, moved: Any, share: Matrix, place: int) -> Any:
        """Best pose of a place behind ``one``, from what is shared out."""
        shift = self._type.Expmap((self.drifts[place] - self.drifts[one]) @ share)
        return moved.compose(shift).compose(self.poses[place])
