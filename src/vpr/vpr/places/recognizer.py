"""Place recognition over a drive: descriptors in, keyframes and place matches out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.places.keyframes import KeyframeSelector
from vpr.places.memory import PlaceMemory
from vpr.places.probability import StandoutProbability
from vpr.places.search import PlaceSearch, ScoredPlaces
from vpr.records import (
    Covariance,
    GpsFix,
    Keyframe,
    MatchSource,
    PlaceMatch,
    PlaceMatches,
    Pose,
)

UNIT_LENGTH_TOLERANCE = 1e-2


class DescriptorError(ValueError):
    """A descriptor that cannot be compared with the remembered ones; says why."""


class OdometryError(ValueError):
    """An odometry pose with a value that is not finite."""


@dataclass(frozen=True)
class Observation:
    """What became of one frame: a keyframe with its matches, or a reason why it was skipped."""

    keyframe: Keyframe | None
    matches: PlaceMatches | None
    skipped: str


class PlaceRecognizer:
    """Remembers keyframes and says which earlier places each new one looks like."""

    def __init__(self, config: SequenceMatchingConfig) -> None:
        self._config = config
        self._selector = KeyframeSelector(config)
        self._search = PlaceSearch(config)
        self._probability = StandoutProbability(config)
        self._memory: PlaceMemory | None = None
        self._session = 0
        self._last_stamp_ns: int | None = None

    @property
    def session(self) -> int:
        """The session that the next keyframe belongs to."""
        return self._session

    @property
    def places(self) -> int:
        """How many keyframes are remembered, over all sessions."""
        return 0 if self._memory is None else len(self._memory)

    @property
    def model(self) -> str:
        """The model whose descriptors are remembered; empty before the first."""
        return "" if self._memory is None else self._memory.model

    def observe(
        self,
        stamp_ns: int,
        descriptor: NDArray[np.float32],
        model: str,
        odometry: Pose | None = None,
        odometry_covariance: Covariance | None = None,
        fix: GpsFix | None = None,
        frame_id: str = "",
    ) -> Observation:
        """Take one frame in; match it against the past, then remember it, if it is a keyframe.

        A stamp that goes back by more than ``time_jump_tolerance`` begins a new session.

        Args:
            descriptor: (D,) L2-normalised, made by ``model``.
            odometry: odom_T_base at the stamp; without it every frame is a keyframe.

        Raises:
            DescriptorError: of another model or dimension than those remembered, not finite, or
                not L2-normalised. Nothing is remembered of the frame then.
            OdometryError: a pose that is not finite.
        """
        if odometry is not None and not np.isfinite(odometry).all():
            raise OdometryError("odometry has a value that is not finite")
        memory = self._memory_for(descriptor, model)
        skipped = self._out_of_order(stamp_ns) or self._selector.reason_to_skip(stamp_ns, odometry)
        if skipped:
            return Observation(None, None, skipped)
        if self._memory is None:
            self._search.attach(memory)
        self._memory = memory
        self._last_stamp_ns = stamp_ns
        self._selector.keep(stamp_ns, odometry)
        keyframe = Keyframe(
            id=int(memory.column("ids")[-1]) + 1 if len(memory) else 0,
            session=self._session,
            stamp_ns=stamp_ns,
            descriptor=np.array(descriptor, np.float32),
            model=model,
            odometry=odometry,
            odometry_covariance=odometry_covariance,
            fix=fix,
            frame_id=frame_id,
        )
        matches = self._match(keyframe, memory)
        new_session = len(memory) == 0 or memory.column("sessions")[-1] != self._session
        memory.append(keyframe)
        self._search.append(new_session)
        return Observation(keyframe, matches, "")

    def begin_session(self) -> int:
        """Close the session; what comes next is matched against all of it. Returns the new number.

        A session without a keyframe is not closed: it would leave no trace.
        """
        if self._memory is not None and len(self._memory):
            self._session = int(self._memory.column("sessions")[-1]) + 1
        if self._memory is not None:
            self._search.begin_session()
        self._selector.forget()
        self._last_stamp_ns = None
        return self._session

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and JSON-able metadata from which ``restore`` rebuilds all remembered places."""
        if self._memory is None:
            return {}, {}
        return self._memory.arrays(), self._memory.metadata()

    def restore(self, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
        """Replace everything remembered by a saved state and begin a new session after it.

        Raises:
            StateError: the state is incomplete or contradicts itself; nothing is changed then.
        """
        memory = PlaceMemory.restored(arrays, metadata) if arrays else None
        if memory is not None:
            self._search.attach(memory)
        self._memory = memory
        self._session = 0
        self.begin_session()

    def _memory_for(self, descriptor: NDArray[np.float32], model: str) -> PlaceMemory:
        if descriptor.ndim != 1 or descriptor.size == 0:
            raise DescriptorError(f"a descriptor is a vector, not an array {descriptor.shape}")
        if not np.isfinite(descriptor).all():
            raise DescriptorError("descriptor has a value that is not finite")
        length = float(np.linalg.norm(descriptor))
        if abs(length - 1.0) > UNIT_LENGTH_TOLERANCE:
            raise DescriptorError(f"descriptor is not L2-normalised: its length is {length:.3g}")
        memory = self._memory
        if memory is None:
            return PlaceMemory(model, len(descriptor))
        if model != memory.model:
            raise DescriptorError(
                f"descriptor is of model {model}, the remembered places are of {memory.model}"
            )
        if len(descriptor) != memory.dimension:
            raise DescriptorError(
                f"descriptor has {len(descriptor)} values, those of {memory.model} here have "
                f"{memory.dimension}"
            )
        return memory

    def _out_of_order(self, stamp_ns: int) -> str:
        """Why a frame is too late to be used; begins a new session when time jumped back."""
        if self._last_stamp_ns is None or stamp_ns > self._last_stamp_ns:
            return ""
        late = (self._last_stamp_ns - stamp_ns) / 1e9
        if late > self._config.time_jump_tolerance:
            self.begin_session()
            return ""
        return f"stamp is {late:.3f} s before the last keyframe's" if late else "stamp seen before"

    def _match(self, query: Keyframe, memory: PlaceMemory) -> PlaceMatches:
        searched = self._searched(query, memory)
        found = self._search.match(query.descriptor, query.odometry, searched)
        candidates, explanation = self._candidates(found, searched, memory)
        return PlaceMatches(
            query_id=query.id,
            query_session=query.session,
            query_stamp_ns=query.stamp_ns,
            candidates=candidates,
            searched=searched,
            explanation=explanation,
        )

    def _searched(self, query: Keyframe, memory: PlaceMemory) -> int:
        """How many places, from the first, are not merely where the robot has just been."""
        sessions = memory.column("sessions")
        own = int(np.searchsorted(sessions, query.session))
        newest_ns = query.stamp_ns - int(self._config.exclude_recent_time * 1e9)
        old_enough = int(np.searchsorted(memory.column("stamps_ns")[own:], newest_ns, "right"))
        far_enough = len(memory) - own - self._config.exclude_recent_keyframes
        return own + max(0, min(old_enough, far_enough))

    def _candidates(
        self, found: ScoredPlaces, searched: int, memory: PlaceMemory
    ) -> tuple[tuple[PlaceMatch, ...], str]:
        if searched == 0:
            return (), "no loop: no place is old enough to be searched"
        best = distinct_maxima(
            found.scores, self._config.top_k, self._config.candidate_separation, found.places
        )
        probabilities = self._probability(found.scores[best])
        threshold = self._config.min_probability
        source = MatchSource.SEQUENCE if self._search.frames > 1 else MatchSource.SINGLE
        candidates = tuple(
            PlaceMatch(
                reference_id=int(memory.column("ids")[place]),
                reference_session=int(memory.column("sessions")[place]),
                reference_stamp_ns=int(memory.column("stamps_ns")[place]),
                distance=float(np.clip(1.0 - similarity, 0.0, 2.0)),
                sequence_score=float(score),
                probability=float(probability),
                source=source,
            )
            for place, similarity, score, probability in zip(
                found.places[best],
                found.similarities[best],
                found.scores[best],
                probabilities,
                strict=True,
            )
            if probability >= threshold
        )
        if candidates:
            return candidates, ""
        return (), (
            f"no loop: best candidate {probabilities[0]:.2f} < {threshold:.2f}, "
            f"{searched} places searched"
        )


def distinct_maxima(
    scores: NDArray[np.float32], count: int, separation: int, places: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the highest scores, best first, of places at least ``separation`` apart.

    Args:
        places: (N,) ascending; what each score belongs to.
    """
    remaining = scores.copy()
    found: list[int] = []
    while len(found) < count:
        best = int(remaining.argmax())
        if remaining[best] == -np.inf:
            break
        found.append(best)
        around = (places[best] - separation + 1, places[best] + separation)
        first, last = np.searchsorted(places, around)
        remaining[first:last] = -np.inf
    return np.asarray(found, np.int64)
