"""Rows kept as Arrow bodies (IPC streams in a BLOB), for what an SQL type would not bring back exactly.

Many small appends make one body, so that the schema in each costs nothing worth saving; a body is compressed, for it is read
whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow

from .arrow_columns import Rows

__all__ = ["decode", "encode", "gathered", "joined"]

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
    return [Rows(run[0].dataset, run[0].partition, run[0].sequence, joined([r.table for r in run])) for run in runs]


def joined(tables: Sequence[pyarrow.Table]) -> pyarrow.Table:
    """Tables of one schema below each other, in one piece: also dictionaries that differ."""
    table = tables[0] if len(tables) == 1 else pyarrow.concat_tables(tables)
    return table.unify_dictionaries().combine_chunks()


def _place(rows: Rows) -> tuple[int, int, int]:
    return rows.dataset, rows.partition, rows.sequence
