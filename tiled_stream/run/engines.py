"""From what the settings say to the engines that do it. The only module that knows the engines."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import msgspec

from ..catalog.port import Catalog
from ..domain.nodes import Spec
from ..domain.uris import redacted
from ..log.claims import Claims
from ..log.port import LogEngine
from ..storage.node_directories import Check
from ..storage.port import ArrayStore, Identified, PartStore, TableStore
from ..storage.storage_root import StorageRoot
from ..storage.tables import Tables
from .identities import ARRAYS, TABLES
from .settings import POSTGRES, Settings, SettingsError

if TYPE_CHECKING:
    from ..storage.postgres_tables import PostgresTables
    from ..storage.sql_tables import SqlTables

__all__ = ["Engines", "Places", "catalog_at", "catalog_of", "catalog_place", "engines_of", "places_of"]

#: Bytes of records in memory that wait for a storage that is down.
_UNPERSISTED = 2 << 30
_SCHEME = re.compile(r"[a-z][a-z0-9+]*://")


class Places(msgspec.Struct, frozen=True):
    """Where things are: paths of this machine, or URIs of servers, with their passwords: `shown` is what may be printed.

    log: None: in memory
    arrays, tables: None: not configured
    quarantine: what was put aside
    """

    catalog: Path | str
    log: Path | str | None
    arrays: Path | None
    tables: Path | str | None
    tables_scheme: str
    quarantine: Path

    def shown(self) -> dict[str, str]:
        """For people: what is where, without passwords."""
        return {
            "catalog": redacted(str(self.catalog)),
            "arrays": str(self.arrays or "none: start with -w DIRECTORY"),
            "tables": redacted(str(self.tables or "none: start with -w duckdb:///PATH or postgresql://USER@HOST/DATABASE")),
            "log": redacted(str(self.log or "in memory")),
        }


class Engines(msgspec.Struct, frozen=True):
    """The engines of one server, not opened yet. `storages`: those that are bound to the deployment, by their names in the
    catalog; `root`: the directory of arrays among them."""

    log: LogEngine
    catalog: Catalog
    arrays: ArrayStore | None
    parts: PartStore | None
    tables: Tables | None
    storages: dict[str, Identified] = {}
    root: StorageRoot | None = None


def places_of(settings: Settings, temporary: Path | None) -> Places:
    """Decide where things are. `temporary` is the directory of a `temp` server.

    Arrays rest in the first directory that may be written to, tables in the first database; with a directory alone, tables get
    a DuckDB file beside it. `SettingsError` for a place that cannot be.
    """
    if settings.temp:
        assert temporary is not None
        catalog: Path | str = temporary / "catalog.db"
        write: Sequence[str] = settings.write or (str(temporary / "data"), f"duckdb://{temporary / 'data.duckdb'}")
    else:
        assert settings.catalog is not None
        catalog = catalog_place(settings.catalog)
        write = settings.write
    arrays, tables, scheme = _writable(write)
    for place, is_directory in ((catalog, False), (arrays, True), (tables, False)):
        if isinstance(place, Path):
            _check_writable(place, is_directory=is_directory)
    beside = catalog.parent if isinstance(catalog, Path) else arrays.parent if arrays is not None else Path.cwd()
    return Places(catalog, _log_place(settings, catalog), arrays, tables, scheme, beside / "quarantine")


def engines_of(
    settings: Settings, places: Places, *, root_metadata: dict[str, Any] | None = None, root_specs: Sequence[Spec] | None = None
) -> Engines:
    """The engines for these places, not opened."""
    catalog = catalog_of(settings, places, root_metadata=root_metadata, root_specs=root_specs)
    # A temporary server leaves no deployment behind, so its storage is not marked.
    root = None if places.arrays is None or settings.temp else StorageRoot(places.arrays)
    check = root.check if root is not None else None
    sql = _sql_tables(settings, places)
    storages: dict[str, Identified] = {}
    if root is not None:
        storages[ARRAYS] = root
    if sql is not None and not settings.temp:
        storages[TABLES] = sql
    return Engines(
        _log(settings, places, check),
        catalog,
        _arrays(places, check),
        _parts(places, check),
        _tables(places, sql, check),
        storages,
        root,
    )


def catalog_of(
    settings: Settings, places: Places, *, root_metadata: dict[str, Any] | None = None, root_specs: Sequence[Spec] | None = None
) -> Catalog:
    """The catalog alone, not opened."""
    metadata = settings.root_metadata if root_metadata is None else root_metadata
    specs = [Spec(**spec) for spec in settings.root_specs] if root_specs is None else root_specs
    return catalog_at(
        places.catalog,
        init=settings.init or settings.temp,
        pool_size=settings.catalog_pool_size,
        root_metadata=metadata,
        root_specs=specs,
    )


def catalog_at(
    place: Path | str,
    *,
    init: bool,
    pool_size: int = 2,
    root_metadata: dict[str, Any] | None = None,
    root_specs: Sequence[Spec] | None = None,
) -> Catalog:
    """The engine for a place that `catalog_place` gave, not opened."""
    if isinstance(place, Path):
        from ..catalog.sqlite import SqliteCatalog

        return SqliteCatalog(place, init=init, root_metadata=root_metadata, root_specs=root_specs)
    from ..catalog.postgres import PostgresCatalog

    return PostgresCatalog(place, init=init, pool_size=pool_size, root_metadata=root_metadata, root_specs=root_specs)


def _log(settings: Settings, places: Places, check: Check | None) -> LogEngine:
    if places.log is None:
        from ..log.memory import MemoryLog

        return MemoryLog(max_bytes=settings.cache_total_bytes + _UNPERSISTED)
    if isinstance(places.log, Path):
        from ..log.local import LocalLog

        return LocalLog(places.log, synchronous=settings.log_sync)
    from ..log.redis import RedisLog
    from ..log.redis_connect import by_sentinels, by_uri

    if settings.cache_sentinels:
        addresses = [(host, int(port)) for host, _, port in (s.rpartition(":") for s in settings.cache_sentinels)]
        connect = by_sentinels(addresses, settings.cache_service_name, password=settings.cache_password, ssl=settings.cache_ssl)
    else:
        connect = by_uri(settings.cache)
    return RedisLog(
        connect,
        # What a temporary server leaves in a Redis that stays must be in nobody's way.
        prefix=f"{settings.cache_prefix}:{uuid4().hex}" if settings.temp else settings.cache_prefix,
        synced=settings.log_sync == "full",
        strict=settings.cache_strict,
        is_temporary=settings.temp,
        claims=_claims(settings, places, check),
        keep_bytes=settings.cache_keep_bytes,
    )


def _claims(settings: Settings, places: Places, check: Check | None) -> Claims | None:
    if places.arrays is None or not settings.cache_claim_bytes:
        return None
    directory = places.arrays / ".claims"
    return Claims(directory, above=settings.cache_claim_bytes, synced=settings.log_sync == "full", check=check)


def _log_place(settings: Settings, catalog: Path | str) -> Path | str | None:
    if settings.is_shared_log:
        return (
            f"{settings.cache_service_name} of {', '.join(settings.cache_sentinels)}"
            if settings.cache_sentinels
            else settings.cache
        )
    if settings.temp or settings.cache == "memory":
        return None
    assert isinstance(catalog, Path)
    return catalog.with_name(catalog.name + ".log")


def _writable(write: Sequence[str]) -> tuple[Path | None, Path | str | None, str]:
    """Where arrays and tables rest, and what holds the tables."""
    arrays: Path | None = None
    tables: Path | str | None = None
    scheme = "duckdb"
    for entry in write:
        kind, place = _storage(entry)
        if isinstance(place, Path) and kind == "file":
            arrays = arrays or place
        elif tables is None:
            scheme, tables = kind, place
    if arrays is not None and tables is None:
        tables = arrays.with_name(arrays.name + ".duckdb")
    return arrays, tables, scheme


def _arrays(places: Places, check: Check | None) -> ArrayStore | None:
    if places.arrays is None:
        return None
    from ..storage.zarr_arrays import ZarrArrays

    return ZarrArrays(places.arrays, check=check)


def _parts(places: Places, check: Check | None) -> PartStore | None:
    if places.arrays is None:
        return None
    from ..storage.part_files import PartFiles
    from ..wire.parts import split

    return PartFiles(places.arrays, split=split, check=check)


def _tables(places: Places, sql: TableStore | None, check: Check | None) -> Tables | None:
    if places.tables is None and places.arrays is None:
        return None
    files: dict[str, TableStore] = {}
    if places.arrays is not None:
        from ..storage.file_tables import FileTables
        from ..storage.table_formats import FORMATS

        files = {kind.mimetype: FileTables(places.arrays, kind, check=check) for kind in FORMATS}
    return Tables(sql, files)


def _sql_tables(settings: Settings, places: Places) -> PostgresTables | SqlTables | None:
    if places.tables is None:
        return None
    if not isinstance(places.tables, Path):
        from ..storage.postgres_tables import PostgresTables

        return PostgresTables(places.tables, pool_size=settings.storage_pool_size)
    if places.tables_scheme == "sqlite":
        from ..storage.sqlite_tables import SqliteTables

        return SqliteTables(places.tables)
    from ..storage.duckdb_tables import DuckdbTables

    return DuckdbTables(places.tables)


def catalog_place(uri: str) -> Path | str:
    """Where a catalog is: a file, or the URI of a PostgreSQL database."""
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return Path(uri).absolute()
    if scheme[0] in ("sqlite://", "sqlite+aiosqlite://"):
        return _path_of(uri)
    if scheme[0] in POSTGRES:
        return uri
    raise SettingsError(f"{redacted(uri)!r} is no catalog: give a file path, sqlite:///PATH or postgresql://USER@HOST/DATABASE.")


def _storage(uri: str) -> tuple[str, Path | str]:
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return "file", Path(uri).absolute()
    if scheme[0] in POSTGRES:
        return "postgresql", uri
    kind = scheme[0].removesuffix("://")
    if kind in ("file", "duckdb", "sqlite"):
        return kind, _path_of(uri)
    raise SettingsError(
        f"{redacted(uri)!r} cannot be written to: give a directory, duckdb:///PATH, sqlite:///PATH or "
        "postgresql://USER@HOST/DATABASE."
    )


def _check_writable(path: Path, *, is_directory: bool) -> None:
    """Storage is made when it is first needed; that it can be made should be known at the start."""
    there = next(place for place in (path, *path.parents) if place.exists())
    if there.is_dir() != (is_directory or there != path):
        hint = "; a database is given as duckdb:///PATH or sqlite:///PATH" if is_directory and there == path else ""
        raise SettingsError(f"{path} cannot be used: {there} is {'a' if there.is_dir() else 'no'} directory{hint}.")
    if not os.access(there, os.W_OK):
        raise SettingsError(f"{path} cannot be written to: this user may not write to {there}.")


def _path_of(uri: str) -> Path:
    """``scheme:///abs``, ``scheme://localhost/abs`` and ``scheme://./relative`` (three or four slashes are the same).

    ``scheme:///./relative`` is relative too: a path that begins with a dot is never meant from the root of the file system.
    """
    parts = urlsplit(uri)
    if parts.netloc in ("", "localhost") and not re.match(r"/+\.\.?/", parts.path):
        return Path("/" + unquote(parts.path).lstrip("/"))
    if parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path).lstrip("/")).absolute()
    return Path(parts.netloc + unquote(parts.path)).absolute()
