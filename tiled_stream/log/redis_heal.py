"""Healing: after Redis was emptied, restarted, replaced or taken over by a replica, the servers restore what it lost.

The first server that notices opens a *round*. Each server gives what it keeps and this Redis lacks; the round closes when all
servers that were alive have given, or at its deadline. Then one of them restores node by node, which may be done twice, and
another one goes on if it dies. Every step is one script, so that any number of servers can be anywhere in it.

What must stay true: a sequence that a server has seen is never given to another record in the same epoch (I1, I2). What cannot
be restored is a `RecordLost` at its sequence, and the epoch is another one (I3).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from ..domain.errors import Unavailable
from ..domain.events import RecordLost
from ..domain.nodes import ROOT, NodeId
from .codec import encode_event
from .port import Persisted
from .redis_appends import Appends, Encoded
from .redis_keep import DROPPED, Keep
from .redis_life import RedisLife
from .redis_link import LifeLost, Link, Script

__all__ = ["Healing"]

logger = logging.getLogger(__name__)

#: Milliseconds until a round closes without servers that were alive; less than the patience of those who wait for it.
_DEADLINE = 4000
#: Milliseconds that a server which just began waits for servers that know of an earlier life.
_WINDOW = 3000
#: Bytes that one script call carries, about; records that one script restores, and nodes that are asked for at once.
_CHUNK = 1 << 20
_RECORDS = 500
_NODES = 500
#: Seconds that the catalog may take; another server takes a round over after two.
_CATALOG_SECONDS = 1.5
#: Pauses between looks at a round, in seconds.
_FIRST_PAUSE, _LAST_PAUSE = 0.01, 0.1


class Healing:
    """`remember`: seconds for which Redis remembers clean nodes. `on_ended` is called with whether this server took part."""

    def __init__(self, link: Link, base: str, *, life: RedisLife, keep: Keep, appends: Appends, remember: int) -> None:
        self._link = link
        self._base = base
        self._life = life
        self._keep = keep
        self._appends = appends
        self._remember = remember
        names = ("heal_open", "heal_give", "heal_step", "heal_nodes", "heal_end", "bind", "confirm")
        self._scripts = {name: Script(name) for name in names}
        self.server = uuid4().hex
        #: Servers that were alive when this one looked last.
        self.peers: set[str] = set()
        self._catalog = ""
        self._persisted: Persisted | None = None
        # The last round to which this server gave everything.
        self._given = ""
        self._must_replace = False
        #: Set when records have to be appended again: the epoch in which they were, and whether the generation in force is
        #: the next one.
        self.missed: tuple[str, bool] | None = None
        self.heals = 0
        self.healed = 0
        self.lost = 0

    async def bind(self, catalog: str, persisted: Persisted) -> str:
        """Belong to this deployment; returns the one that the log belongs to. Waits for other servers if the log seems new
        and the catalog is not."""
        self._catalog, self._persisted = catalog, persisted
        if self._life.is_fresh and await self._is_old_catalog():
            self._must_replace = True
            loop = asyncio.get_running_loop()
            await self._life.heal(loop.time() + (_DEADLINE + _WINDOW) / 1000)
        return str((await self._run("bind", catalog, life=True)).decode())

    async def confirm(self) -> None:
        """Something is about to be done in a fresh life. `LifeLost` if it was replaced meanwhile."""
        await self._run("confirm", life=True)
        self._life.is_fresh = False

    async def run(self, node: NodeId, head: int) -> None:
        """Return when the log is whole. `node`, `head`: evidence that it is not, "" for none. `Unavailable` without Redis."""
        async with self._appends.gate:  # what was acknowledged is kept, and no append is on its way
            while True:
                window = _WINDOW if self._must_replace else 0
                kind, *answer = await self._texts(
                    "heal_open",
                    self._life.generation,
                    uuid4().hex,
                    _DEADLINE,
                    window,
                    node,
                    head,
                    "1" if self._must_replace else "",
                    uuid4().hex,
                )
                self._must_replace = False
                if kind == "alive":
                    with contextlib.suppress(LifeLost):  # Redis was lost once more
                        await self._adopt(*answer)
                        return
                    continue
                round_id, opened = answer
                if opened:
                    logger.warning("Redis was emptied, restarted or replaced: the servers restore the log (round %s).", round_id)
                if round_id != self._given and await self._give(round_id):
                    self._given = round_id
                await self._see_through(round_id)

    # --------------------------------------------------------------- inside

    async def _adopt(self, generation: str, epoch: str, previous: str, is_fresh: str, is_begun: str) -> None:
        """Take part in this generation from now on."""
        life = self._life
        if generation == life.generation:
            return
        was, was_fresh, took_part = life.generation, life.is_fresh, generation == self._given
        epoch_before = life.epoch
        life.live_in(epoch)
        life.generation, life.is_fresh = generation, is_fresh == "1"
        if was and not was_fresh and not took_part:
            self._keep.set_aside()
            if self._keep.strays:
                self.missed = (epoch_before, previous == was)
        if self._catalog:
            bound = (await self._run("bind", self._catalog, life=True)).decode()
            if bound != self._catalog:
                logger.error("The log in Redis belongs to deployment %s now, not to %s.", bound, self._catalog)

    async def _give(self, round_id: str) -> bool:
        """Give all that this Redis lacks. Whether the round took it."""
        if not await self._given_chunk(round_id, [], is_last=False):  # so that the round knows which servers to wait for
            return False
        chunk: list[object] = []
        size = 0
        nodes = list(self._keep.known)
        for begin in range(0, len(nodes), _NODES):
            page = nodes[begin : begin + _NODES]
            values = await self._link.ask("MGET", *(f"{self._base}h:{node}" for node in page))
            for node, value in zip(page, values, strict=True):
                if value == b"-":
                    self._keep.drop(node)
                    continue
                for part, bytes_of_it in self._gifts(node, int(value or 0)):
                    chunk += part
                    size += bytes_of_it
                    if size > _CHUNK:
                        if not await self._given_chunk(round_id, chunk, is_last=False):
                            return False
                        chunk, size = [], 0
        for part in self._doubts():
            if not await self._given_chunk(round_id, part, is_last=False):
                return False
        return await self._given_chunk(round_id, chunk, is_last=True)

    def _gifts(self, node: NodeId, stands: int) -> list[tuple[list[object], int]]:
        """What this server has of a node after sequence `stands`, in parts with their sizes."""
        known = self._keep.known[node]
        if known.head == DROPPED:
            return [([node, "-", 0, 0, "", 0], len(node))]
        records = [kept for kept in self._keep.records.get(node, ()) if kept.sequence > stands]
        if known.head <= stands and not records:
            return []
        parts: list[tuple[list[object], int]] = []
        head = max(known.head, records[-1].sequence if records else 0)
        while records or not parts:
            size, taken = 100, 0
            while taken < len(records) and size < _CHUNK:
                size += records[taken].size
                taken += 1
            part: list[object] = [node, head, known.settled, known.unkept, "", taken]
            for kept in records[:taken]:
                part += [kept.sequence, *_sent(kept.draft)]
            parts.append((part, size))
            del records[:taken]
        return parts

    def _doubts(self) -> Iterator[list[object]]:
        """Batches that were sent and not answered, node by node: the sequences of what they appended are unknown."""
        for token, appends in self._appends.doubtful.items():
            drafts: dict[NodeId, list[Encoded]] = {}
            for append in appends:
                drafts.setdefault(append.node, []).extend(append.drafts)
            for node, run in drafts.items():
                known = self._keep.known.get(node)
                part: list[object] = [node, known.own if known is not None else 0, 0, 0, token, len(run)]
                for number, draft in enumerate(run):
                    part += [number, *_sent(draft)]
                yield part

    async def _given_chunk(self, round_id: str, chunk: Sequence[object], *, is_last: bool) -> bool:
        life = self._life
        knows = bool(life.generation) and not life.is_fresh
        answer = await self._run(
            "heal_give",
            round_id,
            self.server,
            "1" if is_last else "",
            "1" if self._persisted else "",
            life.epoch if knows else "",
            life.generation if knows else "",
            len(self.peers),
            *self.peers,
            *chunk,
        )
        return bool(answer == b"ok")

    async def _see_through(self, round_id: str) -> None:
        """Until the round is over, by this server or by another."""
        pause, can_ask = _FIRST_PAUSE, "1" if self._persisted else ""
        while True:
            kind, *nodes = await self._texts("heal_step", round_id, self.server, can_ask, _NODES)
            if kind == "over":
                return
            if kind == "wait":
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)
            elif kind == "finish":
                await self._restore(round_id, nodes)
            else:
                await self._end(round_id)

    async def _restore(self, round_id: str, nodes: Sequence[NodeId]) -> None:
        watermarks = await self._watermarks(nodes)
        pairs = [value for pair in zip(nodes, watermarks, strict=True) for value in pair]
        event, now = encode_event(RecordLost()), repr(time.time())
        await self._run("heal_nodes", round_id, self.server, self._remember, _RECORDS, event, now, *pairs)

    async def _end(self, round_id: str) -> None:
        kind, *answer = await self._texts("heal_end", round_id, self.server, uuid4().hex)
        if kind == "ok":
            healed, lost, missing = map(int, answer)
            self.heals += 1
            self.healed += healed
            self.lost += lost
            logger.warning(
                "The log is whole again (round %s): %d records restored, %d lost; %d servers did not take part.",
                *(round_id, healed, lost, missing),
            )

    async def _watermarks(self, nodes: Sequence[NodeId]) -> Sequence[int]:
        """How far the catalog has persisted these nodes; 0 if it cannot be asked."""
        if self._persisted is not None:
            try:
                async with asyncio.timeout(_CATALOG_SECONDS):
                    return await self._persisted(nodes)
            except (Unavailable, TimeoutError) as error:
                logger.warning("The log is restored without the catalog, which cannot be asked: %s", error)
        return [0] * len(nodes)

    async def _is_old_catalog(self) -> bool:
        """Whether something was persisted already. If the catalog cannot tell: perhaps."""
        assert self._persisted is not None
        try:
            return (await self._persisted([ROOT]))[0] > 0
        except Unavailable:
            return True

    async def _texts(self, name: str, *arguments: Any) -> list[str]:
        return [part.decode() if isinstance(part, bytes) else str(part) for part in await self._run(name, *arguments)]

    async def _run(self, name: str, *arguments: Any, life: bool = False) -> Any:
        script = self._scripts[name]
        return await self._link.run(script, self._base, *arguments, life=self._life.of if life else None)


def _sent(draft: Encoded) -> tuple[object, ...]:
    """A draft as scripts take it."""
    return repr(draft.time), draft.event, draft.payload, draft.how
