"""Registrations, the outbox and the history: in a file beside a SQLite catalog, or in a schema beside that of a PostgreSQL one.

What must stay true: an event is kept once, however often it comes; it leaves the outbox together with the deliveries that it
becomes (one transaction), and a webhook has one worker at a time, so that a message is sent by one process and in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from ..accounts.database import Connection, Database, PostgresDatabase, SqliteDatabase
from ..accounts.schema import prepare
from ..domain.errors import NotFound, Unsatisfiable
from ..domain.nodes import NodeId
from .model import Delivery, Expanded, Happened, Webhook

__all__ = ["MAX_PENDING", "MAX_WEBHOOKS", "SCHEMA", "Store", "store_at"]

#: Everything of webhooks is in this schema of a PostgreSQL database.
SCHEMA = "tiled_stream_webhooks"
_STEPS = "webhook_steps"
_CALLED = "webhooks"
MAX_WEBHOOKS = 1000
#: Deliveries that may wait for one webhook, and finished ones that are remembered of it.
MAX_PENDING = 10_000
MAX_FINISHED = 1000
#: Rows of one INSERT.
_ROWS = 100
_WEBHOOK = "id, node, chain, url, secret, events, created"
_DELIVERY = (
    "d.id, d.webhook, d.event, e.kind, e.payload, d.created, d.outcome, d.attempts, d.status_code, d.error, d.delivered "
    "FROM deliveries d JOIN events e ON e.id = d.event"
)


def store_at(catalog: Path | str) -> Store:
    """Beside the catalog at this place."""
    if isinstance(catalog, Path):
        return Store(SqliteDatabase(catalog.with_name(f"{catalog.name}.webhooks"), called=_CALLED), is_shared=False)
    from ..catalog.postgres_connect import dsn_of  # heavy, and SQLite needs it not

    dsn, cache_size = dsn_of(catalog)
    return Store(PostgresDatabase(dsn, schema=SCHEMA, called=_CALLED, statement_cache_size=cache_size), is_shared=True)


class Store:
    """`is_shared`: other processes may use it at the same time."""

    def __init__(self, database: Database, *, is_shared: bool) -> None:
        self._database = database
        self._is_shared = is_shared

    async def open(self) -> None:
        """Made if it is missing. `Unavailable` if it cannot be used or is of a newer version."""
        try:
            await self._database.open(init=True)
            await prepare(self._database, init=True, package=__package__, table=_STEPS)
            if not self._is_shared:
                async with self._database.transaction() as db:  # a worker that was killed will not come back
                    await db.run("UPDATE webhooks SET leased = 0")
        except BaseException:
            await self._database.close()
            raise

    async def close(self) -> None:
        """Idempotent."""
        await self._database.close()

    async def add(
        self,
        node: NodeId,
        *,
        chain: Sequence[NodeId],
        url: str,
        secret: str | None,
        events: Sequence[str] | None,
        now: float,
    ) -> Webhook:
        """Register. `Unsatisfiable` if there are too many."""
        kinds = None if events is None else tuple(events)
        async with self._database.transaction() as db:
            number = await _numbers(db, "webhooks", 1)
            if (await db.rows("SELECT COUNT(*) FROM webhooks"))[0][0] >= MAX_WEBHOOKS:
                raise Unsatisfiable(f"There are {MAX_WEBHOOKS} webhooks already; delete some first.")
            await db.run(
                f"INSERT INTO webhooks ({_WEBHOOK}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                *(number, node, _json(list(chain)), url, secret, None if kinds is None else _json(kinds), now),
            )
        return Webhook(number, node, tuple(chain), url, secret, kinds, now)

    async def webhooks(self, node: NodeId | None = None) -> list[Webhook]:
        """Those of a node, or all."""
        where, args = ("WHERE node = ? ", (node,)) if node is not None else ("", ())
        async with self._database.transaction() as db:
            return [_webhook(row) for row in await db.rows(f"SELECT {_WEBHOOK} FROM webhooks {where}ORDER BY id", *args)]

    async def remove(self, id: int) -> None:
        """With its history. `NotFound`."""
        async with self._database.transaction() as db:
            if not await db.run("DELETE FROM webhooks WHERE id = ?", id):
                raise _unknown(id)

    async def history(self, id: int, *, limit: int) -> list[Delivery]:
        """The last ones, newest first. `NotFound`."""
        async with self._database.transaction() as db:
            if not await db.rows("SELECT 1 FROM webhooks WHERE id = ?", id):
                raise _unknown(id)
            rows = await db.rows(f"SELECT {_DELIVERY} WHERE d.webhook = ? ORDER BY d.id DESC LIMIT ?", id, limit)
        return [Delivery(*row) for row in rows]

    async def keep(self, events: Sequence[Happened]) -> bool:
        """Put events into the outbox, each once; False if nobody has registered anything, and nothing was kept."""
        async with self._database.transaction() as db:
            if not await db.rows("SELECT 1 FROM webhooks LIMIT 1"):
                return False
            number = await _numbers(db, "events", len(events))
            rows = [(e.id, number + n, e.log, e.kind, e.time, e.child, e.key, e.about) for n, e in enumerate(events)]
            for begin in range(0, len(rows), _ROWS):
                some = rows[begin : begin + _ROWS]
                values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(some))
                await db.run(
                    f"INSERT INTO events (id, number, log, kind, time, child, key, about) VALUES {values} "
                    "ON CONFLICT (id) DO NOTHING",
                    *(value for row in some for value in row),
                )
        return True

    async def outbox(self, *, limit: int) -> list[Happened]:
        """The oldest events that have not become deliveries yet."""
        async with self._database.transaction() as db:
            rows = await db.rows(
                "SELECT id, log, kind, time, child, key, about FROM events WHERE payload IS NULL ORDER BY number LIMIT ?", limit
            )
        return [Happened(*row) for row in rows]

    async def expand(self, expanded: Sequence[Expanded], *, now: float) -> None:
        """Events leave the outbox and become deliveries, as far as their webhooks are there still. All of them, or none."""
        async with self._database.transaction() as db:
            # Numbers first: another process that expands the same waits here, and nobody waits for it.
            number = await _numbers(db, "deliveries", sum(len(each.webhooks) for each in expanded))
            for each in expanded:
                await _expand(db, each, number, now)
                number += len(each.webhooks)

    async def drop_node(self, event: str, node: NodeId) -> None:
        """`event` said that `node` is gone: what is registered on it and below it goes with it."""
        async with self._database.transaction() as db:
            for id, chain in await db.rows("SELECT id, chain FROM webhooks"):
                if node in orjson.loads(chain):
                    await db.run("DELETE FROM webhooks WHERE id = ?", id)
            await db.run("DELETE FROM events WHERE id = ? AND payload IS NULL", event)

    async def claim(self, worker: str, *, now: float, seconds: float) -> Webhook | None:
        """A webhook that something waits for, and that nobody else has, for `seconds`; the longest waiting first."""
        free = (
            "FROM webhooks w WHERE w.leased <= ? AND w.due <= ? "
            "AND EXISTS (SELECT 1 FROM deliveries d WHERE d.webhook = w.id AND d.outcome = 'pending')"
        )
        async with self._database.transaction() as db:
            for row in await db.rows(f"SELECT {_WEBHOOK} {free} ORDER BY w.due, w.id LIMIT 8", now, now):
                taken = "UPDATE webhooks SET worker = ?, leased = ? WHERE id = ? AND leased <= ?"
                if await db.run(taken, worker, now + seconds, row[0], now):
                    return _webhook(row)
        return None

    async def next_for(self, webhook: int, worker: str, *, now: float, seconds: float) -> Delivery | None:
        """The next delivery, and the claim goes on for `seconds`; None if there is none, or the claim was lost."""
        async with self._database.transaction() as db:
            return await _next_for(db, webhook, worker, now + seconds)

    async def settle(self, delivery: Delivery, worker: str, *, now: float, seconds: float) -> Delivery | None:
        """What became of it, and the next one, as `next_for`. One that is deleted, or finished by another worker, stays so."""
        async with self._database.transaction() as db:
            await db.run(
                "UPDATE deliveries SET outcome = ?, attempts = ?, status_code = ?, error = ?, delivered = ? "
                "WHERE id = ? AND outcome = 'pending'",
                *(delivery.outcome, delivery.attempts, delivery.status_code, delivery.error, delivery.delivered, delivery.id),
            )
            return await _next_for(db, delivery.webhook, worker, now + seconds)

    async def failed(self, webhook: int, worker: str) -> int:
        """One more failure in a row; how many."""
        async with self._database.transaction() as db:
            await db.run("UPDATE webhooks SET failures = failures + 1 WHERE id = ? AND worker = ?", webhook, worker)
            rows = await db.rows("SELECT failures FROM webhooks WHERE id = ?", webhook)
        return int(rows[0][0]) if rows else 0

    async def release(self, webhook: int, worker: str, *, due: float, is_well: bool) -> None:
        """Give the claim back; nothing is tried before `due`. `is_well`: failures are counted anew."""
        well = ", failures = 0" if is_well else ""
        async with self._database.transaction() as db:
            await db.run(f"UPDATE webhooks SET leased = 0, due = ?{well} WHERE id = ? AND worker = ?", due, webhook, worker)

    async def trim(self) -> int:
        """Keep what is kept within its bounds. How many deliveries were given up because too many were waiting."""
        given_up = 0
        older = "id <= (SELECT id FROM deliveries WHERE webhook = ? AND outcome {0} 'pending' ORDER BY id DESC LIMIT 1 OFFSET ?)"
        async with self._database.transaction() as db:
            for (id,) in await db.rows("SELECT id FROM webhooks"):
                given_up += await db.run(
                    f"UPDATE deliveries SET outcome = 'failed', error = 'more than {MAX_PENDING} were waiting' "
                    f"WHERE webhook = ? AND outcome = 'pending' AND {older.format('=')}",
                    *(id, id, MAX_PENDING),
                )
                await db.run(
                    f"DELETE FROM deliveries WHERE webhook = ? AND outcome <> 'pending' AND {older.format('<>')}",
                    *(id, id, MAX_FINISHED),
                )
            await db.run(
                "DELETE FROM events WHERE payload IS NOT NULL AND NOT EXISTS "
                "(SELECT 1 FROM deliveries WHERE deliveries.event = events.id)"
            )
        return given_up

    async def waiting(self) -> tuple[int, float | None]:
        """How many deliveries are pending, and when the oldest event happened that they tell or that is in the outbox."""
        async with self._database.transaction() as db:
            ((count, oldest),) = await db.rows(
                "SELECT COUNT(*), MIN(e.time) FROM deliveries d JOIN events e ON e.id = d.event WHERE d.outcome = 'pending'"
            )
            ((unexpanded,),) = await db.rows("SELECT MIN(time) FROM events WHERE payload IS NULL")
        return int(count), min((time for time in (oldest, unexpanded) if time is not None), default=None)


async def _next_for(db: Connection, webhook: int, worker: str, leased: float) -> Delivery | None:
    if not await db.run("UPDATE webhooks SET leased = ? WHERE id = ? AND worker = ?", leased, webhook, worker):
        return None
    rows = await db.rows(f"SELECT {_DELIVERY} WHERE d.webhook = ? AND d.outcome = 'pending' ORDER BY d.id LIMIT 1", webhook)
    return Delivery(*rows[0]) if rows else None


async def _expand(db: Connection, each: Expanded, number: int, now: float) -> None:
    if not each.webhooks:
        # What was told to somebody before stays for the history.
        await db.run("DELETE FROM events WHERE id = ? AND payload IS NULL", each.event)
        return
    if not await db.run("UPDATE events SET payload = ?, about = '' WHERE id = ? AND payload IS NULL", each.payload, each.event):
        return  # another process did it
    for n, webhook in enumerate(each.webhooks):
        await db.run(
            "INSERT INTO deliveries (id, webhook, event, created, outcome) "
            "SELECT CAST(? AS BIGINT), id, CAST(? AS TEXT), CAST(? AS DOUBLE PRECISION), 'pending' "
            "FROM webhooks WHERE id = ? ON CONFLICT (webhook, event) DO NOTHING",
            *(number + n, each.event, now, webhook),
        )


async def _numbers(db: Connection, name: str, count: int) -> int:
    """The first of `count` new numbers. Others who want some wait until the transaction ends."""
    await db.run("UPDATE counters SET value = value + ? WHERE name = ?", count, name)
    return int((await db.rows("SELECT value FROM counters WHERE name = ?", name))[0][0]) - count + 1


def _webhook(row: Sequence[Any]) -> Webhook:
    id, node, chain, url, secret, events, created = row
    kinds = None if events is None else tuple(orjson.loads(events))
    return Webhook(id, node, tuple(orjson.loads(chain)), url, secret, kinds, created)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _unknown(id: int) -> NotFound:
    return NotFound(f"There is no webhook {id}.")
