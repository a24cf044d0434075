"""`tiled-stream check`: what catalog and storage of a deployment lack, and an operator's word that it is accepted.

Reads only, unless losses are accepted. A server may run meanwhile; what it holds exclusively (a DuckDB file) is reported as not
compared. Exit status: 0 everything is there, 1 something is missing, 3 the catalog cannot be opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from .identities import TABLES
from .told import told

if TYPE_CHECKING:
    from ..catalog.port import Catalog, Loss
    from ..domain.nodes import Node, NodeId
    from ..storage.stores import Stores
    from .engines import Engines, Places
    from .settings import Settings

__all__ = ["Findings", "check", "findings"]

_PAGE = 500


class Behind(msgspec.Struct, frozen=True):
    """A node of which storage has records up to `held` only; the catalog says `stored`."""

    node: NodeId
    path: str
    held: int
    stored: int


class Findings(msgspec.Struct):
    """Everything that was found. `storages`: name → what is to be said of it. `not_compared`: why storages were left out."""

    nodes: int = 0
    losses: list[Loss] = []
    behind: list[Behind] = []
    storages: dict[str, str] = {}
    problems: list[str] = []
    not_compared: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Nothing is missing, as far as it was compared."""
        return not (self.losses or self.behind or self.problems)


def check(
    database: Annotated[
        str | None, typer.Argument(help="Catalog: a file path, sqlite:///PATH or postgresql://USER@HOST/DATABASE.")
    ] = None,
    write: Annotated[
        list[str] | None, typer.Option("-w", "--write", help="Writable storage, as the server has it (repeat).")
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Accept what is missing: reads serve what is there. Nothing is deleted.")
    ] = False,
    node: Annotated[list[str] | None, typer.Option("--node", help="Accept for this node alone, by its id (repeat).")] = None,
) -> None:
    """Compare catalog and storage node by node, and list acknowledged data that are missing."""
    from .settings import from_env

    given: dict[str, object] = {"catalog": database} if database is not None else {}
    if write:
        given["write"] = tuple(write)
    # The log is not opened: a server may hold it.
    settings = from_env(os.environ, **{**given, "cache": "memory"})
    with told():
        found = asyncio.run(_run(settings, accept=accept, only=node or ()))
    if not found.is_complete and not accept:
        raise typer.Exit(1)


async def _run(settings: Settings, *, accept: bool, only: list[str] | tuple[str, ...]) -> Findings:
    from .engines import engines_of, places_of

    places = places_of(settings, None)
    engines = engines_of(settings, places)
    found = Findings()
    async with _opened(engines, places, found) as closed:
        await findings(engines, found, closed=closed)
        _print(found)
        if accept and not found.is_complete:
            chosen = {loss.node for loss in found.losses} | {behind.node for behind in found.behind}
            wanted = sorted(chosen & set(only) if only else chosen)
            count = await engines.catalog.accept_losses(wanted)
            typer.echo(f"Accepted for {len(wanted)} nodes; {count} records were recorded as lost.")
    return found


async def findings(engines: Engines, found: Findings, *, closed: Sequence[object] = ()) -> None:
    """Compare; fills `found`. `closed`: stores that could not be opened, whose nodes are left out."""
    from ..domain.nodes import ROOT
    from ..storage.stores import Stores

    catalog = engines.catalog
    found.losses = await catalog.losses(limit=100_000)
    found.nodes = await catalog.count(ROOT, deep=True)
    stores = Stores(arrays=engines.arrays, parts=engines.parts, tables=engines.tables)
    with _progress(found.nodes) as advance:
        async for nodes in _all_nodes(catalog):
            await _compare(catalog, stores, [(node, path) for node, path in nodes if stores.of(node) not in closed], found)
            advance(len(nodes))


