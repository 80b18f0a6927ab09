"""The classical baseline: a vocabulary tree over ORB (Galvez-Lopez & Tardos, T-RO 2012).

The DBoW bindings on PyPI (pydbow3, dbow3py, pydbow) have seen no release for years, so the tree is
grown here by OpenCV's k-means on bits and majority votes, with DBoW2's tf-idf weights and L1 score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from vpr.images.decoding import grey_of
from vpr.records import Image

BRANCHING = 10
FEATURES = 500  # ORB features an image
ITERATIONS = 11  # of k-means, DBoW2's limit
ONES = np.array([int(value).bit_count() for value in range(256)], np.uint8)

Descriptors = NDArray[np.uint8]  # (N, 32)


@dataclass(frozen=True)
class VocabularyTree:
    """Words are the leaves of a tree with ``BRANCHING`` children a node.

    Attributes:
        levels: one array (nodes, 10, 32) a level: the children's centres, in bits.
        rarity: (W,) inverse document frequency of each word.
    """

    levels: tuple[NDArray[np.uint8], ...]
    rarity: NDArray[np.float32]

    @classmethod
    def grown(cls, images: Sequence[Descriptors], depth: int = 4, seed: int = 0) -> VocabularyTree:
        """A tree of 10^depth words from the descriptors of training images."""
        cv2.setRNGSeed(seed)
        pooled = np.concatenate(images)
        levels: list[NDArray[np.uint8]] = []
        node = np.zeros(len(pooled), np.int64)
        for level in range(depth):
            nodes = BRANCHING**level
            order = np.argsort(node, kind="stable")
            borders = np.searchsorted(node[order], np.arange(nodes + 1))
            groups = [pooled[order[a:b]] for a, b in pairwise(borders)]
            levels.append(np.stack([_children(group) for group in groups]))
            node = _descended(levels[-1], node, pooled)
        tree = cls(tuple(levels), np.ones(BRANCHING**depth, np.float32))
        seen = sum(tree.histogram(image) > 0 for image in images)
        rarity = np.log(len(images) / np.maximum(seen, 1)).astype(np.float32)
        return cls(tuple(levels), rarity)

    def words(self, descriptors: Descriptors) -> NDArray[np.int64]:
        """(N,) word of each descriptor."""
        node = np.zeros(len(descriptors), np.int64)
        for level in self.levels:
            node = _descended(level, node, descriptors)
        return node

    def histogram(self, descriptors: Descriptors) -> NDArray[np.float32]:
        """(W,) tf-idf weights of an image, summing to 1; all zero where it has no known word."""
        counts = np.bincount(self.words(descriptors), minlength=len(self.rarity))
        weights = counts.astype(np.float32) * self.rarity
        return np.asarray(weights / max(float(weights.sum()), 1e-9), np.float32)


def orb_descriptors(image: Image) -> Descriptors:
    """(N, 32) ORB descriptors of an image; none where it has no corners."""
    orb, grey = cv2.ORB.create(nfeatures=FEATURES, fastThreshold=7), grey_of(image)
    keypoints = orb.detect(grey, None)
    if not keypoints:
        return np.zeros((0, 32), np.uint8)
    _, found = orb.compute(grey, keypoints)
    return np.asarray(found, np.uint8)


def l1_similarities(
    queries: NDArray[np.float32], references: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(Q, R) DBoW2 score ``1 - |v - w|_1 / 2`` of histograms that each sum to 1."""
    rows = [np.minimum(query, references).sum(axis=1) for query in queries]
    return np.asarray(np.stack(rows), np.float32)


def _children(descriptors: Descriptors) -> NDArray[np.uint8]:
    """(10, 32) centres of a node's children; a node with few descriptors repeats its last."""
    distinct = np.unique(descriptors, axis=0) if len(descriptors) else np.zeros((1, 32), np.uint8)
    if len(distinct) > BRANCHING:
        bits = np.unpackbits(descriptors, axis=1).astype(np.float32)
        criteria = (cv2.TERM_CRITERIA_MAX_ITER, ITERATIONS, 0.0)
        empty = np.zeros((0, 1), np.int32)
        _, _, centres = cv2.kmeans(bits, BRANCHING, empty, criteria, 1, cv2.KMEANS_PP_CENTERS)
        return np.packbits(centres > 0.5, axis=1)
    missing = np.repeat(distinct[-1:], BRANCHING - len(distinct), axis=0)
    return np.concatenate([distinct, missing])


def _descended(
    level: NDArray[np.uint8], node: NDArray[np.int64], descriptors: Descriptors
) -> NDArray[np.int64]:
    """The child of each descriptor's node that is nearest to it in bits."""
    distance = ONES[level[node] ^ descriptors[:, None]].sum(axis=2, dtype=np.int64)
    return np.asarray(node * BRANCHING + distance.argmin(axis=1))
