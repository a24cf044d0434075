"""Arrow columns as the bytes of PostgreSQL's binary COPY, and back: by columns with numpy, no Python per cell.

A row of a COPY is a count of fields, then for each its length (-1: null) and its bytes. Rows are made as one numpy record each,
as if all had the same length, from which the bytes of nulls are then left out. What has no fixed length (strings, binaries) comes
last in a row and is woven in between. On the way back nulls are asked for as columns of their own, so that here too only what has
no fixed length is walked through.

What must stay true: every bit comes back. Strings are bytes for PostgreSQL, whose own cannot hold a NUL; an unsigned integer is
kept in the next wider type, uint64 as the signed one of the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

import numpy
import pyarrow
import pyarrow.compute

from ..domain.structures import TableStructure
from .arrow_columns import META, Column, sql_columns

__all__ = ["BYTES", "HEADER", "LONG", "TRAILER", "Answer", "encode", "in_order", "postgres_columns", "selected", "steps"]

#: What a COPY begins and ends with.
HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"

#: Types of other engines (`arrow_columns.py`) and what they are here.
_TYPES = {
    "BOOLEAN": ("BOOLEAN", pyarrow.bool_()),
    "TINYINT": ("SMALLINT", pyarrow.int16()),
    "UTINYINT": ("SMALLINT", pyarrow.int16()),
    "SMALLINT": ("SMALLINT", pyarrow.int16()),
    "USMALLINT": ("INTEGER", pyarrow.int32()),
    "INTEGER": ("INTEGER", pyarrow.int32()),
    "UINTEGER": ("BIGINT", pyarrow.int64()),
    "BIGINT": ("BIGINT", pyarrow.int64()),
    "UBIGINT": ("BIGINT", pyarrow.uint64()),
    "FLOAT": ("REAL", pyarrow.float32()),
    "DOUBLE": ("DOUBLE PRECISION", pyarrow.float64()),
    "VARCHAR": ("BYTEA", pyarrow.large_binary()),
    "BLOB": ("BYTEA", pyarrow.large_binary()),
}
#: How values of fixed length stand in a COPY.
_WIRE = {
    pyarrow.bool_(): "?",
    pyarrow.int16(): ">i2",
    pyarrow.int32(): ">i4",
    pyarrow.int64(): ">i8",
    pyarrow.uint64(): ">u8",
    pyarrow.float32(): ">f4",
    pyarrow.float64(): ">f8",
}
_BINARY = pyarrow.large_binary()
#: What is kept as it is.
BYTES = Column("BYTEA", _BINARY, _BINARY)
LONG = Column("BIGINT", pyarrow.int64(), pyarrow.int64())
#: Bytes of Arrow data that are encoded at a time.
_STEP = 1 << 20
#: Bytes of an answer that are decoded at a time.
_PIECE = 4 << 20
#: PostgreSQL selects up to 1664 things, those to sort by included; what has a fixed length is selected with its nulls. And a row
#: must fit into a page of 8 KiB but for the bytes that it can keep elsewhere.
_MOST_SELECTED = 1600
_MOST_BYTES = 8000
_LENGTH = Struct(">i").unpack_from


@lru_cache(maxsize=1024)
def postgres_columns(structure: TableStructure) -> tuple[Column, ...] | None:
    """A `Column` each, or None if one of them would not come back exactly, or if they are too many for a row."""
    others = sql_columns(structure)
    if others is None or any(c.sql not in _TYPES for c in others):
        return None
    columns = tuple(Column(*_TYPES[c.sql], c.declared) for c in others)
    ragged = sum(c.stored == _BINARY for c in columns)
    fixed = len(columns) - ragged
    # A header and the bits of nulls; eight bytes a value, aligned; a pointer to bytes kept elsewhere.
    most = 32 + len(columns) // 8 + 8 * (len(META) + fixed) + 24 * ragged
    return columns if 2 * fixed + ragged <= _MOST_SELECTED and most <= _MOST_BYTES else None


def in_order(table: pyarrow.Table) -> pyarrow.Table:
    """The columns in the order in which they are copied: those of fixed length first."""
    return table.select(sorted(range(table.num_columns), key=lambda n: table.schema.field(n).type == _BINARY))


def steps(table: pyarrow.Table) -> Iterator[pyarrow.Table]:
    """The table in slices of about 1 MiB."""
    rows = max(1, _STEP * table.num_rows // max(1, table.nbytes))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def encode(table: pyarrow.Table) -> bytes:
    """The rows of a COPY without its ends. `table` is in order, of types that are stored here."""
    columns = [c.combine_chunks() for c in table.columns]
    fixed = [c for c in columns if c.type != _BINARY]
    ragged = columns[len(fixed) :]
    layout = _layout([c.type for c in fixed], len(ragged))
    block = numpy.full(table.num_rows, _blank_row(layout))
    for n, column in enumerate(fixed):
        block[f"value{n}"] = _values(column)
    for n, column in enumerate(ragged):
        block[f"ragged{n}"] = _lengths(column)
    is_kept = _without_nulls(block, fixed)
    flat = block.view(numpy.uint8)
    kept = flat if is_kept is None else flat[is_kept.ravel()]
    if not ragged:
        return kept.tobytes()
    sizes = numpy.full(len(block), layout.itemsize) if is_kept is None else is_kept.sum(axis=1)
    return _woven(kept, sizes, ragged)


def selected(names: Sequence[str], columns: Sequence[Column]) -> str:
    """What to select so that `Answer` understands it."""
    fixed = [name for name, column in zip(names, columns, strict=True) if column.stored != _BINARY]
    ragged = [name for name, column in zip(names, columns, strict=True) if column.stored == _BINARY]
    return ", ".join([f"coalesce({name}, '0'), {name} IS NULL" for name in fixed] + ragged)


class Answer:
    """What a COPY of `selected` columns brings, piece by piece. For one thread at a time."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._fixed = [n for n, c in enumerate(columns) if c.stored != _BINARY]
        self._ragged = [n for n, c in enumerate(columns) if c.stored == _BINARY]
        stored = [t for n in self._fixed for t in (columns[n].stored, pyarrow.bool_())]
        self._layout = _layout(stored, len(self._ragged))
        # What was added and is not decoded; after `decode` a row that is not complete yet. Bytes of it now, and as it was left.
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._left = 0
        # All bytes that were added.
        self.size = 0
        self._is_begun = False
        self._found: list[list[pyarrow.Array]] = [[] for _ in columns]

    def add(self, data: bytes) -> None:
        """The next bytes, cut anywhere. Cheap."""
        self._pieces.append(data)
        self._waiting += len(data)
        self.size += len(data)

    def is_due(self) -> bool:
        """It is time to decode. A row longer than a piece is not looked at again before it has doubled."""
        return self._waiting >= max(_PIECE, 2 * self._left)

    def decode(self) -> None:
        """Take up what was added."""
        data = b"".join(self._pieces)
        if not self._is_begun and len(data) >= len(HEADER):
            data, self._is_begun = data[len(HEADER) :], True
        if self._is_begun:
            data = data[self._decode(data) :]
        self._pieces = [data]
        self._waiting = self._left = len(data)

    def columns(self) -> list[pyarrow.ChunkedArray]:
        """All of it, once the COPY has ended. Also decodes the rest."""
        self.decode()
        assert self._pieces == [TRAILER]
        return [pyarrow.chunked_array(c, a.stored) for c, a in zip(self._found, self._columns, strict=True)]

    def _decode(self, data: bytes) -> int:
        """Take the rows that are complete; how many bytes they had."""
        lengths = self._walk(data)
        count = len(lengths) if self._ragged else len(data) // self._layout.itemsize
        if not count:
            return 0
        size = count * self._layout.itemsize + int(numpy.maximum(lengths, 0).sum())
        flat = numpy.frombuffer(data, numpy.uint8, size)
        if self._ragged:
            is_payload = _is_payload(numpy.full(count, self._layout.itemsize), lengths)
            payload, flat = flat[is_payload], flat[~is_payload]
            for n, array in zip(self._ragged, _unwoven(payload, lengths), strict=True):
                self._found[n].append(array)
        block = flat.view(self._layout)
        for n, at in enumerate(self._fixed):
            values = block[f"value{2 * n}"].astype(self._layout[f"value{2 * n}"].newbyteorder("="))
            is_null = block[f"value{2 * n + 1}"]
            self._found[at].append(pyarrow.array(values, self._columns[at].stored, mask=is_null if is_null.any() else None))
        return size

    def _walk(self, data: bytes) -> numpy.ndarray:
        """Lengths of what has no fixed one, a row for each row that is complete: the only way to know where the next begins."""
        count, end = len(self._ragged), len(data)
        lengths: list[int] = []
        if not count:
            return numpy.empty((0, 0), numpy.int64)
        head = self._layout.itemsize - 4 * count
        at = 0
        while True:
            row = []
            at += head
            for _ in range(count):
                if at + 4 > end:
                    break
                (length,) = _LENGTH(data, at)
                at += 4 + max(length, 0)
                row.append(length)
            if len(row) < count or at > end:
                return numpy.array(lengths, numpy.int64).reshape(-1, count)
            lengths += row


