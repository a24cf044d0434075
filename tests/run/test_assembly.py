"""A server put together: what it says of itself, and that it comes apart in order, also when something fails."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.run import running
from tiled_stream.domain.errors import Unavailable
from tiled_stream.domain.nodes import Spec
from tiled_stream.http.metrics import FIGURES
from tiled_stream.run.assembly import Assembly, assembled
from tiled_stream.run.settings import Settings
from tiled_stream.storage.duckdb_tables import DuckdbTables
from tiled_stream.storage.zarr_arrays import ZarrArrays


def client_of(assembly: Assembly) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=assembly.app)
    return httpx.AsyncClient(transport=transport, base_url="http://h/api/v1", headers=running.AUTH)


def settings(**given: object) -> Settings:
    return Settings(temp=True, api_key=running.KEY, **given)  # type: ignore[arg-type]


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}


async def test_nothing_is_left() -> None:
    async with assembled(settings()) as assembly, client_of(assembly) as client:
        directory = assembly.places.catalog.parent
        for body in (running.table("t"), running.array("a", 1)):
            (await client.post("/metadata/", json=body)).raise_for_status()
        assert "persister" in tasks()
    assert tasks() == set()  # I9
    assert not directory.exists()


async def test_what_is_owed_at_the_end_is_persisted(tmp_path: Path) -> None:
    """Also with a persister that would rather wait: a stop is a reason not to (I6)."""
    places = {"catalog": str(tmp_path / "c.db"), "init": True, "write": (str(tmp_path / "data"),), "api_key": running.KEY}
    patient = Settings(persist_linger_seconds=60.0, **places)  # type: ignore[arg-type]
    async with assembled(patient) as assembly, client_of(assembly) as client:
        (await client.post("/metadata/", json=running.array("a", 2))).raise_for_status()
        (await client.put("/array/full/a", content=running.cells(1, 2))).raise_for_status()
        assert (await assembly.stats())["tiled_stream_backlog_records"] == 2
    (tmp_path / "c.db.log").unlink()
    async with assembled(Settings(**places)) as assembly, client_of(assembly) as client:  # type: ignore[arg-type]
        body = (await client.get("/array/full/a", headers={"Accept": "application/octet-stream"})).content
        assert running.cells_of(body) == [1, 2]


async def test_figures_are_those_that_are_described() -> None:
    async with assembled(settings(webhook_secret_keys=("key",))) as assembly, client_of(assembly) as client:
        (await client.post("/metadata/", json=running.array("a", 1))).raise_for_status()
        (await client.put("/array/full/a", content=running.cells(1))).raise_for_status()
        await client.get("/array/full/a")
        stats = await assembly.stats()
    assert stats.keys() == {name for name in FIGURES if "redis" not in name}
    assert stats["tiled_stream_persisted_records_total"] == 2
    assert stats["tiled_stream_persist_failures_total"] == stats["tiled_stream_quarantined_records_total"] == 0


async def test_it_says_when_it_should_get_no_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    async with assembled(settings(ready_backlog_seconds=0.01, persist_linger_seconds=0.0)) as assembly:
        await assembly.check_ready()
        async with client_of(assembly) as client:
            with monkeypatch.context() as patch:

                async def refuse(*batches: object) -> None:
                    raise Unavailable("The disk is full.")

                patch.setattr(ZarrArrays, "apply", refuse)
                (await client.post("/metadata/", json=running.array("a", 1))).raise_for_status()
                (await client.put("/array/full/a", content=running.cells(1))).raise_for_status()
                await asyncio.sleep(0.05)
                with pytest.raises(Unavailable, match="behind"):
                    await assembly.check_ready()
            (await client.get("/array/full/a")).raise_for_status()  # its barrier waits for the persister, which goes on
        await assembly.check_ready()
        await assembly.drain()
        with pytest.raises(Unavailable, match="stopping"):
            await assembly.check_ready()


async def test_a_dead_persister_is_heard_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def die(self: object) -> None:
        raise RuntimeError("no reason")

    monkeypatch.setattr("tiled_stream.persist.persister.Persister.run", die)
    async with assembled(settings()) as assembly:
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="persister does not run"):
            await assembly.check_ready()
    assert "The persister died" in caplog.text


async def test_what_was_opened_before_a_failure_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start is not refused by a lock that the failed one kept."""
    lasting = Settings(catalog=str(tmp_path / "c.db"), init=True, write=(str(tmp_path / "data"),))

    async def fail(self: object) -> None:
        raise Unavailable("The table storage is in use.")

    with monkeypatch.context() as patch:
        patch.setattr(DuckdbTables, "open", fail)
        with pytest.raises(Unavailable, match="in use"):
            await assembled(lasting).__aenter__()
    assert tasks() == set()
    async with assembled(lasting) as assembly:
        await assembly.check_ready()


async def test_the_root_may_say_what_it_is() -> None:
    made = assembled(settings(), root_metadata={"beamline": "x"}, root_specs=[Spec("CatalogOfBlueskyRuns", "3.0")])
    async with made as assembly, client_of(assembly) as client:
        attributes = (await client.get("/metadata/")).json()["data"]["attributes"]
        assert attributes["metadata"] == {"beamline": "x"}
        assert attributes["specs"] == [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}]


async def test_without_a_key_nobody_is_the_owner() -> None:
    """An empty key must not open the door to those who send an empty one."""
    async with assembled(Settings(temp=True)) as assembly:
        transport = httpx.ASGITransport(app=assembly.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://h/api/v1") as client:
            assert (await client.get("/metadata/")).status_code == 401
            assert (await client.get("/metadata/?api_key=")).status_code == 401


async def test_draining_does_not_wait_for_those_who_do_not_leave() -> None:
    async with assembled(settings()) as assembly:
        located = await assembly.services.browse.resolve(())
        async with await assembly.hub.subscribe(located.node.id, None, _Silent()):
            begin = time.monotonic()
            await assembly.drain()
            assert time.monotonic() - begin < 4


class _Silent:
    """An encoder that has nothing to say."""

    envelope = "msgpack"

    def encode(self, record: object) -> bytes:
        return b""

    def notice(self, *args: object, **more: object) -> bytes:
        return b""
