"""Views of a stream: some columns, every fourth pixel, headers alone; extremes instead of all rows.

A view is a value, and equal ones share their encoding like plain subscribers do. It never changes what others get. What must stay
true: a record that has a message has one in every view too; what cannot be reduced (a payload of another type, a slice that does
not fit this array) is given as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ..domain.chunks import size
from ..domain.dtypes import to_numpy
from ..domain.errors import Malformed
from ..domain.events import ArrayWritten, PartWritten, Record, RowsAppended, TableWritten
from ..domain.nodes import Node
from ..domain.slices import parse_selection
from ..domain.structures import ArrayStructure, SparseStructure, Structure, TableStructure
from .messages import MessageEncoder
from .tables import ARROW_FILE, encode_table, read_table, schema_of, structure_of

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Extremes", "Latest", "Thinning", "View", "ViewEncoder", "check_view", "viewed"]

_FOLD_BYTES = 1 << 20


class View(msgspec.Struct, frozen=True):
    """What is wanted of each message. `columns`: of tables (None: all) · `slice`: of arrays, beyond axis 0 · `payload`."""

    columns: tuple[str, ...] | None = None
    slice: str = ""
    payload: bool = True


def viewed(structure: Structure | None, view: View) -> Structure | None:
    """The structure that a subscriber with this view is told: of a table, with the columns that will come."""
    if not isinstance(structure, TableStructure) or view.columns is None:
        return structure
    import pyarrow

    schema = schema_of(structure)
    fields = [schema.field(name) for name in structure.columns if name in view.columns]
    return structure_of(pyarrow.schema(fields, metadata=schema.metadata)) if fields else structure


def check_view(view: View, node: Node) -> None:
    """`Malformed` if this node can never be seen like that."""
    structure = node.structure
    if isinstance(structure, TableStructure):
        for name in view.columns or ():
            if name not in structure.columns:
                raise Malformed(f"The table has no column {name!r}; it has {list(structure.columns)}.")
    if isinstance(structure, ArrayStructure) and view.slice:
        parse_selection(view.slice, structure.shape[1:])


class ViewEncoder:
    """Encodes the records of one node as a view shows them. `plain` was made with the `viewed` structure."""

    __slots__ = ("_columns", "_data_type", "_hash", "_plain", "_view")

    def __init__(self, plain: MessageEncoder, view: View, node: Node) -> None:
        structure = node.structure
        self._view = view
        self._data_type = structure.data_type if isinstance(structure, ArrayStructure) else None
        # Of a table those columns that it has: a view may be of many tables.
        self._columns: tuple[str, ...] | None = None
        if isinstance(structure, TableStructure) and view.columns is not None:
            self._columns = tuple(name for name in structure.columns if name in view.columns)
        self._plain = plain
        self._hash = hash((plain, view))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ViewEncoder) and self._view == other._view and self._plain == other._plain

    def schema(self) -> bytes:
        """The first message: of a table, with the columns that will come."""
        return self._plain.schema()

    def __call__(self, record: Record, /) -> bytes | None:
        """One message, or None if the record is not for subscribers."""
        event = record.event
        if not isinstance(event, ArrayWritten | PartWritten | RowsAppended | TableWritten):
            return self._plain(record)
        if not self._view.payload or self._columns == ():
            return self._plain.notice(**_header(record, event))
        if isinstance(event, RowsAppended | TableWritten) and self._columns is not None:
            table = read_table(record.payload).select(self._columns)
            return self._plain(msgspec.structs.replace(record, payload=encode_table(table, ARROW_FILE)))
        if isinstance(event, ArrayWritten) and self._view.slice and self._data_type is not None:
            return self._plain(self._sliced(record, event))
        return self._plain(record)

    def _sliced(self, record: Record, event: ArrayWritten) -> Record:
        import numpy

        assert self._data_type is not None
        dtype = to_numpy(self._data_type)
        if not event.shape or len(record.payload) != size(event.shape) * dtype.itemsize:
            return record
        try:
            selection = parse_selection(self._view.slice, event.shape[1:])
        except Malformed:
            return record
        array = numpy.ndarray(event.shape, dtype, record.payload)
        part = array[(slice(None), *selection.index)]
        event = msgspec.structs.replace(event, shape=(event.shape[0], *selection.shape))
        return msgspec.structs.replace(record, event=event, payload=part.tobytes())


class Latest:
    """Of many records the last one."""

    def __init__(self) -> None:
        self._last: Record | None = None

    def add(self, record: Record) -> None:
        """One more."""
        self._last = record

    def take(self) -> Record | None:
        """What stands for all since the last taking."""
        last, self._last = self._last, None
        return last


class Extremes:
    """Of many rows those in which a column is lowest or highest, in order, in one record. It holds two rows a column, no more."""

    def __init__(self, columns: tuple[str, ...] | None) -> None:
        self._columns = columns
        self._last: Record | None = None
        self._pieces: list[pyarrow.Table] = []
        self._bytes = 0
        self._is_append = True

    def add(self, record: Record) -> None:
        """One more; a table that is written anew forgets what was before."""
        if isinstance(record.event, TableWritten):
            self._pieces, self._bytes, self._is_append = [], 0, False
        self._last = record
        self._pieces.append(read_table(record.payload))
        self._bytes += len(record.payload)
        if self._bytes > _FOLD_BYTES:
            self._pieces, self._bytes = [self._folded()], 0

    def take(self) -> Record | None:
        """What stands for all since the last taking."""
        last = self._last
        if last is None:
            return None
        assert isinstance(last.event, RowsAppended | TableWritten)
        table, partition = self._folded(), last.event.partition
        event: RowsAppended | TableWritten = TableWritten(partition, table.num_rows)
        if self._is_append:
            event = RowsAppended(partition or 0, table.num_rows)
        self._last, self._pieces, self._bytes, self._is_append = None, [], 0, True
        return msgspec.structs.replace(last, event=event, payload=encode_table(table, ARROW_FILE))

    def _folded(self) -> pyarrow.Table:
        import numpy
        import pyarrow

        table = pyarrow.concat_tables(self._pieces)
        wanted: set[int] = set()
        for name in table.schema.names if self._columns is None else self._columns:
            if name not in table.schema.names or not _is_numeric(table.schema.field(name).type):
                continue
            values = table.column(name).to_numpy()
            known = numpy.flatnonzero(~numpy.isnan(values)) if values.dtype.kind == "f" else numpy.arange(len(values))
            if len(known):
                wanted |= {int(known[values[known].argmin()]), int(known[values[known].argmax()])}
        if not wanted and table.num_rows:
            wanted = {table.num_rows - 1}
        return table.take(sorted(wanted)) if len(wanted) < table.num_rows else table


class Thinning(msgspec.Struct, frozen=True):
    """At most one message every `seconds`. `is_minmax`: extremes of `columns` (None: all), else the last record."""

    seconds: float
    is_minmax: bool = False
    columns: tuple[str, ...] | None = None

    def begin(self) -> Latest | Extremes:
        """An empty fold."""
        return Extremes(self.columns) if self.is_minmax else Latest()


def _header(record: Record, event: ArrayWritten | PartWritten | RowsAppended | TableWritten) -> dict[str, Any]:
    """A message without its payload: what it would have been, and how large."""
    when = datetime.fromtimestamp(record.time, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    fields: dict[str, Any] = {"sequence": record.sequence, "timestamp": when, "bytes": len(record.payload)}
    if record.covers is not None:
        fields["covers"] = record.covers
    if isinstance(event, RowsAppended | TableWritten):
        return fields | {
            "kind": "table-data",
            "partition": event.partition,
            "append": isinstance(event, RowsAppended),
            "rows": event.rows,
        }
    is_ragged = isinstance(event, PartWritten) and not isinstance(event.structure, SparseStructure)
    kind = "ragged-data" if is_ragged else "array-data"
    return fields | {"kind": kind, "shape": event.shape, "offset": event.offset, "block": event.block}


def _is_numeric(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind))
