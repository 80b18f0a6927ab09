"""Pairs to learn from: positives by the kernel, negatives weighted by distance.

Wu, Manmatha, Smola & Kraehenbuehl, "Sampling Matters in Deep Embedding Learning", ICCV 2017:
drawing pairs uniformly gives almost only pairs at the most common distance; drawing them with the
inverse of the density of their distance gives all distances alike. Wu et al. take that density
from points spread evenly over a sphere; descriptors are not, so here it is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vpr.config import FineTuningConfig
from vpr.learning.errors import TrainingError
from vpr.supervision.kernel import SimilarityKernel, Viewpoints

BINS = 32  # of the measured density of distances
RAREST = 0.1  # of the mean density; rarer distances are not drawn more often than this allows


@dataclass(frozen=True)
class PairBatch:
    """P positive pairs and n negatives of each pair's first row, as rows of the features."""

    anchors: NDArray[np.int64]  # (P,)
    positives: NDArray[np.int64]  # (P,)
    negatives: NDArray[np.int64]  # (P, n)


class InverseDensity:
    """Weights that make draws uniform over distance, from a sample of distances."""

    def __init__(self, distances: NDArray[np.float32]) -> None:
        counts, self._edges = np.histogram(distances, bins=BINS)
        density = counts / max(counts.mean(), 1e-12)
        self._weights = 1.0 / np.maximum(density, RAREST)

    def __call__(self, distances: NDArray[np.float32]) -> NDArray[np.float64]:
        """A weight for each distance, any shape."""
        bins = np.clip(np.searchsorted(self._edges, distances, "right") - 1, 0, BINS - 1)
        return np.asarray(self._weights[bins])


def positive_pairs(viewpoints: Viewpoints, config: FineTuningConfig) -> NDArray[np.int64]:
    """All pairs (P, 2), lower row first, more alike than ``positive_similarity`` (equation 9).

    Raises:
        TrainingError: fewer than ``config.min_positives``.
    """
    kernel, threshold = kernel_of(config), config.positive_similarity
    tree = cKDTree(viewpoints.positions)
    near = tree.query_pairs(kernel.reach(threshold), output_type="ndarray").astype(np.int64)
    similar = kernel.of_pairs(viewpoints[near[:, 0]], viewpoints[near[:, 1]]) > threshold
    pairs = np.asarray(np.sort(near[similar], axis=1))
    if len(pairs) < config.min_positives:
        raise TrainingError(
            f"{len(pairs)} pairs of keyframes see the same place (similarity above "
            f"{threshold:g}), {config.min_positives} are needed: drive the same way more than "
            "once, or lower positive_similarity"
        )
    return pairs


class PairSampler:
    """Draws batches of pairs, the same for the same seed and epoch.

    Args:
        features: (N, D) float32 in the original feature space, in which distances are weighed.
        drive: (N,) drive of each row; half of the positives are drawn across drives, or from
            revisits within one, where there are any.

    Raises:
        TrainingError: fewer positive pairs than ``config.min_positives``.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        viewpoints: Viewpoints,
        drive: NDArray[np.int64],
        config: FineTuningConfig,
    ) -> None:
        self._config, self._features, self._viewpoints = config, features, viewpoints
        self._kernel = kernel_of(config)
        pairs = positive_pairs(viewpoints, config)
        distances = _pair_distances(features, pairs)
        weights = InverseDensity(distances)(distances)
        again = (drive[pairs[:, 0]] != drive[pairs[:, 1]]) | (
            pairs[:, 1] - pairs[:, 0] >= config.exclude_recent_keyframes
        )
        self.revisits = int(again.sum())
        self.pairs = pairs
        self._probability = _balanced(weights, again)
        rng = np.random.default_rng(config.seed)
        pool = rng.integers(len(features), size=(min(len(features), 256), config.negative_pool))
        self._negative_weight = InverseDensity(self._pool_distances(pool[:, 0], pool).ravel())

    def epoch(self, number: int, batch: int) -> Iterator[PairBatch]:
        """One epoch: as many positive pairs as ``config.epoch_positives``, in batches."""
        rng = np.random.default_rng([self._config.seed, number])
        chosen = rng.choice(len(self.pairs), size=self._config.epoch_positives, p=self._probability)
        pairs = self.pairs[chosen]
        swapped = rng.random(len(pairs)) < 0.5
        pairs[swapped] = pairs[swapped][:, ::-1]
        for start in range(0, len(pairs), batch):
            some = pairs[start : start + batch]
            yield PairBatch(some[:, 0], some[:, 1], self._negatives(some[:, 0], rng))

    def _negatives(self, anchors: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        config = self._config
        pool = rng.integers(len(self._features), size=(len(anchors), config.negative_pool))
        views = self._viewpoints[pool]
        similarity = self._kernel.of_pairs(self._viewpoints[anchors[:, None]], views)
        weight = self._negative_weight(self._pool_distances(anchors, pool))
        weight[similarity >= config.negative_similarity] = 0.0
        if not (weight.sum(axis=1) > 0.0).all():
            raise TrainingError(
                "some keyframes have no negative: all places lie within one view of each other; "
                "record a longer drive"
            )
        # Gumbel's trick draws without replacement in one sorting
        keys = np.log(np.maximum(weight, 1e-300)) + rng.gumbel(size=weight.shape)
        best = np.argpartition(-keys, config.negatives_per_positive - 1, axis=1)
        best = best[:, : config.negatives_per_positive]
        found = np.take_along_axis(weight, best, axis=1) > 0.0
        best = np.where(found, best, np.argmax(keys, axis=1)[:, None])
        return np.take_along_axis(pool, best, axis=1)

    def _pool_distances(
        self, anchors: NDArray[np.int64], pool: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        dots = np.einsum("bd,bmd->bm", self._features[anchors], self._features[pool])
        return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * dots, 0.0)), np.float32)


def kernel_of(config: FineTuningConfig) -> SimilarityKernel:
    """The kernel of the configured camera."""
    return SimilarityKernel.from_frustum(np.radians(config.horizontal_fov), config.seen_distance)


def _pair_distances(features: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    dots = np.einsum("pd,pd->p", features[pairs[:, 0]], features[pairs[:, 1]])
    return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * dots, 0.0)), np.float32)


def _balanced(weights: NDArray[np.float64], again: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probabilities that give half of the draws to the pairs of ``again``, if there are both."""
    result = weights / weights.sum()
    if again.any() and not again.all():
        for group in (again, ~again):
            result[group] *= 0.5 / result[group].sum()
    return np.asarray(result / result.sum())
