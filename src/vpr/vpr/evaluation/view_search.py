"""Ways to find the view of a place again: each gives similarities of all views of a sequence.

Row i of a matrix (N, N) is view i as the query, asked with what its own lap showed before it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vpr.config import EmbeddingConfig, SequenceMatchingConfig
from vpr.evaluation.bag_of_words import VocabularyTree, l1_similarities, orb_descriptors
from vpr.evaluation.places import match_descriptors
from vpr.models.embedder import Embedder
from vpr.relocalization.encoders import EncoderInput
from vpr.relocalization.graph_network import chain, chains
from vpr.relocalization.model import S3eModel
from vpr.relocalization.query import distribution, inverse_cross_entropy
from vpr.relocalization.rgbd import RgbdSequence
from vpr.relocalization.similarity_scale import centred_cosines

QUERY_LENGTH = 5  # successive keyframes of a query sub-graph
BATCH = 32

Similarities = NDArray[np.float32]
Search = Callable[[RgbdSequence], Similarities]
Seen = Callable[[RgbdSequence], EncoderInput]


def seen_by(model: S3eModel) -> Seen:
    """What a model is given of a sequence's images, cut once for all who ask of one sequence."""
    kept: list[tuple[RgbdSequence, EncoderInput]] = []

    def seen(sequence: RgbdSequence) -> EncoderInput:
        if not kept or kept[0][0] is not sequence:
            kept[:] = [(sequence, model.given(list(sequence.images)))]
        return kept[0][1]

    return seen


def by_encoder(model: S3eModel, seen: Seen | None = None) -> Search:
    """Cosine similarity of single embeddings; the first lap is the map they are centred on."""
    seen = seen or seen_by(model)

    def search(sequence: RgbdSequence) -> Similarities:
        embedded = torch.from_numpy(model.embedded(seen(sequence)))
        first = torch.from_numpy(sequence.laps == sequence.laps.min())
        return np.asarray(centred_cosines(embedded, first).numpy(), np.float32)

    return search


def by_graph(model: S3eModel, seen: Seen | None = None, length: int = QUERY_LENGTH) -> Search:
    """Equation 2 of aggregated features: each lap a reference graph, queries its last views."""
    seen = seen or seen_by(model)

    @torch.no_grad()
    def search(sequence: RgbdSequence) -> Similarities:
        embedded = torch.from_numpy(model.embedded(seen(sequence)))
        nodes = torch.zeros_like(embedded)
        asked = torch.zeros_like(embedded)
        for lap in np.unique(sequence.laps):
            rows = np.flatnonzero(sequence.laps == lap)
            nodes[rows] = model.graph(embedded[rows], chain(len(rows)))
            asked[rows] = _newest_of_windows(model, embedded[rows], length)
        queries = distribution(asked)
        own = inverse_cross_entropy(queries, queries).diagonal()[:, None]
        scores = inverse_cross_entropy(queries, distribution(nodes)) / own
        return np.asarray(scores.numpy(), np.float32)

    return search


def by_words(vocabulary: VocabularyTree) -> Search:
    """Bags of binary words."""

    def search(sequence: RgbdSequence) -> Similarities:
        bags = np.stack([vocabulary.histogram(orb_descriptors(i)) for i in sequence.images])
        return l1_similarities(bags, bags)

    return search


def by_place_descriptor(params_file: Path | None = None) -> Search:
    """The suite's own descriptor, each later lap matched along sequences against the first.

    Views of the first lap have no row: they are the reference.
    """

    def search(sequence: RgbdSequence) -> Similarities:
        embedder = Embedder(EmbeddingConfig.from_file(params_file))
        images = list(sequence.images)
        parts = range(0, len(images), BATCH)
        described = np.concatenate([embedder.embed(images[i : i + BATCH]) for i in parts])
        config = SequenceMatchingConfig.from_file(params_file)
        first, *later = np.unique(sequence.laps)
        references = np.flatnonzero(sequence.laps == first)
        result = np.zeros((len(sequence), len(sequence)), np.float32)
        for lap in later:
            rows = np.flatnonzero(sequence.laps == lap)
            for row, found in zip(
                rows, match_descriptors(described[references], described[rows], config), strict=True
            ):
                ranks = 1.0 / np.arange(1, len(found.candidates) + 1)
                result[row, references[[c.reference_id for c in found.candidates]]] = ranks
        return result

    return search


def asked_once(search: Search) -> Search:
    """The same for a single sequence, whose answer is kept for those who ask again."""
    kept: list[Similarities] = []

    def found(sequence: RgbdSequence) -> Similarities:
        if not kept:
            kept.append(search(sequence))
        return kept[0]

    return found


def _newest_of_windows(model: S3eModel, embedded: torch.Tensor, length: int) -> torch.Tensor:
    """(N, D) features of each view as the newest of a chain of at most ``length``."""
    count = len(embedded)
    head = [
        model.graph(embedded[: i + 1], chain(i + 1))[-1:] for i in range(min(length, count) - 1)
    ]
    if count < length:
        return torch.cat([*head, model.graph(embedded, chain(count))[-1:]])
    windows = embedded.unfold(0, length, 1).transpose(1, 2)  # (count - length + 1, length, D)
    flat = windows.reshape(-1, embedded.shape[1])
    asked = model.graph(flat, chains(len(windows), length)).reshape(len(windows), length, -1)
    return torch.cat([*head, asked[:, -1]])
