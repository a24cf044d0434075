"""Compares what log, catalog and storage know of each node, and has the log apply again what one of them lacks.

Runs at start, when a reader finds a storage behind the catalog, and when the catalog's revision goes back while the server
runs: a backup was restored. What the log still has is applied again by the persister; what it has no more is recorded as lost.

What must stay true: nothing is ever taken for persisted here (I4). A node is only *reopened*: its watermark in the log goes
back to what catalog and storage really hold.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from ..catalog.port import Catalog, Loss, Reached
from ..domain.errors import Gone, Unavailable
from ..domain.nodes import NodeId
from ..log.port import LogEngine, NodeState
from ..storage.stores import Stores
from .apply import Apply

__all__ = ["ReconcileStats", "Reconciler"]

logger = logging.getLogger(__name__)

_NOTHING = Reached(0, 0, 0)
#: Suspected nodes that wait to be compared, at most; those beyond are suspected again by their next reader.
_MAX_SUSPECTS = 10_000


class ReconcileStats(msgspec.Struct):
    """`reopened`: nodes that catalog or storage had less of than the log says. `lost_nodes`: nodes with losses that are not
    accepted."""

    reopened: int = 0
    lost_nodes: int = 0


class Reconciler:
    """One a process. `interval`: seconds between looks at the catalog's revision and at its losses.

    `on_change` is called when nodes were reopened or when the set of nodes with losses has changed.
    """

    def __init__(
        self,
        log: LogEngine,
        catalog: Catalog,
        stores: Stores,
        apply: Apply,
        *,
        on_change: Callable[[], None] = lambda: None,
        interval: float = 5.0,
    ) -> None:
        self._log = log
        self._catalog = catalog
        self._stores = stores
        self._apply = apply
        self._on_change = on_change
        self._interval = interval
        self._revision = 0
        self._lost: frozenset[NodeId] = frozenset()
        self._suspects: dict[NodeId, None] = {}
        self._wake = asyncio.Event()
        self._is_stopping = False
        self.stats = ReconcileStats()

    def suspect(self, node: NodeId) -> None:
        """Compare this node soon: its reader has found the storage behind the catalog."""
        if len(self._suspects) < _MAX_SUSPECTS:
            self._suspects[node] = None
            self._wake.set()

    async def run(self, *, is_new_storage: bool = False) -> None:
        """Compare at start, then watch until `stop`. `is_new_storage`: a storage was begun anew; all nodes are compared."""
        is_begun = False
        while not self._is_stopping:
            try:
                if not is_begun:
                    await self._at_start(is_new_storage)
                    is_begun = True
                await self._watch()
                await self._compare_suspects()
            except Unavailable as error:
                logger.info("Log, catalog and storage cannot be compared now, it is tried again: %s", error)
            except Exception:  # a supervisor: readers compare for themselves meanwhile
                logger.exception("Comparing log, catalog and storage failed; it is tried again")
            self._wake.clear()
            if not self._suspects and not self._is_stopping:
                try:
                    async with asyncio.timeout(self._interval):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def stop(self) -> None:
        """Ask `run` to end."""
        self._is_stopping = True
        self._wake.set()

    async def _at_start(self, is_new_storage: bool) -> None:
        """Nodes with records in the log, or all of them if a backup was restored since the log heard of the catalog last."""
        remembered = await self._log.remembered()
        revision = await self._catalog.revision()
        await self.compare(is_all=is_new_storage or revision < remembered)
        self._revision = revision

    async def _watch(self) -> None:
        """Notice a catalog that went back, and losses that other processes have found."""
        revision = await self._catalog.revision()
        if revision < self._revision:
            logger.warning(
                "The catalog went back from revision %d to %d: it was restored from a backup. What the "
                "log still has is applied again.",
                self._revision,
                revision,
            )
            await self.compare(is_all=True)
        if revision != self._revision:
            await self._log.remember(revision)
        self._revision = revision
        losses = await self._catalog.losses()
        self._note_losses(losses)

    def _note_losses(self, losses: Sequence[Loss]) -> None:
        lost = frozenset(loss.node for loss in losses)
        self.stats.lost_nodes = len(lost)
        if lost != self._lost:
            self._lost = lost
            self._on_change()

    async def compare(self, *, is_all: bool) -> int:
        """Compare the nodes that have records in the log, or all that it knows. Returns how many were reopened."""
        reopened = 0
        async for page in self._log.states(retained=not is_all):
            if self._is_stopping:
                break
            reopened += await self._compare(page)
        if reopened:
            logger.warning("Catalog or storage had less than the log says of %d nodes; they are persisted again.", reopened)
        return reopened

    async def _compare_suspects(self) -> None:
        suspects, self._suspects = list(self._suspects), {}
        if not suspects:
            return
        heads = await self._log.heads(suspects)
        reached = await self._catalog.reached(suspects)
        states = [
            # The log need not know more than the catalog does; what it has is found by reopening.
            NodeState(node, max(head, known.watermark), 0, head)
            for node, head, known in zip(suspects, heads, reached, strict=True)
            if head is not None and known is not None
        ]
        await self._compare(states)

    async def _compare(self, states: Sequence[NodeState]) -> int:
        states = [state for state in states if state.settled > 0]
        if not states:
            return 0
        nodes = [state.node for state in states]
        reached = await self._catalog.reached(nodes)
        held = await self._stores.watermarks(nodes)
        reopened = 0
        for state, known, of_store in zip(states, reached, held, strict=True):
            known = known or _NOTHING
            persisted = known.watermark
            if of_store is not None and of_store < known.stored and not known.lost:
                persisted = min(persisted, of_store)  # the storage was restored, or begun anew
            if persisted < state.settled:
                reopened += 1
                await self._reopen(state, persisted)
        self.stats.reopened += reopened
        if reopened:
            self._on_change()
        return reopened

    async def _reopen(self, state: NodeState, persisted: int) -> None:
        try:
            first = await self._log.reopen(state.node, persisted)
        except Gone:
            return
        if first > state.head or state.head <= persisted:  # the log has nothing of what is missing
            await self._apply.record_loss(state.node, max(state.settled, state.head))
