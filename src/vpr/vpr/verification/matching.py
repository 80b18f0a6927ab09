"""Matching descriptors: mutual nearest neighbours that pass the ratio test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numba import njit, uint64
from numba.extending import intrinsic
from numpy.typing import NDArray

from vpr.config import LoopClosureConfig
from vpr.verification.features import LocalFeatures

Matched = tuple[NDArray[np.int64], NDArray[np.int64]]  # indices into each, the surest pair first

FURTHEST = 257  # bits; more than any two descriptors of 256 bits can differ by


class FeatureMatcher(Protocol):
    """Anything that finds the features of one view in others."""

    def __call__(
        self, query: LocalFeatures, references: Sequence[LocalFeatures]
    ) -> Iterator[Matched]:
        """Indices into the query's and each reference's features, reference by reference.

        Where one after another is as fast they are matched as they are asked for; on a GPU all go
        in one batch.

        Raises:
            ValueError: features of two kinds.
        """
        ...


class NearestMatcher:
    """Mutual nearest neighbours on the processor, one reference after another."""

    def __init__(self, config: LoopClosureConfig) -> None:
        self.config = config

    def __call__(
        self, query: LocalFeatures, references: Sequence[LocalFeatures]
    ) -> Iterator[Matched]:
        """See `FeatureMatcher`."""
        return (match_features(query, reference, self.config) for reference in references)


def _population_count(_typing_context: Any, _word: Any) -> Any:
    """Signature and code of a bit count of one word."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return uint64(uint64), generate


_bit_count: Any = intrinsic(_population_count)  # the processor's own, which numba does not expose


@njit(cache=True, nogil=True)
def _nearest(
    a: NDArray[np.uint64], b: NDArray[np.uint64]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Nearest and second distance of each row of a (N, 4) in the columns of b (4, M), and back."""
    rows, columns = a.shape[0], b.shape[1]
    nearest = np.zeros(rows, np.int32)
    best = np.full(rows, FURTHEST, np.int32)
    second = np.full(rows, FURTHEST, np.int32)
    back = np.zeros(columns, np.int32)
    back_best = np.full(columns, FURTHEST, np.int32)
    distance = np.empty(columns, np.int32)
    for i in range(rows):
        for j in range(columns):
            distance[j] = (
                _bit_count(a[i, 0] ^ b[0, j])
                + _bit_count(a[i, 1] ^ b[1, j])
                + _bit_count(a[i, 2] ^ b[2, j])
                + _bit_count(a[i, 3] ^ b[3, j])
            )
        for j in range(columns):
            d = distance[j]
            if d < best[i]:
                second[i] = best[i]
                best[i] = d
                nearest[i] = j
            elif d < second[i]:
                second[i] = d
            if d < back_best[j]:
                back_best[j] = d
                back[j] = i
    return nearest, best, second, back


def load_kernel() -> None:
    """Compile the matcher now, or load it from numba's cache, rather than at the first match."""
    two = np.zeros((2, 32), np.uint8)
    match_descriptors(two, two, ratio=1.0, max_distance=256)


def match_descriptors(
    a: NDArray[np.uint8], b: NDArray[np.uint8], ratio: float, max_distance: int
) -> Matched:
    """Indices into a and b of mutual nearest neighbours, the most distinctive pair first.

    Args:
        a: (N, 32) uint8 descriptors.
        b: (M, 32) uint8 descriptors.
        ratio: nearest over second nearest distance must be below (Lowe, IJCV 2004).
        max_distance: bits two matched descriptors may differ by.
    """
    if len(a) < 2 or len(b) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    words_a = np.ascontiguousarray(a).view(np.uint64)
    words_b = np.ascontiguousarray(np.ascontiguousarray(b).view(np.uint64).T)
    nearest, best, second, back = _nearest(words_a, words_b)
    good = (back[nearest] == np.arange(len(a))) & (best <= max_distance) & (best < ratio * second)
    index = np.flatnonzero(good)
    index = index[np.argsort(best[index] / np.maximum(second[index], 1), kind="stable")]
    return index, nearest[index].astype(np.int64)


def match_features(a: LocalFeatures, b: LocalFeatures, config: LoopClosureConfig) -> Matched:
    """Indices into a and b of what matches, by the measure that their descriptors call for.

    Raises:
        ValueError: features of two kinds.
    """
    if a.kind != b.kind:
        raise ValueError(f"{a.kind} and {b.kind} features cannot be matched")
    if a.descriptors.dtype == np.uint8:
        return match_descriptors(
            a.descriptors.view(np.uint8),
            b.descriptors.view(np.uint8),
            config.match_ratio,
            config.match_max_distance,
        )
    return match_directions(a.descriptors, b.descriptors, config.match_min_similarity)


def match_directions(a: NDArray[Any], b: NDArray[Any], min_similarity: float) -> Matched:
    """The same for descriptors of unit length (N, D) and (M, D), the most similar pair first.

    Learned descriptors are matched by their cosine alone, as their authors do.
    """
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    cosine = a.astype(np.float32) @ b.astype(np.float32).T
    nearest, back = cosine.argmax(axis=1), cosine.argmax(axis=0)
    best = cosine[np.arange(len(a)), nearest]
    index = np.flatnonzero((back[nearest] == np.arange(len(a))) & (best >= min_similarity))
    index = index[np.argsort(-best[index], kind="stable")]
    return index, nearest[index].astype(np.int64)
