"""Loop closures against the truth: precision, recall of revisits, and the naive baseline.

Two views are of the same place when their true poses are within 5 m and 30 degrees. A closure is
right when its views are, or when it says where they really are: two may share a wall and look at it
from opposite sides. A keyframe is a revisit when an earlier keyframe that was not excluded as
recent is of the same place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpr.geometry import PoseTrack, PoseUnavailable, relative, rotation_angle, translation_norm
from vpr.records import ClosureState, Keyframe, LoopClosure, Pose

PLACE_RADIUS = 5.0  # m
PLACE_ANGLE = np.radians(30.0)
RIGHT_POSE = 0.5, 10.0  # m and degrees from the truth, of a closure that measured its pose
CLOSED_WITHIN_NS = 2_000_000_000


@dataclass(frozen=True)
class ClosureFigures:
    """Figures of one run; a ratio without a denominator is None.

    Attributes:
        verified_precision: share of VERIFIED closures that are right.
        revisit_recall: share of revisits with a right VERIFIED closure of a query at most 2 s
            away.
        naive_precision: share of right answers when every query with something to search takes
            its single-image nearest neighbour, as a naive loop closer without a threshold would.
        naive_precision_at_revisits: the same over the revisits only.
        translation_error_m, rotation_error_deg: 95th percentiles of measured relative poses of
            right VERIFIED closures against truth.
        worst_translation_error_m, worst_rotation_error_deg: over all VERIFIED closures.
    """

    verified: int
    rejected: int
    verified_precision: float | None
    revisits: int
    revisit_recall: float | None
    naive_precision: float | None
    naive_precision_at_revisits: float | None
    translation_error_m: float | None
    rotation_error_deg: float | None
    worst_translation_error_m: float | None
    worst_rotation_error_deg: float | None
    rejected_by_reason: Mapping[str, int]


def same_place(a: Pose, b: Pose) -> bool:
    """Whether two true poses are of one place: within 5 m and 30 degrees."""
    step = relative(a, b)
    return translation_norm(step) <= PLACE_RADIUS and rotation_angle(step) <= PLACE_ANGLE


def same_place_matrix(poses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, N): which of N true poses (N, 4, 4) are of one place."""
    positions, rotations = poses[:, :3, 3], poses[:, :3, :3]
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    cosine = (np.einsum("aij,bij->ab", rotations, rotations) - 1.0) / 2.0
    return np.asarray((distance <= PLACE_RADIUS) & (cosine >= np.cos(PLACE_ANGLE) - 1e-12))


def searchable_matrix(
    keyframes: Sequence[Keyframe], exclude_time_s: float, exclude_count: int
) -> NDArray[np.bool_]:
    """(N, N): whether column j was a possible answer to row i: earlier and not excluded."""
    stamps = np.array([keyframe.stamp_ns for keyframe in keyframes], np.int64)
    sessions = np.array([keyframe.session for keyframe in keyframes])
    order = np.arange(len(keyframes))
    earlier = order[None] < order[:, None]
    own = sessions[None] == sessions[:, None]
    recent = own & (
        (stamps[:, None] - stamps[None] < exclude_time_s * 1e9)
        | (order[:, None] - order[None] <= exclude_count)
    )
    return np.asarray(earlier & ~recent)


