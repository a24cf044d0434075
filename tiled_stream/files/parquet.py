"""Parquet files, with pyarrow: some columns, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from .port import Source
from .reading import reading
from .tables import gathered

__all__ = ["read_parquet"]

_ROWS = 1 << 16


def read_parquet(source: Source, path: Path, columns: Sequence[str]) -> pyarrow.Table:
    """See `ReadTable`."""
    with reading(source, path, pyarrow.ArrowException, ValueError), pyarrow.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        there = [n for n in columns if n in schema.names]
        # A name may be a prefix or the path of another column; so what comes may be more than was asked for.
        batches = (b.select(there) for b in file.iter_batches(batch_size=_ROWS, columns=there))
        return gathered(batches, pyarrow.schema([schema.field(n) for n in there]), source.limit)
