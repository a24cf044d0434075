"""The command `tiled-stream serve directory`: a directory of files as a tree, read only, without a catalog that stays."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .told import told

if TYPE_CHECKING:
    from ..files.walk import Rules
    from .assembly import Assembly
    from .settings import Settings

__all__ = ["serve_directory"]


def serve_directory(
    directory: Annotated[Path, typer.Argument(help="The directory.")],
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Follow files that are added, removed or changed.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Let anybody read.")] = False,
    api_key: Annotated[str, typer.Option("--api-key", help="The key, letters and digits. Default: a random one, printed.")] = "",
    keep_ext: Annotated[bool, typer.Option("--keep-ext", help="Call files by their whole names, x.csv instead of x.")] = False,
    include_ext: Annotated[
        list[str] | None, typer.Option("--include-ext", help="Only files with this extension, such as .csv (repeat).")
    ] = None,
    ext: Annotated[
        list[str] | None, typer.Option("--ext", help="The type of files with an extension: .dat=text/csv (repeat).")
    ] = None,
    mimetype_hook: Annotated[
        str | None, typer.Option("--mimetype-hook", help="A function package.module:name(path, mimetype) that gives the type.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="A reader of files of a type: mimetype=package.module:name (repeat)."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0: any free one.")] = 8000,
    log_format: Annotated[str, typer.Option("--log-format", help="console or json.")] = "console",
    log_timestamps: Annotated[bool, typer.Option("--log-timestamps/--no-log-timestamps", help="Times in the log.")] = True,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log more, requests included.")] = False,
) -> None:
    """Serve a directory of files, read only."""
    from .settings import Settings, SettingsError

    with told():
        if not directory.is_dir():
            raise SettingsError(f"{str(directory)!r} is no directory.")
        if log_format not in ("console", "json"):
            raise SettingsError(f"--log-format is console or json, not {log_format!r}.")
        adapters = _adapters(adapter or [])
        rules = _rules(keep_ext, include_ext or [], ext or [], mimetype_hook, adapters)
        settings = Settings(
            temp=True,
            read=(str(directory.absolute()),),
            adapters_by_mimetype=adapters,
            public=public,
            api_key=api_key,
            host=host,
            port=port,
            log_format="json" if log_format == "json" else "console",
            access_log=verbose,
        )
        _serve(directory, rules, settings, watch=watch, verbose=verbose, log_timestamps=log_timestamps)


def _adapters(given: list[str]) -> dict[str, str]:
    from .settings import SettingsError

    adapters = {}
    for text in given:
        mimetype, _, name = text.rpartition("=")
        if not mimetype:
            raise SettingsError(f"--adapter is written as mimetype=package.module:name, not {text!r}.")
        adapters[mimetype] = name
    return adapters


def _rules(keep_ext: bool, include: list[str], ext: list[str], hook: str | None, adapters: dict[str, str]) -> Rules:
    from ..domain.errors import UnsupportedType
    from ..files.formats import check_mimetype
    from ..files.walk import Rules
    from .settings import SettingsError

    mimetypes = {}
    for text in ext:
        suffix, _, mimetype = text.partition("=")
        if not mimetype:
            raise SettingsError(f"--ext is written as .dat=text/csv, not {text!r}.")
        try:
            check_mimetype(mimetype, adapters)
        except UnsupportedType as error:
            raise SettingsError(f"--ext {text!r}: {error}") from None
        mimetypes[_suffix("--ext", suffix)] = mimetype
    wanted = tuple(_suffix("--include-ext", suffix) for suffix in include)
    return Rules(keeps_suffix=keep_ext, include=wanted, mimetypes=mimetypes, detect=None if hook is None else _loaded(hook))


def _suffix(option: str, text: str) -> str:
    from .settings import SettingsError

    if not text.startswith(".") or len(text) < 2:
        raise SettingsError(f"{option}: an extension begins with a dot, as in .csv; {text!r} does not.")
    return text.lower()


def _loaded(name: str) -> Callable[[str, str | None], str | None]:
    from .settings import SettingsError

    module, _, function = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"--mimetype-hook {name!r} cannot be loaded: {error}. Write it as package.module:function.") from None
    if not callable(found):
        raise SettingsError(f"--mimetype-hook {name!r} is not a function.")
    return found  # type: ignore[no-any-return]


def _serve(root: Path, rules: Rules, settings: Settings, *, watch: bool, verbose: bool, log_timestamps: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from .directory import beside
    from .logs import configure
    from .readers import readers_of
    from .serving import run

    configure(
        level="debug" if verbose else settings.log_level,
        log_format=settings.log_format,
        access_log=settings.access_log,
        timestamps=log_timestamps,
    )
    settings = settings.with_key()
    bar = Progress(TextColumn("    Registering"), BarColumn(), MofNCompleteColumn(), console=Console(file=sys.stderr))
    task = bar.add_task("files", total=None)

    def progress(done: int, of: int) -> None:
        if not bar.live.is_started and done < of:
            bar.start()
        bar.update(task, completed=done, total=of)
        if done == of:
            bar.stop()

    def announce(assembly: Assembly, port: int) -> None:
        lines = ["", "    Navigate a web browser or connect a Tiled client to:", ""]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
        lines += [f"    http://{f'[{host}]' if ':' in host else host}:{port}?api_key={settings.api_key}", ""]
        lines.append(f"    Serving {root.absolute()}, {'as it changes' if watch else 'as it is now'}.")
        print("\n".join(lines), file=sys.stderr, flush=True)

    around = beside(
        root,
        rules,
        watches=watch,
        limit=settings.response_bytesize_limit,
        progress=progress,
        readers=readers_of(settings.adapters_by_mimetype),
    )
    run(settings, announce=announce, beside=around)
