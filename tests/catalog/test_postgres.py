"""What is particular to the PostgreSQL engine: several processes on one catalog, a server that goes away, and its plans."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.servers.postgres import PostgresServer, new_database, postgres_server
from tiled_stream.catalog import postgres_apply, postgres_schema
from tiled_stream.catalog.facts import MAX_ELEMENTS
from tiled_stream.catalog.migrate import Migration, migrations
from tiled_stream.catalog.port import Applied, CatalogBatch
from tiled_stream.catalog.postgres import PostgresCatalog, numbered
from tiled_stream.catalog.postgres_connect import SCHEMA
from tiled_stream.catalog.postgres_dialect import parameter
from tiled_stream.catalog.postgres_schema import upgrade, version_of
from tiled_stream.domain.errors import Malformed, Unavailable
from tiled_stream.domain.events import ChildDeleted, Record
from tiled_stream.domain.nodes import ROOT, Spec
from tiled_stream.domain.search import Filter, Page, Search, SortKey
from tiled_stream.sql import postgres
from tiled_stream.testing.catalog_history import History
from tiled_stream.testing.catalog_search_contract import batch, created, keys, updated
from tiled_stream.testing.factories import child_created, container_node


@pytest.fixture
async def catalog(new_postgres: str) -> AsyncIterator[PostgresCatalog]:
    async with opened(new_postgres, init=True) as catalog:
        yield catalog


@pytest.fixture(scope="module")
def own_server(runtime_directory: object) -> Iterator[PostgresServer]:
    """One that may be killed; it answers again when a test is over."""
    with postgres_server("fsync=off", "full_page_writes=off") as server:
        yield server


@pytest.fixture
def small_server(runtime_directory: object) -> Iterator[PostgresServer]:
    """One with room for five connections."""
    with postgres_server("max_connections=5", "superuser_reserved_connections=0", "max_wal_senders=0") as server:
        yield server


@asynccontextmanager
async def opened(uri: str, **arguments: Any) -> AsyncIterator[PostgresCatalog]:
    catalog = PostgresCatalog(uri, **arguments)
    await catalog.open()
    try:
        yield catalog
    finally:
        await catalog.close()


async def ask(uri: str, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """A question to the tables themselves."""
    connection = await asyncpg.connect(uri, timeout=10, server_settings={"search_path": SCHEMA})
    try:
        return [tuple(row) for row in await connection.fetch(sql, *arguments)]
    finally:
        await connection.close()


async def refused(uri: str, **arguments: Any) -> str:
    """Why it cannot be opened."""
    with pytest.raises(Unavailable) as refusal:
        await PostgresCatalog(uri, **arguments).open()
    return str(refusal.value)


# ----------------------------------------------------------------- made, checked, brought up to date


async def test_all_servers_can_begin_at_once(new_postgres: str) -> None:
    catalogs = [PostgresCatalog(new_postgres, init=True, pool_size=2) for _ in range(8)]
    await asyncio.gather(*(catalog.open() for catalog in catalogs))
    assert await ask(new_postgres, "SELECT number FROM schema_steps") == [(step.number,) for step in migrations("postgres")]
    assert await ask(new_postgres, "SELECT count(*) FROM nodes") == [(1,)]
    for n, catalog in enumerate(catalogs):
        assert await catalog.apply([batch(ROOT, *created(container_node(f"k{n}", metadata={"n": 1})), after=n)]) == [
            Applied(n + 1)
        ]
    for catalog in catalogs:
        assert await keys(catalog, Filter("eq", 1, key="n")) == [f"k{n}" for n in range(8)]
        await catalog.close()


async def test_a_catalog_is_made_only_if_asked(new_postgres: str) -> None:
    assert "tiled-stream catalog init" in await refused(new_postgres)
    assert await version_of(new_postgres) is None
    with pytest.raises(Unavailable, match="catalog init"):
        await upgrade(new_postgres)
    assert await ask(new_postgres, "SELECT count(*) FROM pg_tables WHERE schemaname = $1", SCHEMA) == [(0,)]


async def test_an_older_catalog_is_altered_only_if_asked(new_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(new_postgres, init=True) as catalog:
        await catalog.apply([batch(ROOT, *created(container_node("x")))])
    made = len(migrations("postgres"))
    assert await upgrade(new_postgres) == (made, made)
    step = Migration(made + 1, "later", "CREATE TABLE extra (a integer); INSERT INTO extra VALUES (1);", "digest")
    monkeypatch.setattr(postgres_schema, "migrations", lambda dialect: [*migrations(dialect), step])
    assert "tiled-stream catalog upgrade-database" in await refused(new_postgres)
    assert await version_of(new_postgres) == made
    assert await upgrade(new_postgres) == (made, made + 1)
    async with opened(new_postgres) as catalog:
        assert (await catalog.child(ROOT, "x")).node.key == "x"
    assert await ask(new_postgres, "SELECT a FROM extra") == [(1,)]
    monkeypatch.undo()
    for init in (False, True):
        assert f"newer version (step {made + 1})" in await refused(new_postgres, init=init)


async def test_a_step_that_fails_changes_nothing(new_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(new_postgres, init=True):
        pass
    step = Migration(99, "later", "CREATE TABLE extra (a integer); INSERT INTO nowhere VALUES (1);", "digest")
    with monkeypatch.context() as patch:
        patch.setattr(postgres_schema, "migrations", lambda dialect: [*migrations(dialect), step])
        assert "nowhere" in await refused(new_postgres, init=True)
    assert await ask(new_postgres, "SELECT to_regclass('extra') IS NULL") == [(True,)]
    async with opened(new_postgres) as catalog:
        assert (await catalog.node(ROOT)).children == 0


async def test_the_root_is_described_by_the_configuration_until_somebody_edits_it(new_postgres: str) -> None:
    async with opened(new_postgres, init=True, root_metadata={"a": 1}, root_specs=(Spec("s", "1"),)) as catalog:
        root = (await catalog.node(ROOT)).node
        assert (root.metadata, root.specs) == ({"a": 1}, (Spec("s", "1"),))
    async with opened(new_postgres, root_metadata={"a": 2}) as catalog:
        root = (await catalog.node(ROOT)).node
        assert (root.metadata, root.specs) == ({"a": 2}, (Spec("s", "1"),))
        await catalog.apply([batch(ROOT, updated(container_node("", id=ROOT), {"mine": True}))])
    async with opened(new_postgres, root_metadata={"a": 3}) as catalog:
        assert (await catalog.node(ROOT)).node.metadata == {"mine": True}


async def test_uris_as_people_write_them(own_server: PostgresServer) -> None:
    with new_database(own_server.url) as uri:
        name = uri.rpartition("/")[2]
        async with opened(uri.replace("postgresql:", "postgres:"), init=True) as catalog:
            await catalog.apply([batch(ROOT, *created(container_node("x")))])
        for other in (
            uri.replace("postgresql:", "postgresql+asyncpg:"),
            f"{uri}?prepared_statement_cache_size=0",
            f"postgresql://postgres@/{name}?host={own_server.directory}&port={own_server.port}",
        ):
            async with opened(other) as catalog:
                assert await keys(catalog) == ["x"], other


@pytest.mark.parametrize("where", ["127.0.0.1:1/nothing", "127.0.0.1:1/nothing?sslmode=nonsense"])
async def test_a_password_is_in_no_error(where: str) -> None:
    assert "hunter2" not in await refused(f"postgresql://me:hunter2@{where}", init=True)


@pytest.mark.parametrize("uri", ["mysql://me:hunter2@host/db", "postgresql://me:hunter2@host/db?statement_cache_size=few"])
async def test_what_is_no_uri_of_postgresql_is_malformed(uri: str) -> None:
    with pytest.raises(Malformed) as refusal:
        PostgresCatalog(uri)
    assert "hunter2" not in str(refusal.value)


# ----------------------------------------------------------------- several processes


async def test_two_persisters_with_the_same_batches_apply_them_once(catalog: PostgresCatalog, new_postgres: str) -> None:
    """I5: one of them has lost its lease and does not know yet."""
    async with opened(new_postgres) as other:
        for n in range(15):
            nodes = [container_node(f"k{n}.{m}", metadata={"n": n, "list": [1, 1]}) for m in range(5)]
            events = [*created(*nodes), updated(nodes[0], {"n": n, "edited": True}, 1), ChildDeleted(nodes[1].key, nodes[1].id)]
            same = [batch(ROOT, *events, after=7 * n), batch(nodes[2].id, *created(container_node("below")))]
            first, second = await asyncio.gather(catalog.apply(same), other.apply(same))
            assert [a.watermark for a in first] == [a.watermark for a in second] == [7 * n + 7, 1]
            assert sorted(len(a.deleted) for a in (first[0], second[0])) == [0, 1]
    assert (await catalog.node(ROOT)).children == 15 * 4
    assert await catalog.count(ROOT, deep=True) == 15 * 5
    assert await catalog.count(ROOT, (Filter("eq", True, key="edited"),)) == 15
    assert await ask(new_postgres, "SELECT count(*) FROM revisions") == [(15,)]


async def test_a_subtree_that_goes_takes_what_is_made_in_it_meanwhile(catalog: PostgresCatalog, new_postgres: str) -> None:
    async with opened(new_postgres) as other:
        for n in range(10):
            run, stream = container_node(f"run{n}"), container_node("primary")
            await catalog.apply([batch(ROOT, *created(run), after=2 * n), batch(run.id, *created(stream))])
            late = batch(stream.id, *created(*(container_node(f"x{m}", metadata={"m": m}) for m in range(10))))
            doom = batch(ROOT, ChildDeleted(run.key, run.id), after=2 * n + 1)
            (gone,), (made,) = await asyncio.gather(catalog.apply([doom]), other.apply([late]))
            assert (len(gone.deleted), made.watermark) in ((2, -1), (12, 10))
    assert await ask(new_postgres, "SELECT count(*) FROM nodes") == [(1,)]
    for table in ("facts", "ancestry", "revisions"):
        assert await ask(new_postgres, f"SELECT count(*) FROM {table}") == [(0,)], table


@pytest.mark.parametrize("page", [1, 2, 3, 7, 100])
async def test_a_large_subtree_is_deleted_page_by_page(
    catalog: PostgresCatalog, new_postgres: str, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """Each step is short, so that one that the server does not work on can be told."""
    monkeypatch.setattr(postgres_apply, "_PAGE", page)
    monkeypatch.setattr(postgres, "SLICE", 4)
    run, kept, stream = container_node("run"), container_node("kept"), container_node("primary")
    below = [container_node(f"x{m}", metadata={"m": m}) for m in range(12)]
    batches = [batch(ROOT, *created(run, kept)), batch(run.id, *created(stream)), batch(stream.id, *created(*below))]
    await catalog.apply(batches)
    (gone,) = await catalog.apply([batch(ROOT, ChildDeleted(run.key, run.id), after=2)])
    assert [node.id for node in gone.deleted] == [node.id for node in (run, stream, *below)]
    assert await keys(catalog) == ["kept"]
    assert await ask(new_postgres, "SELECT count(*) FROM ancestry") == [(0,)]


async def test_a_history_by_two_processes_leaves_nothing_of_what_was_deleted(catalog: PostgresCatalog, new_postgres: str) -> None:
    history = History(7)
    async with opened(new_postgres) as other:
        for n in range(60):
            await (catalog, other)[n % 2].apply([history.batch()])
        assert history.gone
        for node in history.nodes.values():
            stored = await catalog.node(node.id)
            assert (stored.node.metadata, stored.watermark) == (node.metadata, history.watermarks[node.id])
            assert stored.children == await other.count(node.id) == len(history.children(node.id))
    places = [("facts", "node"), ("facts", "parent"), ("ancestry", "node"), ("ancestry", "ancestor"), ("revisions", "node")]
    for table, column in places:
        left = f"SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT row FROM nodes)"
        assert await ask(new_postgres, left) == [(0,)], (table, column)
    pairs = sum(len(history.below(id)) for id in history.nodes if id != ROOT)
    assert await ask(new_postgres, "SELECT count(*) FROM ancestry") == [(pairs,)]


# ----------------------------------------------------------------- a server that goes away


async def test_a_killed_server_is_unavailable_and_found_again(own_server: PostgresServer) -> None:
    with new_database(own_server.url) as uri:
        async with opened(uri, init=True) as catalog:
            first = batch(ROOT, *created(container_node("before", metadata={"a": 1})))
            await catalog.apply([first])
            own_server.stop(signal.SIGQUIT)
            try:
                for _ in range(2):
                    with pytest.raises(Unavailable):
                        await catalog.node(ROOT)
                    with pytest.raises(Unavailable):
                        await catalog.apply([batch(ROOT, *created(container_node("lost")), after=1)])
                assert "cannot be reached" in await refused(uri)
            finally:
                await asyncio.to_thread(own_server.start)
            assert await catalog.apply([first]) == [Applied(1)]
            assert await catalog.apply([batch(ROOT, *created(container_node("after", metadata={"a": 1})), after=1)]) == [
                Applied(2)
            ]
            assert await keys(catalog, Filter("eq", 1, key="a")) == ["before", "after"]


async def test_a_server_killed_in_the_middle_has_applied_all_or_nothing(own_server: PostgresServer) -> None:
    with new_database(own_server.url) as uri:
        async with opened(uri, init=True) as catalog:
            done = 0
            for delay in (0.0, 0.02, 0.04, 0.2):
                nodes = [container_node(f"k{done + n}", metadata={"n": n, "text": f"{n}" * 50}) for n in range(500)]
                work = batch(ROOT, *created(*nodes), after=done)
                task = asyncio.create_task(catalog.apply([work]), name="apply")
                await asyncio.sleep(delay)
                await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                await asyncio.to_thread(own_server.start)
                assert outcome == [Applied(done + 500)] or isinstance(outcome, Unavailable), outcome
                stored = await catalog.node(ROOT)
                assert (stored.watermark, stored.children) in ((done, done), (done + 500, done + 500))
                assert await catalog.apply([work]) == [Applied(done + 500)]
                done += 500
                assert await catalog.count(ROOT, (Filter("keypresent", True, key="n"),)) == done


async def test_connections_that_are_cut_are_made_anew(catalog: PostgresCatalog, new_postgres: str) -> None:
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for n in range(3):
        await asyncio.gather(*(catalog.node(ROOT) for _ in range(5)))
        assert (await ask(new_postgres, cut))[0][0] > 0
        async with asyncio.timeout(10):
            while True:  # each connection may tell once that it is gone
                try:
                    assert await catalog.apply([batch(ROOT, *created(container_node(f"k{n}")), after=n)]) == [Applied(n + 1)]
                    break
                except Unavailable:
                    await asyncio.sleep(0.01)
    assert len(await keys(catalog)) == 3


async def test_a_full_server_is_unavailable_until_there_is_room(small_server: PostgresServer) -> None:
    others = [await asyncpg.connect(small_server.url) for _ in range(5)]
    assert "too many clients" in await refused(small_server.url, init=True)
    for other in others:
        await other.close()
    async with asyncio.timeout(10):
        while True:  # a server's process takes a moment to go
            try:
                async with opened(small_server.url, init=True) as catalog:
                    assert (await catalog.node(ROOT)).watermark == 0
                return
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_a_database_that_is_read_only_can_be_read(catalog: PostgresCatalog, new_postgres: str) -> None:
    """As after a failover to a replica: it is not the fault of events."""
    await catalog.apply([batch(ROOT, *created(container_node("x")))])
    reader = PostgresCatalog(f"{new_postgres}?default_transaction_read_only=on", pool_size=1)
    await reader._database.open()  # as it was open already when the server became a replica
    try:
        with pytest.raises(Unavailable, match="read-only"):
            await reader.apply([batch(ROOT, *created(container_node("y")), after=1)])
        assert await keys(reader) == ["x"]
    finally:
        await reader.close()


async def test_a_lost_database_is_not_the_fault_of_events(catalog: PostgresCatalog, new_postgres: str) -> None:
    """Else every event behind it would be put aside as one that cannot be applied."""
    await ask(new_postgres, f"DROP SCHEMA {SCHEMA} CASCADE")
    with pytest.raises(Unavailable):
        await catalog.apply([batch(ROOT, *created(container_node("x")))])
    with pytest.raises(Unavailable):
        await keys(catalog)


async def test_an_event_that_cannot_be_applied_is_not_called_unavailable(catalog: PostgresCatalog) -> None:
    same_key = created(container_node("a"), container_node("a"))
    with pytest.raises(asyncpg.UniqueViolationError):
        await catalog.apply([batch(ROOT, *same_key)])
    with pytest.raises(UnicodeEncodeError):
        await catalog.apply([batch(ROOT, *created(container_node("b", metadata={"t": "\ud800"})))])
    assert await catalog.apply([batch(ROOT, *created(container_node("a")))]) == [Applied(1)]


# ----------------------------------------------------------------- connections


async def test_close_leaves_no_connection_and_no_task(new_postgres: str) -> None:
    """I9. The server's process of a connection ends a moment after the connection."""
    before = asyncio.all_tasks()
    catalog = PostgresCatalog(new_postgres, init=True, pool_size=4)
    await catalog.open()
    await asyncio.gather(*(catalog.count(ROOT, deep=True) for _ in range(20)))
    mine = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tiled_stream catalog'"
    )
    assert 0 < (await ask(new_postgres, mine))[0][0] <= 4
    await catalog.close()
    await catalog.close()
    assert asyncio.all_tasks() == before
    for _ in range(200):
        if await ask(new_postgres, mine) == [(0,)]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a connection was left")


