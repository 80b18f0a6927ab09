"""All figures of ``vpr eval s3e`` on one sequence, each row kept on disk as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpr.config import RelocalizationConfig
from vpr.evaluation.kept_rows import KeptRows
from vpr.evaluation.overlap_pictures import draw_prediction
from vpr.evaluation.relocalization import (
    Row,
    in_laps,
    judged_candidates,
    map_and_queries,
    map_rows,
    relocalization_row,
    similarity_row,
)
from vpr.evaluation.relocalization_loops import LoopDrives, loop_methods
from vpr.evaluation.view_search import (
    Search,
    Seen,
    asked_once,
    by_encoder,
    by_graph,
    by_place_descriptor,
    seen_by,
)
from vpr.evaluation.view_verification import ViewVerifier
from vpr.evaluation.virtual_localization import by_virtual_views, expected, probability_row
from vpr.models.weights import weights_fingerprint
from vpr.relocalization.known_overlap import passed_on
from vpr.relocalization.model import S3eModel
from vpr.relocalization.relocalizer import Relocalizer
from vpr.relocalization.reprojection import mutual, similarity_matrix
from vpr.relocalization.rgbd import RgbdSequence, load_rgbd

SEQUENCES = "vpr descriptor, sequences"
VIRTUAL = ", virtual views"
MAP_ONLY = (SEQUENCES, VIRTUAL)  # methods that look for later laps in the first one only


class JudgedModels:
    """The models to compare, each by what it is called in tables.

    Args:
        graphs: judge their graph networks too.

    Raises:
        ValueError: two of the same kind and patch size, which tables could not tell apart.
    """

    def __init__(self, models: Sequence[S3eModel], graphs: bool = True) -> None:
        self.graphs = graphs
        self.by_name = {f"{model.kind} {model.patches.patch_size}": model for model in models}
        if len(self.by_name) < len(models):
            raise ValueError("two models have the same encoder and patch size: judge them apart")
        self.seen: dict[str, Seen] = {name: seen_by(m) for name, m in self.by_name.items()}

    def fingerprint(self, name: str) -> str:
        """Short hash of all of a model's weights."""
        model = self.by_name[name]
        networks = (model.encoder, model.scale, model.appearance, model.graph)
        return "".join(weights_fingerprint(network).hex()[:4] for network in networks)


