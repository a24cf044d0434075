"""A store that does not hold what it should: less than the catalog says, or more than the log ever had.

It was restored from a backup, begun anew, or it outlived catalog and log. What must stay true: the catalog never moves past
a store that is behind (I4), and nothing that was acknowledged is skipped in silence (I6).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ..catalog.port import Loss
from ..domain.errors import Truncated, Unavailable
from ..domain.events import Draft, Record
from ..domain.nodes import NodeId
from ..log.port import Log
from ..storage.port import FENCED
from ..storage.stores import Stores
from .data_writer import DataWriter, Pending, concerns_storage
from .losses import STORAGE_BEHIND, lost_records, ranges_of
from .work import RECORD_BYTES, RECORD_LIMIT, Work

__all__ = ["CatchUp"]

logger = logging.getLogger(__name__)

#: Makes losses of ranges of a node's records, with the reason.
Losses = Callable[[NodeId, Sequence[tuple[int, int]], str], tuple[Loss, ...]]


class CatchUp:
    """`count`: stores that were behind; `reapplied`: records that were applied to them again."""

    def __init__(self, log: Log, stores: Stores, data: DataWriter, losses: Losses) -> None:
        self._log = log
        self._stores = stores
        self._data = data
        self._losses = losses
        self.count = 0
        self.reapplied = 0

    async def is_needed(self, item: Work, answer: int | None) -> bool:
        """Is the store behind? `answer`: what it said to the batch; None if it was not asked, for then only the lease tells."""
        stored = item.known.stored
        if answer is not None:
            return answer < max(stored, item.last)
        if not stored or item.lease.after >= stored:
            return False
        held = await self._stores.watermark(item.known.node)
        return held is not None and held < stored

    async def run(self, item: Work) -> int:
        """Apply to the store what the log still has of the records it lacks; the rest is lost, and added to the losses of `item`.

        Returns the store's watermark, or `FENCED`. `Unavailable` if it does not take them.
        """
        known, node = item.known, item.known.node
        held = await self._stores.watermark(node)
        assert held is not None  # its store has just answered
        target = max(known.stored, item.last)
        self.count += 1
        logger.warning("The storage of node %s has its records up to %d, not %d: applying them again.", node.id, held, target)
        while held < target:
            records, lost = await self._after(node.id, held, target)
            concerned = range(lost.start, min(lost.stop, known.stored + 1))
            item.losses += self._losses(node.id, ranges_of(concerned), STORAGE_BEHIND)
            pending = Pending(node, known.watermark, held, item.lease.fence, records, is_forced=True)
            answer = (await self._data.apply([pending]))[0]
            if isinstance(answer, Unavailable):
                raise answer
            if answer == FENCED:
                return FENCED
            if answer is None or answer <= held:
                raise Unavailable(f"The storage of node {node.id} does not take records after {held}; it is tried again.")
            self.reapplied += len(records) - len(lost)
            held = answer
        return held

    async def append_again(self, item: Work) -> None:
        """The store holds more than the log ever had: an older log was lost, and its sequences were given again.

        The store has skipped these records for old ones. They are appended again behind what it holds, so that nothing is lost.
        """
        drafts = [Draft(r.event, r.time, r.payload) for r in item.records if concerns_storage(r)]
        if drafts:
            await self._log.append(item.lease.node, *drafts, floor=item.stored)
            logger.error(
                "The storage of node %s has records up to %d, the log only up to %d: %d records were appended again behind them. "
                "Was the catalog restored together with an empty log?",
                item.lease.node,
                item.stored,
                item.lease.head,
                len(drafts),
            )

    async def _after(self, node: NodeId, held: int, target: int) -> tuple[tuple[Record, ...], range]:
        """Records after `held` up to `target`, and which of them are lost: those that the log does not have any more."""
        try:
            found = await self._log.read(node, held, limit=RECORD_LIMIT, max_bytes=RECORD_BYTES)
        except Truncated as error:
            lost = range(held + 1, min(error.first, target + 1, held + 1 + RECORD_LIMIT))
            return lost_records(lost), lost
        if not found:  # an emptied log: it ends before the catalog
            lost = range(held + 1, min(target + 1, held + 1 + RECORD_LIMIT))
            return lost_records(lost), lost
        return tuple(record for record in found if record.sequence <= target), range(0)
