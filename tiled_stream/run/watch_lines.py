"""Events as lines: JSON for programs, one object a line, and a short text for people whose output is no terminal.

The JSON is documented in `docs/reference/cli.md`. Data that have no form as JSON are left out and named.
"""

from __future__ import annotations

from typing import Any

import orjson

from ..client import (
    Appeared,
    ArrayData,
    ArrayRef,
    ChildCreated,
    ChildUpdated,
    Ended,
    Event,
    Failed,
    Gap,
    Live,
    Other,
    RaggedData,
    Reconnected,
    SparseData,
    TableData,
    Update,
)
from ..domain.errors import TiledStreamError
from ..wire.arrays import plain_array

__all__ = ["KINDS", "json_line", "summary", "text_line"]

#: Names of the events in JSON.
KINDS: dict[type[Event], str] = {
    Appeared: "appeared",
    ArrayData: "array-data",
    ArrayRef: "array-ref",
    ChildCreated: "child-created",
    ChildUpdated: "child-updated",
    Ended: "ended",
    Failed: "failed",
    Gap: "gap",
    Live: "live",
    Other: "other",
    RaggedData: "ragged-data",
    Reconnected: "reconnected",
    SparseData: "sparse-data",
    TableData: "table-data",
}


def json_line(event: Event) -> str:
    """One object, in one line."""
    fields: dict[str, Any] = {
        "event": KINDS[type(event)],
        "path": "/".join(event.path),
        "sequence": event.sequence,
        "time": event.time.isoformat().replace("+00:00", "Z"),
    }
    if isinstance(event, Update) and event.covers != (event.sequence, event.sequence):
        fields["covers"] = event.covers
    fields |= _more(event)
    return orjson.dumps(fields, default=str).decode()


def text_line(event: Event) -> str:
    """Time, node, sequence and what happened; "" for what only a screen shows."""
    if isinstance(event, Live):
        return ""
    return f"{event.time:%H:%M:%S.%f}"[:-3] + f"  {'/'.join(event.path) or '/'}  {event.sequence}  {summary(event)}"


def summary(event: Event) -> str:
    """A few words."""
    match event:
        case ArrayData():
            return f"{_place(event)} {_figures(event)}"
        case ArrayRef():
            return f"new cells in files, {event.patch_shape or event.shape}"
        case TableData():
            return _row(event)
        case ChildCreated():
            return f"+ {event.key} ({', '.join(spec.name for spec in event.specs) or event.family})"
        case ChildUpdated():
            return f"~ {event.key} {_short(event.metadata)}"
        case Appeared():
            return f"{event.family}, {event.head} records"
        case Gap(first=None):
            return f"GAP: nobody knows what was missed ({event.reason})"
        case Gap():
            return f"GAP: {event.first} to {event.last} do not come ({event.reason})"
        case Reconnected():
            return f"connected again after {event.seconds:.1f} s ({event.why})"
        case Ended():
            return f"ended: {event.reason}"
        case Failed():
            return f"failed: {event.error}"
        case RaggedData():
            return f"rows of unequal lengths {event.shape}"
        case SparseData():
            return f"{len(event.elements)} elements of {event.shape}"
        case Other():
            return event.type
    return "live"


def _more(event: Event) -> dict[str, Any]:
    match event:
        case ArrayData():
            return {"shape": event.shape, "offset": event.offset, "block": event.block} | _cells(event)
        case ArrayRef():
            return {"shape": event.shape, "patch_offset": event.patch_offset, "patch_shape": event.patch_shape}
        case TableData():
            return {"append": event.append, "partition": event.partition} | _rows(event)
        case ChildCreated():
            specs = [spec.name for spec in event.specs]
            return {"key": event.key, "family": event.family, "specs": specs, "metadata": event.metadata}
        case ChildUpdated():
            specs = [spec.name for spec in event.specs]
            return {"key": event.key, "specs": specs, "metadata": event.metadata, "revision": event.revision}
        case Appeared():
            specs = [spec.name for spec in event.specs]
            return {"family": event.family, "specs": specs, "metadata": event.metadata, "head": event.head}
        case Gap():
            return {"first": event.first, "last": event.last, "reason": event.reason}
        case Reconnected():
            return {"attempts": event.attempts, "seconds": round(event.seconds, 3), "why": event.why}
        case Ended():
            return {"reason": event.reason, "deleted": event.is_deleted}
        case Failed():
            return {"error": str(event.error)}
        case RaggedData():
            return {"shape": event.shape, "offset": event.offset, "block": event.block, "data": event.array.to_list()}
        case SparseData():
            elements = {"coordinates": event.coordinates.T.tolist(), "elements": plain_array(event.elements)}
            return {"shape": event.shape, "offset": event.offset, "block": event.block} | elements
        case Other():
            return {"type": event.type}
    return {}


def _cells(event: ArrayData) -> dict[str, Any]:
    try:
        return {"data": plain_array(event.array)}
    except TiledStreamError as error:
        return {"data": None, "fault": str(error)}


def _rows(event: TableData) -> dict[str, Any]:
    from ..wire.table_columns import plain_column

    columns: dict[str, Any] = {}
    left_out = []
    for name in event.table.column_names:
        try:
            columns[name] = plain_column(event.table.column(name))
        except TiledStreamError:
            left_out.append(name)
    return {"rows": event.table.num_rows, "columns": columns} | ({"left_out": left_out} if left_out else {})


def _place(event: ArrayData) -> str:
    where = f" at {event.offset}" if event.offset is not None else f" as block {event.block}" if event.block is not None else ""
    return f"{event.shape}{where}"


def _figures(event: ArrayData) -> str:
    """Least, mean and most, of numbers."""
    try:
        array = event.array
    except TiledStreamError as error:
        return str(error)
    if array.dtype.kind not in "biuf" or not array.size:
        return str(array.dtype)
    return f"{array.dtype} {array.min():g} … {array.mean():g} … {array.max():g}"


def _row(event: TableData) -> str:
    """The last of the rows."""
    table = event.table
    if not table.num_rows:
        return "no rows"
    (last,) = table.slice(table.num_rows - 1).to_pylist()
    values = "  ".join(f"{name}={_value(value)}" for name, value in last.items())
    return values if table.num_rows == 1 else f"{table.num_rows} rows, the last {values}"


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else _short(value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
