"""What `table.json` says of a table in files, and which records become one file of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..domain.errors import Unavailable
from ..domain.events import AssetDeleted, Record, RowsAppended, TableWritten

__all__ = ["MANIFEST", "Manifest", "Segment", "read_manifest", "runs_of"]

MANIFEST = "table.json"


class Segment(msgspec.Struct, frozen=True):
    """Rows of one partition, of the records from `first` to `last`. `size` in bytes. `marks`: which record brought how many rows,
    as runs; empty if that would be too much to keep."""

    partition: int
    first: int
    last: int
    file: str
    rows: int
    size: int
    marks: tuple[tuple[int, int, int], ...] = ()


class Manifest(msgspec.Struct, frozen=True):
    """What `table.json` says: the segments in order of partition, then of arrival, as of the watermark."""

    watermark: int = 0
    segments: tuple[Segment, ...] = ()


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a table; an empty one if nothing was written yet. `Unavailable` if it is damaged."""
    try:
        return msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except msgspec.DecodeError as error:
        raise Unavailable(f"{directory / MANIFEST} is damaged: {error}") from error


def runs_of(records: Sequence[Record]) -> list[tuple[int, list[Record]]]:
    """Records by what one file can hold: appends to one partition that follow each other, a replacement, or a deletion."""
    runs: list[tuple[int, list[Record]]] = []
    for record in records:
        event = record.event
        if isinstance(event, RowsAppended):
            if runs and runs[-1][0] == event.partition and isinstance(runs[-1][1][-1].event, RowsAppended):
                runs[-1][1].append(record)
            else:
                runs.append((event.partition, [record]))
        elif isinstance(event, TableWritten):
            runs.append((event.partition or 0, [record]))
        elif isinstance(event, AssetDeleted):
            runs.append((0, [record]))
    return runs
