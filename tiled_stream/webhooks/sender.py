"""One message to one address: checked, signed, bounded in time and in what is read of the answer. No redirects, no proxies.

httpcore and not httpx: it lets the connection go to an address that was checked, while TLS still asks for the name.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import msgspec

from .._version import __version__
from ..domain.errors import Refused
from .egress import Egress

__all__ = ["MAX_ANSWER", "Answer", "Sender"]

#: Bytes that are read of an answer; nobody looks at them.
MAX_ANSWER = 64 << 10
_CONNECTIONS = 16
_IDLE_SECONDS = 5.0


class Answer(msgspec.Struct, frozen=True):
    """What came back: a status, or why there is none."""

    status: int | None
    error: str | None = None

    @property
    def is_taken(self) -> bool:
        """Did the receiver take it?"""
        return self.status is not None and 200 <= self.status < 300


class Sender:
    """`seconds`: for a message as a whole, from the look-up of the name to the answer. Concurrent use is fine."""

    def __init__(self, egress: Egress, *, seconds: float = 10.0) -> None:
        self._egress = egress
        self._seconds = seconds
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=_Checked(egress),
        )

    async def close(self) -> None:
        """Idempotent."""
        await self._pool.aclose()

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Send it once. Whatever goes wrong is an answer. Cancelled: nobody knows whether it was taken."""
        said = {"Content-Type": "application/json", "User-Agent": f"tiled_stream/{__version__}", **headers}
        try:
            async with asyncio.timeout(self._seconds):
                self._egress.check_form(url)
                async with self._pool.stream("POST", url, headers=list(said.items()), content=body) as response:
                    await _drained(response)
                    return _answer(response.status)
        except TimeoutError:
            return Answer(None, f"no answer within {self._seconds:g} s")
        except Refused as error:
            return Answer(None, str(error))
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            return Answer(None, f"{type(error).__name__}: {error}"[:500])


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self._egress.addresses(host, port):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _drained(response: httpcore.Response) -> None:
    read = 0
    async for chunk in response.aiter_stream():
        read += len(chunk)
        if read > MAX_ANSWER:
            return


def _answer(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer(status)
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    return Answer(status, f"the receiver answered {status}{hint}")
