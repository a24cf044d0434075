"""A server with accounts: logging in and out, keys, scopes on every route and every socket."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from tests.http.conftest import Server
from tiled_stream.run.assembly import assembled
from tiled_stream.run.settings import Settings

USERS = {"alice": "secret1", "bob": "secret2"}
PROVIDER = {"provider": "toy", "authenticator": "DictionaryAuthenticator", "args": {"users_to_passwords": USERS}}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    settings = Settings(
        temp=True, providers=(PROVIDER,), admins=({"provider": "toy", "id": "alice"},), persist_linger_seconds=0.01
    )
    async with assembled(settings) as assembly:
        transport = httpx.ASGITransport(app=assembly.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            server = Server(assembly, client)
            yield server
            for socket in server.sockets:
                socket.leave()
                await socket.finished()


async def log_in(server: Server, name: str) -> dict[str, Any]:
    form = {"grant_type": "password", "username": name, "password": USERS[name]}
    found: dict[str, Any] = await server.ok("POST", "/auth/provider/toy/token", data=form)
    return found


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def a_key(server: Server, name: str, **wanted: Any) -> dict[str, Any]:
    body = {"scopes": None, "expires_in": None, **wanted}
    found: dict[str, Any] = await server.ok("POST", "/auth/apikey", json=body, headers=bearer(await log_in(server, name)))
    return found


def shown(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Apikey {key['secret']}"}


async def test_the_about_page_says_how_to_log_in(server: Server) -> None:
    found = (await server.ok("GET", "/"))["authentication"]
    assert found["required"]
    assert found["providers"][0]["links"] == {"auth_endpoint": "http://server/api/v1/auth/provider/toy/token"}
    assert found["links"]["revoke_session"].endswith("/auth/session/revoke/{session_id}")


async def test_logging_in_and_who_one_is(server: Server) -> None:
    tokens = await log_in(server, "bob")
    assert tokens["identity"] == {"id": "bob", "provider": "toy"}
    me = await server.ok("GET", "/auth/whoami", headers=bearer(tokens))
    assert me["identities"][0]["id"] == "bob"
    assert [role["name"] for role in me["roles"]] == ["user"]
    assert await server.ok("GET", "/auth/whoami") is None
    assert (await server.refused("GET", "/metadata/"))[0] == 401
    await server.ok("GET", "/metadata/", headers=bearer(tokens))


@pytest.mark.parametrize(
    "form",
    [{"username": "bob", "password": "wrong"}, {"username": "nobody", "password": "x"}, {"username": "bob", "password": ""}],
)
async def test_a_wrong_password(server: Server, form: dict[str, str]) -> None:
    status, detail = await server.refused("POST", "/auth/provider/toy/token", data=form)
    assert (status, detail) == (401, "Incorrect username or password")


async def test_after_many_wrong_passwords_one_must_wait(server: Server) -> None:
    form = {"username": "bob", "password": "wrong"}
    for _ in range(10):
        assert (await server.refused("POST", "/auth/provider/toy/token", data=form))[0] == 401
    response = await server.client.post("/api/v1/auth/provider/toy/token", data={"username": "bob", "password": "secret2"})
    assert response.status_code == 429
    assert 0 < int(response.headers["retry-after"]) <= 60


async def test_many_guesses_at_once_are_counted_too(server: Server) -> None:
    form = {"username": "bob", "password": "wrong"}
    asked = [server.client.post("/api/v1/auth/provider/toy/token", data=form) for _ in range(30)]
    statuses = [response.status_code for response in await asyncio.gather(*asked)]
    assert (statuses.count(401), statuses.count(429)) == (10, 20)
    await log_in(server, "alice")  # others are not locked out


async def test_logging_in_does_not_buy_more_guesses(server: Server) -> None:
    form = {"username": "bob", "password": "wrong"}
    for _ in range(10):
        assert (await server.refused("POST", "/auth/provider/toy/token", data=form))[0] == 401
        await log_in(server, "alice")
    assert (await server.refused("POST", "/auth/provider/toy/token", data=form))[0] == 429


async def test_nobody_sends_a_body_of_any_size_before_logging_in(server: Server) -> None:
    for path in ("/auth/provider/toy/token", "/auth/session/refresh", "/auth/session/revoke", "/auth/apikey"):
        response = await server.client.post(f"/api/v1{path}", content=b"x" * (65 << 10))
        assert response.status_code in (401, 413), path  # 401: it was not even read


async def test_a_key_makes_no_key_that_lasts_longer_or_reaches_further(server: Server) -> None:
    weak = await a_key(server, "bob", scopes=["create:apikeys", "read:data"], expires_in=60, access_tags=["a", "b"])
    made = await server.ok("POST", "/auth/apikey", json={"scopes": ["read:data"], "expires_in": None}, headers=shown(weak))
    assert made["expiration_time"] <= weak["expiration_time"]
    assert made["access_tags"] == ["a", "b"]
    body = {"scopes": ["read:data"], "expires_in": 1, "access_tags": ["c"]}
    assert (await server.refused("POST", "/auth/apikey", json=body, headers=shown(weak)))[0] == 403


async def test_a_burst_with_one_key_asks_the_database_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await a_key(server, "bob")
    accounts = server.app.access.accounts
    asked = 0

    async def counted(secret: str, *, now: float, ask: Any = accounts.key) -> Any:
        nonlocal asked
        asked += 1
        return await ask(secret, now=now)

    monkeypatch.setattr(accounts, "key", counted)
    await asyncio.gather(*(server.ok("GET", "/metadata/", headers=shown(key)) for _ in range(50)))
    assert asked == 1
    for wrong in ("nothing", "0" * 71, "A" * 72):
        assert (await server.refused("GET", "/metadata/", headers={"Authorization": f"Apikey {wrong}"}))[0] == 401
    assert asked == 1


async def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, tokens = await a_key(server, "bob"), await log_in(server, "bob")
    accounts = server.app.access.accounts
    looked, revoked = asyncio.Event(), asyncio.Event()

    async def slow(secret: str, *, now: float, ask: Any = accounts.key) -> Any:
        found = await ask(secret, now=now)
        looked.set()
        await revoked.wait()
        return found

    monkeypatch.setattr(accounts, "key", slow)
    request = asyncio.create_task(server.client.get("/api/v1/metadata/", headers=shown(key)), name="request")
    await looked.wait()
    await server.client.delete(f"/api/v1/auth/apikey?first_eight={key['first_eight']}", headers=bearer(tokens))
    revoked.set()
    assert (await request).status_code == 200  # it came before
    assert (await server.refused("GET", "/metadata/", headers=shown(key)))[0] == 401


async def test_the_log_of_requests_names_who_asked_and_no_secret(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    key = await a_key(server, "bob")
    caplog.set_level(logging.INFO, "tiled_stream.access")
    for headers in (shown(key), bearer(await log_in(server, "bob"))):
        caplog.clear()
        await server.ok("GET", "/metadata/", headers=headers)
        await server.ok("GET", "/auth/whoami", headers=headers)
        assert caplog.text.count("(bob)") == 2
    assert key["secret"][8:] not in caplog.text
    assert "secret2" not in caplog.text


async def test_sessions_are_renewed_until_they_end(server: Server) -> None:
    tokens = await log_in(server, "bob")
    again = await server.ok("POST", "/auth/session/refresh", json={"refresh_token": tokens["refresh_token"]})
    await server.ok("GET", "/metadata/", headers=bearer(again))
    response = await server.client.post("/api/v1/auth/session/revoke", json={"refresh_token": tokens["refresh_token"]})
    assert (response.status_code, response.content) == (204, b"")
    for token in (again["refresh_token"], again["access_token"], "nothing"):
        assert (await server.refused("POST", "/auth/session/refresh", json={"refresh_token": token}))[0] == 401


async def test_nobody_ends_the_session_of_another(server: Server) -> None:
    alice, bob = await log_in(server, "alice"), await log_in(server, "bob")
    me = await server.ok("GET", "/auth/whoami", headers=bearer(alice))
    path = f"/auth/session/revoke/{me['sessions'][0]['uuid']}"
    assert (await server.refused("DELETE", path, headers=bearer(bob)))[0] == 404
    assert (await server.client.delete(f"/api/v1{path}", headers=bearer(alice))).is_success
    assert (await server.ok("GET", "/auth/whoami", headers=bearer(alice)))["sessions"][0]["revoked"]


async def test_a_key_may_do_what_it_says_and_no_more(server: Server) -> None:
    key = await a_key(server, "bob", scopes=["read:metadata"], note="list")
    await server.ok("GET", "/metadata/", headers=shown(key))
    assert (await server.refused("POST", "/metadata/", json={"structure_family": "container"}, headers=shown(key)))[0] == 401
    told = await server.ok("GET", "/auth/apikey", headers=shown(key))
    assert "secret" not in told
    assert (told["first_eight"], told["note"]) == (key["first_eight"], "list")
    assert told["latest_activity"] is not None
    assert (
        await server.client.delete(
            f"/api/v1/auth/apikey?first_eight={key['first_eight']}", headers=bearer(await log_in(server, "bob"))
        )
    ).is_success
    assert (await server.refused("GET", "/metadata/", headers=shown(key)))[0] == 401  # at once, though it was remembered


async def test_no_key_is_stronger_than_who_makes_it(server: Server) -> None:
    headers = bearer(await log_in(server, "bob"))
    for scopes in (["admin:apikeys"], ["register"], ["read:data", "metrics"]):
        status, detail = await server.refused(
            "POST", "/auth/apikey", json={"scopes": scopes, "expires_in": None}, headers=headers
        )
        assert (status, "must be a subset of the principal's scopes" in detail) == (403, True)
    weak = await a_key(server, "bob", scopes=["create:apikeys", "read:metadata"])
    made = await server.ok("POST", "/auth/apikey", json={"scopes": None, "expires_in": None}, headers=shown(weak))
    assert set(made["scopes"]) == {"create:apikeys", "read:metadata"}
    body = {"scopes": ["read:data"], "expires_in": None}
    assert (await server.refused("POST", "/auth/apikey", json=body, headers=shown(weak)))[0] == 403


@pytest.mark.parametrize(
    "body", [{}, {"scopes": None}, {"scopes": "read:data", "expires_in": None}, {"scopes": None, "expires_in": -1}, [1]]
)
async def test_bodies_that_make_no_key(server: Server, body: Any) -> None:
    assert (await server.refused("POST", "/auth/apikey", json=body, headers=bearer(await log_in(server, "bob"))))[0] == 422


async def test_admins_look_after_others(server: Server) -> None:
    admin, user = bearer(await log_in(server, "alice")), bearer(await log_in(server, "bob"))
    people = await server.ok("GET", "/auth/principal", headers=admin)
    assert {p["identities"][0]["id"] for p in people} == {"alice", "bob"}
    service = await server.ok("POST", "/auth/principal?role=user", headers=admin)
    assert service["type"] == "service"
    body = {"scopes": ["read:metadata"], "expires_in": 60}
    key = await server.ok("POST", f"/auth/principal/{service['uuid']}/apikey", json=body, headers=admin)
    assert (await server.ok("GET", "/auth/whoami", headers=shown(key)))["uuid"] == service["uuid"]
    for method, path in (
        ("GET", "/auth/principal"),
        ("POST", "/auth/principal?role=admin"),
        ("GET", f"/auth/principal/{service['uuid']}"),
        ("POST", f"/auth/principal/{service['uuid']}/apikey"),
        ("DELETE", f"/auth/principal/{service['uuid']}/apikey?first_eight={key['first_eight']}"),
    ):
        assert (await server.refused(method, path, headers=user))[0] == 401
        assert (await server.refused(method, path))[0] == 401
    gone = f"/api/v1/auth/principal/{service['uuid']}/apikey?first_eight={key['first_eight']}"
    assert (await server.client.delete(gone, headers=admin)).is_success
    assert (await server.refused("GET", "/auth/whoami", headers=shown(key)))[0] == 401


async def test_every_route_is_closed_to_who_may_nothing(server: Server) -> None:
    nothing = shown(await a_key(server, "bob", scopes=[]))
    schema = orjson.loads((await server.client.get("/docs/openapi.json")).content)
    open_to_all = {"/api/v1", "/healthz", "/readyz", "/docs", "/"}
    tried = 0
    for path, methods in schema["paths"].items():
        if path in open_to_all or "/auth/" in path or "/stream/single" in path:
            continue
        for method in methods:
            response = await server.client.request(method, re.sub(r"{\w+}", "a", path), headers=nothing)
            if response.status_code != 307:  # to the same with a slash
                assert response.status_code == 401, (method, path, response.status_code)
                tried += 1
    assert tried > 40


@pytest.mark.parametrize("how", ["header", "query", "message"])
async def test_sockets_take_tokens_and_keys(server: Server, how: str) -> None:
    tokens = await log_in(server, "bob")
    if how == "header":
        socket = await server.socket("", bearer(tokens)).accepted()
    elif how == "query":
        socket = await server.socket(f"?access_token={tokens['access_token']}", {}).accepted()
    else:
        socket = await server.socket("", {}).accepted()
        socket.say(text=orjson.dumps({"type": "auth", "access_token": tokens["access_token"]}).decode())
    assert (await socket.update())["type"] == "container-schema"


async def test_sockets_ask_for_scopes(server: Server) -> None:
    for scopes in ([], ["read:metadata"], ["read:data"]):
        status, _, _ = await server.socket("", shown(await a_key(server, "bob", scopes=scopes))).denied()
        assert status == 401
    status, _, _ = await server.socket("?access_token=nothing", {}).denied()
    assert status == 401
    await server.socket("", shown(await a_key(server, "bob", scopes=["read:metadata", "read:data"]))).accepted()


async def test_a_server_of_one_key_has_no_logins(serve: Any) -> None:
    async with serve() as single:
        for method, path in (("GET", "/auth/whoami"), ("POST", "/auth/provider/toy/token"), ("POST", "/auth/apikey")):
            assert (await single.refused(method, path))[0] == 404
