"""Access tokens instead of keys: on a server with accounts, and on one that takes them in the first message only."""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import Iterator

import httpx
import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.client.served import Served, served
from tiled_stream.client import Ended, Live, subscribe, subscribe_sync
from tiled_stream.domain.errors import Unauthenticated

PROVIDER = {
    "provider": "toy",
    "authenticator": "DictionaryAuthenticator",
    "args": {"users_to_passwords": {"alice": "secret1"}},
}


@pytest.fixture(scope="module")
def accounts() -> Iterator[Served]:
    with served(api_key="", providers=(PROVIDER,), admins=({"provider": "toy", "id": "alice"},)) as running:
        running.array("x")
        running.write("x", 1, 2)
        running.end("x")
        yield running


def log_in(server: Served) -> str:
    form = {"grant_type": "password", "username": "alice", "password": "secret1"}
    url = f"http://127.0.0.1:{server.port}/api/v1/auth/provider/toy/token"
    token: str = httpx.post(url, data=form).raise_for_status().json()["access_token"]
    return token


async def test_a_token(accounts: Served) -> None:
    uri, token = f"http://127.0.0.1:{accounts.port}", log_in(accounts)
    with subscribe_sync(uri, "x", start=0, token=token) as events:
        assert [event.sequence for event in events if not isinstance(event, Live | Ended)] == [1, 2]
    asked = []

    def fresh() -> str:
        asked.append(token)
        return token

    async with asyncio.timeout(20), subscribe(uri, "x", start=0, token=fresh) as live:
        assert [event.sequence async for event in live if not isinstance(event, Live | Ended)] == [1, 2]
    assert asked


def test_a_token_that_is_none(accounts: Served) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        subscribe_sync(f"http://127.0.0.1:{accounts.port}", "x", token="geheim").__enter__()
    assert "geheim" not in str(refusal.value)


async def test_a_token_in_the_first_message() -> None:
    """A server that refuses tokens in the header with 400, as the reference does: the token comes in the first message."""
    said: list[str] = []

    def check(_: ServerConnection, request: Request) -> Response | None:
        if "Authorization" in request.headers:
            status = http.HTTPStatus.BAD_REQUEST
        elif "/stream/single/" not in request.path:
            status = http.HTTPStatus.FORBIDDEN
        else:
            assert "geheim" not in request.path
            return None
        return Response(status.value, status.phrase, Headers({"Content-Length": "0"}), b"")

    async def handle(connection: ServerConnection) -> None:
        said.append(str(await connection.recv()))
        await connection.send(msgspec.msgpack.encode({"type": "container-schema", "version": 1}))
        await connection.close(1000, "Producer ended stream")

    async with asyncio.timeout(20), serve(handle, "127.0.0.1", 0, process_request=check) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        async with subscribe(f"http://127.0.0.1:{port}", "x", start=0, token="geheim") as events:
            assert [type(event) async for event in events] == [Ended]
    assert [json.loads(text) for text in said] == [{"type": "auth", "access_token": "geheim"}]
