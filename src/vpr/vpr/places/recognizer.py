"""Place recognition over a drive: descriptors in, keyframes and place matches out."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.geometry import relative, translation_norm
from vpr.maps.folder import Part, PartDigest, PartWriter
from vpr.places import descriptors, lines, maxima, sequence
from vpr.places.keyframes import KeyframeSelector
from vpr.places.maxima import distinct_maxima
from vpr.places.memory import ChosenPlaces, PlaceMemory, StateError
from vpr.places.methods import make_method
from vpr.places.probability import StandoutProbability
from vpr.places.recent import older_places
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

if TYPE_CHECKING:  # without PyTorch, which costs 200 MB, unless there is a model to adopt
    from vpr.models.calibration import Calibration
    from vpr.models.descriptor_model import DescriptorModel

UNIT_LENGTH_TOLERANCE = 1e-2
STEPS = 20  # last ones between keyframes, whose median is the spacing


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
        for module in (descriptors, lines, maxima, sequence):
            module.load_kernels()
        self._config = config
        self._selector = KeyframeSelector(config)
        self._method = make_method(config)
        self._search: PlaceSearch | None = None
        self._probability = StandoutProbability(config)
        self._trained: DescriptorModel | None = None
        self._memory: PlaceMemory | None = None
        self._session = 0
        self._last_stamp_ns: int | None = None
        self._last_located: tuple[int, Pose] | None = None  # newest frame with odometry
        self._last_kept: Pose | None = None  # of the newest keyframe
        self._steps: deque[float] = deque(maxlen=STEPS)  # m between keyframes
        self.session_reason = ""  # why the session began, in words

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

        A stamp that goes back by more than ``time_jump_tolerance`` begins a new session, and so
        does odometry faster than ``odometry_max_speed``: the robot was carried, or its odometry
        began anew.

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
        descriptor, model = self._brought_forward(descriptor, model)
        memory = self._memory_for(descriptor, model)
        self._note_jump(stamp_ns, odometry)
        skipped = self._out_of_order(stamp_ns) or self._selector.reason_to_skip(
            stamp_ns, odometry, descriptor
        )
        if skipped:
            return Observation(None, None, skipped)
        search = self._search_in(memory)
        self._memory = memory
        self._last_stamp_ns = stamp_ns
        self._selector.keep(stamp_ns, odometry, descriptor)
        self._note_step(odometry)
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
        matches = self.match(keyframe, memory)
        memory.append(keyframe)
        search.append()
        return Observation(keyframe, matches, "")

    def adopt(self, trained: DescriptorModel) -> int:
        """Go on with a trained model: remembered places are described by it from now on.

        Descriptors that still come from a model it was built on are brought forward as they come.
        Where it is calibrated, matches get its probabilities: those of sequences where it was
        calibrated for such sequences, of as many frames as far apart. Where keyframes are denser
        than that and no ``alignment_step`` is configured, sequences are compared in steps of it.

        Returns:
            how many places were brought forward.

        Raises:
            DescriptorModelError: the places are of a model it was not built on, or its trunk was
                trained as well, which needs their images; nothing is changed then.
            MapError: the map that the places are read from is damaged; nothing is changed then.
        """
        before = self._memory
        if before is not None:
            memory = _described_by(trained, before)
            matching = _aligned(self._config, trained, memory.model)
            self._search = PlaceSearch(matching, self._method, memory)
            self._memory = memory
        self._trained = trained
        return 0 if before is None or self._memory is before else len(before)

    def begin_session(self, reason: str = "") -> int:
        """Close the session; what comes next is matched against all of it. Returns the new number.

        A session without a keyframe is not closed: it would leave no trace.
        """
        if self._memory is not None and len(self._memory):
            self._session = int(self._memory.column("sessions")[-1]) + 1
        if self._search is not None:
            self._search.begin_session()
        self._selector.forget()
        self._last_stamp_ns = None
        self._last_located = None
        self._last_kept = None
        self.session_reason = reason
        return self._session

    def settle(self) -> None:
        """Wait for what is prepared in the background, so that the same drive gives the same.

        Without it the first frames in a large map may be compared with every place, later ones not.

        Raises:
            MapError: the map that the places are read from is damaged.
        """
        if self._search is not None:
            self._search.settle(self.places)

    def forget_session(self, session: int) -> None:
        """Match nothing with an earlier session any more.

        Raises:
            StateError: there is no such session, or it is the one being driven.
        """
        if self._memory is None:
            raise StateError(f"no places of session {session} are remembered (only of none)")
        if session == self._session:
            raise StateError(f"session {session} is being driven: begin another one first")
        self._memory.forget(session)

    def match(self, query: Keyframe, places: PlaceMemory | ChosenPlaces) -> PlaceMatches:
        """Which of some places a keyframe looks like, after those that were asked for before it.

        Raises:
            MapError: the map that the places are read from is damaged.
            WeightsError: the method's transform is of another model than the places.
        """
        searched = self._searched(query, places)
        found = self._search_in(places).match(query.descriptor, query.odometry, searched)
        candidates, explanation = self._candidates(query, found, searched, places)
        return PlaceMatches(
            query_id=query.id,
            query_session=query.session,
            query_stamp_ns=query.stamp_ns,
            candidates=candidates,
            searched=searched,
            explanation=explanation,
        )

    def save(self, writer: PartWriter) -> PartDigest:
        """Write what a map does not have yet of the remembered places.

        Raises:
            StateError, MapError: it is the map of other places, or can't be written.
        """
        metadata = {} if self._memory is None else self._memory.save(writer)
        return writer.finish(self.places, metadata)

    def load(self, part: Part) -> None:
        """Replace everything remembered by the places of a map and begin a new session after it.

        Places of a model that the adopted one was built on are brought forward to it.

        Raises:
            StateError, MapError, DescriptorModelError: the map is damaged, contradicts itself or
                does not fit the adopted model; nothing is changed then.
        """
        memory = PlaceMemory.of_map(part) if part.tables else None
        trained = self._trained
        if memory is not None and trained is not None and memory.model in trained.names:
            memory = _described_by(trained, memory)
        if memory is not None:
            self._search_in(memory)
        self._memory = memory
        self._session = 0
        self.begin_session()

    def _search_in(self, places: PlaceMemory | ChosenPlaces) -> PlaceSearch:
        """The search that goes on in these places; another's window is forgotten."""
        if self._search is None or self._search.places is not places:
            matching = _aligned(self._config, self._trained, places.model)
            self._search = PlaceSearch(matching, self._method, places)
        return self._search

    def _brought_forward(
        self, descriptor: NDArray[np.float32], model: str
    ) -> tuple[NDArray[np.float32], str]:
        """A descriptor as the adopted model would have made it, if it was built on its model."""
        trained = self._trained
        if trained is None or model == trained.name or model not in trained.names:
            return descriptor, model
        if descriptor.ndim != 1:
            raise DescriptorError(f"a descriptor is a vector, not an array {descriptor.shape}")
        return trained.forward_from(model, descriptor[None])[0], trained.name

    def _memory_for(self, descriptor: NDArray[np.float32], model: str) -> PlaceMemory:
        if descriptor.ndim != 1 or descriptor.size == 0:
            raise DescriptorError(f"a descriptor is a vector, not an array {descriptor.shape}")
        length = math.sqrt(float(descriptor @ descriptor))
        if not math.isfinite(length):
            raise DescriptorError("descriptor has a value that is not finite")
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

    def _note_jump(self, stamp_ns: int, odometry: Pose | None) -> None:
        """Begin a new session when odometry moved faster than a robot can."""
        if odometry is None:
            return
        if self._last_located is not None:
            then_ns, before = self._last_located
            seconds, metres = (
                (stamp_ns - then_ns) / 1e9,
                translation_norm(relative(before, odometry)),
            )
            if seconds > 0 and metres > self._config.odometry_max_speed * seconds:
                self.begin_session(f"odometry jumped {metres:.1f} m in {seconds:.2f} s")
        self._last_located = stamp_ns, odometry

    def _note_step(self, odometry: Pose | None) -> None:
        """How far a keyframe is from the one before it."""
        if odometry is None:
            self._steps.clear()
        elif self._last_kept is not None:
            self._steps.append(translation_norm(relative(self._last_kept, odometry)))
        self._last_kept = odometry

    def _out_of_order(self, stamp_ns: int) -> str:
        """Why a frame is too late to be used; begins a new session when time jumped back."""
        if self._last_stamp_ns is None or stamp_ns > self._last_stamp_ns:
            return ""
        late = (self._last_stamp_ns - stamp_ns) / 1e9
        if late > self._config.time_jump_tolerance:
            self.begin_session(f"time jumped back {late:.1f} s")
            return ""
        return f"stamp is {late:.3f} s before the last keyframe's" if late else "stamp seen before"

    def _searched(self, query: Keyframe, memory: PlaceMemory | ChosenPlaces) -> int:
        """How many places, from the first, are not merely where the robot has just been."""
        sessions, stamps_ns = memory.column("sessions"), memory.column("stamps_ns")
        return older_places(query, sessions, stamps_ns, self._config)

    def _candidates(
        self,
        query: Keyframe,
        found: ScoredPlaces,
        searched: int,
        memory: PlaceMemory | ChosenPlaces,
    ) -> tuple[tuple[PlaceMatch, ...], str]:
        if searched == 0:
            return (), "no loop: no place is old enough to be searched"
        best = distinct_maxima(
            found.scores, self._config.top_k, self._config.candidate_separation, found.steps
        )
        if len(best) == 0:
            return (), "no loop: the sessions that could be searched are forgotten"
        probabilities, as_best = self._probabilities(query, found, best, memory)
        threshold = self._config.min_probability
        kept = as_best >= threshold
        if not kept.any():
            return (), (
                f"no loop: best candidate {probabilities[0]:.2f} < {threshold:.2f}, "
                f"{searched} places searched"
            )
        return _matches(found, best[kept], probabilities[kept], memory), ""

    def _probabilities(
        self,
        query: Keyframe,
        found: ScoredPlaces,
        best: NDArray[np.int64],
        memory: PlaceMemory | ChosenPlaces,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of each candidate: that it is right, and that it were, had it been the best one."""
        calibration = self._calibration(memory.model)
        if calibration is None:
            scores = found.scores[best]
            return self._probability(scores), self._probability.as_best(scores)
        distances = self._distances(found, best)
        impostors = self._impostor_distances(query, found.places[best], memory)
        choice = max(found.searched, 1)  # a first step may not be passed yet
        return (
            calibration(distances, impostors, choice),
            calibration.as_best(distances, impostors, choice),
        )

    def _calibration(self, model: str) -> Calibration | None:
        """What the adopted model knows about such matches, where it made the descriptors."""
        trained = self._trained
        if trained is None or trained.name != model:
            return None
        if not self._in_sequences:
            return trained.calibration
        own = trained.sequence_calibration
        config, spacing = self._config, self._spacing(model)
        if own is None or not own.holds_for(config.method, config.sequence_length, spacing):
            return None
        return own

    @property
    def _in_sequences(self) -> bool:
        return self._config.sequence_length > 1

    def _spacing(self, model: str) -> float | None:
        """Metres between two frames that are compared; None without odometry."""
        if not self._steps:
            return None
        step = _aligned(self._config, self._trained, model).alignment_step
        return step if step > 0.0 else float(np.median(self._steps))

    def _distances(self, found: ScoredPlaces, best: NDArray[np.int64]) -> NDArray[np.float64]:
        """What a calibration reads: L2 distances, or sequence scores with the sign turned."""
        if self._in_sequences:
            return -found.scores[best].astype(np.float64)
        squared = 2.0 - 2.0 * found.similarities[best].astype(np.float64)
        return np.asarray(np.sqrt(np.maximum(squared, 0.0)))

    def _impostor_distances(
        self, query: Keyframe, places: NDArray[np.int64], memory: PlaceMemory | ChosenPlaces
    ) -> NDArray[np.float64]:
        """How near others come to both views, on average, of each candidate."""
        trained = self._trained
        assert trained is not None  # who asks has its calibration
        views = np.concatenate([query.descriptor[None], memory.descriptors(places)])
        distances = trained.impostor_distances(views)
        return np.asarray((distances[0] + distances[1:]) / 2.0)


def _matches(
    found: ScoredPlaces,
    chosen: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    memory: PlaceMemory | ChosenPlaces,
) -> tuple[PlaceMatch, ...]:
    """The chosen ones of the scored places as matches."""
    source = MatchSource.SEQUENCE if found.frames > 1 else MatchSource.SINGLE
    places = found.places[chosen]
    rows = zip(
        *(memory.column(name)[places].tolist() for name in ("ids", "sessions", "stamps_ns")),
        *(values[chosen].tolist() for values in (found.similarities, found.scores)),
        probabilities.tolist(),
        strict=True,
    )
    return tuple(
        PlaceMatch(
            reference_id=reference,
            reference_session=session,
            reference_stamp_ns=stamp_ns,
            distance=min(max(1.0 - similarity, 0.0), 2.0),
            sequence_score=score,
            probability=probability,
            source=source,
        )
        for reference, session, stamp_ns, similarity, score, probability in rows
    )


def _aligned(
    config: SequenceMatchingConfig, trained: DescriptorModel | None, model: str
) -> SequenceMatchingConfig:
    """How sequences of a model's descriptors are compared, so that its calibration holds."""
    own = trained.sequence_calibration if trained is not None and trained.name == model else None
    if own is None or config.alignment_step > 0.0:
        return config
    holds = partial(own.holds_for, config.method, config.sequence_length)
    keyframes = config.keyframe_translation
    if not holds(own.spacing) or holds(keyframes) or keyframes > own.spacing:
        return config
    return config.model_copy(update={"alignment_step": own.spacing})


def _described_by(trained: DescriptorModel, memory: PlaceMemory) -> PlaceMemory:
    """The same places with descriptors of a trained model."""
    if memory.model == trained.name:
        return memory
    return memory.described_by(
        trained.name, lambda descriptors: trained.forward_from(memory.model, descriptors)
    )
