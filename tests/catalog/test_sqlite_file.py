"""The file of a SQLite catalog: what is made, what is refused, and that what is refused stays as it was."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tiled_stream.catalog import sqlite_file
from tiled_stream.catalog.migrate import Migration, migrations, pending, statements
from tiled_stream.catalog.port import Applied
from tiled_stream.catalog.rows import COLUMNS
from tiled_stream.catalog.sqlite import SqliteCatalog
from tiled_stream.domain.errors import Unavailable
from tiled_stream.domain.events import ChildMetadataUpdated
from tiled_stream.domain.nodes import ROOT, Spec
from tiled_stream.testing.catalog_search_contract import batch, created
from tiled_stream.testing.factories import container_node


@asynccontextmanager
async def opened(path: Path | None, **arguments: Any) -> AsyncIterator[SqliteCatalog]:
    catalog = SqliteCatalog(path, **arguments)
    await catalog.open()
    try:
        yield catalog
    finally:
        await catalog.close()


async def refused(path: Path, **arguments: Any) -> str:
    """Why it cannot be opened. Nothing of the attempt is left."""
    catalog = SqliteCatalog(path, **arguments)
    with pytest.raises(Unavailable) as refusal:
        await catalog.open()
    assert "catalog writer" not in " ".join(thread.name for thread in threading.enumerate())
    return str(refusal.value)


async def made(path: Path) -> None:
    async with opened(path, init=True):
        pass


def files(directory: Path) -> list[str]:
    """Names of what is in a directory."""
    return sorted(file.name for file in directory.iterdir())


def alter(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()


async def test_a_missing_file_is_made_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "catalog.db"
    assert "--init" in await refused(path)
    assert not path.parent.exists()
    await made(path)
    async with opened(path) as catalog:
        assert (await catalog.node(ROOT)).watermark == 0


async def test_an_empty_file_is_not_initialised(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.touch()
    assert "--init" in await refused(path)
    assert path.read_bytes() == b""
    await made(path)


@pytest.mark.parametrize("init", [False, True])
async def test_a_database_of_another_application_is_left_alone(tmp_path: Path, init: bool) -> None:
    path = tmp_path / "catalog.db"
    alter(path, "CREATE TABLE alembic_version (version_num TEXT)")
    before = path.read_bytes()
    assert "another application" in await refused(path, init=init)
    assert path.read_bytes() == before
    assert files(tmp_path) == ["catalog.db"]


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"not a database at all, but long enough to have a header\n" * 50)
    assert "cannot be opened" in await refused(path, init=True)
    assert "cannot be opened" in await refused(tmp_path, init=True)
    assert "cannot be opened" in await refused(path / "below" / "a file", init=True)


async def test_a_newer_catalog_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    await made(path)
    alter(path, "INSERT INTO schema_steps VALUES (99, 'future', 'digest', 'later')")
    assert "newer version (step 99)" in await refused(path, init=True)


async def test_a_catalog_of_other_steps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    await made(path)
    alter(path, "UPDATE schema_steps SET digest = 'other' WHERE number = 1")
    assert "step 1" in await refused(path)


#: The number of the last step that ships.
LATEST = len(migrations("sqlite"))


def later_step(monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    step = Migration(LATEST + 1, "later", sql, "its digest")
    monkeypatch.setattr(sqlite_file, "migrations", lambda dialect: [*migrations(dialect), step])


async def test_an_older_catalog_is_brought_up_to_date_with_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.db"
    async with opened(path, init=True) as catalog:
        await catalog.apply([batch(ROOT, *created(container_node("x")))])
    later_step(monkeypatch, "-- one; two\nCREATE TABLE extra (a);\nINSERT INTO extra VALUES ('x;y');\n")
    for _ in range(2):  # the second time there is nothing to do
        async with opened(path) as catalog:
            assert (await catalog.child(ROOT, "x")).node.key == "x"
    db = sqlite3.connect(path)
    assert db.execute("SELECT a FROM extra").fetchall() == [("x;y",)]
    assert [number for (number,) in db.execute("SELECT number FROM schema_steps ORDER BY 1")] == [*range(1, LATEST + 2)]
    db.close()


async def test_a_step_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.db"
    await made(path)
    with monkeypatch.context() as patch:
        later_step(patch, "CREATE TABLE extra (a);\nINSERT INTO nowhere VALUES (1);\n")
        assert "nowhere" in await refused(path)
    async with opened(path) as catalog:
        assert (await catalog.node(ROOT)).children == 0
    alter(path, "CREATE TABLE extra (a)")  # it is not there yet


def test_steps_are_applied_once_and_in_order() -> None:
    steps = [Migration(n, f"s{n}", "", f"d{n}") for n in (1, 2, 3)]
    assert [s.number for s in pending(steps, {1: "d1"}, where="here")] == [2, 3]
    assert pending(steps, {1: "d1", 2: "d2", 3: "d3"}, where="here") == []
    assert [m.number for m in migrations("sqlite")] == list(range(1, len(migrations("sqlite")) + 1))


def test_statements_are_named_and_filled_in() -> None:
    found = statements("sqlite", columns="n.row")
    assert found["node_by_id"] == "SELECT n.row FROM nodes n WHERE n.id = ?"
    assert not [name for name, sql in found.items() if "{columns}" in sql or not sqlite3.complete_statement(sql + ";")]


async def test_several_servers_can_begin_at_once(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    catalogs = [SqliteCatalog(path, init=True) for _ in range(4)]
    await asyncio.gather(*(catalog.open() for catalog in catalogs))
    first, *others = catalogs
    assert await first.apply([batch(ROOT, *created(container_node("x", metadata={"a": 1})))]) == [Applied(1)]
    for n, other in enumerate(others, start=1):
        # The path of the new fact is known to the first only.
        node = container_node(f"y{n}", metadata={"a": 1})
        assert await other.apply([batch(ROOT, *created(node), after=n)]) == [Applied(n + 1)]
        assert await first.count(ROOT) == n + 1
    for catalog in catalogs:
        await catalog.close()


async def test_a_temporary_catalog_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with opened(None) as catalog:
        await catalog.apply([batch(ROOT, *created(container_node("x")))])
        assert len(files(tmp_path)) == 1
    assert files(tmp_path) == []


async def test_the_file_is_whole_after_close(tmp_path: Path) -> None:
    """No journal stays behind: copying the one file is a backup."""
    path = tmp_path / "catalog.db"
    async with opened(path, init=True) as catalog:
        await catalog.apply([batch(ROOT, *created(container_node("x")))])
    assert files(tmp_path) == ["catalog.db"]


async def test_the_root_is_described_by_the_configuration_until_somebody_edits_it(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    async with opened(path, init=True, root_metadata={"a": 1}, root_specs=(Spec("s", "1"),)) as catalog:
        root = (await catalog.node(ROOT)).node
        assert (root.metadata, root.specs) == ({"a": 1}, (Spec("s", "1"),))
    async with opened(path, root_metadata={"a": 2}) as catalog:
        root = (await catalog.node(ROOT)).node
        assert (root.metadata, root.specs) == ({"a": 2}, (Spec("s", "1"),))
        # An edit of which no revision is kept is an edit, too.
        await catalog.apply([batch(ROOT, ChildMetadataUpdated("", ROOT, {"mine": True}, (), (), None))])
    async with opened(path, root_metadata={"a": 3}, root_specs=(Spec("t"),)) as catalog:
        root = (await catalog.node(ROOT)).node
        assert (root.metadata, root.specs) == ({"mine": True}, ())


async def test_a_catalog_of_version_2_gets_an_identity_and_keeps_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "catalog.db"
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "migrations", lambda dialect: migrations(dialect)[:2])
        sqlite_file.connected(path, statements("sqlite", columns=COLUMNS), init=True).close()
    alter(path, "UPDATE nodes SET metadata = '{\"former\": 1}', watermark = 7, time_updated = 1")
    async with opened(path) as catalog:
        root = await catalog.node(ROOT)
        assert (root.node.metadata, root.watermark, root.stored, root.lost) == ({"former": 1}, 7, 0, 0)
        identity = await catalog.identity()
        assert await catalog.revision() == 0
    async with opened(path) as catalog:
        assert await catalog.identity() == identity
    await made(tmp_path / "other.db")
    async with opened(tmp_path / "other.db") as catalog:
        assert await catalog.identity() != identity
