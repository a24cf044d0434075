"""Everything of one server that has to do with persisting: persister, reconciler, barrier, and the check of readers.

What must stay true: after `finish` no task is left (I9). What could not be persisted by then stays in the log (I6).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

from ..catalog.port import CatalogBatch
from ..domain.errors import Unavailable
from ..log.port import Retention
from ..nodes.barrier import Barrier
from ..persist.apply import Apply
from ..persist.persister import Persister
from ..persist.quarantine import Quarantine
from ..persist.reconcile import Reconciler
from ..query.completeness import Completeness
from ..storage.stores import Stores
from .engines import Engines, Places
from .identities import Mismatches
from .settings import Settings

__all__ = ["Persistence"]

logger = logging.getLogger(__name__)


class Persistence:
    """`notify` is called with each batch before the watermark of the catalog moves; `forget` when what this process remembers of
    nodes may be wrong."""

    def __init__(
        self,
        settings: Settings,
        places: Places,
        engines: Engines,
        *,
        mismatches: Mismatches,
        notify: Callable[[Sequence[CatalogBatch]], Awaitable[None]] | None,
        forget: Callable[[], None],
    ) -> None:
        log, catalog, root = engines.log, engines.catalog, engines.root
        self._settings = settings
        self._log = log
        self._mismatches = mismatches
        self._forget_nodes = forget
        self._tasks: list[asyncio.Task[None]] = []
        self.stores = Stores(arrays=engines.arrays, parts=engines.parts, tables=engines.tables)
        self.quarantine = Quarantine(places.quarantine)
        self.barrier = Barrier(log, timeout=settings.barrier_timeout_seconds, reason=lambda: self.persister.stats.failing_because)
        self.complete = Completeness(
            catalog,
            self.stores,
            state=lambda: (log.epoch, root.changes if root is not None else 0),
            suspect=lambda node: self.reconciler.suspect(node),
        )
        self._apply = Apply(
            log,
            catalog,
            stores=self.stores,
            quarantine=self.quarantine,
            now=time.time,
            notify=notify,
            on_loss=self._forget,
        )
        self.reconciler = Reconciler(log, catalog, self.stores, self._apply, on_change=self._forget)
        self.persister = Persister(
            log,
            self._apply,
            worker=uuid4().hex,
            retention=Retention(
                node_bytes=settings.cache_node_bytes,
                total_bytes=settings.cache_total_bytes,
                seconds=settings.cache_data_ttl,
            ),
            now=time.time,
            linger=settings.persist_linger_seconds,
        )

    def start(self, *, is_new_storage: bool) -> None:
        """Compare log, catalog and storage, and begin to persist, unless other processes do.

        `is_new_storage`: a storage is not the one that the catalog knew.
        """
        work = [("reconciler", self.reconciler.run(is_new_storage=is_new_storage))]
        if self._settings.persist:
            work.append(("persister", self.persister.run()))
        for name, run in work:
            task = asyncio.create_task(run, name=name)
            task.add_done_callback(_report)
            self._tasks.append(task)

    async def finish(self) -> None:
        """End after the round that is under way, then persist what is pending; a shared log is left to the other servers."""
        self.reconciler.stop()
        self.persister.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if not self._tasks or not self._settings.persist or self._settings.is_shared_log:
            return
        if not await self.persister.finish(seconds=self._settings.drain_timeout_seconds):
            logger.warning("Stopped before everything was persisted; the rest stays in the log.")

    async def check_ready(self) -> None:
        """`Unavailable` with the reason while this server should get no traffic."""
        if self._settings.persist and (not self._tasks or self._tasks[-1].done()):
            raise Unavailable("The persister does not run.")
        if self._settings.is_shared_log:
            return  # a log or a storage that is unreachable or behind concerns all servers alike: each answers 429 or 503 itself
        oldest = (await self._log.lag()).oldest
        if oldest is not None and time.time() - oldest > self._settings.ready_backlog_seconds:
            raise Unavailable("Storage is behind: writes go into the log but are not persisted.")

    def figures(self) -> dict[str, float]:
        """For metrics."""
        done, applied, compared = self.persister.stats, self._apply.stats, self.reconciler.stats
        return {
            "tiled_stream_persisted_records_total": done.records,
            "tiled_stream_persist_rounds_total": done.rounds,
            "tiled_stream_persist_seconds_total": done.seconds,
            "tiled_stream_persist_failures_total": done.failures,
            "tiled_stream_quarantined_records_total": self.quarantine.count,
            "tiled_stream_lost_records_total": applied.lost,
            "tiled_stream_lost_nodes": compared.lost_nodes,
            "tiled_stream_fenced_batches_total": applied.fenced,
            "tiled_stream_storage_behind_total": applied.behind,
            "tiled_stream_reapplied_records_total": applied.reapplied,
            "tiled_stream_reopened_nodes_total": compared.reopened,
            "tiled_stream_identity_mismatches_total": self._mismatches.count,
        }

    def _forget(self) -> None:
        """What was persisted may not be any more: a backup was restored, or something was lost."""
        self._forget_nodes()
        self.barrier.forget()
        self.complete.forget()


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("The %s died; writes are kept in the log", task.get_name(), exc_info=task.exception())
