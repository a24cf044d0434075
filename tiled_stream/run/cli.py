"""The command line: `tiled-stream`. Flags are those of the reference server where they mean the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._version import __version__
from .accounts_cli import admin_app
from .catalog_cli import catalog_app
from .check_cli import check
from .directory_cli import serve_directory
from .told import told
from .watch_cli import watch

if TYPE_CHECKING:
    from .assembly import Assembly
    from .settings import Settings

__all__ = ["app", "main"]

app = typer.Typer(name="tiled-stream", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
serve_app = typer.Typer(no_args_is_help=True, help="Run a server.")
serve_app.command("directory")(serve_directory)
app.add_typer(serve_app, name="serve")
app.add_typer(catalog_app, name="catalog")
app.add_typer(admin_app, name="admin")
app.command("watch")(watch)
app.command("check")(check)


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
    database: Annotated[
        str | None, typer.Argument(help="Catalog: a file path, sqlite:///PATH or postgresql://USER@HOST/DATABASE.")
    ] = None,
    read: Annotated[list[str] | None, typer.Option("-r", "--read", help="Readable storage: a directory (repeat).")] = None,
    write: Annotated[
        list[str] | None,
        typer.Option(
            "-w", "--write", help="Writable storage: a directory, duckdb:///PATH, sqlite:///PATH, postgresql:// (repeat)."
        ),
    ] = None,
    temp: Annotated[bool | None, typer.Option("--temp", help="Keep everything in a temporary directory and forget it.")] = None,
    init: Annotated[bool | None, typer.Option("--init", help="Make the catalog if it is missing.")] = None,
    public: Annotated[bool | None, typer.Option("--public", help="Let anybody read.")] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", help="The key, letters and digits. Default: a random one, printed.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="Where the log lives: auto (default), memory, local or redis://HOST:6379.")
    ] = None,
    cache_data_ttl: Annotated[
        float | None, typer.Option("--cache-data-ttl", help="Seconds that persisted records stay for late subscribers (3600).")
    ] = None,
    cache_seq_ttl: Annotated[
        float | None, typer.Option("--cache-seq-ttl", help="Accepted and without effect: sequences never expire here.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on (8000); 0: any free one.")] = None,
    scalable: Annotated[bool | None, typer.Option("--scalable", help="Refuse what only one process can use.")] = None,
    persist: Annotated[
        bool | None, typer.Option("--persist/--no-persist", help="Persist what is written (default), or leave it to others.")
    ] = None,
    root_path: Annotated[str | None, typer.Option("--root-path", help="Prefix under which a proxy serves this server.")] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="console (default) or json.")] = None,
    log_timestamps: Annotated[bool, typer.Option("--log-timestamps/--no-log-timestamps", help="Times in the log.")] = True,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log more, requests included.")] = False,
) -> None:
    """Serve a catalog. What is not given here may stand in the environment, as TILED_STREAM_<SETTING>."""
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
        "persist": persist,
        "root_path": root_path,
        "log_format": log_format,
    }
    with told():
        _serve(_settings(given, verbose=verbose), verbose=verbose, log_timestamps=log_timestamps)


@serve_app.command("config")
def serve_config(
    path: Annotated[
        Path | None, typer.Argument(help="A YAML file, or a directory of them. Default: $TILED_CONFIG, then ./config.yml.")
    ] = None,
    public: Annotated[bool | None, typer.Option("--public", help="Let anybody read.")] = None,
    api_key: Annotated[str | None, typer.Option("--api-key", help="The key, letters and digits.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; 0: any free one.")] = None,
    scalable: Annotated[bool | None, typer.Option("--scalable", help="Refuse what only one process can use.")] = None,
    persist: Annotated[
        bool | None, typer.Option("--persist/--no-persist", help="Persist what is written, or leave it to others.")
    ] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="console or json.")] = None,
    log_timestamps: Annotated[bool, typer.Option("--log-timestamps/--no-log-timestamps", help="Times in the log.")] = True,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log more, requests included.")] = False,
) -> None:
    """Serve what a configuration file says. Flags come before the environment, and that before the file."""
    given: dict[str, object] = {
        "public": public,
        "api_key": api_key,
        "host": host,
        "port": port,
        "scalable": scalable,
        "persist": persist,
        "log_format": log_format,
    }
    with told():
        _serve(_settings(given, verbose=verbose, config=path, from_config=True), verbose=verbose, log_timestamps=log_timestamps)


@app.command("persist")
def persist(
    path: Annotated[
        Path | None, typer.Argument(help="A YAML file or a directory of them. Default: the environment alone.")
    ] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="console or json.")] = None,
    log_timestamps: Annotated[bool, typer.Option("--log-timestamps/--no-log-timestamps", help="Times in the log.")] = True,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log more.")] = False,
) -> None:
    """Persist what other processes write into a shared log, and listen to nobody."""
    from .logs import configure
    from .serving import persist as run
    from .settings import SettingsError

    def announce(assembly: Assembly) -> None:
        print("\n".join(["", "    Persisting", *_places(assembly)]), file=sys.stderr, flush=True)

    with told():
        settings = _settings(
            {"log_format": log_format, "persist": True}, verbose=verbose, config=path, from_config=path is not None
        )
        if not settings.is_shared_log:
            raise SettingsError(
                "A process that only persists needs a log that others write to: give it the cache redis://HOST:6379."
            )
        configure(
            level="debug" if verbose else settings.log_level,
            log_format=settings.log_format,
            access_log=False,
            timestamps=log_timestamps,
        )
        run(settings, announce=announce)


@admin_app.command("check-config")
def check_config(
    path: Annotated[
        Path | None, typer.Argument(help="A YAML file, or a directory of them. Default: $TILED_CONFIG, then ./config.yml.")
    ] = None,
) -> None:
    """Say whether a configuration file can be served, and if not, which key is wrong."""
    from .config import check_config as check

    with told():
        check(path, os.environ)
    typer.echo("No errors found in configuration.")


def main() -> None:
    """Entry point of the command."""
    app()


def _settings(options: dict[str, object], *, verbose: bool, config: Path | None = None, from_config: bool = False) -> Settings:
    """The options that were given, the environment for the others, and for the rest the file, if there is one."""
    from .config import settings_from_config
    from .settings import ENVIRONMENT, SettingsError, from_env

    given = {name: value for name, value in options.items() if value is not None}
    if options["log_format"] not in (None, "console", "json"):
        raise SettingsError(f"--log-format is console or json, not {options['log_format']!r}.")
    if "catalog" in given or "temp" in given:  # together they say one thing: which catalog
        given = {"catalog": None, "temp": False} | given
    if verbose:
        given["access_log"] = True
    elif f"{ENVIRONMENT}ACCESS_LOG" not in os.environ and not from_config:
        given["access_log"] = False  # a terminal is for what happens rarely
    if from_config:
        return settings_from_config(config, os.environ, **given)
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
    is_generated = not settings.api_key and not settings.providers
    settings = settings.with_key()

    def announce(assembly: Assembly, port: int) -> None:
        lines = [
            "",
            "    Navigate a web browser or connect a Tiled client to:",
            "",
            f"    {_url(settings, port)}" + (f"?api_key={settings.api_key}" if settings.api_key else ""),
            "",
            *_places(assembly),
        ]
        if is_generated:
            lines.append("    The key is new with each start; set one with --api-key.")
        print("\n".join(lines), file=sys.stderr, flush=True)

    run(settings, announce=announce)


def _places(assembly: Assembly) -> list[str]:
    return [f"    {name:<8}{place}" for name, place in assembly.places.shown().items()]


def _url(settings: Settings, port: int) -> str:
    """Where a client of this machine finds the server, ready to be clicked."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path}"
