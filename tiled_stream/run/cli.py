"""The command line: `tiled-stream`. Flags are those of the reference server where they mean the same."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .._version import __version__

if TYPE_CHECKING:
    from ..catalog.port import Catalog
    from .assembly import Assembly
    from .settings import Settings

__all__ = ["app", "main"]

app = typer.Typer(name="tiled-stream", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
serve_app = typer.Typer(no_args_is_help=True, help="Run a server.")
catalog_app = typer.Typer(no_args_is_help=True, help="Make and look after catalogs.")
app.add_typer(serve_app, name="serve")
app.add_typer(catalog_app, name="catalog")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """tiled_stream: a server of the Tiled protocol, built around a log."""


@serve_app.command("catalog")
def serve_catalog(
    database: Annotated[str | None, typer.Argument(help="Catalog: a file path or sqlite:///PATH.")] = None,
    read: Annotated[list[str] | None, typer.Option("-r", "--read", help="Readable storage: a directory (repeat).")] = None,
    write: Annotated[
        list[str] | None,
        typer.Option("-w", "--write", help="Writable storage: a directory, duckdb:///PATH, sqlite:///PATH (repeat)."),
    ] = None,
    temp: Annotated[bool | None, typer.Option("--temp", help="Keep everything in a temporary directory and forget it.")] = None,
    init: Annotated[bool | None, typer.Option("--init", help="Make the catalog if it is missing.")] = None,
    public: Annotated[bool | None, typer.Option("--public", help="Let anybody read.")] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", help="The key, letters and digits. Default: a random one, printed.")
    ] = None,
    cache: Annotated[str | None, typer.Option("--cache", help="Where the log lives: auto (default), memory or local.")] = None,
    cache_data_ttl: Annotated[
        float | None, typer.Option("--cache-data-ttl", help="Seconds that persisted records stay for late subscribers (3600).")
    ] = None,
    cache_seq_ttl: Annotated[
        float | None, typer.Option("--cache-seq-ttl", help="Accepted and without effect: sequences never expire here.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on (8000); 0: any free one.")] = None,
    scalable: Annotated[bool | None, typer.Option("--scalable", help="Refuse what only one process can use.")] = None,
    root_path: Annotated[str | None, typer.Option("--root-path", help="Prefix under which a proxy serves this server.")] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="console (default) or json.")] = None,
    log_timestamps: Annotated[bool, typer.Option("--log-timestamps/--no-log-timestamps", help="Times in the log.")] = True,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log more, requests included.")] = False,
) -> None:
    """Serve a catalog. What is not given here may stand in the environment, as TILED_STREAM_<SETTING>."""
    from ..domain.errors import Unavailable
    from .settings import SettingsError

    given: dict[str, object] = {
        "catalog": database,
        "temp": temp,
        "init": init,
        "write": tuple(write) if write else None,
        "read": tuple(read) if read else None,
        "public": public,
        "api_key": api_key,
        "cache": cache,
        "cache_data_ttl": cache_data_ttl,
        "host": host,
        "port": port,
        "scalable": scalable,
        "root_path": root_path,
        "log_format": log_format,
    }
    try:
        _serve(_settings(given, verbose=verbose), verbose=verbose, log_timestamps=log_timestamps)
    except SettingsError as error:
        typer.echo(f"tiled-stream: {error}", err=True)
        raise typer.Exit(error.code) from None
    except Unavailable as error:
        typer.echo(f"tiled-stream: {error}", err=True)
        raise typer.Exit(3) from None


@catalog_app.command("init")
def catalog_init(
    database: Annotated[str, typer.Argument(help="Catalog: a file path or sqlite:///PATH.")] = "./catalog.db",
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Do nothing if it is there already.")] = False,
) -> None:
    """Make an empty catalog."""
    from ..domain.errors import Unavailable
    from .engines import engines_of, places_of
    from .settings import Settings, SettingsError

    try:
        settings = Settings(catalog=database, init=True)
        places = places_of(settings, None)
        if places.catalog.exists():
            if if_not_exists:
                return
            raise SettingsError(f"There is a file {places.catalog} already; nothing was changed.")
        asyncio.run(_make(engines_of(settings, places).catalog))
    except (SettingsError, Unavailable) as error:
        typer.echo(f"tiled-stream: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"Made {places.catalog}")


def main() -> None:
    """Entry point of the command."""
    app()


async def _make(catalog: Catalog) -> None:
    try:
        await catalog.open()
    finally:
        await catalog.close()


def _settings(options: dict[str, object], *, verbose: bool) -> Settings:
    """The options that were given, and the environment for the others."""
    from .settings import ENVIRONMENT, SettingsError, from_env

    given = {name: value for name, value in options.items() if value is not None}
    if options["log_format"] not in (None, "console", "json"):
        raise SettingsError(f"--log-format is console or json, not {options['log_format']!r}.")
    if "catalog" in given or "temp" in given:  # together they say one thing: which catalog
        given = {"catalog": None, "temp": False} | given
    if verbose:
        given["access_log"] = True
    elif f"{ENVIRONMENT}ACCESS_LOG" not in os.environ:
        given["access_log"] = False  # a terminal is for what happens rarely
    return from_env(os.environ, **given)


def _serve(settings: Settings, *, verbose: bool, log_timestamps: bool) -> None:
    from .logs import configure
    from .serving import run

    configure(
        level="debug" if verbose else settings.log_level,
        log_format=settings.log_format,
        access_log=settings.access_log,
        timestamps=log_timestamps,
    )
    is_generated = not settings.api_key
    settings = settings.with_key()

    def announce(assembly: Assembly, port: int) -> None:
        places = assembly.places
        lines = [
            "",
            "    Navigate a web browser or connect a Tiled client to:",
            "",
            f"    {_url(settings, port)}?api_key={settings.api_key}",
            "",
            f"    catalog {places.catalog}",
            f"    arrays  {places.arrays or 'none: start with -w DIRECTORY'}",
            f"    tables  {places.tables or 'none: start with -w duckdb:///PATH'}",
            f"    log     {places.log or 'in memory'}",
        ]
        if is_generated:
            lines.append("    The key is new with each start; set one with --api-key.")
        print("\n".join(lines), file=sys.stderr, flush=True)

    run(settings, announce=announce)


def _url(settings: Settings, port: int) -> str:
    """Where a client of this machine finds the server, ready to be clicked."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path}"