@lru_cache(maxsize=1024)
def _layout_of(fixed: tuple[Any, ...], ragged: int) -> numpy.dtype[Any]:
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for n, stored in enumerate(fixed):
        fields += [(f"length{n}", ">i4"), (f"value{n}", _WIRE[stored])]
    return numpy.dtype(fields + [(f"ragged{n}", ">i4") for n in range(ragged)])


def _layout(fixed: Sequence[Any], ragged: int) -> numpy.dtype[Any]:
    """A row without nulls, and without the bytes of what has no fixed length."""
    return _layout_of(tuple(fixed), ragged)


@lru_cache(maxsize=1024)
def _blank_row(layout: numpy.dtype[Any]) -> numpy.ndarray:
    """With the number of fields and the lengths that are known."""
    names = layout.names or ()
    blank = numpy.zeros((), layout)
    blank["fields"] = sum(name.startswith(("value", "ragged")) for name in names)
    for name in names:
        if name.startswith("value"):
            blank[name.replace("value", "length")] = layout[name].itemsize
    return blank


def _without_nulls(block: numpy.ndarray, fixed: Sequence[pyarrow.Array]) -> numpy.ndarray | None:
    """Make the lengths of nulls -1; which bytes are left then, a row each. None: all."""
    is_kept: numpy.ndarray | None = None
    for n, column in enumerate(fixed):
        if not column.null_count:
            continue
        if is_kept is None:
            is_kept = numpy.ones((len(block), block.itemsize), bool)
        is_null = column.is_null().to_numpy(zero_copy_only=False)
        block[f"length{n}"][is_null] = -1
        assert block.dtype.fields is not None
        dtype, start = block.dtype.fields[f"value{n}"][:2]
        is_kept[is_null, start : start + dtype.itemsize] = False
    return is_kept


