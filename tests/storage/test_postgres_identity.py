"""A PostgreSQL database that is upgraded, bound to a deployment, or replaced by another one under running servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from urllib.parse import urlsplit

import pytest

from tests.servers.postgres import run_sql
from tests.servers.postgres_sessions import ask, cut, with_fresh_connections
from tiled_stream.domain.errors import StorageMissing
from tiled_stream.storage.layout import dataset_id
from tiled_stream.storage.port import FENCED
from tiled_stream.storage.postgres_tables import PostgresTables
from tiled_stream.testing.table_model import TableModel, assert_reads, random_rows, two_columns

APPLICATION = "tiled_stream tables"


@pytest.fixture
async def store(new_postgres: str) -> AsyncIterator[PostgresTables]:
    store = PostgresTables(new_postgres)
    await store.open()
    yield store
    await store.close()


def history(*rows: int) -> TableModel:
    model = two_columns()
    for n, count in enumerate(rows):
        model.append(random_rows(Random(n), count))
    return model


async def test_servers_that_start_at_once_upgrade_a_database_without_fences(new_postgres: str) -> None:
    model = history(3, 2)
    await ask(new_postgres, "CREATE SCHEMA tiled_stream")
    await ask(new_postgres, "CREATE TABLE tiled_stream.watermarks (dataset BIGINT PRIMARY KEY, watermark BIGINT NOT NULL)")
    await ask(new_postgres, f"INSERT INTO tiled_stream.watermarks VALUES ({dataset_id(model.node)}, 1)")
    stores = [PostgresTables(new_postgres, pool_size=2) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    assert await stores[0].apply([model.batch(1, fence=0)]) == [2]
    assert await stores[1].apply([model.batch(2, fence=9)]) == [2]
    assert await stores[2].apply([model.batch(0, fence=8)]) == [FENCED]
    for store in stores:
        assert await store.watermarks([model.node]) == [2]
        await store.close()


async def test_an_older_server_beside_newer_ones_goes_on(store: PostgresTables, new_postgres: str) -> None:
    """Servers are updated one after the other: what a version without fences asks is still answered."""
    model = history(3)
    dataset = dataset_id(model.node)
    await ask(new_postgres, f"INSERT INTO tiled_stream.watermarks SELECT {dataset}, 0 ON CONFLICT DO NOTHING")
    await ask(new_postgres, f"UPDATE tiled_stream.watermarks SET watermark = 0 WHERE dataset = {dataset}")
    assert await store.apply([model.batch(fence=1)]) == [1]


async def test_servers_that_bind_at_once_agree(new_postgres: str) -> None:
    stores = [PostgresTables(new_postgres, pool_size=2) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    incarnations = await asyncio.gather(*(store.bind("d1", None) for store in stores))
    assert len(set(incarnations)) == 1
    for store in stores:
        await store.close()


async def test_a_place_is_named_without_user_and_password(store: PostgresTables, new_postgres: str) -> None:
    other = PostgresTables(new_postgres.replace("postgres@", "postgres:s3cret@"))
    await other.open()
    await store.bind("d1", None)
    with pytest.raises(StorageMissing) as refusal:
        await other.bind("d2", None)
    assert other.place in str(refusal.value)
    assert urlsplit(new_postgres).path in other.place
    assert "s3cret" not in str(refusal.value)
    await other.close()


@pytest.mark.parametrize("has_tables", [False, True])
async def test_a_database_that_was_made_anew_under_a_running_server_is_missing_storage(
    store: PostgresTables, new_postgres: str, has_tables: bool
) -> None:
    """With its name, but with nothing in it, or with what another server has made in it meanwhile."""
    model = history(3, 2)
    incarnation = await store.bind("d1", None)
    await store.apply([model.batch(0, 1)])
    await ask(new_postgres, "ALTER SCHEMA tiled_stream RENAME TO former")
    if has_tables:
        other = PostgresTables(new_postgres)
        await other.open()
        assert await other.bind("d1", incarnation) != incarnation
        await other.close()
    for work in (
        lambda: store.apply([model.batch(1)]),
        lambda: store.watermarks([model.node]),
        lambda: store.read(model.node, model.structure),
    ):
        with pytest.raises(StorageMissing, match=incarnation) as refusal:
            await with_fresh_connections(new_postgres, APPLICATION, work)
        assert store.place in str(refusal.value)
    await ask(new_postgres, "DROP SCHEMA IF EXISTS tiled_stream CASCADE")
    await ask(new_postgres, "ALTER SCHEMA former RENAME TO tiled_stream")
    assert await with_fresh_connections(new_postgres, APPLICATION, lambda: store.apply([model.batch(1)])) == [2]
    await assert_reads(store, model)


async def test_a_restored_database_of_the_same_incarnation_passes(
    store: PostgresTables, new_postgres: str, postgres_url: str
) -> None:
    """It is behind, which its watermarks say; the caller compares them."""
    model = history(3, 2)
    incarnation = await store.bind("d1", None)
    await store.apply([model.batch(0, 1)])
    name = urlsplit(new_postgres).path.strip("/")
    await cut(new_postgres, APPLICATION)
    run_sql(postgres_url, f"ALTER DATABASE {name} RENAME TO {name}_backup")
    try:
        run_sql(postgres_url, f"CREATE DATABASE {name} TEMPLATE {name}_backup")
    finally:
        run_sql(postgres_url, f"DROP DATABASE {name}_backup")
    assert await with_fresh_connections(new_postgres, APPLICATION, lambda: store.apply([model.batch(1, fence=2)])) == [2]
    assert await store.bind("d1", incarnation) == incarnation
    await assert_reads(store, model)
