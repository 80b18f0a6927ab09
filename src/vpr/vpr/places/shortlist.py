"""Approximate search over the places of finished sessions, for maps too large to compare all.

An inverted file (Jegou, Douze & Schmid, "Product Quantization for Nearest Neighbor Search", PAMI
2011) without compression in half precision, by FAISS: descriptors are clustered once and only the
clusters nearest to a query are looked at.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.places.encoded import EncodedPlaces

SAMPLE = 512  # places whose similarities tell the mean and deviation of a row
TRAINING_PER_CLUSTER = 40  # places; FAISS asks for at least 39
CLUSTERS_PER_ROOT = 2.0  # clusters for each root of the number of places
PIECE = 4096  # places indexed at a time
SEED = 0


class Shortlist:
    """The places most similar to a query among N fixed ones, in well under O(N)."""

    def __init__(self, places: EncodedPlaces, count: int, config: SequenceMatchingConfig) -> None:
        """Of the first ``count`` places."""
        dimension = places.dimension
        wanted = int(CLUSTERS_PER_ROOT * np.sqrt(count))
        clusters = max(1, min(wanted, count // TRAINING_PER_CLUSTER))
        quantizer = faiss.IndexFlatIP(dimension)
        self._index = faiss.IndexIVFScalarQuantizer(
            quantizer,
            dimension,
            clusters,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
        self._index.cp.niter = 6
        self._index.cp.seed = SEED
        rng = np.random.default_rng(SEED)
        chosen = rng.permutation(count)[: TRAINING_PER_CLUSTER * clusters]
        trained_on = places.descriptors(chosen)
        self._index.train(trained_on)
        for first in range(0, count, PIECE):
            self._index.add(places.descriptors(np.arange(first, min(first + PIECE, count))))
        self._index.nprobe = min(config.shortlist_clusters, clusters)
        self._size = min(config.shortlist_size, count)
        self._sample = trained_on[:SAMPLE]

    def __len__(self) -> int:
        """How many places are searched."""
        return int(self._index.ntotal)

    def nearest(
        self, descriptor: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places and their similarities, best first; at most ``shortlist_size`` of each."""
        similarities, places = self._index.search(descriptor[None], self._size)
        found = places[0] >= 0
        return places[0][found], similarities[0][found]

    def sampled(self, descriptor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Similarities of a random sample of the places: what an average place looks like."""
        return np.asarray(self._sample @ descriptor)
