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
from random import Random
from typing import Any, cast

import msgspec
import pyarrow
import pytest

from ..domain.errors import Malformed, StorageMissing, Unavailable, UnsupportedType
from ..domain.events import RowsAppended
from ..storage.port import Identified, TableBatch, TableStore
from .factories import new_id, record, table_body, table_structure
from .table_fence_contract import TableFenceContract
from .table_model import COLUMNS, TableModel, assert_reads, random_rows, two_columns

__all__ = ["Reopen", "SqlTableStoreContract", "TableStoreContract"]

Reopen = Callable[[], Awaitable[TableStore]]


def _identified(store: TableStore) -> Identified:
    """Every store in an SQL database is."""
    return cast(Identified, store)


class TableStoreContract(TableFenceContract):
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
        await assert_reads(store, model)
        model.append([])
        model.append(rows[::-1])
        await store.apply([model.batch(2)])
        store = await reopen()
        await assert_reads(store, model)
        await assert_reads(store, model, ["n"])
        await assert_reads(store, model, ["v"])

    async def test_all_types_in_one_table(self, store: TableStore) -> None:
        exact = {k: v for k, v in COLUMNS.items() if k not in ("null",)}
        model = TableModel(pyarrow.schema([(name, declared) for name, (declared, _) in exact.items()]))
        model.append([{name: values[n % len(values)] for name, (_, values) in exact.items()} for n in range(5)])
        await store.apply([model.batch()])
        await assert_reads(store, model)
        await assert_reads(store, model, ["uint64", "categories", "zoned"])

    async def test_nan_is_not_null(self, store: TableStore) -> None:
        model = TableModel(
            pyarrow.schema([("f", pyarrow.float32()), ("d", pyarrow.float64()), ("l", pyarrow.list_(pyarrow.float64()))])
        )
        nan = float("nan")
        model.append([{"f": nan, "d": nan, "l": [nan, None]}, {"f": None, "d": None, "l": None}])
        await store.apply([model.batch()])
        await assert_reads(store, model)

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
        await assert_reads(store, model)
        await assert_reads(store, model, ["?", "A", "with space"])

    async def test_a_table_that_was_never_written_has_no_rows(self, store: TableStore) -> None:
        model = TableModel(
            pyarrow.schema([("a", pyarrow.int8()), ("b", pyarrow.struct([("c", pyarrow.int8())]))], metadata={"k": "v"})
        )
        await assert_reads(store, model)
        await assert_reads(store, model, ["b"])
        await assert_reads(store, model, partition=3)
        assert await store.watermark(model.node) == 0

    async def test_an_unknown_column_is_refused(self, store: TableStore) -> None:
        model = two_columns()
        for _ in range(2):
            with pytest.raises(Malformed, match="nope"):
                await store.read(model.node, model.structure, columns=["x", "nope"])
            model.append(random_rows(Random(0), 2))
            await store.apply([model.batch()])

    @pytest.mark.parametrize("seed", range(12))
    async def test_random_histories_equal_the_model(self, store: TableStore, reopen: Reopen, seed: int) -> None:
        random = Random(seed)
        models = [
            two_columns(),
            two_columns(),
            TableModel(pyarrow.schema([("x", pyarrow.float16()), ("y", pyarrow.float64())])),
            two_columns(),
        ]
        applied = [0] * len(models)
        for _ in range(12):
            for model in models:
                for _ in range(random.randrange(4)):
                    model.step(random)
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
            await assert_reads(store, model)
            for partition in (0, 1, 2, 7):
                await assert_reads(store, model, partition=partition)

    async def test_applied_twice_is_applied_once(self, store: TableStore) -> None:
        model = two_columns()
        for _ in range(5):
            model.append(random_rows(Random(1), 2))
        assert await store.apply([model.batch(0, 3)]) == [3]
        assert await store.apply([model.batch(0, 3)]) == [3]
        assert await store.apply([model.batch(0, 5)]) == [5]  # what is new in it is applied
        assert await store.apply([model.batch(3, 5)]) == [5]
        assert await store.apply([model.batch(1, 2)]) == [5]  # I4
        await assert_reads(store, model)

    async def test_a_batch_that_begins_too_late_does_not_count(self, store: TableStore) -> None:
        model, other = two_columns(), two_columns()
        for _ in range(3):
            model.append(random_rows(Random(2), 1))
        other.append(random_rows(Random(3), 1))
        assert await store.apply([model.batch(1), other.batch()]) == [0, 1]
        assert await store.rows(model.node, model.structure) == 0
        await assert_reads(store, other)

    async def test_asset_deleted_erases_what_was_added_before_it(self, store: TableStore, reopen: Reopen) -> None:
        """Stored rows and those of the same batch; not what follows, nor what other nodes have."""
        random = Random(11)
        model, neighbour = two_columns(), two_columns()
        for each in (model, neighbour):
            each.append(random_rows(random, 3))
            each.append(random_rows(random, 2), partition=2)
        await store.apply([model.batch(), neighbour.batch()])
        model.append(random_rows(random, 2))
        model.clear()
        model.append(random_rows(random, 1), partition=1)
        assert await store.apply([model.batch(2)]) == [5]
        await assert_reads(store, model)
        await assert_reads(store, neighbour)
        model.clear()
        assert await store.apply([model.batch(5), neighbour.batch(1)]) == [6, 2]
        store = await reopen()
        await assert_reads(store, model)
        assert await store.watermark(model.node) == 6  # the watermark is not part of the asset
        assert await store.apply([model.batch(0)]) == [6]
        model.append(random_rows(random, 2))
        assert await store.apply([model.batch(6)]) == [7]
        await assert_reads(store, model)
        await assert_reads(store, neighbour)

    async def test_two_batches_of_one_node_in_one_step(self, store: TableStore) -> None:
        model = two_columns()
        for _ in range(4):
            model.append(random_rows(Random(4), 2))
        assert await store.apply([model.batch(0, 2), model.batch(2)]) == [4, 4]
        await assert_reads(store, model)

    async def test_other_events_move_the_watermark(self, store: TableStore) -> None:
        model = two_columns()
        model.end()
        model.append(random_rows(Random(5), 1))
        model.end()
        assert await store.apply([model.batch()]) == [3]
        assert await store.apply([TableBatch(model.node, model.structure, 3, ())]) == [3]
        await assert_reads(store, model)

    @pytest.mark.parametrize("cut", [0, 9, -9])
    async def test_a_bad_record_leaves_rows_and_watermarks_as_they_were(self, store: TableStore, cut: int) -> None:
        """And is not called `Unavailable`, or it would be tried for ever and hold up the records behind it."""
        model, other = two_columns(), two_columns(names=("p", "q"))
        model.append(random_rows(Random(6), 3))
        await store.apply([model.batch()])
        other.append([{"p": 1, "q": 2.0}])
        bad = record(2, RowsAppended(0, 1), model.records[0].payload[:cut] or b"no arrow")
        with pytest.raises(Exception, match=r".") as error:
            await store.apply([other.batch(), TableBatch(model.node, model.structure, 1, (bad,))])
        assert not isinstance(error.value, AssertionError | Unavailable)
        assert [await store.watermark(m.node) for m in (model, other)] == [1, 0]
        assert await store.rows(other.node, other.structure) == 0
        await assert_reads(store, model)
        assert await store.apply([other.batch()]) == [1]
        await assert_reads(store, other)

    async def test_replacing_within_a_batch(self, store: TableStore) -> None:
        random = Random(7)
        model, neighbour = two_columns(), two_columns()
        neighbour.append(random_rows(random, 3))
        model.append(random_rows(random, 4))
        model.append(random_rows(random, 2), partition=1)
        await store.apply([model.batch(), neighbour.batch()])
        model.append(random_rows(random, 5))
        model.replace(random_rows(random, 2), partition=0)
        model.append(random_rows(random, 1))
        model.replace(random_rows(random, 3), partition=1)
        await store.apply([model.batch(2)])
        await assert_reads(store, model)
        model.replace(random_rows(random, 2), partition=None)
        model.append(random_rows(random, 1), partition=4)
        model.replace([], partition=4)
        await store.apply([model.batch(6)])
        await assert_reads(store, model)
        await assert_reads(store, neighbour)

    async def test_many_tables_of_one_schema_in_one_step(self, store: TableStore) -> None:
        models = [two_columns() for _ in range(20)]
        for n, model in enumerate(models):
            for _ in range(3):
                model.append(random_rows(Random(n), 2), partition=n % 3)
        assert await store.apply([m.batch() for m in models]) == [3] * 20
        for model in models:
            await assert_reads(store, model)

    async def test_delete_removes_rows_and_watermarks_and_may_be_repeated(self, store: TableStore, reopen: Reopen) -> None:
        kept, gone, alone = two_columns(), two_columns(), two_columns(names=("p", "q"))
        for model in (kept, gone):
            model.append(random_rows(Random(8), 3))
        alone.append([{"p": 1, "q": 2.0}])
        await store.apply([kept.batch(), gone.batch(), alone.batch()])
        doomed = [(gone.node, gone.structure), (alone.node, alone.structure), (new_id(), table_structure({"never": "int8"}))]
        await store.delete(doomed)
        await store.delete(doomed)
        for _ in range(2):
            for model in (gone, alone):
                assert (await store.read(model.node, model.structure)).num_rows == 0
                assert await store.watermark(model.node) == 0
            await assert_reads(store, kept)
            store = await reopen()
        assert await store.apply([alone.batch()]) == [1]
        await assert_reads(store, alone)

    async def test_reads_beside_writes_see_whole_batches(self, store: TableStore) -> None:
        model = two_columns()
        for _ in range(30):
            model.append(random_rows(Random(9), 3))
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
        await assert_reads(store, model)

    async def test_closing_twice_is_the_same_as_once(self, store: TableStore) -> None:
        await store.close()
        await store.close()

    @pytest.mark.parametrize("seed", range(4))
    async def test_rows_are_given_again_by_the_records_that_brought_them(self, store: TableStore, seed: int) -> None:
        """Of the records that were not replaced, in order, whole, wherever one begins and however few are asked for."""
        random = Random(seed)
        model = two_columns()
        at = 0
        for _ in range(60):
            model.step(random)
            if random.random() < 0.4:
                await store.apply([model.batch(after=at)])
                at = len(model.records)
        await store.apply([model.batch(after=at)])
        wanted = model.arrived()
        for _ in range(12):
            after, upto = sorted(random.choices(range(len(model.records) + 1), k=2))
            got: list[tuple[int, int, dict[str, Any]]] = []
            cursor, rows = after, random.choice((1, 3, 1000))
            while True:
                page = await store.arrived(model.node, model.structure, after=cursor, upto=upto, rows=rows)
                assert page.table.schema.equals(model.schema)
                if not len(page.sequences):
                    break
                got += zip(page.sequences.tolist(), page.partitions.tolist(), page.table.to_pylist(), strict=True)
                assert len(page.sequences) <= rows or len(set(page.sequences.tolist())) == 1
                cursor = int(page.sequences[-1])
            assert got == [row for row in wanted if after < row[0] <= upto]