async def _compare(catalog: Catalog, stores: Stores, nodes: list[tuple[Node, tuple[str, ...]]], found: Findings) -> None:
    from ..domain.errors import Unavailable

    reached = await catalog.reached([node.id for node, _ in nodes])
    for (node, path), known in zip(nodes, reached, strict=True):
        if known is None or not known.stored:
            continue
        try:
            held = await stores.watermark(node)
        except Unavailable as error:
            if str(error) not in found.problems:
                found.problems.append(str(error))
            continue
        if held is not None and held < known.stored:
            found.behind.append(Behind(node.id, "/" + "/".join(path), held, known.stored))


async def _all_nodes(catalog: Catalog) -> AsyncIterator[list[tuple[Node, tuple[str, ...]]]]:
    from ..domain.nodes import ROOT
    from ..domain.search import Page, Search

    page = Page(limit=_PAGE)
    while True:
        found = await catalog.descendants(ROOT, Search(), page)
        yield [(hit.node, hit.path) for hit in found.hits]
        if not found.more or not found.hits:
            return
        page = Page(limit=_PAGE, cursor=found.hits[-1].cursor)


@contextlib.asynccontextmanager
async def _opened(engines: Engines, places: Places, found: Findings) -> AsyncIterator[list[object]]:
    """Catalog and stores, those that can be opened; gives the others. Each storage is compared with what the catalog
    remembers of it.

    A file of tables that is missing is not made.
    """
    from ..domain.errors import Unavailable

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(engines.catalog.close)
        await engines.catalog.open()
        closed: list[object] = []
        missing = not _can_open(places, found)
        stores = [store for store in (*(engines.tables or ()), engines.arrays, engines.parts) if store is not None]
        for store in stores:
            if missing and store is engines.storages.get(TABLES):
                closed.append(store)
                continue
            stack.push_async_callback(store.close)
            try:
                await store.open()
            except Unavailable as error:
                found.not_compared.append(str(error))
                closed.append(store)
        deployment, expected = await engines.catalog.identity(), await engines.catalog.storages()
        for name, storage in engines.storages.items():
            if missing and name == TABLES:
                continue
            if name not in expected:
                found.not_compared.append(f"{storage.place}: no server has used it with this catalog yet.")
                continue
            try:
                incarnation = await storage.bind(deployment, expected[name])
            except Unavailable as error:
                found.problems.append(str(error))
                continue
            found.storages[name] = storage.place
            if incarnation != expected[name]:
                found.problems.append(
                    f"{storage.place} is another storage than the catalog knows (incarnation "
                    f"{incarnation}, not {expected[name]})."
                )
        yield closed


def _can_open(places: Places, found: Findings) -> bool:
    """Can the file of tables be opened without changing it? The engine would make one, or move a damaged one aside."""
    if not isinstance(places.tables, Path):
        return True
    if not places.tables.exists():
        found.problems.append(f"There is no file {places.tables}.")
        return False
    if places.tables_scheme != "duckdb":
        return True
    import duckdb

    try:
        duckdb.connect(str(places.tables), read_only=True).close()
    except duckdb.Error as error:
        is_in_use = "set lock" in str(error)
        kind = found.not_compared if is_in_use else found.problems
        kind.append(f"{places.tables} is {'in use by a server' if is_in_use else 'damaged, or not a DuckDB file'}: {error}")
        return False
    return True


@contextlib.contextmanager
def _progress(total: int):  # type: ignore[no-untyped-def]
    """A bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("comparing nodes", total=total)
        yield lambda count: bar.advance(task, count)


def _print(found: Findings) -> None:
    for name, place in found.storages.items():
        typer.echo(f"{name}: {place}")
    for problem in found.problems:
        typer.echo(f"problem: {problem}")
    for reason in found.not_compared:
        typer.echo(f"not compared: {reason}")
    for loss in found.losses:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(loss.time))
        typer.echo(f"lost: node {loss.node}, records {loss.first} to {loss.last}, found {when}: {loss.reason}")
    for behind in found.behind:
        typer.echo(
            f"storage behind: {behind.path} (node {behind.node}) has records up to {behind.held} of {behind.stored}; "
            "a running server applies again what the log still has."
        )
    verdict = "nothing is missing" if found.is_complete else "acknowledged data are missing"
    typer.echo(f"{found.nodes} nodes compared: {verdict}")