@pytest.mark.parametrize("was_open", [False, True])
async def test_a_catalog_that_is_not_open_says_so(new_postgres: str, was_open: bool) -> None:
    catalog = PostgresCatalog(new_postgres, init=True)
    if was_open:
        await catalog.open()
        await catalog.close()
    with pytest.raises(Unavailable, match="not open"):
        await catalog.node(ROOT)
    with pytest.raises(Unavailable, match="not open"):
        await catalog.apply([batch(ROOT, *created(container_node("x")))])
    await catalog.close()


async def test_an_apply_that_is_cancelled_is_applied_whole_or_not_at_all(catalog: PostgresCatalog) -> None:
    done = 0
    for n in range(12):
        pair = created(container_node(f"a{n}"), container_node(f"b{n}"))
        task = asyncio.create_task(catalog.apply([batch(ROOT, *pair, after=2 * done)]), name="apply")
        await asyncio.sleep(n * 0.0005)
        task.cancel()
        await asyncio.wait([task])
        assert await catalog.apply([]) == []  # waits for the lock behind it
        stored = await catalog.node(ROOT)
        assert (stored.watermark, stored.children) in ((2 * done, 2 * done), (2 * done + 2, 2 * done + 2))
        done = stored.watermark // 2
    assert done > 0


async def test_questions_that_are_cancelled_leave_the_connections_usable(catalog: PostgresCatalog) -> None:
    await catalog.apply([batch(ROOT, *created(*(container_node(f"k{n}") for n in range(300))))])
    for n in range(12):
        asked = asyncio.create_task(catalog.children(ROOT, Search(), Page(limit=300)), name="ask")
        await asyncio.sleep(n * 0.0003)
        asked.cancel()
        await asyncio.wait([asked])
    assert len(await asyncio.wait_for(keys(catalog), 10)) == 300


