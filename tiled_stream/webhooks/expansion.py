"""From an event in the outbox to deliveries: where it happened, whom it concerns, and what they are told.

A webhook is told of its node and of everything below it, from its registration on. What must stay true: an event whose place in
the tree is not known yet waits; it is not dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from ..domain.errors import Gone, NotFound
from ..domain.nodes import NodeId
from ..nodes.mounts import Mounts
from .kinship import Kinship, Way
from .model import DELETED, Expanded, Happened, Webhook
from .store import Store

__all__ = ["Expansion", "message", "wanted_by"]

logger = logging.getLogger(__name__)

_BATCH = 100
#: Seconds after which an event whose node is nowhere is given up: its record was lost with the log.
_LOST = 600.0


class Expansion:
    """`mounts` tells what is served where, as of now."""

    def __init__(self, store: Store, kinship: Kinship, *, mounts: Callable[[], Mounts], now: Callable[[], float]) -> None:
        self._store = store
        self._kinship = kinship
        self._mounts = mounts
        self._now = now

    async def round(self) -> bool:
        """Take the oldest events, in order; one that must wait is passed by. True if there may be more right now."""
        events = await self._store.outbox(limit=_BATCH)
        if not events:
            return False
        webhooks = await self._store.webhooks()
        expanded: list[Expanded] = []
        # What follows in the same log waits, too, even if its place has become known meanwhile: it comes in order.
        waiting: set[NodeId] = set()
        done = 0
        for event in events:
            if event.kind == DELETED:
                assert event.child is not None
                await self._store.expand(expanded, now=self._now())
                expanded = []
                await self._store.drop_node(event.id, event.child)
                webhooks = [webhook for webhook in webhooks if event.child not in webhook.chain]
                done += 1
            elif event.log in waiting or (each := await self._expanded(event, webhooks)) is None:
                waiting.add(event.log)
            else:
                expanded.append(each)
                done += 1
        await self._store.expand(expanded, now=self._now())
        return bool(done) and len(events) == _BATCH

    async def _expanded(self, event: Happened, webhooks: Sequence[Webhook]) -> Expanded | None:
        """None: it must wait."""
        try:
            way = await self._kinship.way(event.log)
        except Gone:
            way = ()  # deleted before anybody could be told where it was
        except NotFound:
            if self._now() - event.time < _LOST:
                return None
            logger.error("Event %s (%s) is not told: its node %s is nowhere in the catalog", event.id, event.kind, event.log)
            way = ()
        if event.child is not None and way:
            way = (*way, (event.child, event.key))
        path = self._mounts().served(tuple(key for _, key in way[1:])) if way else None
        if path is None:
            return Expanded(event.id, "", ())
        concerned = tuple(webhook.id for webhook in webhooks if wanted_by(webhook, event, way))
        return Expanded(event.id, message(event, path), concerned)


def wanted_by(webhook: Webhook, event: Happened, way: Way) -> bool:
    """Does it concern this webhook?"""
    if webhook.events is not None and event.kind not in webhook.events:
        return False
    return webhook.created <= event.time and any(node == webhook.node for node, _ in way)


def message(event: Happened, path: Sequence[str]) -> str:
    """The JSON that is sent. `path` is where the node is served."""
    said: dict[str, Any] = {
        "type": event.kind,
        "timestamp": datetime.fromtimestamp(event.time, UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z",
        "key": path[-1] if path else "",
        "path": list(path),
        **orjson.loads(event.about),
    }
    return orjson.dumps(said).decode()
