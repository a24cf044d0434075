"""URIs of PostgreSQL as people write them, what of them is told to others, and connecting by a Unix socket."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pytest

from tests.servers.postgres import run_sql
from tiled_stream.domain.errors import Malformed
from tiled_stream.storage.postgres_connect import Database, public_uri
from tiled_stream.storage.postgres_tables import PostgresTables
from tiled_stream.testing.factories import new_id, table_structure


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgres://user@host:5433/db", "postgresql://host:5433/db"),
        ("postgresql+asyncpg://user:s3cret@host:5433/db?ssl=require", "postgresql://host:5433/db"),
        ("postgresql://user:s3%40%2Fcret@host/db?sslmode=disable&connect_timeout=3", "postgresql://host/db"),
        ("postgresql:///db?host=/var/run/pg&user=me&password=s3cret", "postgresql:///db?host=/var/run/pg"),
        ("postgresql://u:s3cret@one:1,two:2/db", "postgresql://one:1,two:2/db"),
        ("postgresql://u:s3cret@[::1]:5432/db", "postgresql://[::1]:5432/db"),
    ],
)
def test_what_is_told_of_a_uri_is_the_place_alone(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown
    store = PostgresTables(uri)
    place = store.allocate(new_id(), table_structure(), None, {})
    assert place.data_uri == shown
    assert "s3cret" not in repr(place)


@pytest.mark.parametrize(
    "uri",
    [
        "mysql://user:s3cret@host/db",
        "host/db",
        "postgresql://user:s3cret@host:port/db",
        "postgresql://user:123/s3cret@host/db",
        "postgresql://user:p@ss/s3cret@host/db",
        "postgresql://user:12?s3cret@host/db",
        "postgresql://user:12#s3cret@host/db",
        "postgresql://user:s3cret@host/db?prepared_statement_cache_size=few",
    ],
)
def test_what_cannot_be_understood_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(Malformed) as caught:
        PostgresTables(uri)
    assert "s3cret" not in str(caught.value)
    assert "postgresql://" in str(caught.value)


async def test_a_password_may_hold_anything_in_escapes(new_postgres: str) -> None:
    password = "p@ss/w:rd?#% 'é"
    run_sql(new_postgres, "CREATE ROLE odd LOGIN SUPERUSER PASSWORD 'p@ss/w:rd?#% ''é'")
    try:
        store = PostgresTables(new_postgres.replace("postgres@", "odd:p%40ss%2Fw%3Ard%3F%23%25%20%27%C3%A9@"))
        assert store._database._options["password"] == password
        await store.open()
        async with store._database.session() as session:
            assert await session.value("SELECT current_user::text") == "odd"
        await store.close()
    finally:
        run_sql(new_postgres, "DROP OWNED BY odd; DROP ROLE odd")


async def test_parameters_reach_the_server_or_the_client(new_postgres: str) -> None:
    uri = new_postgres.replace("postgresql://", "postgresql+asyncpg://")
    database = Database(f"{uri}?ssl=disable&prepared_statement_cache_size=0&work_mem=7MB", pool_size=1)
    await database.open()
    async with database.session() as session:
        assert await session.value("SHOW work_mem") == "7MB"
        await session.value("SELECT $1::int", 1)
        assert await session.rows("SELECT * FROM pg_prepared_statements WHERE statement LIKE '%::int%'") == []
    await database.close()


async def test_a_unix_socket(new_postgres: str) -> None:
    database = Database(new_postgres, pool_size=1)
    await database.open()
    async with database.session() as session:
        directory = await session.value("SHOW unix_socket_directories")
    await database.close()
    if not os.path.isdir(directory):  # noqa: ASYNC240 - of this machine
        pytest.skip("the server of TEST_PG_URL is on another machine, or has no socket")
    parts = urlsplit(new_postgres)
    store = PostgresTables(f"postgresql://postgres@{parts.path}?host={directory}&port={parts.port}")
    await store.open()
    assert await store.watermark(new_id()) == 0
    assert store.allocate(new_id(), table_structure(), None, {}).data_uri == (
        f"postgresql://{parts.path}?host={directory}&port={parts.port}"
    )
    await store.close()
