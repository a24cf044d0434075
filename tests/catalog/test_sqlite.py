"""What is particular to the SQLite engine: its threads, its plans, and what happens when the file is busy or closed."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiled_stream.catalog import sqlite_apply
from tiled_stream.catalog.conditions import Fragment, Place, sourced
from tiled_stream.catalog.facts import MAX_ELEMENTS
from tiled_stream.catalog.filters import compiled
from tiled_stream.catalog.orders import ordered
from tiled_stream.catalog.port import Applied
from tiled_stream.catalog.sqlite import SqliteCatalog
from tiled_stream.catalog.sqlite_apply import MAX_PATHS
from tiled_stream.catalog.sqlite_dialect import FUNCTIONS, SqliteDialect
from tiled_stream.domain.errors import Unavailable
from tiled_stream.domain.nodes import ROOT
from tiled_stream.domain.search import Filter, Page, Search, SortKey
from tiled_stream.testing.catalog_history import History
from tiled_stream.testing.catalog_search_contract import batch, created, keys, updated
from tiled_stream.testing.factories import container_node


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.db"


@pytest.fixture
async def catalog(path: Path) -> AsyncIterator[SqliteCatalog]:
    catalog = SqliteCatalog(path, init=True)
    await catalog.open()
    yield catalog
    await catalog.close()


async def test_close_ends_every_thread_and_can_be_repeated(path: Path) -> None:
    before = set(threading.enumerate())
    catalog = SqliteCatalog(path, init=True, readers=3)
    await catalog.open()
    assert len(set(threading.enumerate()) - before) == 4
    await catalog.close()
    await catalog.close()
    assert set(threading.enumerate()) <= before  # I9


async def test_close_lets_finish_what_runs_and_refuses_what_waits(path: Path) -> None:
    catalog = SqliteCatalog(path, init=True, readers=1)
    await catalog.open()
    asked = [asyncio.create_task(catalog.node(ROOT), name=f"ask {n}") for n in range(5)]
    await asyncio.sleep(0)
    await catalog.close()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["Stored"] + ["Unavailable"] * 4


@pytest.mark.parametrize("was_open", [False, True])
async def test_a_catalog_that_is_not_open_says_so(path: Path, was_open: bool) -> None:
    catalog = SqliteCatalog(path, init=True)
    if was_open:
        await catalog.open()
        await catalog.close()
    with pytest.raises(Unavailable, match="not open"):
        await catalog.node(ROOT)
    with pytest.raises(Unavailable, match="not open"):
        await catalog.apply([batch(ROOT, *created(container_node("x")))])
    await catalog.close()


async def test_a_closed_catalog_can_be_opened_again(path: Path) -> None:
    catalog = SqliteCatalog(path, init=True)
    for n in range(3):
        await catalog.open()
        assert await catalog.apply([batch(ROOT, *created(container_node(f"k{n}")), after=n)]) == [Applied(n + 1)]
        await catalog.close()


async def test_questions_that_are_cancelled_leave_the_readers_usable(catalog: SqliteCatalog) -> None:
    await catalog.apply([batch(ROOT, *created(*(container_node(f"k{n}") for n in range(300))))])
    for _ in range(20):
        asked = asyncio.create_task(catalog.children(ROOT, Search(), Page(limit=300)), name="ask")
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert len(await asyncio.wait_for(keys(catalog), 10)) == 300


async def test_an_apply_that_is_cancelled_is_applied_whole_or_not_at_all(catalog: SqliteCatalog) -> None:
    done = 0
    for n in range(20):
        pair = created(container_node(f"a{n}"), container_node(f"b{n}"))
        task = asyncio.create_task(catalog.apply([batch(ROOT, *pair, after=2 * done)]), name="apply")
        await asyncio.sleep(n * 0.0001)
        task.cancel()
        await asyncio.wait([task])
        assert await catalog.apply([]) == []  # behind it in the same thread
        stored = await catalog.node(ROOT)
        assert (stored.watermark, stored.children) in ((2 * done, 2 * done), (2 * done + 2, 2 * done + 2))
        done = stored.watermark // 2
    assert done > 0


async def test_a_writer_elsewhere_makes_it_unavailable_but_readable(
    catalog: SqliteCatalog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert catalog._connection is not None
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await asyncio.get_running_loop().run_in_executor(catalog._thread, catalog._connection.execute, "PRAGMA busy_timeout = 10")
    with pytest.raises(Unavailable, match="locked"):
        await catalog.apply([batch(ROOT, *created(container_node("x", metadata={"new": 1})))])
    assert await keys(catalog) == []
    other.execute("ROLLBACK")
    other.close()
    assert await catalog.apply([batch(ROOT, *created(container_node("x", metadata={"new": 1})))]) == [Applied(1)]
    assert await keys(catalog, Filter("eq", 1, key="new")) == ["x"]


async def test_a_full_disk_makes_it_unavailable_and_loses_nothing(catalog: SqliteCatalog) -> None:
    connection, thread = catalog._connection, catalog._thread
    assert connection is not None
    loop = asyncio.get_running_loop()
    many = batch(ROOT, *created(*(container_node(f"k{n}", metadata={"text": f"{n}" * 500}) for n in range(300))))
    await loop.run_in_executor(thread, connection.execute, "PRAGMA max_page_count = 30")
    with pytest.raises(Unavailable, match="full"):
        await catalog.apply([many])
    assert (await catalog.node(ROOT)).watermark == 0
    await loop.run_in_executor(thread, connection.execute, "PRAGMA max_page_count = 100000")
    assert await catalog.apply([many]) == [Applied(300)]
    assert len(await keys(catalog, Filter("keypresent", True, key="text"))) == 300


def spoil(path: Path) -> None:
    """Overwrite the pages where facts begin."""
    db = sqlite3.connect(path)
    (size,) = db.execute("PRAGMA page_size").fetchone()
    pages = [page for (page,) in db.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'facts'")]
    db.close()
    assert len(pages) == 2
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)


async def test_a_spoiled_file_is_not_the_fault_of_events(path: Path) -> None:
    """Else every event behind it would be put aside as one that cannot be applied."""
    catalog = SqliteCatalog(path, init=True)
    await catalog.open()
    await catalog.apply([batch(ROOT, *created(*(container_node(f"k{n}", metadata={"n": n}) for n in range(300))))])
    await catalog.close()
    spoil(path)
    await catalog.open()
    with pytest.raises(Unavailable):
        await catalog.apply([batch(ROOT, *created(*(container_node(f"l{n}", metadata={"n": n}) for n in range(300))), after=300)])
    with pytest.raises(Unavailable):
        await catalog.children(ROOT, Search((Filter("eq", 1, key="n"),)), Page())
    await catalog.close()


async def test_what_a_failed_transaction_named_is_forgotten(catalog: SqliteCatalog) -> None:
    """The rows of paths are remembered; those of a transaction that was rolled back must not be."""
    first, same_key = container_node("a", metadata={"p": 1, "q": 1}), container_node("a", metadata={"r": 1})
    with pytest.raises(sqlite3.IntegrityError):
        await catalog.apply([batch(ROOT, *created(first, same_key))])
    nodes = [
        container_node("b", metadata={"r": 1}),
        container_node("c", metadata={"q": 1}),
        container_node("d", metadata={"p": 1}),
    ]
    await catalog.apply([batch(ROOT, *created(*nodes))])
    for key, expected in (("p", ["d"]), ("q", ["c"]), ("r", ["b"])):
        assert await keys(catalog, Filter("eq", 1, key=key)) == expected


async def test_metadata_may_use_anything_as_a_key(catalog: SqliteCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of paths are remembered up to a bound only."""
    assert MAX_PATHS > 10
    monkeypatch.setattr(sqlite_apply, "MAX_PATHS", 10)
    nodes = [container_node(f"k{n}", metadata={f"key{n + m}": n for m in range(5)}) for n in range(30)]
    await catalog.apply([batch(ROOT, *created(*nodes))])
    assert await keys(catalog, Filter("keypresent", True, key="key10")) == ["k6", "k7", "k8", "k9", "k10"]
    assert await keys(catalog, Filter("eq", 7, key="key10")) == ["k7"]


