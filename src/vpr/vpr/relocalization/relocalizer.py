"""Relocalization by a graph of scene embeddings: keyframes in, place matches out (S3E-GNN)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vpr.config import RelocalizationConfig
from vpr.maps.folder import Part, PartDigest, PartWriter
from vpr.places.growable import GrowableArray
from vpr.places.maxima import distinct_maxima
from vpr.places.probability import StandoutProbability
from vpr.places.recent import older_places
from vpr.places.sequence import normalised_row
from vpr.records import Image, Keyframe, MatchSource, PlaceMatch, PlaceMatches
from vpr.relocalization.model import S3eModel
from vpr.relocalization.reference_graph import ReferenceGraph, ReferenceGraphError
from vpr.relocalization.storage import StoredScenes, save_scenes
from vpr.verification.pose_prior import PosePrior

EMBEDDED = "embedded"  # the shipped model
PRIOR_POOL = 4  # times as many candidates are looked at where a guess says which come first


class RelocalizerError(ValueError):
    """A relocalizer that cannot be made of its configuration; says what to do."""


class Relocalizer:
    """Keeps the reference graph of a drive or a map and says which keyframes an image looks like.

    Attributes:
        graph: scene embeddings of the keyframes, tied by odometry and by the map's closures.
        prior: guesses of where the camera is; they change which candidates come first, and no
            more.
        model: that of the configuration, unless one was given.
        remark: what of a loaded map cannot be relocalized in, in words; empty where all can.

    Raises:
        RelocalizerError: no model is named. WeightsError: it cannot be read.
    """

    def __init__(self, config: RelocalizationConfig, model: S3eModel | None = None) -> None:
        if model is None and not config.s3e_model:
            raise RelocalizerError(
                "gnn_relocalization.s3e_model names no model: make one by vpr train s3e and vpr "
                "train gnn, or take the shipped one by 'embedded'"
            )
        if config.threads > 0:
            torch.set_num_threads(config.threads)
        self.config = config
        self.model = model or _model(config.s3e_model)
        self.model.warm_up()
        self.prior = PosePrior(config.pose_prior_sigmas, config.same_place_translation)
        self.remark = ""
        self._probability = StandoutProbability(config)
        self._begin(ReferenceGraph(self.model.graph))

    def __len__(self) -> int:
        return len(self.graph)

    def __contains__(self, keyframe_id: int) -> bool:
        return keyframe_id in self.graph

    def observe(self, keyframe: Keyframe, image: Image) -> PlaceMatches:
        """Add a keyframe to the graph and say which earlier places its sub-graph looks like.

        The keyframe is matched together with those before it in its session.

        Raises:
            PatchError: an image that says nothing, as a blank one; it does not enter the graph.
            ReferenceGraphError: a keyframe that is known, or older than the newest.
        """
        if len(self) and keyframe.id <= int(self.graph.ids[-1]):
            raise ReferenceGraphError(
                f"keyframe {keyframe.id} comes after keyframe {self.graph.ids[-1]}"
            )
        embedding = self.model.embed([image])[0]
        chain = np.concatenate([self._chain(keyframe.session), embedding[None]])
        threshold = self.config.min_probability
        matches = self._matches(keyframe, chain, self._present(keyframe), threshold)
        goes_on = len(self) and int(self._sessions.rows[-1]) == keyframe.session
        self.graph.add(keyframe.id, embedding, int(self.graph.ids[-1]) if goes_on else None)
        self._sessions.append(keyframe.session)
        self._stamps_ns.append(keyframe.stamp_ns)
        return matches

    def locate(self, image: Image, stamp_ns: int, follows_camera: bool = False) -> PlaceMatches:
        """Which keyframes with a place in the map an image looks like that is no keyframe itself.

        The best ones are told however improbable they are: somebody asks for an answer.

        Args:
            follows_camera: the image was taken after the newest keyframe: the last ones are its
                sub-graph, and are not candidates. What the image alone looks like comes behind
                that, for a robot that was carried since.

        Raises:
            PatchError: an image that says nothing, as a blank one.
        """
        embedding = self.model.embed([image])
        allowed = np.isin(self.graph.ids, self._anchored)
        session = int(self._sessions.rows[-1]) if len(self) else 0
        query = Keyframe(0, session, stamp_ns, np.zeros(0, np.float32), "")
        if not follows_camera:
            return self._matches(query, embedding, allowed)
        allowed &= self._present(query)
        chain = np.concatenate([self._chain(session), embedding])
        return _joined(
            self._matches(query, chain, allowed), self._matches(query, embedding, allowed)
        )

    def map_is(
        self,
        keyframes: Iterable[int],
        anchored: Iterable[int],
        closures: Iterable[tuple[int, int]],
    ) -> None:
        """Learn which keyframes the pose graph has, which have a place in the map, and its loops.

        Keyframes that the pose graph has no more, as of a deleted session, are no candidates.
        """
        present = np.fromiter(keyframes, np.int64)
        self._anchored = np.fromiter(anchored, np.int64)
        older = self.graph.ids <= (present.max() if len(present) else -1)
        gone = older & ~np.isin(self.graph.ids, present)
        self._gone = np.asarray(self.graph.ids[gone], np.int64)
        self.graph.set_loops(closures)

    def save(self, writer: PartWriter) -> PartDigest:
        """Write what a map does not have yet of the embeddings.

        Raises:
            PartOutdated: rows that the map has are gone here. MapError: it can't be written.
        """
        kept = ~np.isin(self.graph.ids, self._gone)
        scenes = StoredScenes(
            self.graph.ids[kept],
            self._sessions.rows[kept],
            self._stamps_ns.rows[kept],
            self.graph.embeddings[kept],
        )
        return save_scenes(writer, scenes, self.model.name)

    def load(self, part: Part) -> None:
        """Replace the graph by that of a map; its loops come with the pose graph.

        A map whose embeddings are of another model gives an empty graph, and ``remark`` says so.

        Raises:
            SceneStateError, MapError: the map is damaged; nothing is changed then.
        """
        made_by = part.metadata.get("model")
        if part.tables and made_by != self.model.name:
            self.forget(
                f"the map's scene embeddings are of {made_by}, not of {self.model.name}: drive it "
                "again with this model, or configure that one"
            )
            return
        graph = ReferenceGraph(self.model.graph)
        scenes = StoredScenes.of_map(part) if part.tables else None
        if scenes is not None:
            graph.extend(scenes.ids.tolist(), scenes.embeddings, scenes.beside())
        self._begin(graph)
        if scenes is not None:
            self._sessions.extend(scenes.sessions)
            self._stamps_ns.extend(scenes.stamps_ns)

    def forget(self, remark: str) -> None:
        """Begin with an empty graph; ``remark`` says why the map at hand gave none."""
        self._begin(ReferenceGraph(self.model.graph))
        self.remark = remark

    def _begin(self, graph: ReferenceGraph) -> None:
        self.graph = graph
        self.remark = ""
        self._sessions: GrowableArray[np.int64] = GrowableArray((), np.int64)
        self._stamps_ns: GrowableArray[np.int64] = GrowableArray((), np.int64)
        self._anchored = np.empty(0, np.int64)
        self._gone = np.empty(0, np.int64)

    def _chain(self, session: int) -> NDArray[np.float32]:
        """(M, D) embeddings of the newest keyframes, those of a session that a query goes on."""
        first = int(np.searchsorted(self._sessions.rows, session))
        first = max(first, len(self) - self.config.query_length + 1)
        return self.graph.embeddings[first:]

    def _present(self, query: Keyframe) -> NDArray[np.bool_]:
        """(N,) nodes that are not where the robot has just been, nor gone from the map."""
        older = older_places(query, self._sessions.rows, self._stamps_ns.rows, self.config)
        result = np.arange(len(self)) < older
        if len(self._gone):
            result &= ~np.isin(self.graph.ids, self._gone)
        return result

    def _matches(
        self,
        query: Keyframe,
        chain: NDArray[np.float32],
        allowed: NDArray[np.bool_],
        threshold: float = 0.0,
    ) -> PlaceMatches:
        rows = np.flatnonzero(allowed)
        candidates: tuple[PlaceMatch, ...] = ()
        explanation = f"no loop: of {len(self)} places none can be searched"
        if len(rows):
            candidates, explanation = self._candidates(chain, rows, threshold)
        if self.remark:
            explanation += f"; {self.remark}"
        matches = PlaceMatches(
            query.id, query.session, query.stamp_ns, candidates, len(rows), explanation
        )
        return self._shortened(matches)

    def _candidates(
        self, chain: NDArray[np.float32], rows: NDArray[np.intp], threshold: float
    ) -> tuple[tuple[PlaceMatch, ...], str]:
        similarities = self.graph.similarities(chain)[rows]
        scores = normalised_row(similarities, len(rows), self.config.prior_places)
        count = self.config.top_k * (PRIOR_POOL if self.config.pose_prior_used else 1)
        best = distinct_maxima(scores, count, self.config.candidate_separation, rows)
        probabilities = self._probability(scores[best])
        likely = self._probability.as_best(scores[best]) >= threshold
        cosines = self.graph.embeddings[rows[best]] @ chain[-1]
        candidates = tuple(
            PlaceMatch(
                reference_id=int(self.graph.ids[row]),
                reference_session=int(self._sessions.rows[row]),
                reference_stamp_ns=int(self._stamps_ns.rows[row]),
                distance=float(np.clip(1.0 - cosine, 0.0, 2.0)),
                sequence_score=float(score),
                probability=float(probability),
                source=MatchSource.GNN,
            )
            for row, cosine, score, probability in zip(
                rows[best][likely], cosines[likely], scores[best][likely], probabilities[likely],
                strict=True,
            )
        )  # fmt: skip
        if candidates:
            return candidates, ""
        return (), (
            f"no loop: best candidate {probabilities[0]:.2f} < {threshold:.2f}, "
            f"{len(rows)} places searched"
        )

    def _shortened(self, matches: PlaceMatches) -> PlaceMatches:
        """At most ``top_k`` candidates, the most similar one among them whatever the guess."""
        if not matches.candidates:
            return matches
        ordered = self.prior.ordered(matches).candidates
        kept, best = ordered[: self.config.top_k], matches.candidates[0]
        return _of(matches, kept if best in kept else (*kept[:-1], best))


def _model(given: str) -> S3eModel:
    return S3eModel.load() if given == EMBEDDED else S3eModel.load(Path(given))


def _of(matches: PlaceMatches, candidates: tuple[PlaceMatch, ...]) -> PlaceMatches:
    return PlaceMatches(
        matches.query_id,
        matches.query_session,
        matches.query_stamp_ns,
        candidates,
        matches.searched,
        "" if candidates else matches.explanation,
    )


def _joined(first: PlaceMatches, second: PlaceMatches) -> PlaceMatches:
    """Candidates of both, those of the first before the second's others."""
    known = {match.reference_id for match in first.candidates}
    others = (match for match in second.candidates if match.reference_id not in known)
    return _of(first, (*first.candidates, *others))