# ----------------------------------------------------------------- searches


@pytest.mark.parametrize("length", [MAX_ELEMENTS, MAX_ELEMENTS + 1])
async def test_lists_are_searched_the_same_at_any_length(catalog: PostgresCatalog, length: int) -> None:
    node = container_node("x", metadata={"l": [*range(length - 1), "end"]})
    await catalog.apply([batch(ROOT, *created(node))])
    for value, found in ((length - 2, ["x"]), (length - 1, []), ("end", ["x"]), ("en", []), (True, [])):
        assert await keys(catalog, Filter("contains", value, key="l")) == found, value
    assert await keys(catalog, Filter("eq", [*range(length - 1), "end"], key="l")) == ["x"]


async def test_texts_of_any_length_are_found(catalog: PostgresCatalog) -> None:
    """An index takes a third of a page; what is longer stands there by its beginning and a digest."""
    texts = ["é" * 499, "é" * 500, "é" * 501, "é" * 5000 + "a", "é" * 5000 + "b"]
    nodes = [container_node(f"k{n}", metadata={"t": text, "l": [text]}) for n, text in enumerate(texts)]
    await catalog.apply([batch(ROOT, *created(*nodes))])
    for n, text in enumerate(texts):
        assert await keys(catalog, Filter("eq", text, key="t")) == [f"k{n}"]
        assert await keys(catalog, Filter("contains", text, key="l")) == [f"k{n}"]
    assert await keys(catalog, Filter("like", "%éb", key="t")) == ["k4"]
    assert await keys(catalog, Filter("contains", "éa", key="t")) == ["k3"]
    assert (await catalog.child(ROOT, "k4")).node.metadata["t"] == texts[4]


