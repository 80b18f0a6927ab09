"""Closures must tell one story: a good one waits until closures of other keyframes agree.

A look-alike place can pass every test on one pair of images. It rarely passes again one keyframe
on, at a place that fits the first; and it contradicts what was verified just before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from vpr.config import LoopClosureConfig
from vpr.geometry import inverse, relative, rotation_angle, translation_norm
from vpr.records import ClosureState, LoopClosure, Pose
from vpr.verification.plausibility import Pair
from vpr.verification.relative_pose import RelativePose

SLACK = 2  # keyframes by which matched references may jump, beside the pace
PACE = 0.5  # share of the pace by which two walks may differ, where only their order is known
CONTRADICTION = 2.0  # times the tolerance of agreement


@dataclass(frozen=True)
class Sighting:
    """A closure that passed every test on its own, and what it rests on.

    Attributes:
        overlay: how well its views lie over each other, in words; empty where that is not known.
    """

    closure: LoopClosure
    pair: Pair
    measured: RelativePose
    overlay: str = ""


class Agreement:
    """Sightings that wait for others to agree, and those recently verified.

    With odometry at all four ends two sightings agree when they put the query session at the
    same place in the reference session's frame; without it, when the matched reference has
    advanced with the query, at a comparable pace.
    """

    def __init__(self, config: LoopClosureConfig) -> None:
        self.config = config
        self._waiting: list[Sighting] = []
        self._verified: list[Sighting] = []
        self._places: dict[int, int] = {}  # verified query -> the first keyframe of its place

    def contradiction(self, sighting: Sighting) -> str:
        """Which closure verified around it a sighting contradicts, in words; else empty."""
        for other in reversed(self._verified):
            if self._recent(other, sighting.closure.query_id):
                discord = self._discord(other, sighting)
                if discord is not None and discord > CONTRADICTION:
                    return (
                        f"keyframe {other.closure.query_id} was verified at keyframe "
                        f"{other.closure.reference_id}, which is somewhere else"
                    )
        return ""

    def consider(self, sighting: Sighting) -> list[LoopClosure]:
        """Verdicts that a new sighting brings: on itself and on those that waited for it."""
        query_id = sighting.closure.query_id
        agreeing = self._agreeing(sighting, (*self._verified, *self._waiting))
        if not self._enough([*agreeing, sighting]) or not self._fits_most(sighting):
            self._waiting.append(sighting)
            return [sighting.closure]
        risen = [*(o for o in self._waiting if o in agreeing and self._fits_most(o)), sighting]
        self._waiting = [other for other in self._waiting if other not in risen]
        self._verified = [other for other in self._verified if self._recent(other, query_id)]
        self._verified += risen
        for other in risen:
            self._places[other.closure.query_id] = self._place(other.closure.reference_id)
        support = f"{len(agreeing) + 1} closures in a row tell the same story"
        return [verified(other, support) for other in risen]

    def expired(self, query_id: int) -> list[LoopClosure]:
        """Verdicts on sightings that waited too long."""
        late = [other for other in self._waiting if not self._recent(other, query_id)]
        self._waiting = [other for other in self._waiting if self._recent(other, query_id)]
        return [self._lonely(other) for other in late]

    def flush(self) -> list[LoopClosure]:
        """Verdicts on all that wait; nothing verified counts as recent any more."""
        lonely = [self._lonely(other) for other in self._waiting]
        self._waiting.clear()
        self._verified.clear()
        return lonely

    def _agreeing(self, sighting: Sighting, others: Iterable[Sighting]) -> list[Sighting]:
        query_id = sighting.closure.query_id
        return [
            other
            for other in others
            if self._recent(other, query_id)
            and (discord := self._discord(other, sighting)) is not None
            and discord <= 1.0
        ]

    def _fits_most(self, sighting: Sighting) -> bool:
        """Whether at most half of the comparable closures verified around it tell another story."""
        around = [o for o in self._verified if self._recent(o, sighting.closure.query_id)]
        comparable = [o for o in around if self._discord(o, sighting) is not None]
        return 2 * len(self._agreeing(sighting, comparable)) >= len(comparable)

    def _recent(self, other: Sighting, query_id: int) -> bool:
        return query_id - other.closure.query_id <= self.config.agreement_keyframes

    def _enough(self, sightings: list[Sighting]) -> bool:
        queries = {other.closure.query_id for other in sightings}
        if all(_session_offset(other) is not None for other in sightings):
            return len(queries) >= self.config.agreeing_closures
        # a camera that stands before a look-alike agrees with itself; one that moves rarely does
        moved = len({other.closure.reference_id for other in sightings}) > 1
        needed = self.config.agreeing_closures_without_odometry
        return len(queries) >= needed and (moved or needed == 1)

    def _discord(self, a: Sighting, b: Sighting) -> float | None:
        """How far two sightings are from one story, in tolerances; None if not comparable."""
        sessions = [(s.closure.query_session, s.closure.reference_session) for s in (a, b)]
        if a.closure.query_id == b.closure.query_id or sessions[0] != sessions[1]:
            return None
        offsets = [_session_offset(a), _session_offset(b)]
        if offsets[0] is None or offsets[1] is None or b.pair.query.odometry is None:
            return self._discord_in_order(a, b)
        by_a, by_b = offsets[0] @ b.pair.query.odometry, offsets[1] @ b.pair.query.odometry
        difference = relative(by_a, by_b)
        between = abs(a.pair.query_path - b.pair.query_path)
        between += abs(a.pair.reference_path - b.pair.reference_path)
        allowed = self.config.agreement_translation + self.config.drift_translation * between
        allowed_turn = self.config.agreement_rotation + self.config.drift_rotation * between
        if not (a.measured.metric and b.measured.metric):
            allowed += self.config.max_translation
            allowed_turn += self.config.max_rotation
        return max(
            translation_norm(difference) / allowed, rotation_angle(difference) / allowed_turn
        )

    def _discord_in_order(self, a: Sighting, b: Sighting) -> float:
        queries = b.closure.query_id - a.closure.query_id
        references = self._place(b.closure.reference_id) - self._place(a.closure.reference_id)
        return abs(references - queries) / (PACE * abs(queries) + SLACK)

    def _place(self, keyframe_id: int) -> int:
        """The keyframe's own id, or of the keyframe that first saw its place."""
        for step in range(SLACK + 1):
            for near in (keyframe_id - step, keyframe_id + step):
                if near in self._places:
                    return self._places[near] + keyframe_id - near
        return keyframe_id

    def _lonely(self, sighting: Sighting) -> LoopClosure:
        if contradiction := self.contradiction(sighting):
            return replace(
                sighting.closure,
                state=ClosureState.REJECTED,
                reason=contradiction,
                rejected_by="contradicts_closure",
            )
        return replace(
            sighting.closure,
            state=ClosureState.REJECTED,
            reason=f"{sighting.closure.inliers} matches agree with one motion, but no other "
            f"closure within {self.config.agreement_keyframes} keyframes told the same story",
            rejected_by="no_agreement",
        )


def _session_offset(sighting: Sighting) -> Pose | None:
    """reference_odom_T_query_odom that the closure implies."""
    query, reference = sighting.pair.query.odometry, sighting.pair.reference.odometry
    if query is None or reference is None:
        return None
    return reference @ sighting.measured.pose @ inverse(query)


def verified(sighting: Sighting, support: str) -> LoopClosure:
    """The closure of a sighting as VERIFIED; ``support`` says what else speaks for it."""
    measured = sighting.measured
    where = (
        f"{translation_norm(measured.pose):.2f} m and "
        f"{np.degrees(rotation_angle(measured.pose)):.1f} degrees away"
        if measured.metric
        else "distance unknown"
    )
    matched = f"{sighting.closure.inliers} matches agree with one motion, {where}"
    reason = "; ".join(filter(None, (matched, sighting.overlay, support)))
    return replace(sighting.closure, state=ClosureState.VERIFIED, reason=reason)
