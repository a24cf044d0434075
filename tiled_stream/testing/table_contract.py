"""What every `TableStore` does: each sentence of the port as a test, with pyarrow tables as the model.

Subclass `TableStoreContract` and give it a fixture `store` (an open store, empty, closed afterwards) and a fixture `reopen`: an
async function that closes the store and returns another one on the same data.

    class TestMyTables(TableStoreContract):
        @pytest.fixture
        async def store(self, tmp_path): ...
        @pytest.fixture
        def reopen(self, store, tmp_path): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pyarrow
import pytest

from ..domain.errors import Malformed, UnsupportedType
from ..domain.events import Record, RowsAppended, StreamEnded, TableWritten
from ..storage.port import TableBatch, TableStore
from .factories import new_id, record, table_body, table_structure

__all__ = ["COLUMNS", "Reopen", "TableModel", "TableStoreContract"]

Reopen = Callable[[], Awaitable[TableStore]]

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

    def end(self) -> None:
        """Something that is not data happens."""
        self.records.append(record(len(self.records) + 1, StreamEnded()))

    def batch(self, after: int = 0, upto: int | None = None) -> TableBatch:
        """The records that follow `after`, to `upto`."""
        return TableBatch(self.node, self.structure, after, tuple(self.records[after:upto]))

    def table(self, columns: list[str] | None = None, partition: int | None = None) -> pyarrow.Table:
        """What a read must give."""
        numbers = sorted(self.partitions) if partition is None else [partition]
        rows = [row for n in numbers for row in self.partitions.get(n, [])]
        table = pyarrow.Table.from_pylist(rows, schema=self.schema)
        return table if columns is None else table.select([c for c in self.schema.names if c in columns])

    def _record(self, event: RowsAppended | TableWritten, rows: list[dict[str, Any]]) -> None:
        columns = {name: [row[name] for row in rows] for name in self.schema.names}
        body = table_body(columns, schema=self.schema)
        self.records.append(record(len(self.records) + 1, event, body))


async def _assert_reads(
    store: TableStore, model: TableModel, columns: list[str] | None = None, partition: int | None = None
) -> None:
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


def _rows(random: Random, count: int) -> list[dict[str, Any]]:
    return [{"x": random.choice((None, random.randrange(-99, 99))), "y": random.random()} for _ in range(count)]


def _model(*, names: tuple[str, str] = ("x", "y")) -> TableModel:
    return TableModel(pyarrow.schema(list(zip(names, (pyarrow.int64(), pyarrow.float64()), strict=True))))


class TableStoreContract:
    """See the module."""

    @pytest.fixture
    async def store(self) -> TableStore:
        """An open, empty store."""
        raise NotImplementedError("give the suite a fixture `store`")

    @pytest.fixture
    def reopen(self) -> Reopen:
        """Close the store and open another one on the same data."""
        raise NotImplementedError("give the suite a fixture `reopen`")

    @pytest.mark.parametrize("kind", COLUMNS)
    async def test_every_type_comes_back_exactly(self, store: TableStore, reopen: Reopen, kind: str) -> None:
        declared, values = COLUMNS[kind]
        model = TableModel(pyarrow.schema([("v", declared), ("n", pyarrow.int64())], metadata={b"pandas": b"{}"}))
        rows = [{"v": v, "n": n} for n, v in enumerate([*values, None])]
        model.append(rows[:1])
        model.append(rows[1:])
        await store.apply([model.batch()])
        await _assert_reads(store, model)
        model.append([])
        model.append(rows[::-1])
        await store.apply([model.batch(2)])
        store = await reopen()
        await _assert_reads(store, model)
        await _assert_reads(store, model, ["n"])
        await _assert_reads(store, model, ["v"])

    async def test_all_types_in_one_table(self, store: TableStore) -> None:
        exact = {k: v for k, v in COLUMNS.items() if k not in ("null",)}
        model = TableModel(pyarrow.schema([(name, declared) for name, (declared, _) in exact.items()]))
        model.append([{name: values[n % len(values)] for name, (_, values) in exact.items()} for n in range(5)])
        await store.apply([model.batch()])
        await _assert_reads(store, model)
        await _assert_reads(store, model, ["uint64", "categories", "zoned"])

    async def test_nan_is_not_null(self, store: TableStore) -> None:
        model = TableModel(
            pyarrow.schema([("f", pyarrow.float32()), ("d", pyarrow.float64()), ("l", pyarrow.list_(pyarrow.float64()))])
        )
        nan = float("nan")
        model.append([{"f": nan, "d": nan, "l": [nan, None]}, {"f": None, "d": None, "l": None}])
        await store.apply([model.batch()])
        await _assert_reads(store, model)

    async def test_categories_keep_their_order_and_those_not_seen(self, store: TableStore) -> None:
        values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([2, 0], pyarrow.int8()), ["low", "mid", "high"], ordered=True)
        schema = pyarrow.schema([("level", values.type)])
        structure, node = table_structure(schema=schema), new_id()
        body = table_body({"level": values}, schema=schema)
        await store.apply([TableBatch(node, structure, 0, tuple(record(n, RowsAppended(0, 2), body) for n in (1, 2)))])
        column = (await store.read(node, structure)).column("level").combine_chunks()
        assert column.to_pylist() == ["high", "low"] * 2
        assert column.type.ordered
        assert column.dictionary.to_pylist() == ["low", "mid", "high"]

    async def test_names_that_differ_by_case_with_spaces_and_words_of_sql(self, store: TableStore) -> None:
        names = ["a", "A", "select", "with space", "det-1.x", "é", "x" * 63, "c0", "C1", "%s", "?"]
        model = TableModel(pyarrow.schema([(name, pyarrow.int32()) for name in names]))
        store.allocate(model.node, model.structure, None, {})
        model.append([{name: n * 100 + i for i, name in enumerate(names)} for n in range(3)])
        await store.apply([model.batch()])
        await _assert_reads(store, model)
        await _assert_reads(store, model, ["?", "A", "with space"])

    async def test_columns_that_sql_cannot_take_are_refused(self, store: TableStore) -> None:
        for name in ("_x", "", "x" * 64, "é" * 32, 'a"b', "a'b", "a;b", "a\nb", "a\x00b", "a\x7fb"):
            structure = table_structure({name: "int32"})
            with pytest.raises(Malformed):
                store.allocate(new_id(), structure, None, {})
        twice = msgspec.structs.replace(table_structure(), columns=("x", "x"))
        with pytest.raises(Malformed):
            store.allocate(new_id(), twice, None, {})

    async def test_allocation(self, store: TableStore) -> None:
        node, structure = new_id(), table_structure()
        place = store.allocate(node, structure, None, {})
        assert place == store.allocate(node, structure, place.mimetype, {})
        assert place.mimetype == "application/x-tiled-sql-table"
        assert (place.is_directory, place.parameter) == (False, "data_uri")
        assert set(place.parameters) == {"table_name", "dataset_id"}
        other = store.allocate(new_id(), structure, None, {})
        assert other.data_uri == place.data_uri
        assert other.parameters["table_name"] == place.parameters["table_name"]
        assert other.parameters["dataset_id"] != place.parameters["dataset_id"]
        assert store.allocate(node, table_structure({"z": "int8"}), None, {}).parameters["table_name"].startswith("table_")
        assert store.allocate(node, structure, None, {"table_name": "mine_2"}).parameters["table_name"] == "mine_2"
        for bad in ("Mine", "2x", "select", "a b", "x" * 64, "", 7, "a;", "é"):
            with pytest.raises(Malformed):
                store.allocate(node, structure, None, {"table_name": bad})
        with pytest.raises(UnsupportedType):
            store.allocate(node, structure, "text/csv", {})

    async def test_a_table_that_was_never_written_has_no_rows(self, store: TableStore) -> None:
        model = TableModel(
            pyarrow.schema([("a", pyarrow.int8()), ("b", pyarrow.struct([("c", pyarrow.int8())]))], metadata={"k": "v"})
        )
        await _assert_reads(store, model)
        await _assert_reads(store, model, ["b"])
        await _assert_reads(store, model, partition=3)
        assert await store.watermark(model.node) == 0

    async def test_an_unknown_column_is_refused(self, store: TableStore) -> None:
        model = _model()
        for _ in range(2):
            with pytest.raises(Malformed, match="nope"):
                await store.read(model.node, model.structure, columns=["x", "nope"])
            model.append(_rows(Random(0), 2))
            await store.apply([model.batch()])

    @pytest.mark.parametrize("seed", range(12))
    async def test_random_histories_equal_the_model(self, store: TableStore, reopen: Reopen, seed: int) -> None:
        random = Random(seed)
        models = [_model(), _model(), TableModel(pyarrow.schema([("x", pyarrow.float16()), ("y", pyarrow.float64())])), _model()]
        applied = [0] * len(models)
        for _ in range(12):
            for model in models:
                for _ in range(random.randrange(4)):
                    _happen(model, random)
            batches = []
            for n, model in enumerate(models):
                # Some records come again, as after a crash between storage and catalog; some come later.
                upto = random.randint(applied[n], len(model.records))
                batches.append(model.batch(random.randint(0, applied[n]), upto))
                applied[n] = max(applied[n], upto)
            assert await store.apply(batches) == applied
            if random.random() < 0.2:
                store = await reopen()
            assert [await store.watermark(m.node) for m in models] == applied
        await store.apply([m.batch(a) for m, a in zip(models, applied, strict=True)])
        for model in models:
            await _assert_reads(store, model)
            for partition in (0, 1, 2, 7):
                await _assert_reads(store, model, partition=partition)

    async def test_applied_twice_is_applied_once(self, store: TableStore) -> None:
        model = _model()
        for _ in range(5):
            model.append(_rows(Random(1), 2))
        assert await store.apply([model.batch(0, 3)]) == [3]
        assert await store.apply([model.batch(0, 3)]) == [3]
        assert await store.apply([model.batch(0, 5)]) == [5]  # what is new in it is applied
        assert await store.apply([model.batch(3, 5)]) == [5]
        assert await store.apply([model.batch(1, 2)]) == [5]  # I4
        await _assert_reads(store, model)

    async def test_a_batch_that_begins_too_late_does_not_count(self, store: TableStore) -> None:
        model, other = _model(), _model()
        for _ in range(3):
            model.append(_rows(Random(2), 1))
        other.append(_rows(Random(3), 1))
        assert await store.apply([model.batch(1), other.batch()]) == [0, 1]
        assert await store.rows(model.node, model.structure) == 0
        await _assert_reads(store, other)

    async def test_two_batches_of_one_node_in_one_step(self, store: TableStore) -> None:
        model = _model()
        for _ in range(4):
            model.append(_rows(Random(4), 2))
        assert await store.apply([model.batch(0, 2), model.batch(2)]) == [4, 4]
        await _assert_reads(store, model)

    async def test_other_events_move_the_watermark(self, store: TableStore) -> None:
        model = _model()
        model.end()
        model.append(_rows(Random(5), 1))
        model.end()
        assert await store.apply([model.batch()]) == [3]
        assert await store.apply([TableBatch(model.node, model.structure, 3, ())]) == [3]
        await _assert_reads(store, model)

    async def test_a_bad_record_leaves_rows_and_watermarks_as_they_were(self, store: TableStore) -> None:
        model, other = _model(), _model(names=("p", "q"))
        model.append(_rows(Random(6), 3))
        await store.apply([model.batch()])
        other.append([{"p": 1, "q": 2.0}])
        bad = record(2, RowsAppended(0, 1), b"no arrow")
        with pytest.raises(Exception, match=r".") as error:
            await store.apply([other.batch(), TableBatch(model.node, model.structure, 1, (bad,))])
        assert not isinstance(error.value, AssertionError)
        assert [await store.watermark(m.node) for m in (model, other)] == [1, 0]
        assert await store.rows(other.node, other.structure) == 0
        await _assert_reads(store, model)
        assert await store.apply([other.batch()]) == [1]
        await _assert_reads(store, other)

    async def test_replacing_within_a_batch(self, store: TableStore) -> None:
        random = Random(7)
        model, neighbour = _model(), _model()
        neighbour.append(_rows(random, 3))
        model.append(_rows(random, 4))
        model.append(_rows(random, 2), partition=1)
        await store.apply([model.batch(), neighbour.batch()])
        model.append(_rows(random, 5))
        model.replace(_rows(random, 2), partition=0)
        model.append(_rows(random, 1))
        model.replace(_rows(random, 3), partition=1)
        await store.apply([model.batch(2)])
        await _assert_reads(store, model)
        model.replace(_rows(random, 2), partition=None)
        model.append(_rows(random, 1), partition=4)
        model.replace([], partition=4)
        await store.apply([model.batch(6)])
        await _assert_reads(store, model)
        await _assert_reads(store, neighbour)

    async def test_many_tables_of_one_schema_in_one_step(self, store: TableStore) -> None:
        models = [_model() for _ in range(20)]
        for n, model in enumerate(models):
            for _ in range(3):
                model.append(_rows(Random(n), 2), partition=n % 3)
        assert await store.apply([m.batch() for m in models]) == [3] * 20
        for model in models:
            await _assert_reads(store, model)

    async def test_delete_removes_rows_and_watermarks_and_may_be_repeated(self, store: TableStore, reopen: Reopen) -> None:
        kept, gone, alone = _model(), _model(), _model(names=("p", "q"))
        for model in (kept, gone):
            model.append(_rows(Random(8), 3))
        alone.append([{"p": 1, "q": 2.0}])
        await store.apply([kept.batch(), gone.batch(), alone.batch()])
        doomed = [(gone.node, gone.structure), (alone.node, alone.structure), (new_id(), table_structure({"never": "int8"}))]
        await store.delete(doomed)
        await store.delete(doomed)
        for _ in range(2):
            for model in (gone, alone):
                assert (await store.read(model.node, model.structure)).num_rows == 0
                assert await store.watermark(model.node) == 0
            await _assert_reads(store, kept)
            store = await reopen()
        assert await store.apply([alone.batch()]) == [1]
        await _assert_reads(store, alone)

    async def test_reads_beside_writes_see_whole_batches(self, store: TableStore) -> None:
        model = _model()
        for _ in range(30):
            model.append(_rows(Random(9), 3))
        is_done = False

        async def look() -> set[int]:
            seen = set()
            while not is_done:
                seen.add((await store.read(model.node, model.structure)).num_rows)
            return seen

        async with asyncio.TaskGroup() as group:
            looking = [group.create_task(look(), name="look") for _ in range(3)]
            for after in range(0, 30, 2):
                await store.apply([model.batch(after, after + 2)])
            is_done = True
        for task in looking:
            assert all(n % 6 == 0 for n in task.result())
        await _assert_reads(store, model)

    async def test_closing_twice_is_the_same_as_once(self, store: TableStore) -> None:
        await store.close()
        await store.close()


def _happen(model: TableModel, random: Random) -> None:
    kind, partition = random.random(), random.choice((0, 0, 0, 1, 2))
    if kind < 0.75:
        model.append(_rows(random, random.choice((0, 1, 1, 3))), partition)
    elif kind < 0.85:
        model.replace(_rows(random, random.randrange(3)), partition)
    elif kind < 0.92:
        model.replace(_rows(random, random.randrange(3)), None)
    else:
        model.end()
