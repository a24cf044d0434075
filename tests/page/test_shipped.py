"""What is served of the page, and how: found under any prefix, kept for ever by name, nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.http.conftest import serving

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "tiled_stream" / "page"


def browser_of(server: Any) -> httpx.AsyncClient:
    """Somebody without credentials: the page itself needs none."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=server.app), base_url="http://server")


async def test_the_index_is_asked_for_each_time_and_its_parts_once() -> None:
    async with serving() as server, browser_of(server) as browser:
        index = await browser.get("/")
        assert index.status_code == 200
        assert index.headers["cache-control"] == "no-cache"
        same = await browser.get("/", headers={"If-None-Match": index.headers["etag"]})
        assert same.status_code == 304
        parts = re.findall(r'(?:src|href)="(page/[^"]+)"', index.text)
        assert {part.rpartition(".")[2] for part in parts} == {"js", "css", "svg"}
        for part in parts:
            answer = await browser.get(f"/{part}", headers={"Accept-Encoding": "gzip"})
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            assert answer.content == (SHIPPED / part.removeprefix("page/")).read_bytes()


async def test_the_policy_allows_this_origin_alone() -> None:
    async with serving() as server, browser_of(server) as browser:
        script = next(SHIPPED.glob("worker-*.js")).name
        for place in ("/", f"/page/{script}"):
            answer = await browser.get(place)
            policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
            assert policy["default-src"] == "'none'"
            assert {policy[name] for name in ("script-src", "style-src", "connect-src", "worker-src")} == {"'self'"}
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_it_is_found_below_a_prefix() -> None:
    async with serving(root_path="/beam/line") as server, browser_of(server) as browser:
        assert '<base href="/beam/line/" />' in (await browser.get("/")).text
    async with serving() as server, browser_of(server) as browser:
        assert "<base" not in (await browser.get("/")).text


@pytest.mark.parametrize("name", ["main.js", "..%2F_version.py", "../_version.py", "index.htm"])
async def test_what_is_no_part_of_it_is_not_there(name: str) -> None:
    async with serving() as server, browser_of(server) as browser:
        assert (await browser.get(f"/page/{name}")).status_code == 404


def test_nothing_is_loaded_from_elsewhere() -> None:
    for file in SHIPPED.iterdir():
        if file.suffix in (".html", ".css"):
            assert "//" not in re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.DOTALL), file.name
        if file.suffix == ".js":
            assert not re.search(r"https?://(?!www\.w3\.org/)", file.read_text()), file.name


def test_licences_come_along_and_pins_name_no_registry() -> None:
    licences = (SHIPPED / "THIRD-PARTY.txt").read_text()
    for name in ("preact", "@preact/signals", "uplot", "@msgpack/msgpack", "@uwdata/flechette"):
        assert f"\n{name} " in licences
    lock = (ROOT / "web" / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert "http" not in re.sub(r'"url": "[^"]*"', "", lock)
