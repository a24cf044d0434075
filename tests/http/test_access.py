"""Who may do what: every route, every way to present a key."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from litestar.routes import HTTPRoute

from tiled_stream.http.access import ANONYMOUS, OWNER, Access

#: Routes that need no credentials. (A stream asks for them when it is opened.)
STREAMS = {"/api/v1/stream/many", "/api/v1/stream/single", "/api/v1/stream/single/a"}
DOCS = {"/docs", "/docs/a", "/docs/openapi.json", "/openapi.json"}
OPEN = {"/", "/page/{name}", "/healthz", "/readyz", "/api/v1"} | STREAMS | DOCS

#: Answered with a redirect, before anything is asked.
SHORT = {("GET", "/api/v1/metadata"), ("GET", "/api/v1/search")}


def routes(server: Any) -> list[tuple[str, str, Any]]:
    """Method, path, handler of all that is served."""
    application = server.app._app
    return [
        (method, route.path_format.replace("{path}", "a"), handler)
        for route in application.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if method != "OPTIONS" and (method, route.path_format) not in SHORT
    ]


async def test_every_route_needs_its_scopes(server: Any, nobody: httpx.AsyncClient) -> None:
    checked = 0
    for method, path, handler in routes(server):
        if not handler.opt.get("scopes"):
            assert path in OPEN
            continue
        response = await nobody.request(method, path)
        assert response.status_code == 401, (method, path)
        assert response.headers["content-type"] == "application/json"
        assert response.headers["www-authenticate"] == f'Bearer scope="{" ".join(handler.opt["scopes"])}"'
        assert response.headers["x-tiled-root"] == "http://server/api/v1"
        wrong = await nobody.request(method, path, headers={"Authorization": "Apikey wrong"})
        assert (wrong.status_code, wrong.json()) == (401, {"detail": "Invalid API key"}), (method, path)
        checked += 1
    assert checked > 30


async def test_the_scopes_of_the_routes_are_held_by_somebody(server: Any) -> None:
    for method, path, handler in routes(server):
        assert set(handler.opt.get("scopes", ())) <= OWNER.scopes, (method, path)


async def test_a_public_server_may_be_read_by_anybody(serve: Any) -> None:
    async with serve(public=True) as server:
        await server.create("c")
        transport = httpx.ASGITransport(app=server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server/api/v1") as nobody:
            assert (await nobody.get("/")).json()["authentication"]["required"] is False
            assert (await nobody.get("/metadata/c")).status_code == 200
            for method, path, handler in routes(server):
                if set(handler.opt.get("scopes", ())) - ANONYMOUS.scopes:
                    response = await nobody.request(method, path.removeprefix("/api/v1"))
                    assert response.status_code in (401, 404), (method, path)  # 404: not below the API
            wrong = await nobody.get("/metadata/c", headers={"Authorization": "Apikey wrong"})
            assert wrong.status_code == 401  # no fallback to anonymous


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("Apikey secret", 200),
        ("apikey secret", 200),
        ("APIKEY  secret", 200),
        ("Apikey wrong", 401),
        ("Apikey s\u00e9cret", 401),
        ("Bearer e30.e30.x", 401),
        ("Apikey", 400),
        ("Apikey ", 400),
        ("Basic c2VjcmV0", 400),
        ("secret", 400),
    ],
)
async def test_the_header(nobody: httpx.AsyncClient, value: str, status: int) -> None:
    response = await nobody.get("/api/v1/metadata/", headers={"Authorization": value.encode()})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"


async def test_a_server_without_a_key_knows_nobody() -> None:
    assert not await Access("", public=False).knows("")


async def test_the_query_comes_before_the_header(nobody: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Apikey wrong"}
    assert (await nobody.get("/api/v1/metadata/?api_key=secret", headers=headers)).status_code == 200
    headers = {"Authorization": "Apikey secret"}
    assert (await nobody.get("/api/v1/metadata/?api_key=wrong", headers=headers)).status_code == 401


async def test_a_link_with_the_key_leaves_a_cookie_but_only_with_the_right_one(nobody: httpx.AsyncClient) -> None:
    for path in ("/?api_key=wrong", "/api/v1/?api_key=wrong", "/api/v1/metadata/?api_key=wrong"):
        assert "set-cookie" not in (await nobody.get(path)).headers
    response = await nobody.get("/?api_key=secret")
    assert "tiled_api_key=secret; HttpOnly" in response.headers["set-cookie"]
    assert (await nobody.get("/api/v1/metadata/")).status_code == 200


async def test_a_cookie_alone_cannot_write(nobody: httpx.AsyncClient) -> None:
    await nobody.get("/?api_key=secret")
    body = {"id": "c", "structure_family": "container", "metadata": {}, "specs": [], "data_sources": []}
    forged = await nobody.post("/api/v1/metadata/", json=body)
    assert forged.status_code == 403
    assert "x-csrf" in forged.json()["detail"]
    forged = await nobody.post("/api/v1/metadata/", json=body, headers={"x-csrf": "guess"})
    assert forged.status_code == 403
    own = await nobody.post("/api/v1/metadata/", json=body, headers={"x-csrf": nobody.cookies["tiled_csrf"]})
    assert own.status_code == 200


async def test_over_https_cookies_stay_there(nobody: httpx.AsyncClient) -> None:
    response = await nobody.get("/?api_key=secret", headers={"X-Forwarded-Proto": "https"})
    assert all("; Secure" in cookie for cookie in response.headers.get_list("set-cookie"))


async def test_a_broken_cookie_is_no_credential(nobody: httpx.AsyncClient) -> None:
    for cookie in ("tiled_api_key", '";;=', "tiled_api_key=\x01"):
        assert (await nobody.get("/api/v1/metadata/", headers={"Cookie": cookie})).status_code == 401


async def test_methods_that_are_not_there(server: Any) -> None:
    response = await server.client.head("/api/v1/metadata/")
    assert response.status_code == 405
    assert "GET" in response.headers["allow"]
    assert (await server.client.delete("/api/v1/search/")).status_code == 405
    assert (await server.client.options("/api/v1/metadata/")).status_code < 500
