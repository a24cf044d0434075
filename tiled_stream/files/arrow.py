"""Arrow files (the IPC file format, Feather version 2), with pyarrow: some columns, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.ipc

from .port import Source
from .reading import reading
from .tables import gathered

__all__ = ["read_arrow"]


def read_arrow(source: Source, path: Path, columns: Sequence[str]) -> pyarrow.Table:
    """See `ReadTable`."""
    with reading(source, path, pyarrow.ArrowException, ValueError), pyarrow.OSFile(str(path)) as file:
        names = pyarrow.ipc.open_file(file).schema.names
        taken = [number for number, name in enumerate(names) if name in columns]
        reader = pyarrow.ipc.open_file(file, options=pyarrow.ipc.IpcReadOptions(included_fields=taken))
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        return gathered(batches, reader.schema, source.limit)
