"""One connected piece of a pose graph, solved incrementally by iSAM2 (Kaess et al., IJRR 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import gtsam
import numpy as np
from numpy.typing import NDArray

from vpr.config import PoseGraphConfig
from vpr.geometry import inverse
from vpr.graph.edges import Edge, EdgeKind
from vpr.graph.fixes import placed_earth, unplaced_earth
from vpr.graph.lie_group import LieGroup, Matrix
from vpr.records import Covariance, Pose

_EARTH = int(gtsam.symbol("z", 0))  # the ENU frame; behind all keyframes
PRIOR_SIGMA = 1e-4  # m and rad: the first pose is where the frame is, by definition
MAX_SETTLING = 15  # Gauss-Newton steps of a full relinearisation; a handful is usual


@dataclass(frozen=True)
class Innovation:
    """How far a measurement is from what the graph expects, before it is added."""

    chi2: float
    degrees_of_freedom: int


class Smoother:
    """The keyframes that are tied to each other, and their best poses in one frame."""

    def __init__(self, config: PoseGraphConfig, group: LieGroup) -> None:
        self._config = config
        self._group = group
        self._on_earth = False
        self._robust = _robust_estimator(config)
        self._isam = gtsam.ISAM2(_isam_parameters(config, group))
        self._slots: dict[tuple[int, int], int] = {}  # of closures' factors in iSAM2, by their ends

    def __contains__(self, keyframe_id: int) -> bool:
        return bool(self._isam.valueExists(_key(keyframe_id)))

    def start(self, keyframe_id: int, pose: Pose) -> None:
        """Add the first keyframe: it fixes the frame."""
        group, graph, values = self._group, gtsam.NonlinearFactorGraph(), gtsam.Values()
        noise = gtsam.noiseModel.Isotropic.Sigma(group.dimension, PRIOR_SIGMA)
        graph.add(group.prior(_key(keyframe_id), group.element(pose), noise))
        values.insert(_key(keyframe_id), group.element(pose))
        self._isam.update(graph, values)

    def extend(self, edge: Edge) -> None:
        """Add keyframe ``edge.to_id``, placed by the edge."""
        element = self._estimate(edge.from_id).compose(self._group.element(edge.measured))
        graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        graph.add(self._factor(edge))
        values.insert(_key(edge.to_id), element)
        self._isam.update(graph, values)

    def absorb(self, poses: dict[int, Pose], edges: Iterable[Edge]) -> None:
        """Add many keyframes at poses close to right, with all their edges, and settle."""
        graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        added = list(edges)
        for edge in added:
            graph.add(self._factor(edge))
        for keyframe_id, pose in poses.items():
            values.insert(_key(keyframe_id), self._group.element(pose))
        self._note_slots(added, self._isam.update(graph, values).getNewFactorsIndices())
        self.settle()

    def renewed(
        self, poses: dict[int, Pose], removed: Iterable[Edge], added: Iterable[Edge]
    ) -> Smoother:
        """The same keyframes from other poses, without some closures and with others.

        Costs one elimination of all factors, and nothing that grows with the closures: they are
        not made anew, and poses that are those of the solution need no settling.
        """
        smoother = Smoother(self._config, self._group)
        smoother._on_earth = self._on_earth
        factors, gone = self._isam.getFactorsUnsafe(), {self._slots[_ends(e)] for e in removed}
        graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        stay = [slot for slot in range(factors.size()) if slot not in gone]
        place = {slot: i for i, slot in enumerate(stay)}
        for slot in stay:
            graph.add(factors.at(slot))
        smoother._slots = {ends: place[s] for ends, s in self._slots.items() if s in place}
        for keyframe_id, pose in poses.items():
            values.insert(_key(keyframe_id), self._group.element(pose))
        if self._on_earth:
            values.insert(_EARTH, self._group.estimate(self._isam, _EARTH))
        extra = list(added)
        smoother._slots |= {_ends(edge): len(place) + i for i, edge in enumerate(extra)}
        for edge in extra:
            graph.add(self._factor(edge))
        smoother._isam.update(graph, values)
        if self._on_earth:  # the fixes pull at the poses too
            smoother.settle()
        return smoother

    def add_fixes(self, edges: list[Edge]) -> list[Edge]:
        """Tie keyframes to the ENU frame; returns the edges, turned, that were added.

        None are until keyframes lie far enough apart to tell where the frame is.
        """
        poses = [self.pose(edge.to_id) for edge in edges]
        map_T_enu = self._earth(poses, edges) if edges else None
        if map_T_enu is None:
            return []
        graph, values, first = gtsam.NonlinearFactorGraph(), gtsam.Values(), not self._on_earth
        if first:
            graph.add(self._earth_prior(map_T_enu))
            values.insert(_EARTH, self._group.element(map_T_enu))
            self._on_earth = True
        added = []
        for pose, edge in zip(poses, edges, strict=True):
            measured = inverse(map_T_enu) @ pose
            measured[:3, 3] = edge.measured[:3, 3]
            added.append(replace(edge, measured=measured))
            graph.add(self._factor(added[-1]))
        self._isam.update(graph, values)
        if first:
            self.settle()
        return added

    def _earth(self, poses: list[Pose], edges: list[Edge]) -> Pose | None:
        """Where the ENU frame is; None while nothing tells."""
        if self._on_earth:
            return self._group.pose(self._group.estimate(self._isam, _EARTH))
        positions = np.array([pose[:3, 3] for pose in poses])
        fixes = np.array([edge.measured[:3, 3] for edge in edges])
        return placed_earth(positions, fixes, self._config.gps_spread)

    def _earth_prior(self, map_T_enu: Pose) -> Any:
        tangent = self._group.tangent_covariance(unplaced_earth(self._config), map_T_enu)
        noise = gtsam.noiseModel.Gaussian.Covariance(tangent)
        return self._group.prior(_EARTH, self._group.element(map_T_enu), noise)

    def innovation(self, edge: Edge) -> Innovation:
        """Squared Mahalanobis distance of a measurement from the graph's expectation.

        The covariance is that of the measurement plus that of the relative pose by the graph's
        joint marginal. Both poses are first brought to the root of the Bayes tree: it is the same
        re-elimination that adding the edge needs, and makes the joint marginal cheap.
        """
        keys = gtsam.KeyList()
        groups = gtsam.KeyGroupMap()
        for keyframe_id in (edge.from_id, edge.to_id):
            keys.push_back(_key(keyframe_id))
            groups.insert2(_key(keyframe_id), 1)
        nothing = gtsam.NonlinearFactorGraph()
        self._isam.update(nothing, gtsam.Values(), [], groups, None, keys, False)
        joint = self._isam.jointMarginalCovariance([_key(edge.from_id), _key(edge.to_id)])
        expected = self._estimate(edge.from_id).between(self._estimate(edge.to_id))
        jacobian = np.hstack([-expected.inverse().AdjointMap(), np.eye(self._group.dimension)])
        covariance = jacobian @ joint.fullMatrix() @ jacobian.T + self._tangent_covariance(edge)
        residual = self._group.element(edge.measured).localCoordinates(expected)
        chi2 = float(residual @ np.linalg.solve(covariance, residual))
        return Innovation(chi2, self._group.dimension)

    def close(self, edge: Edge) -> None:
        """Add an edge between two keyframes that are both here already."""
        graph = gtsam.NonlinearFactorGraph()
        graph.add(self._factor(edge))
        self._note_slots([edge], self._isam.update(graph, gtsam.Values()).getNewFactorsIndices())

    def settle(self) -> None:
        """Linearise anew and solve until the error no longer falls by a thousandth."""
        error = self.chi2()
        for _ in range(MAX_SETTLING):
            nothing = gtsam.NonlinearFactorGraph()
            self._isam.update(nothing, gtsam.Values(), [], None, None, None, True)
            previous, error = error, self.chi2()
            if abs(previous - error) <= 1e-3 * previous:
                return

    def pose(self, keyframe_id: int) -> Pose:
        """Best pose of one keyframe; cheap."""
        return self._group.pose(self._estimate(keyframe_id))

    def poses(self) -> NDArray[np.float64]:
        """(N, 4, 4) best poses of all keyframes, ascending by id."""
        poses = self._group.poses(self._isam.calculateEstimate())
        return poses[:-1] if self._on_earth else poses

    def covariance(self, keyframe_id: int) -> Covariance:
        """Marginal covariance of a keyframe's pose in this smoother's frame."""
        tangent = np.asarray(self._isam.marginalCovariance(_key(keyframe_id)))
        return self._group.covariance(tangent, self.pose(keyframe_id))

    def chi2(self) -> float:
        """Twice the error of all factors, robust weights included."""
        return 2.0 * float(self._isam.getFactorsUnsafe().error(self._isam.calculateEstimate()))

    def _note_slots(self, edges: Iterable[Edge], slots: Iterable[int]) -> None:
        self._slots |= {
            _ends(edge): slot
            for edge, slot in zip(edges, slots, strict=True)
            if edge.kind is EdgeKind.CLOSURE
        }

    def _estimate(self, keyframe_id: int) -> Any:
        return self._group.estimate(self._isam, _key(keyframe_id))

    def _tangent_covariance(self, edge: Edge) -> Matrix:
        return self._group.tangent_covariance(edge.covariance, edge.measured)

    def _factor(self, edge: Edge) -> Any:
        noise: Any = gtsam.noiseModel.Gaussian.Covariance(self._tangent_covariance(edge))
        if not edge.is_step and self._robust is not None:
            noise = gtsam.noiseModel.Robust.Create(self._robust, noise)
        measured = self._group.element(edge.measured)
        from_key = _EARTH if edge.kind is EdgeKind.FIX else _key(edge.from_id)
        return self._group.between(from_key, _key(edge.to_id), measured, noise)


def _ends(edge: Edge) -> tuple[int, int]:
    return edge.from_id, edge.to_id


def _key(keyframe_id: int) -> int:
    return int(gtsam.symbol("x", keyframe_id))


def _robust_estimator(config: PoseGraphConfig) -> Any:
    """M-estimator of closures, None for plain least squares."""
    estimators = gtsam.noiseModel.mEstimator
    kinds: dict[str, Any] = {
        "cauchy": estimators.Cauchy,
        "huber": estimators.Huber,
        "dcs": estimators.DCS,
    }
    kind = kinds.get(config.robust_kernel)
    return kind.Create(config.robust_width) if kind else None


def _isam_parameters(config: PoseGraphConfig, group: LieGroup) -> gtsam.ISAM2Params:
    parameters = gtsam.ISAM2Params()
    parameters.relinearizeSkip = config.relinearize_every
    limits = group.tangent(config.relinearize_translation, config.relinearize_rotation)
    thresholds = gtsam.ISAM2ThresholdMap()
    thresholds.insert(("x", limits))
    thresholds.insert(("z", limits))
    parameters.setRelinearizeThreshold(thresholds)
    return parameters