async def test_nothing_is_left_of_what_was_deleted(catalog: SqliteCatalog, path: Path) -> None:
    history = History(7)
    for _ in range(60):
        await catalog.apply([history.batch()])
    assert history.gone
    db = sqlite3.connect(path)
    places = [("facts", "node"), ("facts", "parent"), ("ancestry", "node"), ("ancestry", "ancestor"), ("revisions", "node")]
    for table, column in places:
        left = f"SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT row FROM nodes)"
        assert db.execute(left).fetchone() == (0,), (table, column)
    pairs = sum(len(history.below(id)) for id in history.nodes if id != ROOT)
    assert db.execute("SELECT count(*) FROM ancestry").fetchone() == (pairs,)
    db.close()


@pytest.mark.parametrize("length", [MAX_ELEMENTS, MAX_ELEMENTS + 1])
async def test_lists_are_searched_the_same_at_any_length(catalog: SqliteCatalog, length: int) -> None:
    node = container_node("x", metadata={"l": [*range(length - 1), "end"]})
    await catalog.apply([batch(ROOT, *created(node))])
    for value, found in ((length - 2, ["x"]), (length - 1, []), ("end", ["x"]), ("en", []), (True, [])):
        assert await keys(catalog, Filter("contains", value, key="l")) == found, value
    assert await keys(catalog, Filter("eq", [*range(length - 1), "end"], key="l")) == ["x"]
    edited = updated(node, {"l": "blend"}, 1)
    await catalog.apply([batch(ROOT, edited, after=1)])
    assert await keys(catalog, Filter("contains", "end", key="l")) == ["x"]
    assert await keys(catalog, Filter("contains", 0, key="l")) == []