def _values(column: pyarrow.Array) -> numpy.ndarray:
    """Anything where there is a null."""
    filled = column.fill_null(False if column.type == pyarrow.bool_() else 0) if column.null_count else column
    values: numpy.ndarray = filled.to_numpy(zero_copy_only=False)
    return values


def _lengths(column: pyarrow.Array) -> numpy.ndarray:
    """-1: null."""
    lengths: numpy.ndarray = pyarrow.compute.binary_length(column).fill_null(-1).to_numpy()
    return lengths


def _woven(kept: numpy.ndarray, sizes: numpy.ndarray, ragged: Sequence[pyarrow.Array]) -> bytes:
    """The bytes of ragged columns, each put behind its length. `sizes`: bytes kept of each row."""
    count, rows = len(ragged), len(sizes)
    lengths = numpy.stack([_lengths(c) for c in ragged], axis=1)
    joined = pyarrow.concat_arrays([c.fill_null(b"") for c in ragged])
    if count > 1:
        joined = joined.take(pyarrow.array(numpy.arange(count * rows).reshape(count, rows).T.ravel()))
    is_payload = _is_payload(sizes, lengths)
    whole = numpy.empty(len(is_payload), numpy.uint8)
    whole[is_payload] = _payload(joined)
    whole[~is_payload] = kept
    return whole.tobytes()


def _unwoven(payload: numpy.ndarray, lengths: numpy.ndarray) -> list[pyarrow.Array]:
    rows, count = lengths.shape
    offsets = numpy.zeros(rows * count + 1, numpy.int64)
    numpy.cumsum(numpy.maximum(lengths, 0).ravel(), out=offsets[1:])
    valid = numpy.packbits(lengths.ravel() >= 0, bitorder="little")
    buffers = [pyarrow.py_buffer(b) for b in (valid, offsets, payload)]
    joined = pyarrow.LargeBinaryArray.from_buffers(_BINARY, rows * count, buffers)
    return [joined.take(pyarrow.array(numpy.arange(n, rows * count, count))) for n in range(count)]


def _is_payload(sizes: numpy.ndarray, lengths: numpy.ndarray) -> numpy.ndarray:
    """For each byte of rows, whether it belongs to what has no fixed length. `sizes`: the other bytes of each row."""
    rows, count = lengths.shape
    runs = numpy.full((rows, count, 2), 4, numpy.int64)  # between two of them stands but the length of the second
    runs[:, 0, 0] = sizes - 4 * (count - 1)
    runs[:, :, 1] = numpy.maximum(lengths, 0)
    return numpy.repeat(numpy.tile([False, True], rows * count), runs.ravel())


def _payload(column: pyarrow.Array) -> numpy.ndarray:
    """The bytes of all values, one after the other."""
    _, offsets, data = column.buffers()
    ends = numpy.frombuffer(offsets, numpy.int64)[[column.offset, column.offset + len(column)]]
    return numpy.frombuffer(data or b"", numpy.uint8)[ends[0] : ends[1]]
