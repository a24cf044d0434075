"""What the edge is given: the four verbs and what it must know of its surroundings. Nothing in `http/` makes its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from ..broadcast.hub import Hub
from ..ingest.writer import Writer
from ..log.port import LogEngine
from ..query.browse import Browse
from ..query.read import DataReader

__all__ = ["EdgeSettings", "Services"]


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the edge; `run/settings.py` fills them. Sizes in bytes, times in seconds."""

    api_key: str
    public: bool = False
    root_path: str = ""
    allow_origins: tuple[str, ...] = ()
    response_bytesize_limit: int = 300_000_000
    request_bytesize_limit: int = 1 << 30
    send_timeout: float = 30.0
    metrics: bool = True


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """`ready` raises `Unavailable` with the reason while the server should get no traffic; `stats` gives figures for metrics."""

    writer: Writer
    browse: Browse
    reader: DataReader
    hub: Hub
    log: LogEngine
    ready: Callable[[], Awaitable[None]]
    stats: Callable[[], dict[str, float]]
