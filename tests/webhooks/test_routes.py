"""What the routes refuse and why; what they tell; and that they tell it to those who may know."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.webhooks.receiver import receiving
from tiled_stream.run.assembly import assembled
from tiled_stream.run.settings import Settings

#: A public address, which needs no resolver.
URL = "https://8.8.8.8/hook"
KEYS = ("key of the tests",)
#: Of a delivery, with their types.
FIELDS: dict[str, type] = {
    **dict.fromkeys(("id", "webhook_id", "attempts", "status_code"), int),
    **dict.fromkeys(("event_type", "outcome", "error_detail", "time_created", "delivered_at"), str),
    "payload": dict,
}
LOOSE: dict[str, Any] = {"webhook_allow_http": True, "webhook_allow_private_addresses": True}


@contextlib.asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[httpx.AsyncClient]:
    if not given.get("catalog"):
        given["temp"] = True
    if "providers" not in given:
        given["api_key"] = "secret"
    async with assembled(Settings(persist_linger_seconds=0.01, **{"webhook_secret_keys": KEYS} | given)) as assembly:
        transport = httpx.ASGITransport(app=assembly.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server/api/v1") as client:
            if "providers" not in given:
                client.headers["Authorization"] = "Apikey secret"
            yield client


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as client:
        yield client


async def refused(client: httpx.AsyncClient, status: int, path: str = "", **body: Any) -> str:
    response = await client.post(f"/webhooks/target/{path}", json=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert (await client.get("/webhooks/target")).json() == []
    return str(response.json()["detail"])


async def create(client: httpx.AsyncClient, path: str, **fields: Any) -> None:
    parent, _, key = path.rpartition("/")
    body = {"id": key, "structure_family": "container", "metadata": {}, "specs": [], "data_sources": [], **fields}
    (await client.post(f"/metadata/{parent}", json=body)).raise_for_status()


async def test_what_is_refused(client: httpx.AsyncClient) -> None:
    assert "'url'" in await refused(client, 422)
    assert "url" in await refused(client, 422, url=7)
    assert "https://" in await refused(client, 422, url="http://example.com/hook")
    assert "https://" in await refused(client, 422, url="ftp://example.com/hook")
    assert "container-child-created" in await refused(client, 422, url=URL, events=["created"])
    assert "events" in await refused(client, 422, url=URL, events="stream-closed")
    assert "secret" in await refused(client, 422, url=URL, secret="")
    assert "secret" in await refused(client, 422, url=URL, secret="x" * 1001)
    assert "private" in await refused(client, 400, url="https://10.0.0.1/hook")
    assert "private" in await refused(client, 400, url="https://[::1]/hook")
    assert "private" in await refused(client, 400, url="https://localhost/hook")
    assert "resolved" in await refused(client, 400, url="https://nowhere.invalid/hook")
    assert "No such entry" in await refused(client, 404, "nowhere", url=URL)


BODIES = [
    b"",
    b"[]",
    b"null",
    b"1",
    b"{",
    b'"x"',
    b"\xff\xfe",
    b'{"url": "\xff"}',
    b'{"url": "\\ud800"}',
    b'{"url":' + b"[" * 100_000,
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:12]))
async def test_whatever_is_no_registration_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    """And nothing is a fault of the server."""
    assert (await client.post("/webhooks/target", content=body)).status_code == 422


async def test_answers_are_those_that_the_reference_gives(client: httpx.AsyncClient) -> None:
    body = (await client.post("/webhooks/target/", json={"url": URL, "events": ["stream-closed", "stream-closed"]})).json()
    assert body.pop("time_created")[-1] == "Z"
    assert body == {"id": 1, "url": URL, "events": ["stream-closed"], "active": True}
    everything = (await client.post("/webhooks/target/", json={"url": URL, "events": []})).json()
    assert everything["events"] is None
    listed = (await client.get("/webhooks/target")).json()
    assert [each["id"] for each in listed] == [1, 2]
    assert all(set(each) == {"id", "url", "events", "active", "time_created"} for each in listed)


async def test_history_is_what_the_reference_gives() -> None:
    with receiving() as receiver:
        async with serving(**LOOSE) as client:
            (await client.post("/webhooks/target/", json={"url": receiver.url})).raise_for_status()
            await create(client, "a")
            await create(client, "b")
            history: list[Any] = []
            end = time.monotonic() + 10
            while len(history) < 2 and time.monotonic() < end:
                history = (await client.get("/webhooks/history/1")).json()
    assert len(history) == 2
    for each in history:
        assert {name: type(value) for name, value in each.items()} == FIELDS | {
            name: type(None) for name in ("error_detail", "status_code", "delivered_at") if each[name] is None
        }


@pytest.mark.parametrize(
    "path", ["/webhooks/history/999999", "/webhooks/history/x", "/webhooks/history/-1", "/webhooks/history/" + "9" * 40]
)
async def test_a_webhook_that_is_not_there(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404
    assert (await client.delete(path.replace("/history", ""))).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/target/"), ("GET", "/target/"), ("DELETE", "/999999"), ("GET", "/history/999999")],
)
async def test_those_without_the_scopes_are_refused(method: str, path: str) -> None:
    users = {"alice": "secret1", "bob": "secret2"}
    settings = {
        "providers": ({"provider": "toy", "authenticator": "DictionaryAuthenticator", "args": {"users_to_passwords": users}},),
        "admins": ({"provider": "toy", "id": "alice"},),
        "public": True,
    }
    async with serving(**settings) as client:
        for name, status in (("", 401), ("bob", 401), ("alice", {"POST": 422, "GET": 200, "DELETE": 404}[method])):
            headers = {}
            if name:
                form = {"username": name, "password": users[name]}
                tokens = (await client.post("/auth/provider/toy/token", data=form)).json()
                headers["Authorization"] = f"Bearer {tokens['access_token']}"
            response = await client.request(method, f"/webhooks{path}", headers=headers)
            wanted = 404 if name == "alice" and "history" in path else status
            assert response.status_code == wanted, (name, response.text)


async def test_columns_of_tables_and_what_is_above_mounts_have_none(tmp_path: Path) -> None:
    async with serving(mounts=({"path": "/over/sub", "node": "/"},)) as client:
        response = await client.post("/webhooks/target/", json={"url": URL})
        assert (response.status_code, "above what is mounted" in response.text) == (405, True)
        assert (await client.post("/webhooks/target/over/sub", json={"url": URL})).status_code == 200


async def test_of_a_mounted_container_is_told_where_it_is_served() -> None:
    with receiving() as receiver:
        async with serving(
            mounts=({"path": "/over/sub", "node": "/inner"},), create_mount_nodes_if_not_exist=True, **LOOSE
        ) as client:
            id = (await client.post("/webhooks/target/over/sub", json={"url": receiver.url})).json()["id"]
            await create(client, "over/sub/a")
            await create(client, "over/sub/a/b")
            (await client.put("/metadata/over/sub", json={"metadata": {"x": 1}})).raise_for_status()
            end = time.monotonic() + 10
            while len([e for e in (await client.get(f"/webhooks/history/{id}")).json() if e["outcome"] == "success"]) < 3:
                assert time.monotonic() < end
        assert sorted(receiver.paths()) == ["over/sub", "over/sub/a", "over/sub/a/b"]
        assert {got.json["key"] for got in receiver.got} == {"sub", "a", "b"}


async def test_they_are_in_the_description(client: httpx.AsyncClient) -> None:
    paths = (await client.get("http://server/openapi.json")).json()["paths"]
    ours = {path.removeprefix("/api/v1/webhooks"): set(methods) for path, methods in paths.items() if "webhooks" in path}
    assert ours == {
        "/target": {"get", "post"},
        "/target/{path}": {"get", "post"},
        "/{id}": {"delete"},
        "/history/{id}": {"get"},
    }
    names = [parameter["name"] for parameter in paths["/api/v1/webhooks/history/{id}"]["get"]["parameters"]]
    assert names == ["id", "limit"]


async def test_without_keys_rules_are_told_to_be_of_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(webhook_secret_keys=(), webhook_allow_http=True) as client:
        assert (await client.get("/webhooks/target")).status_code == 404
    assert "webhooks.secret_keys" in caplog.text


async def test_what_is_registered_is_judged_again_when_it_is_sent(tmp_path: Path) -> None:
    """The operator has become stricter; the history says why nothing comes."""
    with receiving() as receiver:
        catalog = str(tmp_path / "catalog.db")
        async with serving(catalog=catalog, init=True, **LOOSE) as client:
            (await client.post("/webhooks/target/", json={"url": receiver.url})).raise_for_status()
        async with serving(catalog=catalog) as client:
            await create(client, "a")
            history: list[Any] = []
            end = time.monotonic() + 10
            while not history or not history[0]["attempts"]:
                assert time.monotonic() < end
                history = (await client.get("/webhooks/history/1")).json()
        assert "https://" in history[0]["error_detail"]
        assert receiver.got == []