async def test_a_nul_character_is_kept_and_found(catalog: PostgresCatalog) -> None:
    metadata = {"t": "a\0b", "l": ["\0", 1]}
    await catalog.apply(
        [batch(ROOT, *created(container_node("x", metadata=metadata), container_node("y", metadata={"t": "ab"})))]
    )
    assert (await catalog.child(ROOT, "x")).node.metadata == metadata
    assert await keys(catalog, Filter("eq", "a\0b", key="t")) == ["x"]
    assert await keys(catalog, Filter("contains", "\0", key="l")) == ["x"]
    assert await keys(catalog, Filter("contains", "\0", key="t")) == ["x"]
    assert await keys(catalog, sort=(SortKey("t"),)) == ["x", "y"]
    assert await keys(catalog, Filter("lookup", "x\0")) == []


async def test_text_is_compared_by_code_points_whatever_the_locale(catalog: PostgresCatalog, new_postgres: str) -> None:
    """No locale but C may be on a machine of tests, so this asks how columns are declared that filters and orders compare."""
    compared = ["family", "id", "key", "specs", "words"]
    declared = (
        "SELECT a.attname, c.collname FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation "
        "WHERE a.attrelid = 'nodes'::regclass AND a.attname = ANY($1::text[]) ORDER BY 1"
    )
    assert await ask(new_postgres, declared, compared) == [(column, "C") for column in compared]
    of_facts = (
        "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'facts'::regclass AND attname IN ('value', 'text')"
    )
    assert await ask(new_postgres, of_facts) == [("bytea",), ("bytea",)]
    words = ["B", "a", "Z", "\u00e4", "z", "\u00e5"]
    await catalog.apply([batch(ROOT, *created(*(container_node(word, metadata={"t": word}) for word in words)))])
    for key in ("id", "t"):
        assert await keys(catalog, sort=(SortKey(key),)) == sorted(words)


