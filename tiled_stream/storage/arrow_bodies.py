"""Rows kept as Arrow bodies (IPC streams in a BLOB), for what an SQL type would not bring back exactly.

Many small appends make one body, so that the schema in each costs nothing worth saving; a body is compressed, for it is read
whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow

from ..domain.structures import TableStructure
from .arrivals import Marks, Piece, marked, marks_of, merged
from .arrow_columns import Rows, declared_schema, declared_table
from .port import Arrived

__all__ = ["arrived_bodies", "decode", "encode", "gathered", "grown", "joined"]

#: Bytes of Arrow data from which on a body is not joined with what follows it.
FULL = 64 << 10


def encode(table: pyarrow.Table) -> bytes:
    """One body."""
    sink = pyarrow.BufferOutputStream()
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4", unify_dictionaries=True)
    with pyarrow.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def decode(body: bytes) -> pyarrow.Table:
    """The way back."""
    return pyarrow.ipc.open_stream(pyarrow.py_buffer(body)).read_all()


def gathered(rows: Iterable[Rows]) -> list[Rows]:
    """In order of node, partition and sequence, those of one partition as one up to `FULL` bytes, under the first's sequence."""
    runs: list[list[Rows]] = []
    size = 0
    for each in sorted(rows, key=_place):
        if runs and size < FULL and (runs[-1][0].dataset, runs[-1][0].partition) == (each.dataset, each.partition):
            runs[-1].append(each)
        else:
            runs.append([each])
            size = 0
        size += each.table.nbytes
    return [Rows(run[0].dataset, run[0].partition, run[0].sequence, _one(run)) for run in runs]


def grown(body: pyarrow.Table, sequence: int, rows: Rows) -> pyarrow.Table:
    """A body that begins with the record `sequence`, and what is appended to it, as `gathered` gave it."""
    marks = [*marks_of(body, sequence), *marks_of(rows.table, rows.sequence)]
    return marked(joined([body, rows.table]), marks)


def _one(run: Sequence[Rows]) -> pyarrow.Table:
    return marked(joined([r.table for r in run]), [(r.sequence, r.table.num_rows) for r in run])


def joined(tables: Sequence[pyarrow.Table]) -> pyarrow.Table:
    """Tables of one schema below each other, in one piece: also dictionaries that differ."""
    plain = [table.replace_schema_metadata(None) for table in tables]
    table = plain[0] if len(plain) == 1 else pyarrow.concat_tables(plain)
    return table.unify_dictionaries().combine_chunks()


def arrived_bodies(
    bodies: Iterable[tuple[int, int, Any]], structure: TableStructure, *, after: int, upto: int, rows: int
) -> Arrived:
    """See `TableStore.arrived`. `bodies` are (sequence, partition, body), in order, those that may hold such rows."""
    schema = declared_schema(structure)

    def piece(sequence: int, partition: int, body: Any) -> Piece:
        def load() -> tuple[pyarrow.Table, Marks]:
            table = decode(body)
            return declared_table(table.columns, schema), marks_of(table, sequence)

        return Piece(sequence, partition, load)

    return merged((piece(*body) for body in bodies), schema.empty_table(), after=after, upto=upto, rows=rows)


def _place(rows: Rows) -> tuple[int, int, int]:
    return rows.dataset, rows.partition, rows.sequence
