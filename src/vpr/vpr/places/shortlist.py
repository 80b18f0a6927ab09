"""Approximate search, for maps too large to compare all of a view with every place.

An inverted file (Jegou, Douze & Schmid, "Product Quantization for Nearest Neighbor Search", PAMI
2011), by FAISS: descriptors are clustered once and only the clusters nearest to a query are looked
at. It keeps a byte a value, half of what the descriptors take, which tells similarities to 0.005.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from threading import Thread

import faiss
import numpy as np
from numpy.typing import NDArray

from vpr.config import SequenceMatchingConfig
from vpr.places.descriptors import dot_products
from vpr.places.encoded import EncodedPlaces

SAMPLE = 512  # places whose similarities tell the mean and deviation of a row
TRAINING_PER_CLUSTER = 40  # places; FAISS asks for at least 39
CLUSTERS_PER_ROOT = 2.0  # clusters for each root of the number of places
PIECE = 4096  # places indexed at a time, where nobody waits for them
GROWTH = 256  # places added at a time while driving
OUTGROWN = 2  # times as many places as clustered: they are clustered anew
SEED = 0


class Shortlist:
    """The places most similar to a query among the first ones, in well under O(N)."""

    def __init__(self, places: EncodedPlaces, count: int, config: SequenceMatchingConfig) -> None:
        """Of the first ``count`` places.

        Raises:
            MapError: the map that the places are read from is damaged.
        """
        self._places = places
        self.clustered = count
        wanted = int(CLUSTERS_PER_ROOT * np.sqrt(count))
        clusters = max(1, min(wanted, count // TRAINING_PER_CLUSTER))
        self._clusters = faiss.IndexFlatIP(places.dimension)
        self._index = faiss.IndexIVFScalarQuantizer(
            self._clusters,
            places.dimension,
            clusters,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
        self._index.cp.niter = 6
        self._index.cp.seed = SEED
        self._index.cp.min_points_per_centroid = 1  # the smallest maps are no reason to warn
        rng = np.random.default_rng(SEED)
        chosen = rng.permutation(count)[: TRAINING_PER_CLUSTER * clusters]
        trained_on = places.descriptors(chosen)
        self._index.train(trained_on)
        self._index.nprobe = min(config.shortlist_clusters, clusters)
        self._size = config.shortlist_size
        self._sample = trained_on[:SAMPLE].astype(np.float16)
        self._forgotten: set[tuple[int, int]] = set()
        self._fill(count)
        self._count = count
        places.release()

    def __len__(self) -> int:
        """How many places, from the first, are searched."""
        return self._count

    def _fill(self, count: int) -> None:
        """Sort the places into their clusters, which take no more room than they need.

        Lists that grow as places come have up to twice the room: 140 MB more at a million places.
        """
        pieces = [np.arange(a, min(a + PIECE, count)) for a in range(0, count, PIECE)]
        nearest = [self._clusters.search(self._places.descriptors(rows), 1)[1] for rows in pieces]
        clusters = [of_piece[:, 0] for of_piece in nearest]
        lists = self._index.invlists
        assert lists is not None
        for cluster, size in enumerate(np.bincount(np.concatenate(clusters)).tolist()):
            lists.resize(cluster, size)
            lists.resize(cluster, 0)  # the room stays
        for rows, assigned in zip(pieces, clusters, strict=True):
            descriptors = self._places.descriptors(rows)
            self._index.add_core(len(rows), *map(faiss.swig_ptr, (descriptors, rows, assigned)))

    def grow(self, count: int) -> None:
        """Also search the next ``count`` places."""
        rows = np.arange(self._count, self._count + count)
        self._index.add_with_ids(self._places.descriptors(rows), rows)
        self._count += count

    def forget(self, ranges: Sequence[slice]) -> None:
        """Find none of these places any more."""
        for first, last in {(rows.start, rows.stop) for rows in ranges} - self._forgotten:
            self._index.remove_ids(faiss.IDSelectorRange(first, last))
            self._forgotten.add((first, last))

    def nearest(
        self, descriptor: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places and their similarities, best first; at most ``shortlist_size`` of each."""
        similarities, places = self._index.search(descriptor[None], self._size)
        found = places[0] >= 0
        return places[0][found], similarities[0][found]

    def average(self, descriptor: NDArray[np.float32]) -> tuple[float, float]:
        """Mean and deviation of the similarities of a random sample of the places."""
        sampled = dot_products(self._sample, descriptor)
        mean = float(sampled.sum()) / len(sampled)
        sampled -= np.float32(mean)
        return mean, float(np.sqrt(np.dot(sampled, sampled) / len(sampled)))


class GrowingShortlist:
    """A shortlist of places that become more, clustered in the background.

    As long as there is none every place has to be compared.
    """

    def __init__(self, places: EncodedPlaces, config: SequenceMatchingConfig) -> None:
        self._places = places
        self._config = config
        self._current: Shortlist | None = None
        self._coming: Future[Shortlist] | None = None

    def of_first(self, count: int, forgotten: Sequence[slice]) -> Shortlist | None:
        """A shortlist of no more than the first ``count`` places, if it is there.

        Raises:
            MapError: the map that the places are read from is damaged.
        """
        if self._coming is not None and self._coming.done():
            self._current, self._coming = self._coming.result(), None
        current = self._current
        self._prepare(count)
        if current is None or len(current) > count:
            return None
        if count - len(current) >= GROWTH:
            current.grow(GROWTH)
        current.forget(forgotten)
        return current

    def settle(self, count: int) -> None:
        """Have the first ``count`` places clustered now, if so many are to be.

        Raises:
            MapError: the map that the places are read from is damaged.
        """
        if self._coming is not None:
            self._current, self._coming = self._coming.result(), None
        if self._wanted(count) and (self._current is None or self._current.clustered != count):
            self._current = Shortlist(self._places, count, self._config)

    def _prepare(self, count: int) -> None:
        clustered = 0 if self._current is None else self._current.clustered
        if self._coming is not None or not self._wanted(count) or count < OUTGROWN * clustered:
            return
        self._coming = Future()
        # no pool: its threads are waited for when the process ends
        Thread(target=self._cluster, args=(count, self._coming), daemon=True).start()

    def _cluster(self, count: int, coming: Future[Shortlist]) -> None:
        faiss.omp_set_num_threads(1)  # of this thread: one core stays for the frames
        try:
            coming.set_result(Shortlist(self._places, count, self._config))
        except Exception as error:
            coming.set_exception(error)

    def _wanted(self, count: int) -> bool:
        return 0 < self._config.shortlist_above <= count
