"""A client for streams: every record once and in order, across lost connections, or a word about what is missing.

    async with subscribe("http://HOST:8000?api_key=KEY", "a/b", start=0) as events:
        async for event in events: ...

`subscribe` follows a node or a subtree, `watch` many over one socket; `tiled_stream.client.sync` has the same without asyncio.
It knows of the server what the wire tells, and imports none of it. Reference: `docs/reference/client.md`.
"""

from __future__ import annotations

from .credentials import Token
from .events import (
    Appeared,
    ArrayData,
    ArrayRef,
    ChildCreated,
    ChildUpdated,
    Ended,
    Event,
    Failed,
    Gap,
    Live,
    Other,
    RaggedData,
    Reconnected,
    SparseData,
    TableData,
    Update,
)
from .growing import Columns
from .live import Events, Socket, subscribe, watch
from .retry import Retry
from .subscription import Subscription
from .sync import subscribe as subscribe_sync
from .sync import watch as watch_sync
from .view import ViewOptions

__all__ = [
    "Appeared",
    "ArrayData",
    "ArrayRef",
    "ChildCreated",
    "ChildUpdated",
    "Columns",
    "Ended",
    "Event",
    "Events",
    "Failed",
    "Gap",
    "Live",
    "Other",
    "RaggedData",
    "Reconnected",
    "Retry",
    "Socket",
    "SparseData",
    "Subscription",
    "TableData",
    "Token",
    "Update",
    "ViewOptions",
    "subscribe",
    "subscribe_sync",
    "watch",
    "watch_sync",
]
