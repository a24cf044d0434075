"""What a client asks first, and the small pages beside the API."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest


async def test_about_has_every_key_that_clients_read(server: Any, nobody: httpx.AsyncClient) -> None:
    response = await nobody.get("/api/v1/")
    about = response.json()
    assert about["library_version"] == "0.2.20"
    assert about["links"]["self"] == "http://server/api/v1"
    assert about["authentication"] == {"required": True, "providers": [], "links": None}
    assert {"api_version", "formats", "aliases", "queries", "links", "meta"} <= about.keys()
    assert about["formats"]["table"][0] == "application/vnd.apache.arrow.file"
    assert "lookup" in about["queries"]
    assert "expires" in response.headers


async def test_links_follow_the_proxy(nobody: httpx.AsyncClient) -> None:
    headers = {"X-Forwarded-Host": "beamline.example", "X-Forwarded-Proto": "https"}
    about = (await nobody.get("/api/v1/", headers=headers)).json()
    assert about["links"]["self"] == "https://beamline.example/api/v1"


async def test_links_follow_the_root_path(serve: Any) -> None:
    async with serve(root_path="/tiled") as server:
        assert (await server.ok("GET", "/"))["links"]["self"] == "http://server/tiled/api/v1"


async def test_below_another_application_links_say_where(server: Any) -> None:
    transport = httpx.ASGITransport(app=server.app, root_path="/mounted")
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        about = (await client.get("/mounted/api/v1/")).json()
    assert about["links"]["self"] == "http://server/mounted/api/v1"


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/metadata", "/api/v1/search"])
async def test_the_short_forms_redirect(server: Any, path: str) -> None:
    response = await server.client.get(f"{path}?fields=")
    assert response.status_code == 307
    assert httpx.URL(f"http://server{path}").join(response.headers["location"]) == f"http://server{path}/?fields="
    followed = await server.client.get(path, follow_redirects=True)
    assert followed.status_code == 200


async def test_health_and_readiness(server: Any, nobody: httpx.AsyncClient) -> None:
    assert (await nobody.get("/healthz")).json() == {"status": "ready"}
    assert (await nobody.get("/readyz")).json() == {"status": "ready"}
    await server.assembly.drain()
    assert (await nobody.get("/healthz")).status_code == 200
    response = await nobody.get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "stopping" in response.json()["detail"]


async def test_the_landing_page_tells_how_to_connect(nobody: httpx.AsyncClient) -> None:
    response = await nobody.get("/", headers={"X-Forwarded-Host": '"><script>'})
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "from_uri" in response.text
    assert "<script>" not in response.text


async def test_the_description_of_the_api_needs_nothing_from_elsewhere(nobody: httpx.AsyncClient) -> None:
    schema = (await nobody.get("/openapi.json")).json()
    assert "/api/v1/array/full/{path}" in schema["paths"]
    page = (await nobody.get("/docs")).text
    assert "/api/v1/array/full/{path}" in page
    assert "http://" not in page
    assert "https://" not in page


async def test_what_is_not_there_is_said_in_json(server: Any) -> None:
    for path in ("/api", "/api/v1/nothing", "/nothing"):
        response = await server.client.get(path)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/json"
        assert orjson.loads(response.content)["detail"]
