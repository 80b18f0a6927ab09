"""Remembered places as a sequence method sees them: by descriptors of its own where it has any."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vpr.places.descriptors import DescriptorRows
from vpr.places.encoders import LiveEncoder, SeqNetEncoder, SingleEncoder, TemporalEncoder

ENCODED_ROWS = 8192  # places encoded at a time


class Places(Protocol):
    """Places in order, sessions one after the other; a whole memory, or some of it."""

    model: str
    dimension: int

    def __len__(self) -> int: ...

    @property
    def session_starts(self) -> NDArray[np.int64]:
        """(S,) first place of each session, ascending."""
        ...

    @property
    def forgotten(self) -> list[slice]:
        """Places that nothing is to be matched with."""
        ...

    def column(self, name: str) -> NDArray[Any]:
        """(N,) ids, sessions or stamps."""
        ...

    def similarities(self, descriptor: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) cosine similarity to a descriptor (D,)."""
        ...

    def similarities_at(
        self, rows: NDArray[np.int64], descriptor: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The same of some places alone, (M,)."""
        ...

    def descriptors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, D) of some places."""
        ...

    def release(self) -> None:
        """Keep no descriptors of a map in memory that only a look at all of them brought there."""
        ...

    def odometry(self, first: int, last: int) -> NDArray[np.float64]:
        """(M, 4, 4) of the places first .. last - 1; NaN where there is none."""
        ...


class EncodedPlaces:
    """What one encoder makes of each place."""

    def __init__(self, encoder: TemporalEncoder, places: Places) -> None:
        """Raises WeightsError when the encoder was trained on another model's descriptors."""
        if isinstance(encoder, SeqNetEncoder):
            encoder.network.check_source(places.model)
        self.live = LiveEncoder(encoder)
        self._places = places
        self._own: DescriptorRows | None = None
        if isinstance(encoder, SingleEncoder):
            return
        self._own = DescriptorRows(encoder.dimension(places.dimension))
        for first, last in pairwise([*places.session_starts.tolist(), len(places)]):
            for start in range(first, last, ENCODED_ROWS):
                begin = max(first, start - encoder.window + 1)
                rows = np.arange(begin, min(start + ENCODED_ROWS, last))
                self._own.extend(encoder(places.descriptors(rows))[start - begin :])

    @property
    def dimension(self) -> int:
        """Values of a descriptor."""
        return self._places.dimension if self._own is None else self._own.dimension

    def similarities(self, encoded: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) of every place to what the encoder made of a view."""
        source = self._places if self._own is None else self._own
        return source.similarities(encoded)

    def similarities_at(
        self, rows: NDArray[np.int64], encoded: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The same of some places alone, (M,)."""
        source = self._places if self._own is None else self._own
        return source.similarities_at(rows, encoded)

    def descriptors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, D) of some places."""
        return self._places.descriptors(rows) if self._own is None else self._own.at(rows)

    def release(self) -> None:
        """As of ``Places``."""
        if self._own is None:
            self._places.release()

    def append(self, encoded: NDArray[np.float32]) -> None:
        """There is one more place."""
        if self._own is not None:
            self._own.append(encoded)
