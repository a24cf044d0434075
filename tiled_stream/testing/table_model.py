"""Tables as pyarrow holds them, beside the records that made them: what the contract of table stores compares with.

Also a list of columns that are easily spoilt on their way through a database.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow

from ..domain.events import AssetDeleted, Record, RowsAppended, StreamEnded, TableWritten
from ..storage.port import TableBatch, TableStore
from .factories import new_id, record, table_body, table_node, table_structure

__all__ = ["COLUMNS", "TableModel", "assert_reads", "random_rows", "two_columns"]

_NOW = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
_PLAIN = _NOW.replace(tzinfo=None)
#: A type and values of it that are easily spoilt. Each gets a null as well.
COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "bool": (pyarrow.bool_(), [True, False]),
    "int8": (pyarrow.int8(), [-128, 127]),
    "int16": (pyarrow.int16(), [-(2**15), 2**15 - 1]),
    "int32": (pyarrow.int32(), [-(2**31), 2**31 - 1]),
    "int64": (pyarrow.int64(), [-(2**63), 2**63 - 1, 2**53 + 1]),
    "uint8": (pyarrow.uint8(), [0, 255]),
    "uint16": (pyarrow.uint16(), [0, 2**16 - 1]),
    "uint32": (pyarrow.uint32(), [0, 2**32 - 1]),
    "uint64": (pyarrow.uint64(), [0, 2**64 - 1, 2**63]),
    "half": (pyarrow.float16(), [1.5, -0.0, float("inf")]),
    "float": (pyarrow.float32(), [0.1, -0.0, float("-inf"), 1e-45]),
    "double": (pyarrow.float64(), [0.1, -0.0, float("inf"), 5e-324, 1e308]),
    "string": (pyarrow.string(), ["", "é水\U0001f52c", "it's", "a\x00b", "NULL", " x "]),
    "large_string": (pyarrow.large_string(), ["", "y" * 5000]),
    "binary": (pyarrow.binary(), [b"", b"\x00\xff'\\x"]),
    "large_binary": (pyarrow.large_binary(), [b"", b"\x00"]),
    "fixed_binary": (pyarrow.binary(3), [b"abc", b"\x00\x00\x00"]),
    "date32": (pyarrow.date32(), [date(1, 1, 1), date(9999, 12, 31)]),
    "date64": (pyarrow.date64(), [date(1969, 12, 31)]),
    "time32": (pyarrow.time32("ms"), [time(23, 59, 59, 999000)]),
    "time64": (pyarrow.time64("us"), [time(0, 0, 0, 1)]),
    "seconds": (pyarrow.timestamp("s"), [_PLAIN.replace(microsecond=0)]),
    "nanoseconds": (pyarrow.timestamp("ns"), [1, -1, 2**62 + 1]),
    "zoned": (pyarrow.timestamp("us", "Europe/Berlin"), [_NOW]),
    "duration": (pyarrow.duration("us"), [timedelta(microseconds=-1), timedelta(days=400)]),
    "decimal": (pyarrow.decimal128(20, 3), [Decimal("-12345678901234567.891")]),
    "decimal256": (pyarrow.decimal256(60, 5), [Decimal("123456789012345678901234567890.12345")]),
    "list": (pyarrow.list_(pyarrow.float64()), [[], [1.0, None, 3.5]]),
    "nested": (pyarrow.list_(pyarrow.list_(pyarrow.int32())), [[], [[], None, [1, 2]]]),
    "large_list": (pyarrow.large_list(pyarrow.string()), [[], ["a", None, ""]]),
    "fixed_list": (pyarrow.list_(pyarrow.int16(), 2), [[1, 2], [None, 3]]),
    "named_list": (pyarrow.list_(pyarrow.field("element", pyarrow.int64(), nullable=False)), [[1], []]),
    "struct": (pyarrow.struct([("a", pyarrow.int32()), ("b", pyarrow.string())]), [{"a": 1, "b": None}]),
    "map": (pyarrow.map_(pyarrow.string(), pyarrow.int32()), [[("k", 1)], []]),
    "categories": (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), ["b", "a", "b"]),
    "null": (pyarrow.null(), [None]),
}


class TableModel:
    """A table as pyarrow holds it: its partitions, and the records that made them."""

    def __init__(self, schema: pyarrow.Schema) -> None:
        self.schema = schema
        self.structure = table_structure(schema=schema)
        self.node = new_id()
        self.partitions: dict[int, list[dict[str, Any]]] = {}
        self.records: list[Record] = []
        self._rows: dict[int, list[dict[str, Any]]] = {}

    def append(self, rows: list[dict[str, Any]], partition: int = 0) -> None:
        """Rows are appended."""
        self.partitions.setdefault(partition, []).extend(rows)
        self._record(RowsAppended(partition, len(rows)), rows)

    def replace(self, rows: list[dict[str, Any]], partition: int | None) -> None:
        """A partition, or the whole table, is replaced."""
        if partition is None:
            self.partitions.clear()
        self.partitions[partition or 0] = list(rows)
        self._record(TableWritten(partition, len(rows)), rows)

    def step(self, random: Random) -> None:
        """Something random."""
        kind, partition = random.random(), random.choice((0, 0, 0, 1, 2))
        if kind < 0.75:
            self.append(random_rows(random, random.choice((0, 1, 1, 3))), partition)
        elif kind < 0.85:
            self.replace(random_rows(random, random.randrange(3)), partition)
        elif kind < 0.92:
            self.replace(random_rows(random, random.randrange(3)), None)
        elif kind < 0.95:
            self.clear()
        else:
            self.end()

    def end(self) -> None:
        """Something that is not data happens."""
        self.records.append(record(len(self.records) + 1, StreamEnded()))

    def clear(self) -> None:
        """The asset is deleted, and with it all rows."""
        self.partitions.clear()
        source = table_node(structure=self.structure).data_sources[0]
        self.records.append(record(len(self.records) + 1, AssetDeleted(source)))

    def batch(self, after: int = 0, upto: int | None = None, *, fence: int = 0) -> TableBatch:
        """The records that follow `after`, to `upto`."""
        return TableBatch(self.node, self.structure, after, tuple(self.records[after:upto]), fence)

    def table(self, columns: list[str] | None = None, partition: int | None = None) -> pyarrow.Table:
        """What a read must give."""
        numbers = sorted(self.partitions) if partition is None else [partition]
        rows = [row for n in numbers for row in self.partitions.get(n, [])]
        table = pyarrow.Table.from_pylist(rows, schema=self.schema)
        return table if columns is None else table.select([c for c in self.schema.names if c in columns])

    def arrived(self) -> list[tuple[int, int, dict[str, Any]]]:
        """The rows that are there, with the sequence and the partition of their records, in order of the records."""
        kept: list[tuple[int, int, list[dict[str, Any]]]] = []
        for each in self.records:
            event = each.event
            if isinstance(event, AssetDeleted):
                kept = []
            if isinstance(event, TableWritten):
                kept = [k for k in kept if event.partition not in (None, k[1])]
            if isinstance(event, TableWritten | RowsAppended):
                kept.append((each.sequence, event.partition or 0, self._rows[each.sequence]))
        return [(sequence, partition, row) for sequence, partition, rows in kept for row in rows]

    def _record(self, event: RowsAppended | TableWritten, rows: list[dict[str, Any]]) -> None:
        self._rows[len(self.records) + 1] = list(rows)
        columns = {name: [row[name] for row in rows] for name in self.schema.names}
        body = table_body(columns, schema=self.schema)
        self.records.append(record(len(self.records) + 1, event, body))


def random_rows(random: Random, count: int) -> list[dict[str, Any]]:
    """Rows of the columns x (nulls among them) and y."""
    return [{"x": random.choice((None, random.randrange(-99, 99))), "y": random.random()} for _ in range(count)]


def two_columns(*, names: tuple[str, str] = ("x", "y")) -> TableModel:
    """A table of an integer and a double."""
    return TableModel(pyarrow.schema(list(zip(names, (pyarrow.int64(), pyarrow.float64()), strict=True))))


async def assert_reads(
    store: TableStore, model: TableModel, columns: list[str] | None = None, partition: int | None = None
) -> None:
    """A read gives exactly what the model has."""
    found = await store.read(model.node, model.structure, columns=columns, partition=partition)
    wanted = model.table(columns, partition)
    assert found.schema.equals(wanted.schema, check_metadata=True), (found.schema, wanted.schema)
    assert _text(found) == _text(wanted)
    found.validate(full=True)
    if columns is None and partition is None:
        assert await store.rows(model.node, model.structure) == wanted.num_rows


def _text(table: pyarrow.Table) -> list[str]:
    """Cell by cell; the text tells -0.0 from 0.0 and calls NaN itself. Times as numbers, which Python cannot all represent."""
    plain = [
        c.cast(pyarrow.int64()) if pyarrow.types.is_temporal(c.type) and c.type.bit_width == 64 else c for c in table.columns
    ]
    return [repr(c.to_pylist()) for c in plain]
