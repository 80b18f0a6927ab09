"""Descriptors in half precision, compared with one: its rounding moves a similarity below 1e-3.

What came from a map stays on disk and is read from there; what is new is kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from llvmlite import ir
from numba import float32, njit, uint16
from numba.extending import intrinsic
from numpy.typing import NDArray

from vpr.maps.table import Column
from vpr.places.growable import GrowableArray

SEARCH_ROWS = 8192  # descriptors looked at together; a map checks pieces of so many


def _half_to_single(_typing_context: Any, _bits: Any) -> Any:
    """Signature and code of the widening of a half, given by its bits."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return float32(uint16), generate


_widened: Any = intrinsic(_half_to_single)  # one instruction, for which numba has no name


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _compare(
    halves: NDArray[np.uint16], descriptor: NDArray[np.float32], result: NDArray[np.float32]
) -> None:
    """Of each row (N, D), widened on the way from memory, with a descriptor (D,)."""
    for row in range(halves.shape[0]):
        total = np.float32(0.0)
        for k in range(halves.shape[1]):
            total += _widened(halves[row, k]) * descriptor[k]
        result[row] = total


class DescriptorRows:
    """(N, D) float16; rows of a map first, new ones after them."""

    def __init__(self, dimension: int, stored: Column | None = None) -> None:
        self.dimension = dimension
        self.stored = stored
        self._new: GrowableArray[np.float16] = GrowableArray((dimension,), np.float16)

    def __len__(self) -> int:
        return self._stored_rows + len(self._new)

    @property
    def new(self) -> NDArray[np.float16]:
        """(M, D) the rows that are not of the map."""
        return self._new.rows

    def append(self, descriptor: NDArray[Any]) -> None:
        """Add one (D,)."""
        self._new.append(descriptor)

    def extend(self, descriptors: NDArray[Any]) -> None:
        """Add (M, D)."""
        self._new.extend(descriptors)

    def pieces(self) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """All in order with their first row, so many that they stay in the processor's cache.

        Raises:
            MapError: the map is damaged.
        """
        first = 0
        for source in (self._new.rows[:0] if self.stored is None else self.stored[:], self.new):
            for start in range(0, len(source), SEARCH_ROWS):
                yield first + start, source[start : start + SEARCH_ROWS]
            first += len(source)

    def similarities(self, descriptor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine similarity (N,) of every row to a descriptor (D,).

        Raises:
            MapError: the map is damaged.
        """
        result = np.empty(len(self), np.float32)
        wanted = np.ascontiguousarray(descriptor, np.float32)
        stored = self._stored_rows
        if self.stored is not None:
            _compare(self.stored.all().view(np.uint16), wanted, result[:stored])
        if len(self._new):
            _compare(self.new.view(np.uint16), wanted, result[stored:])
        return result

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, D) some rows, in any order.

        Raises:
            MapError: the map is damaged.
        """
        return single_precision(self._halves_at(rows))

    def similarities_at(
        self, rows: NDArray[np.int64], descriptor: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """As ``similarities``, (M,) of some rows in any order.

        Raises:
            MapError: the map is damaged.
        """
        return dot_products(self._halves_at(rows), descriptor)

    def _halves_at(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        old = rows < self._stored_rows
        result = np.empty((len(rows), self.dimension), np.float16)
        if self.stored is not None and old.any():
            result[old] = self.stored.take(rows[old])
        result[~old] = self._new.rows[rows[~old] - self._stored_rows]
        return result

    def release(self) -> None:
        """Keep nothing of the map in memory; what is needed of it is read again."""
        if self.stored is not None:
            self.stored.release()

    @property
    def _stored_rows(self) -> int:
        return 0 if self.stored is None else len(self.stored)


def load_kernels() -> None:
    """Compile the products now, or load them from numba's cache, rather than at the first frame."""
    for writable in (True, False):  # of a drive, of a map
        rows = np.zeros((1, 1), np.float16)
        rows.flags.writeable = writable
        dot_products(rows, np.zeros(1, np.float32))


def dot_products(rows: NDArray[np.float16], descriptor: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) of rows (N, D) with a descriptor (D,), on one core, without a copy of them."""
    result = np.empty(len(rows), np.float32)
    wanted = np.ascontiguousarray(descriptor, np.float32)
    _compare(np.asarray(rows).view(np.uint16), wanted, result)
    return result


def single_precision(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    """float32 of float16 (N, D); OpenCV's conversion is six times as fast as NumPy's."""
    if len(rows) == 0:
        return np.empty(rows.shape, np.float32)
    return np.asarray(cv2.convertFp16(rows.view(np.int16)), np.float32).reshape(rows.shape)
