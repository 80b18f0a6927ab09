"""Sessions of a map that were never tied to it: their places looked for again, as while driving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vpr.config import LoopClosureConfig, PoseGraphConfig, SequenceMatchingConfig
from vpr.graph.pose_graph import PoseGraph
from vpr.graph.sessions import summaries
from vpr.graph.storage import load_graph
from vpr.maps.folder import open_part
from vpr.maps.sessions import replace_graph
from vpr.places.memory import ChosenPlaces, PlaceMemory
from vpr.places.recognizer import PlaceRecognizer
from vpr.records import ClosureState, Keyframe, LoopClosure
from vpr.verification.loop_closer import LoopCloser


@dataclass(frozen=True)
class Anchoring:
    """What came of a search: closures that the graph took, and who is still without a place."""

    closures: int
    anchored: tuple[int, ...]
    waiting: tuple[int, ...]


class MapMatcher:
    """Walks through saved sessions once more and looks for them among those that are anchored.

    Args:
        params_file: parameters laid over the shipped ones.
        progress: called with (keyframes done, keyframes of the session, session).

    Raises:
        MapError, StateError, FeatureStateError, PoseGraphError: the map is damaged.
    """

    def __init__(
        self,
        folder: Path,
        params_file: Path | None = None,
        progress: Callable[[int, int, int], None] = lambda done, count, session: None,
    ) -> None:
        self._folder, self._progress = folder, progress
        self._matching = SequenceMatchingConfig.from_file(params_file)
        self._places = PlaceMemory.of_map(open_part(folder, "places"))
        self._closer = LoopCloser(LoopClosureConfig.from_file(params_file))
        self._closer.load(open_part(folder, "features"))
        config = PoseGraphConfig.from_file(params_file)
        self.graph = PoseGraph.restore(config, load_graph(open_part(folder, "graph")))

    def anchor(self) -> Anchoring:
        """Find a place for every session that has none, as far as the map allows, and save it.

        A session that found its place helps the others to find theirs.
        """
        before = set(self._waiting())
        waiting, closures = before, 0
        progressed = True
        while progressed:
            for session in sorted(waiting):
                if not self.graph.anchored(session):
                    closures += self._search(session)
            left = set(self._waiting())
            waiting, progressed = left, left < waiting
        if closures:
            self.graph.settle()
            replace_graph(self._folder, self.graph.state())
        return Anchoring(closures, tuple(sorted(before - waiting)), tuple(sorted(waiting)))

    def _waiting(self) -> list[int]:
        return [s.session for s in summaries(self.graph.state()) if not s.anchored]

    def _search(self, session: int) -> int:
        """Closures of one session to the anchored ones that the graph takes."""
        sessions = self._places.column("sessions")
        known = [s for s in np.unique(sessions).tolist() if self.graph.anchored(s)]
        chosen = ChosenPlaces(self._places, np.flatnonzero(np.isin(sessions, known)))
        recognizer = PlaceRecognizer(self._matching)
        rows = np.flatnonzero(sessions == session)
        taken = 0
        for done, row in enumerate(rows.tolist(), start=1):
            # numbered as if it were driven now: only then are all others its past
            query = self._keyframe(row, session=int(sessions[-1]) + 1)
            matches = recognizer.match(query, chosen)
            verdicts = self._closer.verify(replace(matches, query_session=session))
            taken += self._take(verdicts)
            self._progress(done, len(rows), session)
        return taken + self._take(self._closer.flush())

    def _keyframe(self, row: int, session: int) -> Keyframe:
        return Keyframe(
            id=int(self._places.column("ids")[row]),
            session=session,
            stamp_ns=int(self._places.column("stamps_ns")[row]),
            descriptor=self._places.descriptor(row),
            model=self._places.model,
        )

    def _take(self, closures: list[LoopClosure]) -> int:
        before = self.graph.counters["closures"]  # one verdict can let in closures that waited
        for closure in closures:
            if closure.state is ClosureState.VERIFIED:
                self.graph.add_closure(closure)
        return self.graph.counters["closures"] - before
