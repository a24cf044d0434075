"""`tiled-stream catalog`: make a catalog, bring it up to date, say how it is. For SQLite files and PostgreSQL alike."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..domain.uris import redacted
from .told import told

if TYPE_CHECKING:
    from ..catalog.port import Catalog

__all__ = ["catalog_app"]

catalog_app = typer.Typer(no_args_is_help=True, help="Make and look after catalogs.")

Database = Annotated[str, typer.Argument(help="Catalog: a file path, sqlite:///PATH or postgresql://USER@HOST/DATABASE.")]


@catalog_app.command("init")
def init(
    database: Database = "./catalog.db",
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Do nothing if it is there already.")] = False,
) -> None:
    """Make an empty catalog."""
    from .engines import catalog_at, catalog_place
    from .settings import SettingsError

    with told(unavailable=1):
        place = catalog_place(database)
        if asyncio.run(_version(place)) is not None:
            if if_not_exists:
                return
            raise SettingsError(f"There is a catalog {_shown(place)} already; nothing was changed.")
        asyncio.run(_open(catalog_at(place, init=True)))
    typer.echo(f"Made {_shown(place)}")


@catalog_app.command("upgrade-database")
def upgrade_database(database: Database) -> None:
    """Bring a catalog of an older version up to date. Make a backup first."""
    from .engines import catalog_at, catalog_place
    from .settings import SettingsError

    with told(unavailable=1):
        place = catalog_place(database)
        before = asyncio.run(_version(place))
        if before is None:
            raise SettingsError(f"There is no catalog {_shown(place)}; make one: tiled-stream catalog init {_shown(place)}")
        if isinstance(place, Path):
            asyncio.run(_open(catalog_at(place, init=False)))
        else:
            from ..catalog.postgres_schema import upgrade

            asyncio.run(upgrade(place))
        after = asyncio.run(_version(place))
    typer.echo(f"{_shown(place)}: version {after}" + (", as before" if before == after else f", was {before}"))


@catalog_app.command("check")
def check(database: Database = "./catalog.db") -> None:
    """Say which version a catalog has, whether this program can use it, and how many nodes it holds."""
    from .engines import catalog_at, catalog_place

    with told(unavailable=1):
        place = catalog_place(database)
        version = asyncio.run(_version(place))
        if version is None:
            typer.echo(f"{_shown(place)}: not initialised", err=True)
            raise typer.Exit(1)
        nodes = asyncio.run(_open(catalog_at(place, init=False)))
    typer.echo(f"{_shown(place)}: version {version}, can be used, {nodes} nodes")
    sys.stdout.flush()


async def _version(place: Path | str) -> int | None:
    """The last step that shaped it; None if there is none."""
    if isinstance(place, Path):
        from ..catalog.sqlite_file import version_of as of_file

        return await asyncio.to_thread(of_file, place)
    from ..catalog.postgres_schema import version_of

    return await version_of(place)


async def _open(catalog: Catalog) -> int:
    """Open it, which makes or checks it; returns how many nodes are below the root."""
    from ..domain.nodes import ROOT

    try:
        await catalog.open()
        return await catalog.count(ROOT, deep=True)
    finally:
        await catalog.close()


def _shown(place: Path | str) -> str:
    return redacted(str(place))
