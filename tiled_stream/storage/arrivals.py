"""Rows with the records that they came with: what a log has let go of, given again from storage.

Engines with SQL columns keep the sequence of each row. Bodies and segments, into which many small records were joined, carry
marks instead: which record brought how many rows. What must stay true: rows are given by whole records, in the order of the
sequences; what is not known exactly is left out, and whoever asked sees a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy
import pyarrow

from .port import Arrived

__all__ = ["Marks", "Piece", "arrived", "marked", "marks_of", "merged", "squeezed", "unsqueezed", "whole_records"]

#: (sequence, rows) of each record, in order.
Marks = Sequence[tuple[int, int]]

_KEY = b"tiled_stream.marks"
#: Marks of a segment are kept if they can be said in so many runs.
_MOST_RUNS = 1000


class Piece(msgspec.Struct, frozen=True):
    """Rows of one partition, those of the record `first` and perhaps of later ones. `load` reads them: rows and marks."""

    first: int
    partition: int
    load: Callable[[], tuple[pyarrow.Table, Marks]]


def marked(table: pyarrow.Table, marks: Marks) -> pyarrow.Table:
    """The table with its marks beside the schema; a single record needs none."""
    return table.replace_schema_metadata({_KEY: msgspec.msgpack.encode(marks)} if len(marks) > 1 else None)


def marks_of(table: pyarrow.Table, sequence: int) -> Marks:
    """The marks of a body that begins with the rows of `sequence`."""
    found = (table.schema.metadata or {}).get(_KEY)
    return [(sequence, table.num_rows)] if found is None else msgspec.msgpack.decode(found, type=list[tuple[int, int]])


def squeezed(marks: Marks) -> tuple[tuple[int, int, int], ...]:
    """Marks as runs (first sequence, how many records, rows of each); nothing if that would be too much to keep."""
    runs: list[tuple[int, int, int]] = []
    for sequence, rows in marks:
        if runs and runs[-1][0] + runs[-1][1] == sequence and runs[-1][2] == rows:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, rows)
        else:
            runs.append((sequence, 1, rows))
    return tuple(runs) if len(runs) <= _MOST_RUNS else ()


def unsqueezed(runs: Sequence[tuple[int, int, int]]) -> Marks:
    """The way back."""
    return [(first + n, rows) for first, count, rows in runs for n in range(count)]


def merged(pieces: Iterable[Piece], empty: pyarrow.Table, *, after: int, upto: int, rows: int) -> Arrived:
    """The records after `after` up to `upto` from pieces in order of `first`: about so many rows."""
    tables: list[pyarrow.Table] = []
    sequences: list[Any] = []
    partitions: list[Any] = []
    count = 0
    horizon = upto
    for piece in pieces:
        if count >= rows and any(s[0] < piece.first for s in sequences):
            horizon = piece.first - 1  # what this piece has comes later
            break
        table, marks = piece.load()
        of_rows = numpy.repeat([s for s, _ in marks], [n for _, n in marks]).astype(numpy.int64)
        if len(of_rows) != table.num_rows:
            continue  # its records are not known one by one
        begin, end = numpy.searchsorted(of_rows, [after, upto], side="right")
        if begin < end:
            tables.append(table.slice(begin, end - begin))
            sequences.append(of_rows[begin:end])
            partitions.append(numpy.full(end - begin, piece.partition))
            count += int(end - begin)
    if not tables:
        return arrived(empty, numpy.zeros(0, numpy.int64), numpy.zeros(0, numpy.int64))
    all_sequences, all_partitions = numpy.concatenate(sequences), numpy.concatenate(partitions)
    order = numpy.argsort(all_sequences, kind="stable")
    order = order[all_sequences[order] <= horizon]
    whole = pyarrow.concat_tables([t.replace_schema_metadata(None) for t in tables])
    table = whole.take(order).cast(empty.schema.remove_metadata()).replace_schema_metadata(empty.schema.metadata)
    return whole_records(arrived(table, all_sequences[order], all_partitions[order]), rows=rows, is_cut=False)


def whole_records(found: Arrived, *, rows: int, is_cut: bool) -> Arrived:
    """`found` up to about `rows` rows, by whole records. `is_cut`: its last record may have more rows than are there.

    Of a record that alone is more, all that is there.
    """
    sequences = found.sequences
    if not len(sequences) or (len(sequences) <= rows and not is_cut):
        return found
    last = sequences[min(rows, len(sequences) - 1)]
    keep = int(numpy.searchsorted(sequences, last, side="left"))
    if keep == 0:  # one record
        keep = int(numpy.searchsorted(sequences, last, side="right"))
    return arrived(found.table.slice(0, keep), sequences[:keep], found.partitions[:keep])


def arrived(table: pyarrow.Table, sequences: Any, partitions: Any) -> Arrived:
    """As the port gives it."""
    return Arrived(table, numpy.asarray(sequences, numpy.int64), numpy.asarray(partitions, numpy.int64))
