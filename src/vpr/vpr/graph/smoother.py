"""One connected piece of a pose graph, solved incrementally by iSAM2 (Kaess et al., IJRR 2012).

iSAM2 has the keyframes with more than odometry; the others are on the ``Track`` between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from vpr.graph.measurements import Step
from vpr.graph.track import Ends, Track
from vpr.records import Covariance, Pose

_EARTH = int(gtsam.symbol("z", 0))  # the ENU frame; behind all keyframes
PRIOR_SIGMA = 1e-4  # m and rad: the first pose is where the frame is, by definition
_Key = tuple[EdgeKind | None, int, int]  # of a factor: kind, None for a prior, and its two ends
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
        self._track = Track(group)
        self._factors: dict[_Key, Any] = {}
        self._slots: dict[_Key, int] = {}  # of the factors in iSAM2

    def __contains__(self, keyframe_id: int) -> bool:
        return keyframe_id in self._track

    def start(self, keyframe_id: int, pose: Pose) -> None:
        """Add the first keyframe: it fixes the frame."""
        group, values = self._group, gtsam.Values()
        noise = gtsam.noiseModel.Isotropic.Sigma(group.dimension, PRIOR_SIGMA)
        prior = group.prior(_symbol(keyframe_id), group.element(pose), noise)
        values.insert(_symbol(keyframe_id), group.element(pose))
        self._track.append(keyframe_id, None)
        self._update({(None, keyframe_id, keyframe_id): prior}, values)

    def extend(self, step: Step) -> None:
        """Add the keyframe that a step leads to, placed by it."""
        if not self._track.append(step.edge.to_id, step):
            element = self.element(step.edge.from_id).compose(step.element)
            self._add([step.edge], {step.edge.to_id: element})

    def absorb(self, poses: dict[int, Pose], edges: Iterable[Edge]) -> None:
        """Add many keyframes, ascending, at poses close to right, with all their edges; settle."""
        others = list(edges)
        steps = {edge.to_id: Step.of(self._group, edge) for edge in others if edge.is_step}
        on_run = {i for i in poses if self._track.append(i, steps.get(i))}
        others = [edge for edge in others if not (edge.is_step and edge.to_id in on_run)]
        self._add(others, {i: self._group.element(pose) for i, pose in poses.items()})
        self.settle()

    def renewed(
        self, poses: dict[int, Pose], removed: Iterable[Edge], added: Iterable[Edge]
    ) -> Smoother:
        """The same keyframes from other poses, without some closures and with others.

        Costs one elimination of all factors, and nothing that grows with the closures: they are
        not made anew, and poses that are those of the solution need no settling. This smoother
        stays as it is.
        """
        smoother, extra = Smoother(self._config, self._group), list(added)
        smoother._on_earth, smoother._track = self._on_earth, self._track.copied()
        handover = smoother._track.hand_over(end for edge in extra for end in _ends(edge))
        gone = {_key(edge) for edge in removed} | {_step(ends) for ends in handover.removed}
        factors = {key: factor for key, factor in self._factors.items() if key not in gone}
        factors |= {_step(ends): smoother._stretch_factor(ends) for ends in handover.added}
        factors |= {_key(edge): self._factor(edge) for edge in extra}
        values = gtsam.Values()
        for keyframe_id in smoother._track.solved():
            values.insert(_symbol(keyframe_id), self._group.element(poses[keyframe_id]))
        if self._on_earth:
            values.insert(_EARTH, self._group.estimate(self._isam, _EARTH))
        smoother._update(factors, values)
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
        first = not self._on_earth
        if first:
            values = gtsam.Values()
            values.insert(_EARTH, self._group.element(map_T_enu))
            self._update({(None, _EARTH, _EARTH): self._earth_prior(map_T_enu)}, values)
            self._on_earth = True
        added = []
        for pose, edge in zip(poses, edges, strict=True):
            measured = inverse(map_T_enu) @ pose
            measured[:3, 3] = edge.measured[:3, 3]
            added.append(replace(edge, measured=measured))
        self._add(added)
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
        self._add([], root=_ends(edge))
        joint = self._isam.jointMarginalCovariance(list(map(_symbol, _ends(edge))))
        expected = self.element(edge.from_id).between(self.element(edge.to_id))
        jacobian = np.hstack([-expected.inverse().AdjointMap(), np.eye(self._group.dimension)])
        covariance = jacobian @ joint.fullMatrix() @ jacobian.T + self._tangent_covariance(edge)
        residual = self._group.element(edge.measured).localCoordinates(expected)
        chi2 = float(residual @ np.linalg.solve(covariance, residual))
        return Innovation(chi2, self._group.dimension)

    def close(self, edge: Edge) -> None:
        """Add an edge between two keyframes that are both here already."""
        self._add([edge])

    def relinearize(self) -> None:
        """One step of Gauss-Newton from where all that has moved is now."""
        nothing = gtsam.NonlinearFactorGraph()
        self._isam.update(nothing, gtsam.Values(), [], None, None, None, True)

    def settle(self) -> None:
        """Linearise anew and solve until the error no longer falls by a thousandth."""
        error = self.chi2()
        for _ in range(MAX_SETTLING):
            self.relinearize()
            previous, error = error, self.chi2()
            if abs(previous - error) <= 1e-3 * previous:
                return

    def pose(self, keyframe_id: int) -> Pose:
        """Best pose of one keyframe; cheap."""
        return self._group.pose(self.element(keyframe_id))

    def element(self, keyframe_id: int) -> Any:
        """The same as an element of the group."""
        if self._track.is_solved(keyframe_id):
            return self._group.estimate(self._isam, _symbol(keyframe_id))
        before, behind = ends = self._track.around(keyframe_id)
        one = other = self._group.estimate(self._isam, _symbol(before))
        if behind != before:
            other = self._group.estimate(self._isam, _symbol(behind))
        return self._track.element(keyframe_id, ends, (one, other))

    def poses(self) -> NDArray[np.float64]:
        """(N, 4, 4) best poses of all keyframes, ascending by id."""
        solved = sorted(self._track.solved())
        poses = self._group.poses(self._isam.calculateEstimate())  # ENU, if there, behind them
        elements = map(self._group.element, poses)
        return self._track.poses(dict(zip(solved, elements, strict=False)))

    def covariance(self, keyframe_id: int) -> Covariance:
        """Marginal covariance of a keyframe's pose in this smoother's frame."""
        self._add([], root=[keyframe_id])
        tangent = np.asarray(self._isam.marginalCovariance(_symbol(keyframe_id)))
        return self._group.covariance(tangent, self.pose(keyframe_id))

    def chi2(self) -> float:
        """Twice the error of all factors, robust weights included."""
        return 2.0 * float(self._isam.getFactorsUnsafe().error(self._isam.calculateEstimate()))

    def _add(
        self,
        edges: Iterable[Edge],
        begun: dict[int, Any] | None = None,
        root: Sequence[int] = (),
    ) -> None:
        """Add edges between keyframes of the track, and bring keyframes to the root.

        Args:
            begun: elements of keyframes that were appended to the track just now.
        """
        added, begun = list(edges), begun or {}
        ends = {end for edge in added for end in _ends(edge)} | set(root)
        inner = [end for end in ends if end not in begun and not self._track.is_solved(end)]
        elements = {end: self.element(end) for end in inner} | begun
        handover = self._track.hand_over(ends)
        values = gtsam.Values()
        for keyframe_id in {*handover.keyframes, *filter(self._track.is_solved, begun)}:
            values.insert(_symbol(keyframe_id), elements[keyframe_id])
        factors = {_step(ends): self._stretch_factor(ends) for ends in handover.added}
        factors |= {_key(edge): self._factor(edge) for edge in added}
        self._update(factors, values, map(_step, handover.removed), root)

    def _update(
        self,
        factors: Mapping[_Key, Any],
        values: gtsam.Values,
        removed: Iterable[_Key] = (),
        root: Iterable[int] = (),
    ) -> None:
        graph, slots = gtsam.NonlinearFactorGraph(), []
        for factor in factors.values():
            graph.add(factor)
        for key in removed:
            del self._factors[key]
            slots.append(self._slots.pop(key))
        result = self._isam.update(graph, values, slots, *_constraints(root))
        self._slots.update(zip(factors, result.getNewFactorsIndices(), strict=True))
        self._factors.update(factors)

    def _stretch_factor(self, ends: Ends) -> Any:
        measured, covariance = self._track.stretch(ends)
        noise = gtsam.noiseModel.Gaussian.Covariance(covariance)
        return self._group.between(_symbol(ends[0]), _symbol(ends[1]), measured, noise)

    def _tangent_covariance(self, edge: Edge) -> Matrix:
        return self._group.tangent_covariance(edge.covariance, edge.measured)

    def _factor(self, edge: Edge) -> Any:
        noise: Any = gtsam.noiseModel.Gaussian.Covariance(self._tangent_covariance(edge))
        if not edge.is_step and self._robust is not None:
            noise = gtsam.noiseModel.Robust.Create(self._robust, noise)
        measured = self._group.element(edge.measured)
        from_key = _EARTH if edge.kind is EdgeKind.FIX else _symbol(edge.from_id)
        return self._group.between(from_key, _symbol(edge.to_id), measured, noise)


def _ends(edge: Edge) -> tuple[int, int]:
    return edge.from_id, edge.to_id


def _key(edge: Edge) -> _Key:
    return edge.kind, edge.from_id, edge.to_id


def _step(ends: Ends) -> _Key:
    """Of a stretch of odometry."""
    return EdgeKind.ODOMETRY, *ends


def _symbol(keyframe_id: int) -> int:
    return int(gtsam.symbol("x", keyframe_id))


def _constraints(root: Iterable[int]) -> tuple[Any, ...]:
    """Arguments of an update that brings keyframes to the root of the Bayes tree."""
    keys, groups = gtsam.KeyList(), gtsam.KeyGroupMap()
    for keyframe_id in root:
        keys.push_back(_symbol(keyframe_id))
        groups.insert2(_symbol(keyframe_id), 1)
    return (groups, None, keys, False) if keys.size() else ()


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
    # By Cholesky, a drive behind a few keyframes without odometry is found indeterminate.
    parameters.setFactorization("QR")
    parameters.relinearizeSkip = config.relinearize_every
    limits = group.tangent(config.relinearize_translation, config.relinearize_rotation)
    thresholds = gtsam.ISAM2ThresholdMap()
    thresholds.insert(("x", limits))
    thresholds.insert(("z", limits))
    parameters.setRelinearizeThreshold(thresholds)
    return parameters
