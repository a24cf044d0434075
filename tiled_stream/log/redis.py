"""The shared engine of the log: streams in a Redis or Valkey, for any number of processes at once.

`lua/prelude.lua` lists the keys. A record lies in the stream of its node under the id ``<sequence>-0``; a sequence and its record
are born in one script, which also enters the backlog and publishes the hint. All keys carry the prefix of the deployment.

A process has four connections, however many clients it has: for appends, for questions, for pages of records, for hints. It keeps
what it has appended until that is persisted, so that the log can be restored (`redis_heal.py`).

What must stay true: sequences are dense and never restart (I1), also when Redis was emptied: nothing is read from or written to a
Redis that is not known to hold the whole log. Only settled records leave (I6). Nothing here counts on a hint having come.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence

from redis.exceptions import RedisError

from ..domain.errors import Conflict, EpochChanged, Gone, Truncated, Unavailable
from ..domain.events import Draft, Record
from ..domain.nodes import NodeId
from ..domain.position import Position
from .claims import Claims
from .port import UNGUARDED, Lag, Lease, NodeState, Persisted, Retention
from .redis_appends import Append
from .redis_backlog import REMEMBER, RedisBacklog, closed
from .redis_check import check, figures
from .redis_claims import RedisClaims
from .redis_connect import Connect
from .redis_connection import Connection
from .redis_hints import Hints
from .redis_life import AliveLink, RedisLife
from .redis_link import Link, Script, unavailable
from .redis_member import Member, head_of
from .redis_pages import Pages, cut

__all__ = ["RedisLog"]

logger = logging.getLogger(__name__)

#: Seconds for which Redis may be away before callers get an error.
_PATIENCE = 5.0
#: Bytes of records that a process keeps to restore a log, at most.
_KEEP = 256 << 20


class RedisLog:
    """`connect` gives a new client; `prefix` tells deployments apart; `patience`: seconds that Redis may be away unnoticed.

    `synced`: an append is acknowledged when it is on the server's disk. `strict`: refuse a Redis that may forget.
    `is_temporary`: all keys under the prefix go when the log is closed. `claims`: where large bodies rest; None: in Redis.
    `keep_bytes`: how much of what was appended and is not persisted is kept in memory, to restore a Redis that lost it.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        prefix: str = "tiled-stream",
        synced: bool = False,
        strict: bool = False,
        is_temporary: bool = False,
        patience: float = _PATIENCE,
        claims: Claims | None = None,
        keep_bytes: int = _KEEP,
    ) -> None:
        self._prefix = prefix
        self._base = f"{{{prefix}}}:"
        self._is_temporary = is_temporary
        self._synced = synced
        self._strict = strict
        self._patience = patience
        self._life = life = RedisLife()
        self._links = [
            Link(Connection(connect(), seconds=patience), patience=patience),
            Link(Connection(connect(), seconds=4 * patience), patience=patience),
        ]
        self._questions, self._pages = (AliveLink(link, self._base, life, patience=patience) for link in self._links)
        self._member = Member(
            self._links[0],
            Connection(connect(), seconds=2 * patience),
            self._base,
            life=life,
            patience=patience,
            synced=synced,
            keep_bytes=keep_bytes,
            remember=REMEMBER,
        )
        self._appends, self._keep = self._member.appends, self._member.keep
        self._claims = RedisClaims(claims, self._questions, self._base)
        self._records = Pages(self._pages, self._claims, self._base)
        self._backlog = RedisBacklog(
            self._questions,
            self._base,
            heads=self._heads,
            unclaimed=self._claims.drop,
            claimed=lambda lease: self._keep.know(lease.node, life.epoch, lease.head),
            settled=self._keep.settle,
            lost=self._member.lost,
        )
        self._hints = Hints(connect(), self._base, heads=self._heads, rung=self._backlog.rung, alarmed=self._member.look)
        self._drop_script = Script("drop")
        self._is_closed = False

    @property
    def epoch(self) -> str:
        """Which life of the log this is, as this process last heard."""
        return self._life.epoch

    async def open(self) -> None:
        """Connect, and check that this Redis is fit. `Unavailable` with the reason if it cannot be reached or is refused."""
        try:
            for warning in await check(self._links[0], strict=self._strict, synced=self._synced):
                logger.warning(warning)
            await self._member.join()
            await self._hints.open()
        except BaseException as error:
            await self.close()
            if isinstance(error, RedisError | OSError):
                raise unavailable(error) from error
            raise

    async def close(self) -> None:
        """Send what waits, wake all waiters, leave no connection. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._backlog.close()
        await self._member.leave(is_said=not self._is_temporary)
        await self._hints.close()
        if self._is_temporary:
            await self._delete_all()
        for link in self._links:
            await link.close()

    async def bind(self, catalog: str, persisted: Persisted) -> None:
        """See `LogEngine`: two catalogs cannot share a prefix, or a new one take over the log of one that was thrown away."""
        self._check_open()
        bound = await self._member.bind(catalog, persisted)
        if bound != catalog:
            raise Unavailable(
                f"The log in Redis under the prefix {self._prefix!r} belongs to another catalog "
                f"(deployment {bound}, not {catalog}). "
                "Choose another cache_prefix; or, if that catalog is gone for good, delete the keys under the prefix."
            )

    async def figures(self) -> dict[str, float]:
        """For metrics: bytes of retained records, memory of the server, errors of this process."""
        self._check_open()
        retained = await self._questions.ask("GET", f"{self._base}bytes")
        memory = await figures(self._links[0])
        errors = sum(link.errors for link in self._links) + self._appends.errors + self._hints.errors
        return {
            "tiled_stream_log_bytes": float(retained or 0),
            "tiled_stream_redis_used_memory_bytes": memory["used_memory"],
            "tiled_stream_redis_max_memory_bytes": memory["maxmemory"],
            "tiled_stream_redis_errors_total": float(errors),
            "tiled_stream_redis_claims_total": float(self._claims.bodies),
            "tiled_stream_redis_claimed_bytes_total": float(self._claims.bytes),
            **self._member.figures(),
        }

    # ---------------------------------------------------------------- Log

    async def append(
        self,
        node: NodeId,
        *drafts: Draft,
        expected: int | None = None,
        floor: int = 0,
        guards: Mapping[NodeId, int] = UNGUARDED,
    ) -> Position:
        self._check_open()
        if not drafts:
            raise ValueError("nothing to append")
        encoded = await self._claims.encoded(node, drafts)
        size = sum(len(draft.event) + len(draft.payload) for draft in encoded)
        await self._member.confirm()
        known = self._keep.known.get(node)
        seen, seen_in = (max(known.head, 0), known.epoch) if known is not None else (0, "")
        done = await self._appends.append(Append(node, encoded, expected, floor, seen, seen_in, self._life.epoch, guards, size))
        if done.outcome != "ok":
            await self._claims.give_back(node, encoded)
        if done.outcome == "gone":
            raise Gone(f"The node {node} was deleted.")
        if done.outcome == "moved":
            raise Conflict("What this was decided by has moved meanwhile.")
        if done.outcome == "conflict":
            raise Conflict(f"The log stands at {done.sequence}, not at {expected}.", head=done.sequence)
        if done.outcome == "lost":
            raise Unavailable("Redis lost its latest records (was there a failover?). Try again.", retry_after=0.1)
        return Position(done.epoch, done.sequence)

    async def read(
        self,
        node: NodeId,
        after: int,
        *,
        limit: int = 1000,
        max_bytes: int = 16 << 20,
        epoch: str | None = None,
        headers: bool = False,
    ) -> list[Record]:
        self._check_open()
        after = max(after, 0)
        while True:
            seen = self._member.seen([node])
            entries, heads, first = await self._pages.ask_all(
                [
                    ("XRANGE", f"{self._base}r:{node}", f"{after + 1}-0", "+", "COUNT", limit),
                    ("MGET", f"{self._base}epoch", f"{self._base}h:{node}"),
                    ("HGET", f"{self._base}n:{node}", "a"),
                ]
            )
            if not await self._member.is_behind(heads[0], [node], heads[1:], seen):
                break
        head = head_of(heads[1])
        if head is None:
            self._keep.drop(node)
            raise Gone(f"The node {node} was deleted.")
        if epoch is not None and epoch != self._life.epoch:
            raise EpochChanged(self._life.epoch)
        found = [(int(id.split(b"-")[0]), fields) for id, fields in entries]
        begins = found[0][0] if found else int(first or 1)
        if after < head and begins > after + 1:
            raise Truncated(begins)
        return await self._records.records(node, cut(found, max_bytes), headers=headers)

    async def head(self, node: NodeId) -> Position:
        sequence = (await self.heads([node]))[0]
        if sequence is None:
            raise Gone(f"The node {node} was deleted.")
        return Position(self._life.epoch, sequence)

    async def heads(self, nodes: Sequence[NodeId]) -> list[int | None]:
        self._check_open()
        return await self._heads(nodes)

    async def wait(self, node: NodeId, after: int) -> None:
        self._check_open()
        with self._hints.watching(node) as watch:
            await watch.confirmed.wait()
            if not watch.is_based and not self._is_closed:
                # Asked after the server confirmed the subscription: what happens later is told.
                watch.is_based = True
                try:
                    head = (await self._heads([node]))[0]
                except BaseException:
                    watch.is_based = False
                    raise
                if head is None:
                    return
                watch.told(head=head)
            if watch.head <= after and watch.is_based and not self._is_closed:
                await watch.changed()

    async def drop(self, *nodes: NodeId) -> None:
        self._check_open()
        if nodes:
            await self._questions.run(self._drop_script, self._base, REMEMBER, *nodes)
            for node in nodes:
                self._keep.drop(node)
            await self._claims.drop_nodes(nodes)

    # ------------------------------------------------------------- Backlog

    async def claim(self, worker: str, *, ttl: float, limit: int = 1) -> list[Lease]:
        self._check_open()
        return await self._backlog.claim(worker, ttl=ttl, limit=limit)

    async def renew(self, lease: Lease, *, ttl: float) -> None:
        self._check_open()
        await self._backlog.renew(lease, ttl=ttl)

    async def settle(self, lease: Lease, watermark: int) -> bool:
        self._check_open()
        return await self._backlog.settle(lease, watermark)

    async def release(self, lease: Lease, *, delay: float = 0.0) -> None:
        await self._backlog.release(lease, delay=delay)

    async def reached(self, node: NodeId, sequence: int) -> None:
        self._check_open()
        await self._backlog.reached(node, sequence, self._hints)

    async def raise_fences(self, above: int) -> None:
        self._check_open()
        await self._backlog.raise_fences(above)

    async def reopen(self, node: NodeId, watermark: int) -> int:
        self._check_open()
        return await self._backlog.reopen(node, watermark)

    def states(self, *, retained: bool = True) -> AsyncIterator[list[NodeState]]:
        self._check_open()
        return self._backlog.states(retained=retained)

    async def remembered(self) -> int:
        self._check_open()
        return await self._backlog.remembered()

    async def remember(self, revision: int) -> None:
        self._check_open()
        await self._backlog.remember(revision)

    async def wait_dirty(self, *, linger: float = 0.0) -> None:
        self._check_open()
        await self._backlog.wait_dirty(linger=linger)

    async def dirty(self) -> list[tuple[NodeId, int]]:
        self._check_open()
        return await self._backlog.dirty()

    async def lag(self) -> Lag:
        self._check_open()
        return await self._backlog.lag()

    async def trim(self, policy: Retention, *, now: float, nodes: Sequence[NodeId] | None = None) -> int:
        self._check_open()
        if nodes is None:
            await self._claims.sweep()
        return await self._backlog.trim(policy, now=now, nodes=nodes)

    # --------------------------------------------------------------- inside

    async def _heads(self, nodes: Sequence[NodeId]) -> list[int | None]:
        if not nodes:
            return []
        while True:
            seen = self._member.seen(nodes)
            keys = [f"{self._base}epoch", *(f"{self._base}h:{node}" for node in nodes)]
            epoch, *values = await self._questions.values(keys)
            if not await self._member.is_behind(epoch, nodes, values, seen):
                return [head_of(value) for value in values]

    async def _delete_all(self) -> None:
        """Leave nothing of this log in Redis."""
        cursor = b"0"
        with contextlib.suppress(Unavailable):  # then it stays, and does no harm
            while True:
                cursor, keys = await self._links[0].ask("SCAN", cursor, "MATCH", f"{self._base}*", "COUNT", 1000)
                if keys:
                    await self._links[0].ask("UNLINK", *keys)
                if cursor == b"0":
                    return

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed()
