"""What is particular to tables in files: the list of segments is the truth, small ones are joined, a part keeps its own index."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from tiled_stream.domain.errors import Unavailable, UnsupportedType
from tiled_stream.domain.events import TableWritten
from tiled_stream.storage.file_tables import FileTables
from tiled_stream.storage.layout import array_directory
from tiled_stream.storage.port import TableBatch
from tiled_stream.storage.table_formats import CsvFormat, ParquetFormat
from tiled_stream.testing.factories import new_id, record, table_body, table_structure
from tiled_stream.testing.table_model import random_rows, two_columns


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileTables]:
    store = FileTables(tmp_path, ParquetFormat())
    yield store
    await store.close()


async def test_many_small_appends_are_read_from_few_files(store: FileTables, tmp_path: Path) -> None:
    model = two_columns()
    for n in range(400):
        model.append(random_rows(Random(n), 2), partition=n % 2)
    for after in range(0, 400, 4):
        await store.apply([model.batch(after, after + 4)])
    files = list(array_directory(tmp_path, model.node).glob("*.parquet"))
    assert len(files) < 40
    for partition in (None, 0, 1):
        found = await store.read(model.node, model.structure, partition=partition)
        assert found.equals(model.table(partition=partition))


async def test_readers_see_whole_tables_while_small_files_are_joined(store: FileTables) -> None:
    model = two_columns()
    for n in range(120):
        model.append(random_rows(Random(n), 1))
    wanted = model.table().column("y").to_pylist()
    is_done = False

    async def look() -> int:
        looks = 0
        while not is_done:
            seen = (await store.read(model.node, model.structure)).column("y").to_pylist()
            assert seen == wanted[: len(seen)]
            looks += 1
        return looks

    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look(), name="look")
        for after in range(120):
            await store.apply([model.batch(after, after + 1)])
        is_done = True
    assert looking.result() > 5
    assert (await store.read(model.node, model.structure)).equals(model.table())


async def test_what_a_crash_left_behind_does_not_exist(store: FileTables, tmp_path: Path) -> None:
    model = two_columns()
    for n in range(3):
        model.append(random_rows(Random(n), 2))
    await store.apply([model.batch(0, 1)])
    directory = array_directory(tmp_path, model.node)
    # Segments of records 2 and 3 were written, the process died before the manifest: first both in one, now one by one.
    pyarrow.parquet.write_table(model.table(), directory / "partition-0-2-3.parquet")
    (directory / "partition-0-2-2.parquet.part").write_bytes(b"half")
    assert await store.rows(model.node, model.structure) == 2
    successor = FileTables(tmp_path, ParquetFormat())
    await successor.apply([model.batch(1, 2)])
    await successor.apply([model.batch(2)])
    assert (await successor.read(model.node, model.structure)).equals(model.table())
    await successor.close()
    # Names of segments have the hold of their writer in them, so that no other process writes to them.
    names = sorted(p.name for p in directory.iterdir())
    assert [re.sub(r"-\d+-\d+-[0-9a-f]{8}\.", ".", name) for name in names] == [
        ".applied",
        "partition-0-1-1.parquet",
        "partition-0-2-2.parquet",
        "partition-0-3-3.parquet",
        "table.json",
    ]


async def test_each_part_of_a_frame_keeps_its_index(store: FileTables) -> None:
    frame = pandas.DataFrame({"x": [1.0, 2.0, 3.0, 4.0, 5.0]})
    schema = pyarrow.Table.from_pandas(frame).schema
    structure, node = table_structure(schema=schema), new_id()
    for n, part in enumerate((frame[:3], frame[3:])):
        table = pyarrow.Table.from_pandas(part)
        body = table_body({"x": table.column("x")}, schema=table.schema)
        await store.apply([TableBatch(node, structure, n, (record(n + 1, TableWritten(n, len(part)), body),))])
    parts = [(await store.read(node, structure, partition=n)).to_pandas() for n in (0, 1)]
    pandas.testing.assert_frame_equal(pandas.concat(parts), frame)
    assert (await store.read(node, structure)).schema.equals(schema, check_metadata=True)


async def test_other_programs_read_the_files(store: FileTables, tmp_path: Path) -> None:
    model = two_columns()
    model.append(random_rows(Random(1), 5))
    await store.apply([model.batch()])
    (path,) = array_directory(tmp_path, model.node).glob("*.parquet")
    assert pandas.read_parquet(path).equals(model.table().to_pandas())


async def test_a_type_that_would_be_spoilt_is_refused_at_creation(tmp_path: Path) -> None:
    structure = table_structure(schema=pyarrow.schema([("v", pyarrow.list_(pyarrow.int8()))]))
    with pytest.raises(UnsupportedType, match="arrow"):
        FileTables(tmp_path, CsvFormat()).allocate(new_id(), structure, "text/csv", {})
    with pytest.raises(UnsupportedType):
        FileTables(tmp_path, CsvFormat()).allocate(new_id(), table_structure(), "application/x-parquet", {})


async def test_a_disk_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"in the way")
    store = FileTables(tmp_path / "root", ParquetFormat())
    model = two_columns()
    model.append(random_rows(Random(1), 5))
    with pytest.raises(Unavailable, match="cannot be written"):
        await store.apply([model.batch()])
    await store.close()


async def test_a_damaged_list_is_told_not_taken_for_an_empty_table(store: FileTables, tmp_path: Path) -> None:
    model = two_columns()
    model.append(random_rows(Random(1), 5))
    await store.apply([model.batch()])
    (array_directory(tmp_path, model.node) / "table.json").write_bytes(b'{"watermark":')
    with pytest.raises(Unavailable, match="damaged"):
        await store.read(model.node, model.structure)