@pytest.mark.parametrize(
    ("filters", "sort", "wanted", "unwanted"),
    [
        ((), (), "nodes_by_parent (parent=?)", "TEMP B-TREE"),
        ((), (SortKey("", descending=True),), "nodes_by_parent (parent=?)", "TEMP B-TREE"),
        ((Filter("lookup", "x"),), (), "sqlite_autoindex_nodes_2 (parent=? AND key=?)", "facts"),
        ((Filter("eq", "a", key="k"),), (), "facts_by_value (path=? AND kind=? AND value=? AND parent=?)", "TEMP B-TREE"),
        ((Filter("like", "ab%", key="k"),), (), "facts_by_value (path=? AND kind=? AND value>? AND value<?)", "SCAN"),
        (
            (Filter("comparison", 1, key="k", operator="ge"), Filter("comparison", 9, key="k", operator="lt")),
            (),
            "facts_by_value (path=? AND kind=? AND value>? AND value<?)",
            "CORRELATED",
        ),
        (
            (Filter("keypresent", True, key="k"), Filter("eq", 1, key="j")),
            (),
            "facts_by_value (path=? AND kind=? AND value=? AND parent=?)",
            "SCAN",
        ),
        ((), (SortKey("k", descending=True),), "s0 USING PRIMARY KEY (node=? AND path=?) LEFT-JOIN", "SCAN"),
        ((Filter("contains", "a", key="k"),), (), "n USING INTEGER PRIMARY KEY (rowid=?)", "SCAN n"),
    ],
)
async def test_searches_use_the_indexes(
    catalog: SqliteCatalog, path: Path, filters: tuple[Filter, ...], sort: tuple[SortKey, ...], wanted: str, unwanted: str
) -> None:
    """With a million children a plan that scans or sorts is the difference between a millisecond and many."""
    source = sourced(compiled(filters, SqliteDialect()), Place("nodes n", Fragment("n.parent = ?", (1,)), parent=1))
    order = ordered(sort, source.row, Page())
    sql = f"SELECT {source.row} FROM {source.tables}{order.joins} WHERE {source.condition.sql} ORDER BY {order.terms} LIMIT 100"
    db = sqlite3.connect(path)
    for name, arguments, function in FUNCTIONS:
        db.create_function(name, arguments, function, deterministic=True)
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", (*order.parameters, *source.condition.parameters))]
    db.close()
    assert any(wanted in step for step in plan), plan
    assert not any(unwanted in step for step in plan), plan
