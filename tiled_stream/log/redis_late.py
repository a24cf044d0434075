"""A server that was paused or cut off while the others healed the log: its acknowledged records are appended again if they are
not in the log. They get new sequences, in another epoch; the earlier ones were announced as lost, or have never been seen by
the other servers.

What must stay true: an acknowledged record is in the log once, or is persisted (I6).
"""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

from ..domain.errors import Unavailable
from ..domain.nodes import NodeId
from .port import Persisted
from .redis_appends import Append, Appends
from .redis_keep import Keep, Kept
from .redis_life import AliveLink, RedisLife
from .redis_link import Script

__all__ = ["Late"]

logger = logging.getLogger(__name__)

#: Pause before what failed is tried again, seconds.
_PAUSE = 0.5


class Late:
    """`persisted`: the catalog, None if it cannot be asked."""

    def __init__(self, questions: AliveLink, base: str, *, life: RedisLife, keep: Keep, appends: Appends) -> None:
        self._questions = questions
        self._base = base
        self._life = life
        self._keep = keep
        self._appends = appends
        self._begin = Script("begin")
        self.persisted: Persisted | None = None
        self.healed = 0

    async def restore(self, epoch: str, *, is_next: bool) -> None:
        """Until no stray is left. `epoch`: in which they were acknowledged; `is_next`: the generation in force follows theirs."""
        strays = self._keep.strays
        logger.warning("This server missed that the log was restored; it looks for %d records of its own.", len(strays))
        before = self.healed
        while strays:
            node, kept = strays[0]
            try:
                if not await self._is_settled(node, kept, is_next=is_next):
                    await self._append(node, kept, epoch)
            except Unavailable as error:
                logger.info("Records that were missed cannot be appended now, they are kept: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            strays.pop(0)
        logger.warning("%d records that the others had missed were appended again.", self.healed - before)

    async def _is_settled(self, node: NodeId, kept: Kept, *, is_next: bool) -> bool:
        """Whether nothing is to be done: it is persisted, or in the log at its sequence, or its node was dropped."""
        head, state = await self._questions.ask_all(
            [("GET", f"{self._base}h:{node}"), ("HMGET", f"{self._base}n:{node}", "s", "a", "g", "o")]
        )
        if head == b"-":
            return True
        if head is None:
            return kept.sequence <= (await self._watermark(node))
        settled, first = int(state[0] or 0), int(state[1] or 1)
        is_touched = state[2] is not None and state[2].decode() == self._life.generation
        intact = int(state[3] or 0) if is_touched else int(head)
        if (is_next and kept.sequence <= intact) or await self._is_there(node, kept, first, int(head)):
            if kept.sequence > settled:
                self._keep.put_back(node, kept)
            return True
        return False

    async def _is_there(self, node: NodeId, kept: Kept, first: int, head: int) -> bool:
        """Whether the log has this very record at its sequence."""
        if not first <= kept.sequence <= head:
            return False
        id = f"{kept.sequence}-0"
        records, payloads = await self._questions.ask_all(
            [("XRANGE", f"{self._base}r:{node}", id, id), ("XRANGE", f"{self._base}p:{node}", id, id)]
        )
        if not records:
            return False
        pairs = records[0][1]
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        payload = fields.get(b"p", fields.get(b"c", payloads[0][1][1] if payloads else None))
        draft = kept.draft
        return (float(fields[b"t"]), fields[b"e"], payload) == (draft.time, draft.event, draft.payload)

    async def _append(self, node: NodeId, kept: Kept, epoch: str) -> None:
        if self._life.epoch == epoch:  # the others did not know of this server: what it acknowledged is not there
            now = await self._questions.run(self._begin, self._base, epoch, uuid4().hex)
            self._life.live_in(now.decode())
        known = self._keep.known.get(node)
        floor = await self._watermark(node)
        seen, seen_in = (known.head, known.epoch) if known is not None else (0, "")
        append = Append(node, [kept.draft], None, floor, max(seen, 0), seen_in, self._life.epoch, {}, kept.size)
        done = await self._appends.append(append)
        if done.outcome == "ok":
            self.healed += 1
        elif done.outcome != "gone":
            raise Unavailable("Redis lost its latest records once more.")

    async def _watermark(self, node: NodeId) -> int:
        return 0 if self.persisted is None else (await self.persisted([node]))[0]