@pytest.fixture(scope="module")
def filled(own_server: PostgresServer) -> Iterator[str]:
    """A catalog with enough nodes for a planner to care, most of them copied by SQL from two that the engine wrote."""
    with new_database(own_server.url) as uri:
        asyncio.run(_fill(uri))
        yield uri


async def _fill(uri: str, number: int = 20_000) -> None:
    async with opened(uri, init=True) as catalog:
        some = [container_node(f"k{n}", metadata={"n": n, "plan": ("count", "scan")[n % 2]}) for n in range(2)]
        await catalog.apply([batch(ROOT, *created(*some))])
    ((sample,),) = await ask(uri, "SELECT min(row) FROM nodes WHERE parent IS NOT NULL")
    columns = "parent, depth, created, time_created, time_updated, family, above, path, words, specs, access_tags, data_sources"
    await ask(
        uri,
        f"INSERT INTO nodes (row, id, key, metadata, {columns}) SELECT g, g::text, 'g' || g, metadata, {columns} FROM nodes, "
        f"generate_series({sample + 10}, {sample + number}) g WHERE row = {sample}",
    )
    # The number of each is its row, as the engine writes numbers; every tenth is a scan.
    ((first,),) = await ask(uri, "SELECT value FROM facts WHERE node = $1 AND kind = 0", sample)
    assert len(first) == 16
    await ask(
        uri,
        "INSERT INTO facts (node, parent, path, kind, value, text) SELECT n.row, n.parent, f.path, f.kind, "
        "CASE f.kind WHEN 0 THEN float8send(n.row::float8 * -1) || substr(f.value, 9) ELSE f.value END, f.text "
        f"FROM nodes n JOIN facts f ON f.node = {sample} + (n.row % 10 = 0)::integer WHERE n.row >= {sample + 10}",
    )
    await ask(uri, "VACUUM ANALYZE")


