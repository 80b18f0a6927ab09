"""Contiguous arrays that grow at the end, in amortised constant time a row."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

SMALLEST_CAPACITY = 64  # rows


class GrowableArray(Generic[Scalar]):
    """Rows of one shape and type, appended one by one and read as one array."""

    def __init__(self, row_shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._buffer: NDArray[Scalar] = np.empty((SMALLEST_CAPACITY, *row_shape), dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Scalar]:
        """All rows (N, ...), contiguous; a view that is valid until the next append."""
        return self._buffer[: self._count]

    def append(self, row: Any) -> None:
        """Add one row."""
        if self._count == len(self._buffer):
            self._reserve(2 * self._count)
        self._buffer[self._count] = row
        self._count += 1

    def extend(self, rows: NDArray[Scalar]) -> None:
        """Add many rows at once."""
        needed = self._count + len(rows)
        if needed > len(self._buffer):
            self._reserve(max(needed, 2 * self._count))
        self._buffer[self._count : needed] = rows
        self._count = needed

    def _reserve(self, capacity: int) -> None:
        larger = np.empty((capacity, *self._buffer.shape[1:]), self._buffer.dtype)
        larger[: self._count] = self.rows
        self._buffer = larger
