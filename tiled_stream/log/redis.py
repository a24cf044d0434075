"""The shared engine of the log: streams in a Redis or Valkey, for any number of processes at once.

`lua/prelude.lua` lists the keys. A record lies in the stream of its node under the id ``<sequence>-0``; a sequence and its record
are born in one script, which also enters the backlog and publishes the hint. All keys carry the prefix of the deployment.

A process has four connections, however many clients it has: for appends, for questions, for pages of records, for hints.

What must stay true: sequences are dense and never restart (I1), also when Redis was emptied: the caller's floor and what this
process saw of the node's head are lower bounds, and another epoch says that it happened. Only settled records leave (I6). Nothing
here counts on a hint having come.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from uuid import uuid4

from redis.exceptions import RedisError

from ..domain.errors import BodyMissing, Conflict, EpochChanged, Gone, Truncated, Unavailable
from ..domain.events import Draft, Record
from ..domain.nodes import NodeId
from ..domain.position import Position
from .claims import Claims
from .codec import decode_event
from .port import UNGUARDED, Lag, Lease, Retention
from .redis_appends import Append, Appends
from .redis_backlog import REMEMBER, RedisBacklog, closed
from .redis_check import check, figures
from .redis_claims import RedisClaims
from .redis_connect import Connect
from .redis_connection import Connection
from .redis_hints import Hints
from .redis_link import Link, Script, unavailable

__all__ = ["RedisLog"]

logger = logging.getLogger(__name__)

#: Seconds for which Redis may be away before callers are told.
_PATIENCE = 5.0
#: Heads that this process remembers, to notice a log that lost some.
_KNOWN = 100_000


class RedisLog:
    """`connect` gives a new client; `prefix` tells deployments apart; `patience`: seconds that Redis may be away unnoticed.

    `synced`: an append is acknowledged when it is on the server's disk. `strict`: refuse a Redis that may forget.
    `is_temporary`: all keys under the prefix go when the log is closed. `claims`: where large bodies rest; None: in Redis.
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
    ) -> None:
        self._prefix = prefix
        self._base = f"{{{prefix}}}:"
        self._is_temporary = is_temporary
        self._synced = synced
        self._strict = strict
        self._questions = Link(Connection(connect(), seconds=patience), patience=patience)
        self._pages = Link(Connection(connect(), seconds=4 * patience), patience=patience)
        self._appends = Appends(
            Connection(connect(), seconds=2 * patience),
            self._base,
            remember=REMEMBER,
            patience=patience,
            synced=synced,
            new_epoch=_new_epoch,
        )
        self._claims = RedisClaims(claims, self._questions, self._base)
        self._backlog = RedisBacklog(self._questions, self._base, heads=self._heads, unclaimed=self._claims.drop)
        self._hints = Hints(connect(), self._base, heads=self._heads, rung=self._backlog.rung)
        self._begin_script, self._drop_script = Script("begin"), Script("drop")
        self._epoch = ""
        # The last sequence that this process saw of a node, and in which epoch.
        self._known: OrderedDict[NodeId, tuple[str, int]] = OrderedDict()
        self._is_closed = False

    @property
    def epoch(self) -> str:
        """Which life of the log this is, as this process last heard."""
        return self._epoch

    async def open(self) -> None:
        """Connect, and check that this Redis is fit. `Unavailable` with the reason if it cannot be reached or is refused."""
        try:
            for warning in await check(self._questions, strict=self._strict, synced=self._synced):
                logger.warning(warning)
            await self._begin()
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
        await self._appends.close()
        await self._hints.close()
        if self._is_temporary:
            await self._delete_all()
        await self._questions.close()
        await self._pages.close()

    async def bind(self, catalog: str) -> None:
        """See `LogEngine`: two catalogs cannot share a prefix, or a new one take over the log of one that was thrown away."""
        self._check_open()
        await self._questions.ask("SET", f"{self._base}catalog", catalog, "NX")
        bound = (await self._questions.ask("GET", f"{self._base}catalog")).decode()
        if bound != catalog:
            raise Unavailable(
                f"The log in Redis under the prefix {self._prefix!r} belongs to another catalog. Choose another cache_prefix; "
                "or, if that catalog is gone for good, delete the keys under the prefix."
            )

    async def figures(self) -> dict[str, float]:
        """For metrics: bytes of retained records, memory of the server, errors of this process."""
        self._check_open()
        retained = await self._questions.ask("GET", f"{self._base}bytes")
        memory = await figures(self._questions)
        errors = self._questions.errors + self._pages.errors + self._appends.errors + self._hints.errors
        return {
            "tiled_stream_log_bytes": float(retained or 0),
            "tiled_stream_redis_used_memory_bytes": memory["used_memory"],
            "tiled_stream_redis_max_memory_bytes": memory["maxmemory"],
            "tiled_stream_redis_errors_total": float(errors),
            "tiled_stream_redis_claims_total": float(self._claims.bodies),
            "tiled_stream_redis_claimed_bytes_total": float(self._claims.bytes),
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
        known_epoch, known = self._known.get(node, ("", 0))
        done = await self._appends.append(Append(node, encoded, expected, floor, known, known_epoch, self._epoch, guards, size))
        self._live_in(done.epoch)
        if done.outcome != "ok":
            await self._claims.give_back(node, encoded)
        if done.outcome == "gone":
            raise Gone(f"The node {node} was deleted.")
        if done.outcome == "moved":
            raise Conflict("What this was decided by has moved meanwhile.")
        if done.outcome == "conflict":
            raise Conflict(f"The log stands at {done.sequence}, not at {expected}.", head=done.sequence)
        if done.outcome == "lost":
            raise Unavailable(
                "Redis lost its latest records (was there a failover?); a new epoch began. Try again.", retry_after=0.1
            )
        self._know(node, done.epoch, done.sequence)
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
        known = self._known.get(node)
        entries, heads, first = await self._pages.ask_all(
            [
                ("XRANGE", f"{self._base}r:{node}", f"{after + 1}-0", "+", "COUNT", limit),
                ("MGET", f"{self._base}epoch", f"{self._base}h:{node}"),
                ("HGET", f"{self._base}n:{node}", "a"),
            ]
        )
        head = _head(heads[1])
        await self._check_epoch(heads[0], node, heads[1], known)
        if head is None:
            raise Gone(f"The node {node} was deleted.")
        if epoch is not None and epoch != self._epoch:
            raise EpochChanged(self._epoch)
        self._know(node, self._epoch, head)
        found = [(int(id.split(b"-")[0]), fields) for id, fields in entries]
        begins = found[0][0] if found else int(first or 1)
        if after < head and begins > after + 1:
            raise Truncated(begins)
        return await self._records(node, _page(found, max_bytes), headers=headers)

    async def head(self, node: NodeId) -> Position:
        sequence = (await self.heads([node]))[0]
        if sequence is None:
            raise Gone(f"The node {node} was deleted.")
        return Position(self._epoch, sequence)

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
                head = (await self._heads([node]))[0]
                if head is None:
                    return
                watch.told(head=head)
            if watch.head <= after and watch.is_based and not self._is_closed:
                await watch.changed()

    async def drop(self, *nodes: NodeId) -> None:
        self._check_open()
        if nodes:
            await self._questions.run(self._drop_script, self._base, REMEMBER, *nodes)
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
        known = [self._known.get(node) for node in nodes]
        epoch, *values = await self._questions.ask("MGET", f"{self._base}epoch", *(f"{self._base}h:{node}" for node in nodes))
        for node, value, was in zip(nodes, values, known, strict=True):
            await self._check_epoch(epoch, node, value, was)
        return [_head(value) for value in values]

    async def _records(self, node: NodeId, page: list[tuple[int, dict[bytes, bytes]]], *, headers: bool) -> list[Record]:
        """The records of a page, with their payloads, wherever these lie."""
        absent = [] if headers else [sequence for sequence, fields in page if b"p" not in fields and b"c" not in fields]
        payloads: dict[int, bytes] = {}
        if absent:
            entries = await self._pages.ask("XRANGE", f"{self._base}p:{node}", f"{absent[0]}-0", f"{absent[-1]}-0")
            payloads = {int(id.split(b"-")[0]): fields[1] for id, fields in entries}
        records: list[Record] = []
        for sequence, fields in page:
            payload = b"" if headers else fields.get(b"p", payloads.get(sequence))
            if payload is None and b"c" in fields:
                try:
                    payload = await self._claims.body(node, sequence, fields[b"c"].decode())
                except BodyMissing:
                    if records:
                        break  # what comes before it can be given; the next reading tells
                    raise
            if payload is None:
                break  # it left the log between the two questions; the next reading tells
            records.append(Record(sequence, float(fields[b"t"]), decode_event(fields[b"e"]), payload))
        if page and not records:
            raise Truncated(page[-1][0] + 1)
        return records

    async def _check_epoch(self, epoch: bytes | None, node: NodeId, value: bytes | None, known: tuple[str, int] | None) -> None:
        """Take note of the epoch. A log that was emptied, or knows less of a node than it once told, begins another life.

        A head that is not there at all was forgotten after a long time; that is nothing unusual.
        """
        if epoch is None:
            await self._begin()
            return
        now = epoch.decode()
        head = _head(value) if value is not None else None
        if known is not None and known[0] == now and head is not None and head < known[1]:
            logger.error("Redis lost records of node %s after %d; was there a failover? A new epoch begins.", node, head)
            await self._begin(lost=now)
            return
        self._live_in(now)

    async def _begin(self, lost: str = "") -> None:
        self._live_in((await self._questions.run(self._begin_script, self._base, _new_epoch(), lost)).decode())

    async def _delete_all(self) -> None:
        """Leave nothing of this log in Redis."""
        cursor = b"0"
        with contextlib.suppress(Unavailable):  # then it stays, and does no harm
            while True:
                cursor, keys = await self._questions.ask("SCAN", cursor, "MATCH", f"{self._base}*", "COUNT", 1000)
                if keys:
                    await self._questions.ask("UNLINK", *keys)
                if cursor == b"0":
                    return

    def _live_in(self, epoch: str) -> None:
        if self._epoch and epoch != self._epoch:
            logger.warning("The log began another life: Redis was emptied, or lost records. What was persisted is safe.")
        self._epoch = epoch

    def _know(self, node: NodeId, epoch: str, head: int) -> None:
        was = self._known.get(node)
        if was is None or head > was[1]:
            self._known[node] = (epoch, head)
            self._known.move_to_end(node)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed()


def _page(found: list[tuple[int, list[bytes]]], max_bytes: int) -> list[tuple[int, dict[bytes, bytes]]]:
    """Dense from the first, as many as fit into `max_bytes` of payload, one at least."""
    page: list[tuple[int, dict[bytes, bytes]]] = []
    total = 0
    for sequence, pairs in found:
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        total += int(fields[b"n"])
        if page and (total > max_bytes or sequence != page[-1][0] + 1):
            break
        page.append((sequence, fields))
    return page


def _head(value: bytes | None) -> int | None:
    """None: dropped."""
    if value is None:
        return 0
    return None if value == b"-" else int(value)


def _new_epoch() -> str:
    return uuid4().hex
