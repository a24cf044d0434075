"""Redis is emptied, replaced, or taken over with loss: the servers restore the log from what they keep."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis

from tests.servers.redis import DEBIAN, RedisServer, redis_server
from tiled_stream.domain.errors import Conflict, EpochChanged, Gone, InDoubt, LeaseLost, Truncated, Unavailable
from tiled_stream.domain.events import Record, RecordLost
from tiled_stream.log.claims import Claims
from tiled_stream.log.redis import RedisLog
from tiled_stream.log.redis_connect import by_uri
from tiled_stream.testing.backlog_contract import claim_one, nothing_persisted, settle_at
from tiled_stream.testing.factories import draft, new_id

PATIENCE = 30.0


@pytest.fixture(params=["valkey", "debian"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of its own, to be stopped and emptied."""
    if request.param == "debian" and DEBIAN is None:
        pytest.skip("redis-server is not on this machine")
    with redis_server(program=DEBIAN if request.param == "debian" else None) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[RedisLog]:
    log = RedisLog(by_uri(url), prefix="p", **options)  # type: ignore[arg-type]
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def everything(log: RedisLog, node: str, after: int = 0) -> list[Record]:
    """All records after `after`, which must be dense."""
    found: list[Record] = []
    while page := await log.read(node, after + len(found)):
        found += page
    assert [record.sequence for record in found] == list(range(after + 1, after + 1 + len(found)))
    return found


