"""What the edge is given: the four verbs and what it must know of its surroundings. Nothing in `http/` makes its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ..broadcast.hub import Hub
from ..domain.errors import Malformed
from ..ingest.writer import Ack, Writer
from ..log.port import LogEngine
from ..query.browse import Browse
from ..query.read import DataReader
from ..webhooks.registry import Registry
from .params import header

__all__ = ["Edge", "EdgeSettings", "Services", "ack_of", "edge_of"]


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
    expose_raw_assets: bool = True


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """`ready` raises `Unavailable` with the reason while the server should get no traffic; `stats` gives figures for metrics.

    `webhooks` None: there are none.
    """

    writer: Writer
    browse: Browse
    reader: DataReader
    hub: Hub
    log: LogEngine
    ready: Callable[[], Awaitable[None]]
    stats: Callable[[], Awaitable[dict[str, float]]]
    webhooks: Registry | None = None


class Edge:
    """Services and settings together, as routes receive them."""

    __slots__ = ("browse", "hub", "log", "reader", "services", "settings", "writer")

    def __init__(self, services: Services, settings: EdgeSettings) -> None:
        self.services = services
        self.settings = settings
        self.writer = services.writer
        self.browse = services.browse
        self.reader = services.reader
        self.hub = services.hub
        self.log = services.log


def ack_of(scope: Any) -> Ack:
    """Which acknowledgement the client waits for: `log`, or `persisted` if the header `X-Tiled-Ack` says so."""
    wanted = header(scope, b"x-tiled-ack")
    if wanted in (None, "log"):
        return "log"
    if wanted == "persisted":
        return "persisted"
    raise Malformed("The header 'X-Tiled-Ack' is 'log' or 'persisted'.")


def edge_of(request: Any) -> Edge:
    """The edge that a request came in by."""
    edge: Edge = request.app.state["edge"]
    return edge
