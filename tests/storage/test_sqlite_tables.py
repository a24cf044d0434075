"""What is particular to SQLite: bodies are joined, and the file may be shared."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from tiled_stream.domain.errors import Unavailable
from tiled_stream.storage import arrow_bodies
from tiled_stream.storage.sqlite_tables import SqliteTables
from tiled_stream.testing.table_model import random_rows, two_columns


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteTables]:
    store = SqliteTables(tmp_path / "t.db")
    await store.open()
    yield store
    await store.close()


async def test_small_appends_are_joined_and_full_bodies_are_left_alone(
    store: SqliteTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow_bodies, "FULL", 2000)
    model = two_columns()
    for n in range(120):
        model.append(random_rows(Random(n), 2))
        if n % 3 == 2:
            await store.apply([model.batch(n - 2)])
    found = await store.read(model.node, model.structure)
    assert found.to_pylist() == model.table().to_pylist()
    with closing(sqlite3.connect(tmp_path / "t.db")) as db:
        sizes = [size for (size,) in db.execute("SELECT size FROM bodies ORDER BY sequence")]
    assert 2 <= len(sizes) <= 6
    assert max(sizes) <= 2000


async def test_two_stores_on_one_file_agree(store: SqliteTables, tmp_path: Path) -> None:
    other = SqliteTables(tmp_path / "t.db")
    await other.open()
    model = two_columns()
    for n in range(10):
        model.append(random_rows(Random(n), 1))
        assert await (store, other)[n % 2].apply([model.batch(max(0, n - 1))]) == [n + 1]
    for each in (store, other):
        assert (await each.read(model.node, model.structure)).to_pylist() == model.table().to_pylist()
    await other.close()


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_text("something else")
    store = SqliteTables(tmp_path / "t.db")
    with pytest.raises(Unavailable, match=r"t\.db"):
        await store.open()
    await store.close()


async def test_closing_leaves_no_thread_and_no_side_file(tmp_path: Path) -> None:
    before = threading.active_count()
    store = SqliteTables(tmp_path / "t.db")
    await store.open()
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    await store.read(model.node, model.structure)
    await store.close()
    assert os.listdir(tmp_path) == ["t.db"]
    assert threading.active_count() == before