class SqlTableStoreContract(TableStoreContract):
    """What a store in an SQL database does beside: names that clients see, those that SQL cannot take, and `Identified`."""

    async def test_a_blank_database_is_adopted_and_keeps_its_incarnation(self, store: TableStore, reopen: Reopen) -> None:
        """Whatever the catalog expects: a new database is legitimate after a disk was replaced, and the caller compares."""
        bound = await _identified(store).bind("d1", "of another one")
        assert bound
        assert bound != "of another one"
        assert await _identified(store).bind("d1", None) == bound
        model = two_columns()
        model.append(random_rows(Random(12), 1))
        await store.apply([model.batch()])
        assert await _identified(await reopen()).bind("d1", bound) == bound

    async def test_a_database_of_another_deployment_is_missing_storage(self, store: TableStore, reopen: Reopen) -> None:
        await _identified(store).bind("d1", None)
        for _ in range(2):
            place = _identified(store).place
            with pytest.raises(StorageMissing, match=r"d1.*d2") as refusal:
                await _identified(store).bind("d2", None)
            assert place in str(refusal.value)
            store = await reopen()

    async def test_a_database_with_data_of_a_version_without_identities_is_adopted(self, store: TableStore) -> None:
        model = two_columns()
        model.append(random_rows(Random(13), 3))
        await store.apply([model.batch()])
        await _identified(store).bind("d1", None)
        await assert_reads(store, model)

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

    async def test_rows_of_awkward_columns_are_given_again_too(self, store: TableStore) -> None:
        """Those that an engine keeps as bodies."""
        model = TableModel(pyarrow.schema([("s", pyarrow.struct([("a", pyarrow.int32())])), ("n", pyarrow.int64())]))
        for n in range(30):
            model.append([{"s": {"a": n}, "n": n}] * (n % 3), partition=n % 2)
            await store.apply([model.batch(after=n)])
        page = await store.arrived(model.node, model.structure, after=7, upto=20, rows=1000)
        got = zip(page.sequences.tolist(), page.partitions.tolist(), page.table.to_pylist(), strict=True)
        assert list(got) == [row for row in model.arrived() if 7 < row[0] <= 20]