@pytest.mark.parametrize(
    ("filters", "sort", "wanted"),
    [
        ((), (), "nodes_by_parent"),
        ((), (SortKey("", descending=True),), "nodes_by_parent"),
        ((Filter("lookup", "g500"),), (), "nodes_parent_key_key"),
        ((Filter("eq", 1, key="n"),), (), "facts_by_value"),
        ((Filter("eq", "scan", key="plan"),), (SortKey("", descending=True),), "facts_by_value"),
        ((Filter("like", "sca%", key="plan"), Filter("eq", 1, key="n")), (), "facts_by_value"),
        (
            (Filter("comparison", 0, key="n", operator="ge"), Filter("comparison", 9, key="n", operator="lt")),
            (),
            "facts_by_value",
        ),
        ((Filter("eq", 1, key="n"), Filter("keypresent", True, key="plan")), (), "facts_by_value"),
    ],
    ids=lambda value: (
        ",".join(f.name for f in value) if isinstance(value, tuple) and value and hasattr(value[0], "name") else None
    ),
)
async def test_searches_use_the_indexes(filled: str, filters: tuple[Filter, ...], sort: tuple[SortKey, ...], wanted: str) -> None:
    """With a million children a plan that scans is the difference between a millisecond and many."""
    async with opened(filled) as catalog:
        sql, parameters = await _statement(catalog, Search(filters, sort))
        async with catalog._database.connection() as connection:
            plan = [row[0] for row in await connection.fetch(f"EXPLAIN {numbered(sql)}", *map(parameter, parameters))]
    assert any(wanted in step for step in plan), plan
    assert not [step for step in plan if "Seq Scan on nodes" in step or "Seq Scan on facts" in step], plan


