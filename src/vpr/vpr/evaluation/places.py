"""Place recognition between two folders of images, by the code that runs on the robot."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.config import EmbeddingConfig, SegmentationConfig, SequenceMatchingConfig
from vpr.evaluation.recall import (
    average_precision,
    precision_recall,
    recall_at,
    recall_at_full_precision,
)
from vpr.images.attention import make_attention
from vpr.models.embedder import Embedder
from vpr.places.recognizer import PlaceRecognizer
from vpr.records import Image, PlaceMatches

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
DEEPEST_RANK = 10
FRAME_INTERVAL_NS = 1_000_000_000  # stamps are made up: only their order matters here


class EvaluationError(ValueError):
    """Images or ground truth that cannot be evaluated; names the file and what is wrong with it."""


@dataclass(frozen=True)
class PlaceFigures:
    """How well the query traverse was recognised in the reference traverse."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    recall_at_100_precision: float
    average_precision: float

    def to_json(self) -> dict[str, float]:
        """The figures under their usual names."""
        return {
            "recall@1": self.recall_at_1,
            "recall@5": self.recall_at_5,
            "recall@10": self.recall_at_10,
            "recall_at_100_precision": self.recall_at_100_precision,
            "average_precision": self.average_precision,
        }


def evaluate_places(
    reference: Path,
    query: Path,
    ground_truth: Path,
    sequence_length: int | None = None,
    params_file: Path | None = None,
) -> PlaceFigures:
    """Walk the reference folder, then the query folder, and compare the matches with the truth.

    Every image is a keyframe; queries are matched against the reference traverse alone. At the
    start of the query traverse a sequence is as long as the images seen so far.

    Args:
        reference, query: folders of images, in natural order of their names.
        ground_truth: CSV with the columns ``query,references``: an index into the query images and
            the space-separated indices of the reference images that count as right.
        sequence_length: images matched together; None takes the configured one.
        params_file: laid over the shipped configuration.

    Raises:
        EvaluationError: no images, an image that cannot be decoded, or a broken ground truth.
        ConfigError: a wrong configuration.
    """
    references, queries = image_files(reference), image_files(query)
    correct = read_ground_truth(ground_truth, len(queries), len(references))
    overrides = {} if sequence_length is None else {"sequence_length": sequence_length}
    matches = match_descriptors(
        embed_files(references, params_file),
        embed_files(queries, params_file),
        SequenceMatchingConfig.from_file(params_file, **overrides),
    )
    return place_figures(matches, correct)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in natural order: ``frame9`` before ``frame10``.

    Raises:
        EvaluationError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise EvaluationError(f"no folder {folder}")
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise EvaluationError(f"no image in {folder} ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(files, key=_natural_key)


def read_image(path: Path) -> Image:
    """An image as BGR.

    Raises:
        EvaluationError: it cannot be decoded.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise EvaluationError(f"cannot decode image {path}")
    return np.asarray(image, np.uint8)


def read_ground_truth(path: Path, queries: int, references: int) -> list[frozenset[int]]:
    """The right reference indices of each query; a query without a row has none.

    Raises:
        EvaluationError: unreadable file, missing columns, not a number, or an index out of range.
    """
    correct: list[frozenset[int]] = [frozenset()] * queries
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if not {"query", "references"} <= set(reader.fieldnames or ()):
                raise EvaluationError(f"{path} lacks the columns query,references")
            rows = [(reader.line_num, row["query"], row["references"]) for row in reader]
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"cannot read {path}: {error}") from error
    for line, query_text, references_text in rows:
        try:
            query = int(query_text)
            truth = frozenset(int(word) for word in (references_text or "").split())
        except (TypeError, ValueError) as error:
            raise EvaluationError(f"{path}, line {line}: {error}") from error
        if not 0 <= query < queries:
            raise EvaluationError(f"{path}, line {line}: query {query} of {queries} images")
        outside = [index for index in sorted(truth) if not 0 <= index < references]
        if outside:
            raise EvaluationError(
                f"{path}, line {line}: reference {outside[0]} of {references} images"
            )
        correct[query] = truth
    return correct


def embed_files(
    files: list[Path], params_file: Path | None = None, **settings: Any
) -> NDArray[np.float32]:
    """Descriptors (B, D) of image files, made as the segmentation and embedding nodes make them.

    ``settings`` are laid over those of the embedding.
    """
    config = EmbeddingConfig.from_file(params_file, **settings)
    embedder = Embedder(config)
    attention = make_attention(SegmentationConfig.from_file(params_file))
    descriptors = np.empty((len(files), embedder.dimension), np.float32)
    for index, path in enumerate(files):
        image = read_image(path)
        maps = [attention(image)] if config.attention != "none" else None
        descriptors[index] = embedder.embed([image], maps)[0]
    return descriptors


def match_descriptors(
    references: NDArray[np.float32],
    queries: NDArray[np.float32],
    config: SequenceMatchingConfig,
    deepest_rank: int = DEEPEST_RANK,
    model: str = "",
    separation: int = 1,
) -> list[PlaceMatches]:
    """The best references of each query, from the recognizer that the node runs.

    Args:
        model: what made the descriptors, where that is known.
        separation: references that two matches of a query are apart, at least.
    """
    recognizer = PlaceRecognizer(
        config.model_copy(
            update={
                "exclude_recent_time": 0.0,
                "exclude_recent_keyframes": len(queries),  # all of the query's own session
                "top_k": deepest_rank,
                "candidate_separation": separation,
                "min_probability": 0.0,
            }
        )
    )
    for _ in _observed(recognizer, references, model):
        pass
    recognizer.begin_session()
    recognizer.settle()
    return list(_observed(recognizer, queries, model))


def place_figures(matches: list[PlaceMatches], correct: list[frozenset[int]]) -> PlaceFigures:
    """Figures of one match list a query; reference ids are reference indices."""
    ranked = [[match.reference_id for match in found.candidates] for found in matches]
    confidences = [found.candidates[0].sequence_score for found in matches]
    hits = [ids[0] in truth for ids, truth in zip(ranked, correct, strict=True)]
    curve = precision_recall(confidences, hits, sum(bool(truth) for truth in correct))
    return PlaceFigures(
        recall_at_1=recall_at(1, ranked, correct),
        recall_at_5=recall_at(5, ranked, correct),
        recall_at_10=recall_at(10, ranked, correct),
        recall_at_100_precision=recall_at_full_precision(curve),
        average_precision=average_precision(curve),
    )


def _observed(
    recognizer: PlaceRecognizer, descriptors: NDArray[np.float32], model: str
) -> Iterator[PlaceMatches]:
    for index, descriptor in enumerate(descriptors):
        observation = recognizer.observe(index * FRAME_INTERVAL_NS, descriptor, model)
        if observation.matches is None:
            raise EvaluationError(f"image {index} was not kept: {observation.skipped}")
        yield observation.matches


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
