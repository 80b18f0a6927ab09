"""One table of a map: columns that only ever grow, each a file, and a journal of their checksums.

::

    places.descriptors     header (256 bytes), then rows of one type and shape, little-endian
    places.ids
    places.journal         one record a piece: where it ends, and the CRC-32 of it in each column

A table is as long as its digest says, which the map's manifest holds. What lies behind that, as
after a save that died, is not part of it and is overwritten by the next. An increment costs what
it holds, however long the table is: the digest carries the journal's checksum, and a CRC-32 goes
on from where it stood.

Columns are mapped into memory. A piece is checked against its checksum when it is first read.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

HEADER_BYTES = 256
PIECE_ROWS = 8192  # rows checked together; one of 256 half-precision values is 512 bytes
TAKEN_ROWS = 512  # scattered ones that may stay in memory; each brings 64 KB around it, or more
_MAGIC = b"vprtable"

Arrays = Mapping[str, NDArray[Any]]
Natural = Annotated[int, Field(ge=0)]


class MapError(ValueError):
    """A map that can't be written or read; the message names the place and the cause."""


class Checked(BaseModel):
    """A document that is taken as it is or refused: no other fields, no conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ColumnType(Checked):
    """What a row of a column is."""

    dtype: Annotated[str, Field(pattern=r"^[<|][biuf][1248]$")]
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...]

    @classmethod
    def of(cls, array: NDArray[Any]) -> ColumnType:
        """The type of an array's rows."""
        return cls(dtype=array.dtype.newbyteorder("<").str, shape=array.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


class TableDigest(Checked):
    """How much of a table's files counts, and by what its journal is known."""

    rows: Natural
    pieces: Natural  # records of the journal
    journal_crc: Natural
    columns: dict[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], ColumnType]


def _column_path(folder: Path, table: str, column: str) -> Path:
    return folder / f"{table}.{column}"


def _journal_path(folder: Path, table: str) -> Path:
    return folder / f"{table}.journal"


def _journal_type(columns: Mapping[str, ColumnType]) -> np.dtype[Any]:
    return np.dtype([("end", "<u8"), ("crc", "<u4", (len(columns),))])


def _header(table: str, column: str, kind: ColumnType) -> bytes:
    """Names and type, so that a file that is swapped for another is known for what it is."""
    document = {"table": table, "column": column, **kind.model_dump()}
    body = (_MAGIC + json.dumps(document).encode()).ljust(HEADER_BYTES - 4)
    return body + zlib.crc32(body).to_bytes(4, "little")


