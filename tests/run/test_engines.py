"""Which engine and which place a setting means, and places that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiled_stream.catalog.postgres import PostgresCatalog
from tiled_stream.catalog.sqlite import SqliteCatalog
from tiled_stream.log.local import LocalLog
from tiled_stream.log.memory import MemoryLog
from tiled_stream.log.redis import RedisLog
from tiled_stream.run.engines import Places, engines_of, places_of
from tiled_stream.run.settings import Settings, SettingsError
from tiled_stream.storage.duckdb_tables import DuckdbTables
from tiled_stream.storage.file_tables import FileTables
from tiled_stream.storage.postgres_tables import PostgresTables
from tiled_stream.storage.sqlite_tables import SqliteTables
from tiled_stream.storage.zarr_arrays import ZarrArrays


def placed(tmp_path: Path, *write: str, cache: str = "auto", catalog: str | None = None) -> Places:
    return places_of(Settings(catalog=catalog or str(tmp_path / "c.db"), write=write, cache=cache), None)


def test_a_temporary_server_keeps_everything_in_its_directory(tmp_path: Path) -> None:
    settings = Settings(temp=True)
    places = places_of(settings, tmp_path)
    assert places == Places(
        tmp_path / "catalog.db", None, tmp_path / "data", tmp_path / "data.duckdb", "duckdb", tmp_path / "quarantine"
    )
    engines = engines_of(settings, places)
    assert [type(engine) for engine in (engines.log, engines.catalog, engines.arrays, *(engines.tables or ()))] == [
        MemoryLog,
        SqliteCatalog,
        ZarrArrays,
        FileTables,
        FileTables,
        FileTables,
        DuckdbTables,
    ]


def test_a_persistent_server_has_its_log_beside_the_catalog(tmp_path: Path) -> None:
    settings = Settings(catalog=str(tmp_path / "c.db"), write=(f"sqlite://{tmp_path}/t.db",))
    places = places_of(settings, None)
    assert places.log == tmp_path / "c.db.log"
    engines = engines_of(settings, places)
    assert isinstance(engines.log, LocalLog)
    assert [type(store) for store in engines.tables or ()] == [SqliteTables]
    assert engines.arrays is None


def test_the_log_may_be_in_memory(tmp_path: Path) -> None:
    assert placed(tmp_path, cache="memory").log is None


def test_the_first_that_can_hold_it(tmp_path: Path) -> None:
    places = placed(tmp_path, f"duckdb://{tmp_path}/1", str(tmp_path / "2"), f"sqlite://{tmp_path}/3", f"file://{tmp_path}/4")
    assert (places.arrays, places.tables, places.tables_scheme) == (tmp_path / "2", tmp_path / "1", "duckdb")


def test_tables_go_beside_a_directory(tmp_path: Path) -> None:
    places = placed(tmp_path, str(tmp_path / "data"))
    assert (places.tables, places.tables_scheme) == (tmp_path / "data.duckdb", "duckdb")
    nothing = placed(tmp_path)
    assert (nothing.arrays, nothing.tables) == (None, None)


@pytest.mark.parametrize(
    "uri", ["{}/c.db", "sqlite:///{}/c.db", "sqlite://{}/c.db", "sqlite:////{}/c.db", "sqlite+aiosqlite:///{}/c.db"]
)
def test_ways_to_name_a_catalog(tmp_path: Path, uri: str) -> None:
    assert placed(tmp_path, catalog=uri.format(tmp_path)).catalog == tmp_path / "c.db"


def test_relative_places_are_those_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = placed(tmp_path, "data", "duckdb://./t.duckdb", catalog="c.db")
    assert (places.catalog, places.arrays, places.tables) == (tmp_path / "c.db", tmp_path / "data", tmp_path / "t.duckdb")


def test_an_encoded_path(tmp_path: Path) -> None:
    assert placed(tmp_path, f"duckdb://{tmp_path}/my%20tables").tables == tmp_path / "my tables"


@pytest.mark.parametrize(
    ("catalog", "write", "said"),
    [
        ("mysql://db", (), "is no catalog"),
        (None, ("s3://bucket",), "cannot be written to: give a directory"),
    ],
)
def test_engines_that_are_not_there(tmp_path: Path, catalog: str | None, write: tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        placed(tmp_path, *write, catalog=catalog)


def test_shared_engines(tmp_path: Path) -> None:
    settings = Settings(
        catalog="postgresql://u:s3cret@h/catalog",
        write=(str(tmp_path / "arrays"), "postgresql://u:s3cret@h/storage"),
        cache="rediss://u:s3cret@h:6379",
        cache_prefix="deployment",
        api_key="k",
        scalable=True,
    )
    places = places_of(settings, None)
    assert places.quarantine == tmp_path / "quarantine"
    assert places.shown() == {
        "catalog": "postgresql://u:***@h/catalog",
        "arrays": str(tmp_path / "arrays"),
        "tables": "postgresql://u:***@h/storage",
        "log": "rediss://u:***@h:6379",
    }
    engines = engines_of(settings, places)
    assert [type(engine) for engine in (engines.log, engines.catalog, engines.arrays, *(engines.tables or ()))] == [
        RedisLog,
        PostgresCatalog,
        ZarrArrays,
        FileTables,
        FileTables,
        FileTables,
        PostgresTables,
    ]
    assert "s3cret" not in repr(settings)


def test_a_log_behind_sentinels(tmp_path: Path) -> None:
    settings = Settings(
        catalog=str(tmp_path / "c.db"),
        cache="sentinel",
        cache_sentinels=("a:1", "b:2"),
        cache_service_name="log",
        cache_password="s",
    )
    places = places_of(settings, None)
    assert places.log == "log of a:1, b:2"
    assert isinstance(engines_of(settings, places).log, RedisLog)


def test_places_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    with pytest.raises(SettingsError, match="duckdb:///PATH"):  # a database without its scheme, most likely
        placed(tmp_path, str(tmp_path / "file"))
    with pytest.raises(SettingsError, match="is no directory"):
        placed(tmp_path, str(tmp_path / "file" / "below"))
    with pytest.raises(SettingsError, match="is a directory"):
        placed(tmp_path, f"duckdb://{tmp_path}/directory")
    with pytest.raises(SettingsError, match="is a directory"):
        placed(tmp_path, catalog=str(tmp_path / "directory"))


def test_a_place_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda place, mode: Path(place) != tmp_path / "there")
    (tmp_path / "there").mkdir()
    with pytest.raises(SettingsError, match=r"may not write to .*there"):
        placed(tmp_path, str(tmp_path / "there" / "data"))
