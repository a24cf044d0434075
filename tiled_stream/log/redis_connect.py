"""Clients for a Redis given as a URI, or found by Sentinels.

No client retries on its own: what may be sent twice is decided where it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

__all__ = ["Connect", "by_sentinels", "by_uri", "let_go"]

#: Gives a new client.
Connect = Callable[[], Redis]

_CONNECT_SECONDS = 3.0


def by_uri(uri: str) -> Connect:
    """``redis://[user:password@]host:port[/db]``, ``rediss://…`` for TLS (with `ssl_ca_certs=PATH` and others as parameters)."""

    def connect() -> Redis:
        return Redis.from_url(uri, **_options())

    return connect


def by_sentinels(addresses: Sequence[tuple[str, int]], service: str, *, password: str = "", ssl: bool = False) -> Connect:
    """The master that the Sentinels name, asked again with each new connection."""

    def connect() -> Redis:
        options = _options() | ({"password": password} if password else {}) | ({"ssl": True} if ssl else {})
        sentinel = Sentinel(list(addresses), sentinel_kwargs={"socket_timeout": _CONNECT_SECONDS, "protocol": 2})  # type: ignore[no-untyped-call]
        client: Redis = sentinel.master_for(service, **options)
        return client

    return connect


async def let_go(client: Redis) -> None:
    """Close a client, and the connections to Sentinels that came with it."""
    await client.aclose()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()


def _options() -> dict[str, Any]:
    return {
        "protocol": 2,
        "decode_responses": False,
        "socket_timeout": None,  # whoever asks says how long an answer may take
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
    }