class TableWriter:
    """Appends to a table; ``finish`` brings all to the disk and says what it then is.

    Args:
        folder: where the table's files are or shall be.
        digest: what counts of them so far; None begins the table anew.
    """

    def __init__(self, folder: Path, name: str, digest: TableDigest | None) -> None:
        self._folder, self._name = folder, name
        self._before = digest
        self._columns = {} if digest is None else dict(digest.columns)
        self._rows = 0 if digest is None else digest.rows
        self._files: dict[str, BinaryIO] = {}
        self._records: list[tuple[int, list[int]]] = []

    @property
    def rows(self) -> int:
        """Rows that the table has, those not yet finished included."""
        return self._rows

    def append(self, arrays: Arrays) -> None:
        """Add rows: every column (N, ...) with the type it always had.

        Raises:
            MapError: columns that are not those of the table, or of different lengths.
            OSError: a disk that refuses.
        """
        kinds = {name: ColumnType.of(array) for name, array in sorted(arrays.items())}
        if not self._columns:
            self._columns = kinds
        if kinds != self._columns:
            raise MapError(f"table '{self._name}' has columns {self._columns}, not {kinds}")
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) != 1:
            raise MapError(f"columns of '{self._name}' have different lengths {sorted(lengths)}")
        if not self._files:
            self._open()
        for start in range(0, lengths.pop(), PIECE_ROWS):
            pieces = {name: arrays[name][start : start + PIECE_ROWS] for name in self._columns}
            self._append_piece(pieces)

    def finish(self) -> TableDigest:
        """Flush what was added to the disk.

        Raises:
            OSError: a disk that refuses.
        """
        kind = _journal_type(self._columns)
        records = np.array([(end, crcs) for end, crcs in self._records], kind).tobytes()
        before = self._before
        pieces = 0 if before is None else before.pieces
        if self._files or before is None:
            with _writable(_journal_path(self._folder, self._name)) as journal:
                journal.truncate(pieces * kind.itemsize)
                journal.seek(pieces * kind.itemsize)
                journal.write(records)
                flush(journal)
        for file in self._files.values():
            flush(file)
        self.close()
        return TableDigest(
            rows=self._rows,
            pieces=pieces + len(self._records),
            journal_crc=zlib.crc32(records, 0 if before is None else before.journal_crc),
            columns=self._columns,
        )

    def close(self) -> None:
        """Let go of the files; without ``finish`` nothing of what was added counts."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _open(self) -> None:
        for column, kind in self._columns.items():
            file = _writable(_column_path(self._folder, self._name, column))
            self._files[column] = file
            if self._before is None:
                file.truncate(0)
                file.write(_header(self._name, column, kind))
            else:
                end = HEADER_BYTES + self._rows * kind.row_bytes
                file.truncate(end)
                file.seek(end)

    def _append_piece(self, arrays: Arrays) -> None:
        crcs = []
        for column, kind in self._columns.items():
            content = np.ascontiguousarray(arrays[column], kind.dtype).tobytes()
            self._files[column].write(content)
            crcs.append(zlib.crc32(content))
        self._rows += len(next(iter(arrays.values())))
        self._records.append((self._rows, crcs))


class Column:
    """One column of a table, mapped into memory and checked piece by piece as it is read."""

    def __init__(
        self, path: Path, kind: ColumnType, ends: NDArray[np.uint64], crcs: NDArray[np.uint32]
    ) -> None:
        self._path, self._ends, self._crcs = path, ends.astype(np.int64), crcs
        self._checked = np.zeros(len(ends), bool)
        self._all_checked = False
        self._taken = 0  # rows since the last release
        rows = int(self._ends[-1]) if len(ends) else 0
        shape = (rows, *kind.shape)
        self._mapping: mmap.mmap | None = None
        self._rows: NDArray[Any] = np.zeros(shape, kind.dtype)
        if rows:
            with path.open("rb") as file:
                self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            values = int(np.prod(shape, dtype=np.int64))
            mapped = np.frombuffer(self._mapping, kind.dtype, values, HEADER_BYTES)
            self._rows = mapped.reshape(shape)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return self._rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a value."""
        return self._rows.dtype

    def __getitem__(self, rows: int | slice) -> NDArray[Any]:
        """A row or a range of rows, read-only, backed by the file.

        Raises:
            MapError: what is read is not what was written.
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
        else:
            start, stop = rows, rows + 1
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start}:{stop} of {len(self)}")
        self._check(start, stop)
        return np.asarray(self._rows[rows])

    def all(self) -> NDArray[Any]:
        """Every row, checked."""
        return self[:]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of some rows, in any order.

        Raises:
            MapError: what is read is not what was written.
        """
        pieces = np.searchsorted(self._ends, rows, "right")
        for row in rows[~self._checked[pieces]].tolist():
            self._check(row, row + 1)
        taken = np.asarray(self._rows[rows])
        self._taken += len(rows)
        if self._taken > TAKEN_ROWS:
            self.release()
        return taken

    def release(self) -> None:
        """Keep no page of the file in this process's memory; what is read again comes back."""
        self._taken = 0
        if self._mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def _check(self, start: int, stop: int) -> None:
        if self._all_checked or start == stop:
            return
        first = int(np.searchsorted(self._ends, start, "right"))
        last = int(np.searchsorted(self._ends, stop, "left"))
        for piece in (first + np.flatnonzero(~self._checked[first : last + 1])).tolist():
            begin, end = int(self._ends[piece - 1]) if piece else 0, int(self._ends[piece])
            content = np.ascontiguousarray(self._rows[begin:end]).data
            if zlib.crc32(content) != self._crcs[piece]:
                raise MapError(
                    f"{self._path} is damaged in rows {begin} to {end - 1}: "
                    "their checksum is not that of the journal"
                )
            self._checked[piece] = True
        self._all_checked = bool(self._checked.all())