async def so(condition: Callable[[], bool], what: str) -> None:
    """Wait until it is so."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"it never was so: {what}"
        await asyncio.sleep(0.01)


async def see_each_other(*logs: RedisLog) -> None:
    """Wait until each knows that the others are alive."""
    await so(lambda: all(len(log._member._healing.peers) >= len(logs) for log in logs), "the servers know each other")


def empty(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()


def replace(server: RedisServer) -> None:
    """Another, empty server on the same port."""
    server.stop(signal.SIGKILL)
    shutil.rmtree(server.directory / "appendonlydir")
    server.start()


class Writers:
    """Appends that go on whatever happens; what was acknowledged, by node: sequence, epoch and body."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.nodes = nodes
        self.acknowledged: dict[str, dict[int, tuple[str, bytes]]] = {node: {} for node in nodes}
        self.doubtful: set[bytes] = set()
        self.count = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    def begin(self, log: RedisLog, name: str, writers: int = 4) -> None:
        """So many writers of one server."""
        for n in range(writers):
            self._tasks.append(asyncio.create_task(self._write(log, f"{name}{n}", self.nodes[n % len(self.nodes)])))

    async def more(self, count: int) -> None:
        """Wait for so many more acknowledgements."""
        upto = self.count + count
        await so(lambda: self.count >= upto, f"{upto} appends were acknowledged")

    async def end(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def check(self, log: RedisLog, *, epoch: str | None = None) -> None:
        """Each acknowledged record is there once, at the sequence that was acknowledged, in this epoch (None: in any)."""
        for node, acknowledged in self.acknowledged.items():
            records = await everything(log, node)
            bodies = [record.payload for record in records if not isinstance(record.event, RecordLost)]
            assert len(bodies) == len(set(bodies)), "doubled"
            for sequence, (in_epoch, body) in acknowledged.items():
                assert epoch in (in_epoch, None)
                assert records[sequence - 1].payload == body
            assert set(bodies) <= {body for _, body in acknowledged.values()} | self.doubtful

    async def _write(self, log: RedisLog, name: str, node: str) -> None:
        n = 0
        while not self._stop.is_set():
            body = f"{name}.{n}".encode()
            n += 1
            while True:
                try:
                    position = await log.append(node, draft(1, body))
                except InDoubt:
                    self.doubtful.add(body)
                    break
                except Unavailable:
                    await asyncio.sleep(0.02)
                    continue
                assert position.sequence not in self.acknowledged[node], "a sequence was given twice"
                self.acknowledged[node][position.sequence] = (position.epoch, body)
                self.count += 1
                break


# -------------------------------------------------------------- nothing is lost


@pytest.mark.parametrize("how", [empty, replace], ids=["emptied", "replaced"])
async def test_two_servers_restore_all_that_was_acknowledged(server: RedisServer, how: Callable[[RedisServer], None]) -> None:
    writers = Writers([new_id() for _ in range(3)])
    async with opened(server.url) as one, opened(server.url) as other:
        await see_each_other(one, other)
        epoch = one.epoch
        writers.begin(one, "a")
        writers.begin(other, "b")
        for _ in range(3):
            await writers.more(150)
            await asyncio.to_thread(how, server)
        await writers.more(150)
        await writers.end()
        assert one.epoch == other.epoch == epoch
        await writers.check(one, epoch=epoch)
        await writers.check(other, epoch=epoch)
        figures = [await log.figures() for log in (one, other)]
        assert sum(f["tiled_stream_heals_total"] for f in figures) >= 3
        assert sum(f["tiled_stream_healed_records_total"] for f in figures) >= 150
        assert sum(f["tiled_stream_heal_lost_records_total"] for f in figures) == 0


async def test_sequences_go_on_after_redis_was_emptied(server: RedisServer) -> None:
    """What is persisted has left, what is not is there again, and what has been given is not given again."""
    node, other_node = new_id(), new_id()
    async with opened(server.url) as log, opened(server.url) as other:
        for n in range(1, 6):
            await log.append(node, draft(n, b"%d" % n))
        await log.append(other_node, draft(1))
        await settle_at(other, node, 3)
        await settle_at(log, other_node, 1)
        epoch = log.epoch
        empty(server)
        assert await other.heads([node, other_node]) == [5, 1]
        assert [record.payload for record in await log.read(node, 3, epoch=epoch)] == [b"4", b"5"]
        with pytest.raises(Truncated) as truncated:
            await other.read(node, 0)
        assert truncated.value.first == 4
        assert await other.dirty() == [(node, 5)]
        assert (await log.lag()).records == 2
        position = await other.append(node, draft(6), floor=3)
        assert (position.epoch, position.sequence) == (epoch, 6)
        assert (await log.append(other_node, draft(2))).sequence == 2
        (lease, *_) = await log.claim("w", ttl=60)
        assert (lease.node, lease.after, lease.head) == (node, 3, 6)
        assert await log.settle(lease, 6)


async def test_expected_heads_hold_after_redis_was_emptied(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as log:
        for n in range(1, 6):
            await log.append(node, draft(n))
        empty(server)
        with pytest.raises(Conflict) as lost:
            await log.append(node, draft(6), expected=3, floor=3)
        assert lost.value.head == 5
        assert (await log.append(node, draft(6), expected=5, floor=3)).sequence == 6


async def test_subscribers_see_each_record_once_across_a_heal(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as one, opened(server.url) as other, asyncio.timeout(60):
        await see_each_other(one, other)
        epoch = one.epoch

        async def follow(log: RedisLog) -> list[bytes]:
            seen: list[Record] = []
            while not seen or seen[-1].payload != b"last":
                records = await log.read(node, len(seen), epoch=epoch)
                assert [record.sequence for record in records] == list(range(len(seen) + 1, len(seen) + 1 + len(records)))
                seen += records
                if not records:
                    await log.wait(node, len(seen))
            return [record.payload for record in seen]

        following = [asyncio.create_task(follow(log)) for log in (one, other)]
        bodies = [b"%d" % n for n in range(200)]
        for n, body in enumerate(bodies):
            await (one if n % 2 else other).append(node, draft(1, body))
            if n % 50 == 25:
                empty(server)
        await one.append(node, draft(1, b"last"))
        assert await asyncio.gather(*following) == [[*bodies, b"last"]] * 2


async def test_large_bodies_are_healed_by_their_tokens(server: RedisServer, tmp_path: Path) -> None:
    node = new_id()
    async with opened(server.url, claims=Claims(tmp_path / "claims", above=1000)) as log:
        bodies = [bytes([n]) * (5000 if n % 2 else 500) for n in range(6)]
        for body in bodies:
            await log.append(node, draft(1, body))
        assert (await log.figures())["tiled_stream_kept_bytes"] < 5000
        empty(server)
        assert [record.payload for record in await everything(log, node)] == bodies


async def test_records_of_middle_size_are_healed(server: RedisServer) -> None:
    """More than one call can carry, of more records than one script restores."""
    node, many = new_id(), new_id()
    bodies = [bytes([n]) * 700_000 for n in range(5)]
    async with opened(server.url) as log:
        for body in bodies:
            await log.append(node, draft(1, body))
        await asyncio.gather(*(log.append(many, draft(1, b"%d" % n)) for n in range(1700)))
        before = await everything(log, many)
        empty(server)
        assert [record.payload for record in await everything(log, node)] == bodies
        assert await everything(log, many) == before
        lag = await log.lag()
        assert (lag.nodes, lag.records) == (2, 1705)


async def test_dropped_nodes_stay_dropped(server: RedisServer) -> None:
    node, other = new_id(), new_id()
    async with opened(server.url) as log:
        await log.append(node, draft(1))
        await log.append(other, draft(1))
        await log.drop(node)
        empty(server)
        with pytest.raises(Gone):
            await log.read(node, 0)
        with pytest.raises(Gone):
            await log.append(node, draft(2))
        assert await log.dirty() == [(other, 1)]


async def test_a_catalog_that_is_ahead_is_believed(server: RedisServer) -> None:
    """The log was emptied before anybody heard that 4 was persisted."""
    node = new_id()

    async def persisted(nodes: Sequence[str]) -> list[int]:
        return [4 if one == node else 0 for one in nodes]

    async with opened(server.url) as log:
        await log.bind("catalog", persisted)
        for n in range(1, 6):
            await log.append(node, draft(n))
        empty(server)
        assert await log.dirty() == [(node, 5)]
        lease = await claim_one(log, node)
        assert (lease.after, lease.head) == (4, 5)
        with server.client() as client:
            assert client.get("{p}:catalog") == b"catalog"


async def test_a_restarted_redis_is_found_whole(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as one, opened(server.url) as other:
        await see_each_other(one, other)
        for n in range(1, 4):
            await one.append(node, draft(n))
        epoch = one.epoch
        await asyncio.to_thread(server.restart, signal.SIGKILL)
        assert (await other.append(node, draft(4))).sequence == 4
        assert (one.epoch, other.epoch) == (epoch, epoch)
        assert len(await everything(one, node)) == 4
        figures = [await log.figures() for log in (one, other)]
        assert sum(f["tiled_stream_healed_records_total"] for f in figures) == 0


async def test_fences_rise_beyond_those_of_the_lost_log(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as log:
        await log.append(node, draft(1))
        before = await claim_one(log, node, worker="a")
        empty(server)
        after = await claim_one(log, node, worker="a")
        assert after.fence > before.fence
        with pytest.raises(LeaseLost):
            await log.settle(before, 1)
        assert await log.settle(after, 1)


async def test_a_batch_that_was_not_answered_gets_the_place_it_had(server: RedisServer) -> None:
    """It was done before what another server appended, and Redis was emptied before its answer arrived."""
    node = new_id()
    async with proxied(server.port) as proxy, opened(server.url) as one, opened(proxy.url, patience=20.0) as other:
        await other.append(node, draft(1, b"1"))
        await see_each_other(one, other)
        epoch = one.epoch
        proxy.is_mute = True
        unanswered = [asyncio.create_task(other.append(node, draft(1, b), draft(1, b * 2))) for b in (b"2", b"4")]
        with server.client() as client:
            await so(lambda: client.get(f"{{p}}:h:{node}") == b"5", "it was done")
        assert (await one.append(node, draft(1, b"6"))).sequence == 6
        before = await everything(one, node)
        empty(server)
        proxy.is_mute = False
        proxy.cut()
        proxy.mend()
        assert [(p.epoch, p.sequence) for p in await asyncio.gather(*unanswered)] == [(epoch, 3), (epoch, 5)]
        assert await everything(one, node) == await everything(other, node) == before
        assert (await other.append(node, draft(1, b"7"))).sequence == 7
        empty(server)
        assert await everything(one, node, 6) == (await everything(other, node))[6:]
        assert one.epoch == epoch


# ------------------------------------------------------- failover with loss


async def test_a_replica_that_took_over_late_is_completed(server: RedisServer) -> None:
    """The replica had received only some of the records; both servers are moved to it."""
    with redis_server("--replicaof", "127.0.0.1", str(server.port)) as replica, replica.client() as client:
        await so(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")
        writers = Writers([new_id() for _ in range(3)])
        async with proxied(server.port) as proxy, opened(proxy.url) as one, opened(proxy.url) as other:
            await see_each_other(one, other)
            epoch = one.epoch
            writers.begin(one, "a")
            writers.begin(other, "b")
            await writers.more(100)
            client.replicaof("NO", "ONE")
            await writers.more(100)
            proxy.move(replica.port)
            await writers.more(100)
            await writers.end()
            await writers.check(one, epoch=epoch)
            await writers.check(other, epoch=epoch)


async def test_an_older_state_of_redis_is_completed(server: RedisServer, tmp_path: Path) -> None:
    """As from a backup: everything since then is restored, and what was persisted since then is not pending."""
    node, since = new_id(), new_id()
    async with opened(server.url) as log:
        for n in range(1, 4):
            await log.append(node, draft(n, b"%d" % n))
        lease = await claim_one(log, node, worker="w")
        server.stop()
        shutil.copytree(server.directory / "appendonlydir", tmp_path / "copy")
        await asyncio.to_thread(server.start)
        epoch = log.epoch
        for n in range(4, 9):
            await log.append(node, draft(n, b"%d" % n))
        await log.append(since, draft(1))
        await log.settle(lease, 2)
        await settle_at(log, since, 1)
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        shutil.rmtree(server.directory / "appendonlydir")
        shutil.copytree(tmp_path / "copy", server.directory / "appendonlydir")
        await asyncio.to_thread(server.start)
        assert [r.payload for r in await log.read(node, 2, epoch=epoch)] == [b"%d" % n for n in range(3, 9)]
        assert await log.dirty() == [(node, 8)]
        assert (await log.lag()).records == 6
        with pytest.raises(LeaseLost):  # that Redis still had it
            await log.settle(lease, 3)
        assert await settle_at(log, node, 8)


async def test_a_failover_that_lost_records_is_completed_by_the_next_reader(server: RedisServer) -> None:
    """The same server, with less than this process has seen: heads tell."""
    node = new_id()
    async with opened(server.url) as writer, opened(server.url) as reader:
        for n in range(1, 6):
            await writer.append(node, draft(n, b"%d" % n))
            await reader.read(node, n - 1)
        epoch = writer.epoch
        with server.client() as client:
            forget_all_but(client, "{p}:", node, 3)
        assert [r.payload for r in await reader.read(node, 3, epoch=epoch)] == [b"4", b"5"]
        position = await writer.append(node, draft(6))
        assert (position.epoch, position.sequence) == (epoch, 6)


async def test_an_append_notices_a_failover_by_itself(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as writer:
        for n in range(1, 6):
            await writer.append(node, draft(n, b"%d" % n))
        epoch = writer.epoch
        with server.client() as client:
            forget_all_but(client, "{p}:", node, 3)
        positions = await asyncio.gather(*(writer.append(node, draft(n, b"%d" % n)) for n in (6, 7)))
        assert [(p.epoch, p.sequence) for p in positions] == [(epoch, 6), (epoch, 7)]
        assert [r.payload for r in await everything(writer, node)] == [b"%d" % n for n in range(1, 8)]


async def test_a_lease_of_what_was_lost_is_lost(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as log:
        for n in range(1, 6):
            await log.append(node, draft(n))
        lease = await claim_one(log, node)
        with server.client() as client:
            forget_all_but(client, "{p}:", node, 3)
        with pytest.raises(LeaseLost):
            await log.settle(lease, 5)
        assert (await log.head(node)).sequence == 5
        with pytest.raises(ValueError, match="watermark"):
            await log.settle(lease, 6)


def forget_all_but(client: redis.Redis, base: str, node: str, last: int) -> None:
    """As a replica that had received no more than that."""
    entries = client.xrange(f"{base}r:{node}", max=f"{last}-0")
    owed = client.xlen(f"{base}r:{node}") - len(entries)
    client.delete(f"{base}r:{node}")
    for id, fields in entries:
        client.xadd(f"{base}r:{node}", fields, id=id)
    client.set(f"{base}h:{node}", last)
    client.decrby(f"{base}owed", owed)


async def test_a_head_that_moves_while_it_is_asked_for_is_no_loss(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    node = new_id()
    async with opened(server.url) as log:
        generation = log._life.generation
        stop = asyncio.Event()

        async def look() -> None:
            while not stop.is_set():
                await asyncio.gather(log.head(node), log.read(node, 0, limit=1))

        looking = [asyncio.create_task(look()) for _ in range(4)]
        for n in range(1000):
            assert (await log.append(node, draft(1))).sequence == n + 1
        stop.set()
        await asyncio.gather(*looking)
        assert log._life.generation == generation
        assert not [message for message in caplog.messages if "lost records" in message]


# ------------------------------------------------- a server that takes no part


async def test_what_a_server_took_along_is_announced_as_lost(server: RedisServer) -> None:
    """Two append, one is gone when Redis is emptied: its records are lost, at their sequences, in another epoch."""
    node = new_id()
    async with proxied(server.port) as proxy, opened(server.url) as stays, opened(proxy.url, patience=0.3) as goes:
        await see_each_other(stays, goes)
        for n in range(1, 9):
            await (stays if n % 2 else goes).append(node, draft(n, b"%d" % n))
        assert len(await everything(stays, node)) == 8
        epoch = stays.epoch
        proxy.cut()
        empty(server)
        while True:
            with contextlib.suppress(Unavailable):
                head = await stays.head(node)
                break
        assert head.sequence == 8
        assert head.epoch == stays.epoch != epoch
        with pytest.raises(EpochChanged):
            await stays.read(node, 8, epoch=epoch)
        records = await everything(stays, node)
        assert [record.payload for record in records] == [b"1", b"", b"3", b"", b"5", b"", b"7", b""]
        assert [isinstance(record.event, RecordLost) for record in records] == [False, True] * 4
        assert (await stays.append(node, draft(9))).sequence == 9
        assert (await stays.figures())["tiled_stream_heal_lost_records_total"] == 4
        assert await settle_at(stays, node, 9)


async def test_callers_are_refused_while_the_log_is_restored_for_long(server: RedisServer) -> None:
    """Healing waits for each server that was alive. Until then nobody reads an empty log, and no append is in doubt."""
    node = new_id()
    async with proxied(server.port) as proxy, opened(server.url, patience=0.3) as stays, opened(proxy.url, patience=0.3) as goes:
        await see_each_other(stays, goes)
        for n in range(1, 4):
            await stays.append(node, draft(n, b"%d" % n))
        proxy.cut()
        empty(server)
        for call in (
            stays.append(node, draft(4, b"4")),
            stays.read(node, 0),
            stays.head(node),
            stays.heads([node]),
            stays.dirty(),
            stays.lag(),
            stays.reached(node, 3),
            stays.reopen(node, 0),
            stays.claim("w", ttl=60),
        ):
            with pytest.raises(Unavailable, match="being restored") as refused:
                await call
            assert not isinstance(refused.value, InDoubt)
        while True:
            with contextlib.suppress(Unavailable):
                assert (await stays.append(node, draft(4, b"5"))).sequence == 4
                break
        assert [record.payload for record in await everything(stays, node)] == [b"1", b"2", b"3", b"5"]


async def test_a_server_that_was_cut_off_appends_again_what_was_missed(server: RedisServer) -> None:
    node, intact, persisted = new_id(), new_id(), new_id()
    async with proxied(server.port) as proxy, opened(server.url) as stays, opened(proxy.url, patience=0.3) as late:
        await see_each_other(stays, late)
        for n in range(1, 5):
            await (stays if n % 2 else late).append(node, draft(n, b"%d" % n))
        await late.append(persisted, draft(1, b"p"))
        await settle_at(stays, persisted, 1)
        await so(lambda: persisted not in late._keep.records, "the late server knows what is persisted")
        assert len(await everything(stays, node)) == 4
        proxy.cut()
        empty(server)
        while True:
            with contextlib.suppress(Unavailable):
                await stays.append(node, draft(5, b"5"))
                break
        await stays.append(intact, draft(1, b"i"))
        proxy.mend()
        await so(lambda: late._member._late.healed == 2, "the late server has appended again")
        records = await everything(stays, node)
        assert [record.payload for record in records] == [b"1", b"", b"3", b"", b"5", b"2", b"4"]
        assert late.epoch == stays.epoch
        assert [record.payload for record in await everything(late, intact)] == [b"i"]
        assert (await late.figures())["tiled_stream_healed_records_total"] == 2
        assert not late._keep.strays


async def test_a_late_server_does_not_double_what_others_restored(server: RedisServer, tmp_path: Path) -> None:
    """An older state, which has what the late server appended: it finds its records and appends none."""
    node = new_id()
    async with proxied(server.port) as proxy, opened(server.url) as stays, opened(proxy.url, patience=0.3) as late:
        await see_each_other(stays, late)
        for n in range(1, 5):
            await late.append(node, draft(n, b"%d" % n))
        proxy.cut()
        await asyncio.to_thread(server.restart)
        while True:
            with contextlib.suppress(Unavailable):
                await stays.append(node, draft(5, b"5"))
                break
        proxy.mend()
        await so(lambda: late._life.generation == stays._life.generation, "the late server is back")
        await so(lambda: not late._keep.strays, "and has looked for its records")
        assert [record.payload for record in await everything(late, node)] == [b"%d" % n for n in range(1, 6)]
        assert (await late.figures())["tiled_stream_healed_records_total"] == 0
        empty(server)  # and still keeps them
        assert [record.payload for record in await everything(late, node)] == [b"%d" % n for n in range(1, 6)]


async def test_more_than_is_kept_is_announced_as_lost(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url, keep_bytes=20_000) as log:
        for n in range(40):
            await log.append(node, draft(1, b"%d" % n + bytes(1000)))
        figures = await log.figures()
        unkept = int(figures["tiled_stream_unkept_records_total"])
        assert 20 < unkept < 40
        assert figures["tiled_stream_kept_bytes"] <= 20_000
        epoch = log.epoch
        empty(server)
        records = await everything(log, node)
        assert log.epoch != epoch
        assert [isinstance(record.event, RecordLost) for record in records] == [n < unkept for n in range(40)]
        assert (await log.append(node, draft(1))).sequence == 41


# ------------------------------------------------------------ who restores it


async def test_another_server_finishes_what_one_began(server: RedisServer) -> None:
    """The one that restores stops for good after its first step."""
    nodes = [new_id() for _ in range(3)]
    begun = asyncio.Event()
    async with opened(server.url) as one, opened(server.url) as other:
        await see_each_other(one, other)
        for n in range(900):
            await (one if n % 2 else other).append(nodes[n % 3], draft(1, b"%d" % n))
        before = [await everything(one, node) for node in nodes]
        healings = [log._member._healing for log in (one, other)]
        restores = [healing._restore for healing in healings]

        def first_stops(restore: Callable[[str, Sequence[str]], object]) -> Callable[[str, Sequence[str]], object]:
            async def restored(round_id: str, nodes: Sequence[str]) -> None:
                await restore(round_id, nodes)  # type: ignore[misc]
                if not begun.is_set():
                    begun.set()
                    await asyncio.Event().wait()

            return restored

        for healing, restore in zip(healings, restores, strict=True):
            healing._restore = first_stops(restore)  # type: ignore[method-assign, assignment]
        empty(server)
        await so(begun.is_set, "one has begun to restore")
        with server.client() as reader:
            await so(lambda: reader.exists("{p}:life") == 1, "the other one has finished")
        for log in (one, other):
            if log._life._healing is not None and not log._life._healing.done():
                log._life._healing.cancel()  # the one that stopped comes back
        for node, records in zip(nodes, before, strict=True):
            assert await everything(one, node) == records
            assert await everything(other, node) == records
        assert (await one.lag()).records == 900


async def test_a_new_server_leaves_the_log_to_those_that_know_it(server: RedisServer) -> None:
    """It starts in a Redis that was just emptied, with a catalog that is not new."""
    node = new_id()

    async def persisted(nodes: Sequence[str]) -> list[int]:
        return [7 if one == "root" else 0 for one in nodes]

    async with opened(server.url) as one, opened(server.url) as other:
        await one.bind("catalog", persisted)
        await other.bind("catalog", persisted)
        await see_each_other(one, other)
        for n in range(1, 21):
            await (one if n % 2 else other).append(node, draft(n, b"%d" % n))
        epoch = one.epoch
        empty(server)
        async with opened(server.url) as third:
            await third.bind("catalog", persisted)
            assert [r.payload for r in await third.read(node, 0, epoch=epoch)] == [b"%d" % n for n in range(1, 21)]
            assert (await third.append(node, draft(21))).sequence == 21
        assert (await one.append(node, draft(22))).sequence == 22
        assert {one.epoch, other.epoch, third.epoch} == {epoch}


async def test_a_new_deployment_starts_at_once(server: RedisServer) -> None:
    asked = 0

    async def persisted(nodes: Sequence[str]) -> list[int]:
        nonlocal asked
        asked += 1
        return [0 for _ in nodes]

    async with asyncio.timeout(PATIENCE), opened(server.url) as log:
        await log.bind("catalog", persisted)
        assert asked == 1
        assert (await log.append(new_id(), draft(1))).sequence == 1
        assert (await log.figures())["tiled_stream_heals_total"] == 0


async def test_a_log_that_was_lost_with_all_servers_begins_anew(server: RedisServer) -> None:
    node = new_id()

    async def persisted(nodes: Sequence[str]) -> list[int]:
        return [5 for _ in nodes]

    async with opened(server.url) as log:
        await log.bind("catalog", persisted)
        for n in range(1, 7):
            await log.append(node, draft(n))
        epoch = log.epoch
    empty(server)
    async with opened(server.url) as log:
        await log.bind("catalog", persisted)  # after a while in which others could have come
        assert log.epoch != epoch
        assert (await log.append(node, draft(6), floor=5)).sequence == 6


async def test_a_log_of_an_older_version_is_taken_over(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as log:
        await log.append(node, draft(1, b"x"))
        epoch = log.epoch
    with server.client() as client:
        client.delete("{p}:life", "{p}:servers", "{p}:previous")
        client.set("{p}:fence", 12)
    async with asyncio.timeout(PATIENCE), opened(server.url) as log:
        await log.bind("catalog", nothing_persisted)
        assert log.epoch == epoch
        assert [record.payload for record in await log.read(node, 0)] == [b"x"]


# ------------------------------------------------------------------- schedules


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_in_whatever_order_nothing_acknowledged_is_lost(server: RedisServer, seed: int) -> None:
    """A model of lists: what was acknowledged, and how far each node is persisted."""
    chance = random.Random(seed)
    nodes = [new_id() for _ in range(3)]
    model: dict[str, list[bytes]] = {node: [] for node in nodes}
    settled = dict.fromkeys(nodes, 0)

    async def persisted(asked: Sequence[str]) -> list[int]:
        return [settled.get(node, 0) for node in asked]

    async with opened(server.url) as one, opened(server.url) as other:
        await one.bind("catalog", persisted)
        await other.bind("catalog", persisted)
        await see_each_other(one, other)
        epoch = one.epoch
        for step in range(120):
            log, node = chance.choice([one, other]), chance.choice(nodes)
            what = chance.choices(["append", "persist", "read", "flush"], [60, 15, 15, 4])[0]
            if what == "append":
                drafts = [draft(1, b"%d.%d" % (step, n)) for n in range(chance.randint(1, 3))]
                position = await log.append(node, *drafts, floor=settled[node])
                model[node] += [one_draft.payload for one_draft in drafts]
                assert (position.epoch, position.sequence) == (epoch, len(model[node]))
            elif what == "persist":
                for lease in await log.claim("w", ttl=60, limit=chance.randint(1, 3)):
                    assert (lease.head, lease.after) == (len(model[lease.node]), settled[lease.node])
                    settled[lease.node] = chance.randint(lease.after, lease.head)
                    if chance.random() < 0.8:  # else the catalog knows, and the log does not
                        await log.settle(lease, settled[lease.node])
                    else:
                        settled[lease.node] = lease.after
                        await log.release(lease)
            elif what == "read":
                begin = chance.randint(settled[node], len(model[node]))
                assert [r.payload for r in await log.read(node, begin, epoch=epoch)] == model[node][begin:]
            else:
                empty(server)
        for log in (one, other):
            for node in nodes:
                records = await log.read(node, settled[node], epoch=epoch)
                assert [record.payload for record in records] == model[node][settled[node] :]
        assert dict(await one.dirty()) == {n: len(model[n]) for n in nodes if len(model[n]) > settled[n]}
        assert (await one.lag()).records == sum(len(model[node]) - settled[node] for node in nodes)


@pytest.mark.parametrize("seed", range(3))
async def test_three_servers_lose_nothing_however_redis_goes(server: RedisServer, seed: int) -> None:
    """Batches of several servers may be without an answer at once: then the epoch may change, and nothing else."""
    chance = random.Random(seed)
    writers = Writers([new_id() for _ in range(2)])
    async with contextlib.AsyncExitStack() as stack:
        logs = [await stack.enter_async_context(opened(server.url, patience=20.0)) for _ in range(3)]
        await see_each_other(*logs)
        for name, log in zip("abc", logs, strict=True):
            writers.begin(log, name)
        for _ in range(5):
            await writers.more(chance.randint(1, 200))
            how = chance.choice([empty, replace, replace, lambda server: server.restart(signal.SIGKILL)])
            await asyncio.to_thread(how, server)
        await writers.more(50)
        await writers.end()
        assert not writers.doubtful
        for log in logs:
            await writers.check(log)
        assert sum([(await log.figures())["tiled_stream_heal_lost_records_total"] for log in logs]) == 0


# ----------------------------------------------------------------------- proxy


class Proxy:
    """A port that passes on to another one, which may change, or to nothing."""

    def __init__(self, upstream: int) -> None:
        self._upstream: int | None = upstream
        self._was = upstream
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        #: What Redis answers is thrown away.
        self.is_mute = False

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Nothing is passed on, and connections are refused."""
        self._upstream = None
        for task in self._connections:
            task.cancel()

    def mend(self) -> None:
        self._upstream = self._was

    def move(self, upstream: int) -> None:
        """All connections are cut, and new ones reach this port."""
        self.cut()
        self._upstream = self._was = upstream

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._connections:
            await asyncio.wait(list(self._connections))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        streams = [writer]
        try:
            if self._upstream is not None:
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
                streams.append(up_writer)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, up_writer, task, lambda: False))
                    group.create_task(_pump(up_reader, writer, task, lambda: self.is_mute))
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._connections.discard(task)
            for stream in streams:
                stream.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: asyncio.Task[None], is_mute: Callable[[], bool]
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            if not is_mute():
                writer.write(data)
                await writer.drain()
    connection.cancel()


@contextlib.asynccontextmanager
async def proxied(upstream: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(upstream)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