def closure_figures(
    keyframes: Sequence[Keyframe],
    closures: Sequence[LoopClosure],
    truth: PoseTrack,
    exclude_time_s: float,
    exclude_count: int,
) -> ClosureFigures:
    """Judge a run's keyframes and final verdicts by the true poses of base_link.

    Keyframes that the truth does not cover take no part.

    Args:
        exclude_time_s, exclude_count: what the matcher left out as recent.
    """
    covered, poses = _located(keyframes, truth)
    pose_of = {keyframe.id: pose for keyframe, pose in zip(covered, poses, strict=True)}
    judged = [c for c in closures if c.query_id in pose_of and c.reference_id in pose_of]
    verified = [c for c in judged if c.state == ClosureState.VERIFIED]
    right = [c for c in verified if _right(c, pose_of)]
    searchable = searchable_matrix(covered, exclude_time_s, exclude_count)
    stacked = np.array(poses).reshape(-1, 4, 4)
    answers = searchable & same_place_matrix(stacked)
    revisits = np.flatnonzero(answers.any(axis=1))
    naive = _naive_answers(covered, searchable)
    errors = np.array([_pose_error(c, pose_of) for c in right if c.relative_pose is not None])
    worst = np.array([_pose_error(c, pose_of) for c in verified if c.relative_pose is not None])
    rejected = [c for c in closures if c.state == ClosureState.REJECTED]
    return ClosureFigures(
        verified=len(verified),
        rejected=len(rejected),
        verified_precision=_ratio(len(right), len(verified)),
        revisits=len(revisits),
        revisit_recall=_ratio(_closed(covered, revisits, right), len(revisits)),
        naive_precision=_hits(naive, answers, naive),
        naive_precision_at_revisits=_hits(naive, answers, set(revisits.tolist())),
        translation_error_m=_percentile(errors, 0),
        rotation_error_deg=_percentile(errors, 1),
        worst_translation_error_m=float(worst[:, 0].max()) if len(worst) else None,
        worst_rotation_error_deg=float(worst[:, 1].max()) if len(worst) else None,
        rejected_by_reason=dict(Counter(c.rejected_by for c in rejected).most_common()),
    )


def _located(keyframes: Sequence[Keyframe], truth: PoseTrack) -> tuple[list[Keyframe], list[Pose]]:
    covered, poses = [], []
    for keyframe in keyframes:
        try:
            poses.append(truth.at(keyframe.stamp_ns))
        except PoseUnavailable:
            continue
        covered.append(keyframe)
    return covered, poses


def _naive_answers(keyframes: Sequence[Keyframe], searchable: NDArray[np.bool_]) -> dict[int, int]:
    """Row -> the searchable column of the nearest single descriptor."""
    if not keyframes:
        return {}
    descriptors = np.stack([keyframe.descriptor for keyframe in keyframes])
    similarity = np.where(searchable, descriptors @ descriptors.T, -np.inf)
    rows = np.flatnonzero(searchable.any(axis=1))
    return {int(row): int(similarity[row].argmax()) for row in rows}


def _hits(
    naive: Mapping[int, int], answers: NDArray[np.bool_], rows: Mapping[int, int] | set[int]
) -> float | None:
    return _ratio(sum(bool(answers[row, naive[row]]) for row in rows), len(rows))


def _closed(
    keyframes: Sequence[Keyframe], revisits: NDArray[np.int64], right: Sequence[LoopClosure]
) -> int:
    """Revisits with a right closure in the same session, at most 2 s before or after."""
    if not right:
        return 0
    closed_ns = np.array([closure.query_stamp_ns for closure in right], np.int64)
    closed_in = np.array([closure.query_session for closure in right])
    stamps = np.array([keyframes[row].stamp_ns for row in revisits.tolist()], np.int64)
    sessions = np.array([keyframes[row].session for row in revisits.tolist()])
    near = np.abs(stamps[:, None] - closed_ns[None]) <= CLOSED_WITHIN_NS
    return int((near & (sessions[:, None] == closed_in[None])).any(axis=1).sum())


def _right(closure: LoopClosure, pose_of: Mapping[int, Pose]) -> bool:
    if same_place(pose_of[closure.reference_id], pose_of[closure.query_id]):
        return True
    if closure.relative_pose is None:
        return False
    apart, turned = _pose_error(closure, pose_of)
    return apart <= RIGHT_POSE[0] and turned <= RIGHT_POSE[1]


def _pose_error(closure: LoopClosure, pose_of: Mapping[int, Pose]) -> tuple[float, float]:
    """Metres and degrees between a measured relative pose and the true one."""
    assert closure.relative_pose is not None
    true = relative(pose_of[closure.reference_id], pose_of[closure.query_id])
    error = relative(true, closure.relative_pose)
    apart = float(np.linalg.norm(true[:3, 3] - closure.relative_pose[:3, 3]))
    return apart, float(np.degrees(rotation_angle(error)))


def _percentile(errors: NDArray[np.float64], column: int) -> float | None:
    return float(np.percentile(errors[:, column], 95)) if len(errors) else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
