"""A PostgreSQL catalog that is counted by several servers, brought up to date, or restored under them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.servers.postgres import new_database, run_sql
from tests.servers.postgres_sessions import ask, cut, with_fresh_connections
from tiled_stream.catalog import postgres_schema
from tiled_stream.catalog.migrate import migrations, statements
from tiled_stream.catalog.port import Applied, CatalogBatch, Loss
from tiled_stream.catalog.postgres import PostgresCatalog
from tiled_stream.catalog.postgres_connect import SCHEMA, Database
from tiled_stream.catalog.rows import COLUMNS
from tiled_stream.domain.errors import StorageMissing
from tiled_stream.domain.nodes import ROOT
from tiled_stream.testing.catalog_search_contract import batch, created
from tiled_stream.testing.factories import container_node, table_node

APPLICATION = "tiled_stream catalog"


@asynccontextmanager
async def opened(uri: str, **arguments: Any) -> AsyncIterator[PostgresCatalog]:
    catalog = PostgresCatalog(uri, **arguments)
    await catalog.open()
    try:
        yield catalog
    finally:
        await catalog.close()


async def test_transactions_of_several_servers_are_each_counted_once(new_postgres: str) -> None:
    async with opened(new_postgres, init=True) as first, opened(new_postgres) as second:
        nodes = [table_node(f"t{n}") for n in range(6)]
        await first.apply([batch(ROOT, *created(*nodes))])

        async def work(catalog: PostgresCatalog, n: int) -> None:
            for at in range(10):
                lost = (Loss(nodes[n].id, at + 1, at + 1, 1.0, "gone"),)
                own = CatalogBatch(nodes[n].id, 0, (), losses=lost)
                same = CatalogBatch(ROOT, 6, (), stored=at)  # the second to come finds nothing to do
                assert await catalog.apply([own, same]) == [Applied(0), Applied(6)]
                await catalog.apply([own])

        await asyncio.gather(*(work((first, second)[n % 2], n) for n in range(6)))
        assert await first.revision() == await second.revision() == 61
        assert [reached.lost for reached in await second.reached([n.id for n in nodes]) if reached is not None] == [10] * 6


async def test_losses_found_while_others_are_accepted_are_not_forgotten(new_postgres: str) -> None:
    async with opened(new_postgres, init=True) as first, opened(new_postgres) as second:
        (node,) = nodes = [table_node("t")]
        await first.apply([batch(ROOT, *created(*nodes))])
        accepted = 0

        async def find() -> None:
            for at in range(1, 41):
                await first.apply([CatalogBatch(node.id, 0, (), losses=(Loss(node.id, at, at, 1.0, "gone"),))])

        finding = asyncio.create_task(find(), name="find")
        while not finding.done():
            accepted += await second.accept_losses()
        await finding
        assert (await first.node(node.id)).lost == len(await first.losses())
        assert accepted + await second.accept_losses() == 40
        assert (await first.node(node.id)).lost == 0


async def test_a_server_of_a_version_that_counts_nothing_is_kept_out(new_postgres: str) -> None:
    """Servers are updated one after the other, beside a catalog that is up to date already: both take the same lock."""
    async with opened(new_postgres, init=True) as catalog:
        former = await asyncpg.connect(new_postgres, server_settings={"search_path": SCHEMA})
        transaction = former.transaction()
        await transaction.start()
        await former.execute(statements("postgres", columns=COLUMNS)["lock"])
        applying = asyncio.create_task(catalog.apply([batch(ROOT, *created(container_node("x")))]), name="apply")
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        async with asyncio.timeout(20):
            while await ask(new_postgres, waiting, schema=SCHEMA) != [(1,)]:  # noqa: ASYNC110 - of the server
                await asyncio.sleep(0.01)
        await former.execute("UPDATE nodes SET watermark = 1, children = 1 WHERE parent IS NULL")
        await transaction.commit()
        await former.close()
        assert await applying == [Applied(1)]  # it has seen what the other did
        assert await catalog.revision() == 0


async def test_a_catalog_of_version_2_gets_an_identity_and_keeps_what_is_in_it(
    new_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(postgres_schema, "migrations", lambda dialect: migrations(dialect)[:2])
        database = Database(new_postgres, pool_size=1)
        await database.open()
        await postgres_schema.prepare(database, statements("postgres", columns=COLUMNS), init=True)
        await database.close()
    await ask(new_postgres, "UPDATE nodes SET watermark = 7", schema=SCHEMA)
    assert await postgres_schema.upgrade(new_postgres) == (2, len(migrations("postgres")))
    async with opened(new_postgres) as catalog:
        root = await catalog.node(ROOT)
        assert (root.watermark, root.stored, root.lost) == (7, 0, 0)
        assert len(await catalog.identity()) == 32


async def test_another_catalog_in_the_place_of_this_one_is_missing_storage(new_postgres: str) -> None:
    """Made anew, or of another deployment, while the server runs."""
    first = batch(ROOT, *created(container_node("x")))
    async with opened(new_postgres, init=True) as catalog:
        identity = await catalog.identity()
        await ask(new_postgres, f"ALTER SCHEMA {SCHEMA} RENAME TO former", schema=SCHEMA)
        for is_made in (False, True):
            if is_made:
                async with opened(new_postgres, init=True):
                    pass
            for work in (lambda: catalog.apply([first]), lambda: catalog.node(ROOT)):
                with pytest.raises(StorageMissing, match=identity) as refusal:
                    await with_fresh_connections(new_postgres, APPLICATION, work)
                assert urlsplit(new_postgres).path in str(refusal.value)
        await ask(new_postgres, f"DROP SCHEMA {SCHEMA} CASCADE", schema=SCHEMA)
        await ask(new_postgres, f"ALTER SCHEMA former RENAME TO {SCHEMA}", schema=SCHEMA)
        assert await with_fresh_connections(new_postgres, APPLICATION, lambda: catalog.apply([first])) == [Applied(1)]


async def test_a_restored_catalog_has_its_identity_and_its_former_revision(postgres_url: str) -> None:
    with new_database(postgres_url) as uri:
        name = urlsplit(uri).path.strip("/")
        async with opened(uri, init=True) as catalog:
            await catalog.apply([batch(ROOT, *created(container_node("a")))])
            await cut(uri, APPLICATION)
            run_sql(postgres_url, f"CREATE DATABASE {name}_backup TEMPLATE {name}")
            try:
                await with_fresh_connections(
                    uri, APPLICATION, lambda: catalog.apply([batch(ROOT, *created(container_node("b")), after=1)])
                )
                assert await catalog.revision() == 2
                identity = await catalog.identity()
                run_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
                run_sql(postgres_url, f"CREATE DATABASE {name} TEMPLATE {name}_backup")
                assert await with_fresh_connections(uri, APPLICATION, catalog.revision) == 1
                assert await catalog.identity() == identity
            finally:
                run_sql(postgres_url, f"DROP DATABASE {name}_backup WITH (FORCE)")