async def _statement(catalog: PostgresCatalog, search: Search) -> tuple[str, Any]:
    """What a page of children asks."""
    asked: list[tuple[str, Any]] = []
    ask_it = catalog._all

    async def remembered(sql: str, parameters: Any) -> list[Any]:
        asked.append((sql, parameters))
        return await ask_it(sql, parameters)

    catalog._all = remembered  # type: ignore[method-assign]
    await catalog.children(ROOT, search, Page())
    return asked[-1]


async def test_paths_are_numbered_once_and_may_be_long(new_postgres: str) -> None:
    """A number a path, however often it is written; a key longer than an index page is kept and found."""
    long = "k" * 20_000
    catalog = PostgresCatalog(new_postgres, init=True)
    await catalog.open()
    try:
        for n in range(5):
            node = container_node(key=f"k{n}", metadata={"a": n, long: n})
            record = Record(n + 1, float(n), child_created(node))
            assert (await catalog.apply([CatalogBatch(ROOT, n, (record,))]))[0].watermark == n + 1
        found = await catalog.children(ROOT, Search((Filter("eq", 3, key=long),)), Page())
        assert len(found.hits) == 1
        async with catalog._database.connection() as connection:
            assert await connection.fetchval("SELECT max(id) FROM paths") == await connection.fetchval(
                "SELECT count(*) FROM paths"
            )
    finally:
        await catalog.close()


@pytest.mark.parametrize("uri", ["postgresql://me:se/cret@h/d", "postgresql://me:se#cret@h/d", "postgresql://me:s@cret:x@h:y/d"])
def test_a_password_that_is_not_escaped_is_told_without_it(uri: str) -> None:
    with pytest.raises(Malformed) as told:
        PostgresCatalog(uri)
    assert "cret" not in str(told.value)
