"""Webhooks of one server put together: only where `webhook_secret_keys` are set.

What must stay true: after `close` no task and no connection is left (I9); what was not delivered by then is in the database.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from uuid import uuid4

from ..catalog.port import Catalog
from ..nodes.mounts import Mounts
from ..webhooks.dispatcher import Dispatcher
from ..webhooks.egress import Egress
from ..webhooks.expansion import Expansion
from ..webhooks.kinship import Kinship
from ..webhooks.outbox import Outbox
from ..webhooks.registry import Registry
from ..webhooks.sender import Sender
from ..webhooks.store import store_at
from ..webhooks.vault import Vault
from .engines import Places
from .settings import Settings

__all__ = ["Hooks"]

logger = logging.getLogger(__name__)


class Hooks:
    """`identity` is that of the catalog: part of the ids of events."""

    def __init__(self, settings: Settings, places: Places, catalog: Catalog, *, identity: str) -> None:
        self._store = store_at(places.catalog)
        vault = Vault(settings.webhook_secret_keys)
        egress = Egress(
            networks=settings.webhook_blocked_networks,
            hosts=settings.webhook_allow_delivery_hosts,
            allow_http=settings.webhook_allow_http,
            allow_private=settings.webhook_allow_private_addresses,
        )
        kinship = Kinship(catalog)
        self._mounts: Callable[[], Mounts] = Mounts
        expansion = Expansion(self._store, kinship, mounts=lambda: self._mounts(), now=time.time)
        self._dispatcher = Dispatcher(self._store, expansion, Sender(egress), vault=vault, worker=uuid4().hex, now=time.time)
        self.registry = Registry(self._store, egress, vault, now=time.time)
        self.outbox = Outbox(self._store, kinship, catalog=identity, kept=self._dispatcher.wake)
        self._delivering: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """`Unavailable` if the database cannot be used."""
        await self._store.open()

    def start(self, mounts: Callable[[], Mounts]) -> None:
        """Begin to deliver."""
        self._mounts = mounts
        self._delivering = asyncio.create_task(self._dispatcher.run(), name="webhooks")
        self._delivering.add_done_callback(_heard)

    async def close(self) -> None:
        """End after the messages that are under way. Idempotent."""
        delivering, self._delivering = self._delivering, None
        if delivering is not None:
            self._dispatcher.stop()
            await asyncio.wait({delivering})
        await self._store.close()

    async def figures(self) -> dict[str, float]:
        """For metrics."""
        stats = self._dispatcher.stats
        waiting, lag = await self._dispatcher.waiting()
        return {
            "tiled_stream_webhook_deliveries_total": stats.delivered,
            "tiled_stream_webhook_failures_total": stats.failures,
            "tiled_stream_webhook_given_up_total": stats.given_up,
            "tiled_stream_webhook_pending": waiting,
            "tiled_stream_webhook_lag_seconds": lag,
        }


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("The dispatcher of webhooks died; events are kept", exc_info=task.exception())
