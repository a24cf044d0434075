"""From what the settings say to the engines that do it. The only module that knows the engines."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from ..catalog.port import Catalog
from ..domain.nodes import Spec
from ..log.port import LogEngine
from ..storage.port import ArrayStore, TableStore
from .settings import Settings, SettingsError

__all__ = ["Engines", "Places", "engines_of", "places_of"]

_SCHEME = re.compile(r"[a-z][a-z0-9+]*://")


class Places(msgspec.Struct, frozen=True):
    """Where things are: the catalog, the log (None: memory), arrays and tables (None: not configured), what was put aside."""

    catalog: Path
    log: Path | None
    arrays: Path | None
    tables: Path | None
    tables_scheme: str
    quarantine: Path


class Engines(msgspec.Struct, frozen=True):
    """The engines of one server, not opened yet."""

    log: LogEngine
    catalog: Catalog
    arrays: ArrayStore | None
    tables: TableStore | None


def places_of(settings: Settings, temporary: Path | None) -> Places:
    """Decide where things are. `temporary` is the directory of a `temp` server.

    Arrays rest in the first directory that may be written to, tables in the first database; with a directory alone, tables get
    a database beside it. `SettingsError` for a place that cannot be.
    """
    if settings.temp:
        assert temporary is not None
        catalog, log = temporary / "catalog.db", None
        write: Sequence[str] = settings.write or (str(temporary / "data"), f"duckdb://{temporary / 'data.duckdb'}")
    else:
        assert settings.catalog is not None
        catalog = _sqlite_path(settings.catalog)
        log = None if settings.cache == "memory" else catalog.with_name(catalog.name + ".log")
        write = settings.write
    arrays = tables = None
    scheme = "duckdb"
    for entry in write:
        kind, path = _storage(entry)
        if kind == "file":
            arrays = arrays or path
        elif tables is None:
            scheme, tables = kind, path
    if arrays is not None and tables is None:
        tables = arrays.with_name(arrays.name + ".duckdb")
    places: tuple[tuple[Path | None, bool], ...] = ((catalog, False), (arrays, True), (tables, False))
    for place, is_directory in places:
        if place is not None:
            _check_writable(place, is_directory=is_directory)
    return Places(catalog, log, arrays, tables, scheme, catalog.parent / "quarantine")


def engines_of(
    settings: Settings, places: Places, *, root_metadata: dict[str, Any] | None = None, root_specs: Sequence[Spec] | None = None
) -> Engines:
    """The engines for these places."""
    from ..catalog.sqlite import SqliteCatalog

    catalog = SqliteCatalog(
        places.catalog, init=settings.init or settings.temp, root_metadata=root_metadata, root_specs=root_specs
    )
    return Engines(_log(settings, places), catalog, _arrays(places), _tables(places))


def _log(settings: Settings, places: Places) -> LogEngine:
    if places.log is None:
        from ..log.memory import MemoryLog

        return MemoryLog()
    from ..log.local import LocalLog

    return LocalLog(places.log, synchronous=settings.log_sync)


def _arrays(places: Places) -> ArrayStore | None:
    if places.arrays is None:
        return None
    from ..storage.zarr_arrays import ZarrArrays

    return ZarrArrays(places.arrays)


def _tables(places: Places) -> TableStore | None:
    if places.tables is None:
        return None
    if places.tables_scheme == "sqlite":
        from ..storage.sqlite_tables import SqliteTables

        return SqliteTables(places.tables)
    from ..storage.duckdb_tables import DuckdbTables

    return DuckdbTables(places.tables)


def _sqlite_path(uri: str) -> Path:
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return Path(uri).absolute()
    if scheme[0] in ("sqlite://", "sqlite+aiosqlite://"):
        return _path_of(uri)
    if scheme[0].startswith("postgres"):
        raise SettingsError("A PostgreSQL catalog is not available in this version; use a SQLite file, such as ./catalog.db.")
    raise SettingsError(f"{uri!r} is no catalog: give a file path or sqlite:///PATH.")


def _storage(uri: str) -> tuple[str, Path]:
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return "file", Path(uri).absolute()
    kind = scheme[0].removesuffix("://")
    if kind in ("file", "duckdb", "sqlite"):
        return kind, _path_of(uri)
    if kind.startswith("postgres"):
        raise SettingsError("PostgreSQL tables are not available in this version; use duckdb:///PATH or sqlite:///PATH.")
    raise SettingsError(f"{uri!r} cannot be written to: give a directory, duckdb:///PATH or sqlite:///PATH.")


def _check_writable(path: Path, *, is_directory: bool) -> None:
    """Storage is made when it is first needed; that it can be made should be known at the start."""
    there = next(place for place in (path, *path.parents) if place.exists())
    if there.is_dir() != (is_directory or there != path):
        hint = "; a database is given as duckdb:///PATH or sqlite:///PATH" if is_directory and there == path else ""
        raise SettingsError(f"{path} cannot be used: {there} is {'a' if there.is_dir() else 'no'} directory{hint}.")
    if not os.access(there, os.W_OK):
        raise SettingsError(f"{path} cannot be written to: this user may not write to {there}.")


def _path_of(uri: str) -> Path:
    """``scheme:///abs``, ``scheme://localhost/abs`` and ``scheme://./relative`` (three or four slashes are the same)."""
    parts = urlsplit(uri)
    if parts.netloc in ("", "localhost"):
        return Path("/" + unquote(parts.path).lstrip("/"))
    return Path(parts.netloc + unquote(parts.path)).absolute()