class JudgedSequence:
    """A sequence that the models did not learn from; nothing is measured that is kept already.

    Args:
        words: the vocabulary's search, and what it learnt from.

    Raises:
        RgbdError, KeptRowsError, from all that measures.
    """

    def __init__(
        self,
        folder: Path,
        stride: int,
        models: JudgedModels,
        words: Mapping[str, Search],
        settings: Mapping[str, object],
        out: Path,
    ) -> None:
        self.name = folder.resolve().name
        self._folder, self._stride, self._models, self._out = folder, stride, models, out
        self._settings = {**settings, "stride": stride}
        self._of_model: dict[str, str] = {}  # methods that depend on one, with its fingerprint
        self._searches = {**words, SEQUENCES: by_place_descriptor()}
        for name, model in models.by_name.items():
            seen, mark = models.seen[name], models.fingerprint(name)
            found = {f"S3E {name}": by_encoder(model, seen)}
            if models.graphs:
                found[f"S3E-GNN {name}"] = by_graph(model, seen)
            if model.appearance.fitted:
                found[f"S3E {name}{VIRTUAL}"] = by_virtual_views(model, seen)
            self._searches |= found
            self._of_model |= dict.fromkeys(found, mark)
        self._searches = {name: asked_once(search) for name, search in self._searches.items()}

    @cached_property
    def _sequence(self) -> RgbdSequence:
        return in_laps(load_rgbd(self._folder, self._stride))

    @cached_property
    def _truth(self) -> NDArray[np.float32]:
        return mutual(similarity_matrix(self._sequence, self._sequence))

    @cached_property
    def _verify(self) -> ViewVerifier:
        return ViewVerifier(self._sequence)

    @cached_property
    def _drives(self) -> LoopDrives:
        return LoopDrives(self._sequence, self._searches, self._verify)

    def similarity(self) -> list[Row]:
        """Errors of predicted similarities by every model."""
        kept = self._kept("similarity")
        rows: list[Row] = []
        for name in self._models.by_name:
            rows += kept.row(self._of(name), partial(self._similarity, name))["rows"]
        return rows

    def probability(self) -> list[Row]:
        """How far the probabilities of virtual views can be believed."""
        kept = self._kept("probability")
        fitted = [name for name, m in self._models.by_name.items() if m.appearance.fitted]
        return [kept.row(self._of(name), partial(self._probability, name)) for name in fitted]

    def candidates(self) -> list[Row]:
        """Every candidate of the first model's relocalizer, judged; see ``JudgedCandidates``."""
        name, model = next(iter(self._models.by_name.items()))
        kept = self._kept("candidates").row(self._of(name), partial(self._candidates, model))
        rows: list[Row] = kept["rows"]
        return rows

    def relocalization(self) -> list[Row]:
        """A row a method."""
        kept = self._kept("relocalization")
        return [kept.row(self._key(name), partial(self._lost, name)) for name in self._searches]

    def loops(self, seeds: int) -> Iterator[Row]:
        """A row a method and seed, seed by seed."""
        kept = self._kept("ate")
        for seed in range(seeds):
            for method in self._loop_methods():
                key = f"{self._key(method)}, seed {seed}"
                yield kept.row(key, partial(self._driven, method, seed))

    def drives(self, seeds: int) -> int:
        """How many rows ``loops`` has."""
        return seeds * len(self._loop_methods())

    def _loop_methods(self) -> list[str]:
        return loop_methods(name for name in self._searches if not name.endswith(MAP_ONLY))

    def _kept(self, part: str) -> KeptRows:
        return KeptRows(self._out / part / f"{self.name}.json", self._settings)

    def _of(self, name: str) -> str:
        return f"{name} {self._models.fingerprint(name)}"

    def _key(self, method: str) -> str:
        mark = self._of_model.get(method.partition(", views")[0], "")
        return f"{method} {mark}".strip()

    def _driven(self, method: str, seed: int) -> Row:
        return self._drives.row(method, seed)

    def _lost(self, method: str) -> Row:
        search = self._searches[method]
        return relocalization_row(self._sequence, method, search, self._truth, self._verify)

    def _candidates(self, model: S3eModel) -> Row:
        empty = Relocalizer(RelocalizationConfig.from_file(), model)
        return {"rows": judged_candidates(self._sequence, empty, self._truth).to_json()}

    def _probability(self, name: str) -> Row:
        found = expected(self._models.by_name[name], self._models.seen[name], self._sequence)
        return {"model": name} | probability_row(self._sequence, found, self._truth)

    def _similarity(self, name: str) -> Row:
        """With a picture of what the encoder predicts, and what is predicted of the map."""
        model, seen, sequence = self._models.by_name[name], self._models.seen[name], self._sequence
        truth = self._truth
        alike = by_encoder(model, seen)(sequence)
        predicted = np.asarray(model.scale(alike), np.float32)
        references, queries = map_and_queries(sequence)
        pairs = np.ix_(queries, references)
        known = truth[np.ix_(references, references)]  # of the map's own poses and depth
        on_map = {
            "encoder": predicted[pairs],
            "encoder, passed on": passed_on(alike[pairs], known),
        }
        rows = [similarity_row(sequence, "all, encoder", predicted, truth)]
        self._draw(name, "encoder", predicted)
        if model.appearance.fitted:
            found = expected(model, seen, sequence)
            on_map["virtual views"] = found.overlaps
            whole = predicted.copy()
            whole[np.ix_(references, references)] = known
            whole[np.ix_(queries, queries)] = found.among
            whole[pairs], whole[np.ix_(references, queries)] = found.overlaps, found.overlaps.T
            left = "all but the map's own, virtual views"
            rows.append(similarity_row(sequence, left, whole, truth, references))
            self._draw(name, "virtual views", whole)
        rows += map_rows(sequence, on_map, truth)
        return {"rows": [{"model": name} | row for row in rows]}

    def _draw(self, name: str, kind: str, predicted: NDArray[np.float32]) -> None:
        words = f"similarity {self.name} {name} {kind}".split()
        file = self._out / f"{'_'.join(words)}.png"
        draw_prediction(file, self._truth, predicted, self._sequence.laps)