class Table:
    """A table opened for reading.

    Raises:
        MapError: a file is missing, shorter than the digest says, or of another table; or the
            journal is damaged. Rows are checked when they are read.
    """

    def __init__(self, folder: Path, name: str, digest: TableDigest) -> None:
        self.name, self.rows = name, digest.rows
        journal = _read_journal(folder, name, digest)
        self._columns: dict[str, Column] = {}
        for index, (column, kind) in enumerate(digest.columns.items()):
            path = _column_path(folder, name, column)
            _check_column_file(path, _header(name, column, kind), digest.rows * kind.row_bytes)
            self._columns[column] = Column(path, kind, journal["end"], journal["crc"][:, index])

    def column(self, name: str, dtype: DTypeLike, shape: tuple[int | None, ...] = ()) -> Column:
        """A column, which must hold rows of this type and shape (None: any length).

        Raises:
            MapError: there is no such column, or it holds something else.
        """
        column = self._columns.get(name)
        if column is None:
            raise MapError(f"table '{self.name}' of the map has no column '{name}'")
        found = column.shape[1:]
        fits = len(found) == len(shape) and all(
            wanted is None or wanted == size for wanted, size in zip(shape, found, strict=True)
        )
        if not fits or column.dtype != np.dtype(dtype):
            raise MapError(
                f"column '{name}' of table '{self.name}' holds {column.dtype} {found}, "
                f"not {np.dtype(dtype)} {shape}"
            )
        return column

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All columns whole, checked, backed by their files."""
        return self.rows_between(0, None)

    def rows_between(self, start: int, stop: int | None) -> dict[str, NDArray[Any]]:
        """Some rows of all columns, as a slice takes them."""
        return {name: column[start:stop] for name, column in self._columns.items()}

    def verify(self) -> None:
        """Read and check every row.

        Raises:
            MapError: something is not what was written.
        """
        for column in self._columns.values():
            for start in range(0, len(column), PIECE_ROWS):
                column[start : start + PIECE_ROWS]


def _read_journal(folder: Path, name: str, digest: TableDigest) -> NDArray[Any]:
    path = _journal_path(folder, name)
    kind = _journal_type(digest.columns)
    wanted = digest.pieces * kind.itemsize
    try:
        with path.open("rb") as file:
            content = file.read(wanted)
    except OSError as error:
        raise MapError(f"cannot read {path}: {error.strerror}") from error
    if len(content) < wanted:
        raise MapError(f"{path} has {len(content)} bytes, the manifest says {wanted}: cut short?")
    if zlib.crc32(content) != digest.journal_crc:
        raise MapError(f"{path} is damaged: its checksum is not that of the manifest")
    journal = np.frombuffer(content, kind)
    ends = journal["end"]
    if (int(ends[-1]) if len(ends) else 0) != digest.rows or (np.diff(ends.astype(int)) <= 0).any():
        raise MapError(f"{path} does not add up to the {digest.rows} rows of the manifest")
    return journal


def _check_column_file(path: Path, header: bytes, content_bytes: int) -> None:
    if not content_bytes:
        return
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            found = file.read(HEADER_BYTES)
    except OSError as error:
        raise MapError(f"cannot read {path}: {error.strerror}") from error
    if found != header[: len(found)]:
        raise MapError(f"{path} is damaged or of another table: its header is not as expected")
    if size < HEADER_BYTES + content_bytes:
        raise MapError(
            f"{path} has {size} bytes, the manifest says {HEADER_BYTES + content_bytes}: cut short?"
        )


def _writable(path: Path) -> BinaryIO:
    """Open a file for writing wherever one seeks to; made when absent."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def flush(file: BinaryIO) -> None:
    """To the disk, so that a power cut can't leave a manifest without what it speaks of."""
    file.flush()
    os.fsync(file.fileno())
