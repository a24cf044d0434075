"""What only the local engine has: a file, its lock, a disk that fills up, and memory that is bounded."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiled_stream.domain.errors import Conflict, Gone, Malformed, Truncated, Unavailable
from tiled_stream.domain.events import Record
from tiled_stream.domain.position import Position
from tiled_stream.log import local_file
from tiled_stream.log.local import LocalLog
from tiled_stream.log.local_file import Batch, LogFile
from tiled_stream.log.port import Retention
from tiled_stream.testing.backlog_contract import claim_one, fill, settle_at
from tiled_stream.testing.factories import child_created, container_node, draft, new_id

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[LocalLog]:
    engine = LocalLog(path, lazy_seconds=0.01)
    await engine.open()
    yield engine
    await engine.close()


def sequences(path: Path, node: str) -> list[int]:
    """What is in the file, by another way than the engine."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT sequence FROM records WHERE node = ? ORDER BY sequence", (node,)).fetchall()
    connection.close()
    return [row[0] for row in rows]


class Held:
    """Holds commits up until they are let go, so that a test decides what shares a batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.begun = threading.Event()
        self.batches: list[int] = []
        self.failures: list[Exception] = []
        commit = LogFile.commit

        def held(file: LogFile, batch: Batch) -> None:
            self.begun.set()
            assert self.free.wait(20)
            self.batches.append(len(batch.records))
            if self.failures:
                raise self.failures.pop(0)
            commit(file, batch)

        monkeypatch.setattr(LogFile, "commit", held)

    async def under_way(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 20)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, log: LocalLog) -> Held:
    """After `log`, so that it is torn down before and closing finds commits as they are."""
    return Held(monkeypatch)


async def start(log: LocalLog, node: str, *payloads: bytes, expected: int | None = None) -> list[asyncio.Task[Position]]:
    tasks = [asyncio.create_task(log.append(node, draft(1, p), expected=expected)) for p in payloads]
    await asyncio.sleep(0)
    return tasks


# ------------------------------------------------------------------- commits


async def test_what_comes_while_a_batch_is_under_way_is_the_next_one(log: LocalLog, held: Held) -> None:
    node = new_id()
    first = await start(log, node, b"0")
    await held.under_way()
    rest = await start(log, node, *(b"%d" % n for n in range(1, 50)))
    held.free.set()
    told = await asyncio.gather(*first, *rest)
    assert held.batches == [1, 49]
    assert [position.sequence for position in told] == list(range(1, 51))
    assert [r.payload for r in await log.read(node, 0)] == [b"%d" % n for n in range(50)]
    assert not log._commits._reserved  # nothing is remembered of nodes that have nothing on the way


async def test_nothing_is_seen_before_it_is_in_the_file(log: LocalLog, held: Held) -> None:
    node = new_id()
    [append] = await start(log, node, b"x")
    await held.under_way()
    assert (await log.head(node)).sequence == 0
    assert await log.read(node, 0) == []
    assert await log.dirty() == []
    assert not append.done()
    held.free.set()
    await append
    assert (await log.head(node)).sequence == 1


async def test_who_expects_waits_for_what_is_on_the_way(log: LocalLog, held: Held) -> None:
    """A conflict is told only when the loser can read what it lost to, or else it would look in vain and try in vain."""
    node = new_id()
    [ahead] = await start(log, node, b"x")
    await held.under_way()
    [loser] = await start(log, node, b"y", expected=0)
    await asyncio.sleep(0.01)
    assert not loser.done()
    held.free.set()
    with pytest.raises(Conflict) as lost:
        await loser
    assert lost.value.head == 1
    assert ahead.done()
    assert len(await log.read(node, 0)) == 1


async def test_who_expected_rightly_wins_if_what_was_on_the_way_fails(log: LocalLog, held: Held) -> None:
    node = new_id()
    held.failures = [sqlite3.OperationalError("database or disk is full")]
    [ahead] = await start(log, node, b"x")
    await held.under_way()
    [second] = await start(log, node, b"y", expected=0)
    await asyncio.sleep(0.01)
    held.free.set()
    with pytest.raises(Unavailable, match="disk is full"):
        await ahead
    await second
    assert [(r.sequence, r.payload) for r in await log.read(node, 0)] == [(1, b"y")]


async def test_a_failed_batch_takes_what_stands_behind_it_along(log: LocalLog, held: Held, path: Path) -> None:
    node, other = new_id(), new_id()
    held.failures = [sqlite3.OperationalError("disk I/O error")]
    first = await start(log, node, b"1")
    await held.under_way()
    behind = await start(log, node, b"2", b"3")
    beside = await start(log, other, b"4")
    held.free.set()
    results = await asyncio.gather(*first, *behind, return_exceptions=True)
    assert all(isinstance(r, Unavailable) for r in results)
    await asyncio.gather(*beside)
    assert (await log.head(node)).sequence == 0
    assert (await log.append(node, draft(1, b"5"))).sequence == 1  # I1
    await log.close()
    assert sequences(path, node) == [1]
    assert sequences(path, other) == [1]


async def test_what_rode_along_with_a_failed_batch_is_written_later(log: LocalLog, held: Held, path: Path) -> None:
    settled, dropped, other = new_id(), new_id(), new_id()
    held.free.set()
    await fill(log, settled, 1, 2)
    await fill(log, dropped, 1)
    held.failures = [sqlite3.OperationalError("disk I/O error")]
    await settle_at(log, settled, 2)
    assert await log.trim(Retention(seconds=0.0), now=1.0) == 2
    await log.drop(dropped)
    with pytest.raises(Unavailable):
        await log.append(other, draft(1))
    assert held.failures == []
    await log.close()
    assert sequences(path, settled) == sequences(path, dropped) == []
    again = LocalLog(path)
    await again.open()
    assert await again.dirty() == []
    assert (await again.head(settled)).sequence == 2
    with pytest.raises(Gone):
        await again.head(dropped)
    await again.close()


async def test_what_came_to_ride_along_while_a_batch_failed(log: LocalLog, held: Held, path: Path) -> None:
    settled = new_id()
    held.free.set()
    await fill(log, settled, 1)
    held.free.clear()
    held.begun.clear()
    held.failures = [sqlite3.OperationalError("disk I/O error")]
    appends = await start(log, new_id(), b"x")
    await held.under_way()
    await settle_at(log, settled, 1)
    held.free.set()
    with pytest.raises(Unavailable):
        await appends[0]
    await log.close()
    again = LocalLog(path)
    await again.open()
    assert await again.dirty() == []
    await again.close()


async def test_what_lies_before_a_gap_leaves_the_file_too(log: LocalLog, path: Path) -> None:
    node = new_id()
    await fill(log, node, 1, 2)
    await log.append(node, draft(), floor=10)
    await log.close()
    assert sequences(path, node) == [11]


async def test_a_full_disk_refuses_and_loses_nothing(log: LocalLog, path: Path) -> None:
    node = new_id()
    connection = log._file._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 60")
    kept: list[int] = []

    async def append_until_it_fails() -> None:
        for n in range(1, 200):
            await log.append(node, draft(n, b"%04d" % n * 2000))
            kept.append(n)

    with pytest.raises(Unavailable, match="full"):
        await append_until_it_fails()
    assert 5 < len(kept) < 100
    for _ in range(3):
        with pytest.raises(Unavailable):
            await log.append(node, draft(1, bytes(100_000)))
    assert [r.payload[:4] for r in await log.read(node, 0)] == [b"%04d" % n for n in kept]
    # Room is made, and it goes on where it stood; watermarks that could not be written have waited.
    await settle_at(log, node, kept[-1] - 1)
    connection.execute("PRAGMA max_page_count = 100000")
    assert (await log.append(node, draft(1))).sequence == kept[-1] + 1
    await log.close()
    again = LocalLog(path)
    await again.open()
    assert [r.sequence for r in await again.read(node, 0)] == [*kept, kept[-1] + 1]
    assert (await claim_one(again, node)).after == kept[-1] - 1
    await again.close()


async def test_a_cancelled_append_that_is_on_the_way_arrives_whole(log: LocalLog, held: Held) -> None:
    node = new_id()
    [append] = await start(log, node, b"x")
    await held.under_way()
    append.cancel()
    [after] = await start(log, node, b"y")
    held.free.set()
    with pytest.raises(asyncio.CancelledError):
        await append
    assert (await after).sequence == 2
    assert [r.payload for r in await log.read(node, 0)] == [b"x", b"y"]


async def test_a_drop_overtakes_appends_on_the_way(log: LocalLog, held: Held, path: Path) -> None:
    node = new_id()
    under_way = await start(log, node, b"1")
    await held.under_way()
    waiting = await start(log, node, b"2")
    await log.drop(node)
    held.free.set()
    results = await asyncio.gather(*under_way, *waiting, return_exceptions=True)
    assert [type(r) for r in results] == [Gone, Gone]
    assert await log.dirty() == []
    await log.close()
    assert sequences(path, node) == []


async def test_too_much_on_the_way_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LocalLog(path, pending_bytes=10_000)
    await log.open()
    held = Held(monkeypatch)
    node = new_id()
    first = await start(log, node, b"x")
    await held.under_way()
    waiting = await start(log, node, *([bytes(6000)] * 2))
    with pytest.raises(Unavailable, match="keep up"):
        await log.append(node, draft())
    held.free.set()
    await asyncio.gather(*first, *waiting)
    assert (await log.append(node, draft())).sequence == 4
    await log.close()


async def test_what_cannot_be_written_is_refused_before_it_takes_a_place(log: LocalLog) -> None:
    node = new_id()
    with pytest.raises(Malformed, match="64 bits"):
        await log.append(node, draft(child_created(container_node(metadata={"n": 2**70}))))
    with pytest.raises(Malformed):
        await log.append(node, draft(child_created(container_node(metadata={"s": "\ud800"}))))
    assert (await log.append(node, draft())).sequence == 1


# -------------------------------------------------------------------- memory


async def test_memory_is_bounded_and_the_file_has_the_rest(path: Path) -> None:
    log = LocalLog(path, node_bytes=20_000, total_bytes=50_000)
    await log.open()
    nodes = [new_id() for _ in range(10)]
    for n in range(20):
        for node in nodes:
            await log.append(node, draft(1, b"%04d" % n * 500))
    assert log._resident_bytes <= 50_000
    in_memory = [record for node in nodes for record in log._nodes[node].retained._records if record is not None]  # type: ignore[union-attr]
    assert 10 <= len(in_memory) <= 25
    for node in nodes:
        assert [r.payload[:4] for r in await log.read(node, 0)] == [b"%04d" % n for n in range(20)]
        assert [r.sequence for r in await log.read(node, 15)] == [16, 17, 18, 19, 20]
        await settle_at(log, node, 20)
    await log.trim(Retention(node_bytes=0), now=0.0)
    await log.drop(*nodes[:3])
    assert (log._resident_bytes, log._bytes, len(log._resident), len(log._holding)) == (0, 0, 0, 0)
    await log.close()


async def test_those_who_replay_do_not_hold_up_those_who_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LocalLog(path, node_bytes=0)
    await log.open()
    node = new_id()
    await log.append(node, *(draft(n) for n in range(600)))
    steps: list[int] = []
    read = LogFile.read

    def counted(file: LogFile, node: str, first: int, last: int) -> list[Record]:
        steps.append(first)
        return read(file, node, first, last)

    monkeypatch.setattr(LogFile, "read", counted)
    reading = [asyncio.create_task(log.read(node, 0)) for _ in range(50)]
    await asyncio.sleep(0)
    await log.append(node, draft())
    assert len(steps) < 20  # of 250
    for records in await asyncio.gather(*reading):
        assert [r.sequence for r in records] == list(range(1, 601))
    await log.close()


async def test_a_record_that_leaves_while_it_is_read(path: Path) -> None:
    log = LocalLog(path, node_bytes=0, lazy_seconds=0.0)
    await log.open()
    node = new_id()
    await fill(log, node, 1, 2, 3, 4)
    await settle_at(log, node, 3)
    reading = asyncio.create_task(log.read(node, 0))
    await asyncio.sleep(0)
    await log.trim(Retention(node_bytes=0), now=0.0)
    assert [r.sequence for r in await reading] == [1, 2, 3, 4]  # it was still there
    with pytest.raises(Truncated):
        await log.read(node, 0)
    await fill(log, node, 5)  # by now the file has let go of them
    with pytest.raises(Truncated):
        await log.read(node, 2)
    assert [r.sequence for r in await log.read(node, 3)] == [4, 5]
    await log.close()


async def test_a_watermark_goes_into_the_file_by_itself(log: LocalLog, path: Path) -> None:
    node = new_id()
    await fill(log, node, 1, 2)
    await settle_at(log, node, 2)
    await log.trim(Retention(node_bytes=0), now=0.0)
    await asyncio.sleep(0.2)
    connection = log._file._connection
    assert connection is not None
    assert connection.execute("SELECT node, head, settled FROM nodes").fetchall() == [(node, 2, 2)]
    assert connection.execute("SELECT count(*) FROM records").fetchone() == (0,)


# ---------------------------------------------------------------------- file


async def test_one_process_a_file(log: LocalLog, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_file, "_LOCK_SECONDS", 0.05)
    second = LocalLog(path)
    with pytest.raises(Unavailable, match="another process has it open"):
        await second.open()
    await second.close()
    program = (
        "import asyncio, pathlib, sys\n"
        "from tiled_stream.log import local, local_file\n"
        "local_file._LOCK_SECONDS = 0.05\n"
        "asyncio.run(local.LocalLog(pathlib.Path(sys.argv[1])).open())"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, path, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    )
    _, errors = await child.communicate()
    assert child.returncode != 0
    assert b"another process has it open" in errors
    assert (await log.append(new_id(), draft())).sequence == 1  # undisturbed


async def test_closing_leaves_nothing(path: Path) -> None:
    before = set(threading.enumerate())
    log = LocalLog(path)
    await log.open()
    await fill(log, new_id(), 1)
    await log.close()
    assert set(threading.enumerate()) == before  # I9
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [p.name for p in path.parent.iterdir()] == ["log.db"]
    with sqlite3.connect(path) as connection:
        connection.execute("BEGIN EXCLUSIVE")
    connection.close()


async def test_closing_writes_what_was_on_the_way(log: LocalLog, held: Held, path: Path) -> None:
    node = new_id()
    appends = [*await start(log, node, b"x")]
    await held.under_way()
    appends += await start(log, node, b"y")
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0.01)
    held.free.set()
    await closing
    assert [position.sequence for position in await asyncio.gather(*appends)] == [1, 2]
    assert sequences(path, node) == [1, 2]


async def test_a_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    missing = LocalLog(tmp_path / "nowhere" / "log.db")
    with pytest.raises(Unavailable, match="directory"):
        await missing.open()
    (tmp_path / "text.db").write_text("this is no database " * 100)
    with pytest.raises(Unavailable, match="not a database"):
        await LocalLog(tmp_path / "text.db").open()
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE mine (x)")
    foreign.commit()
    foreign.close()
    with pytest.raises(Unavailable, match="no log of this version"):
        await LocalLog(tmp_path / "foreign.db").open()
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(Unavailable, match="version is 99"):
        await LocalLog(tmp_path / "newer.db").open()


@pytest.mark.parametrize(
    ("synchronous", "boot", "is_same"),
    [("normal", "this one", True), ("normal", "another", False), ("normal", "", False), ("full", "another", True)],
)
async def test_a_machine_that_went_down_may_have_lost_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, synchronous: local_file.Synchronous, boot: str, is_same: bool
) -> None:
    """Then positions of the old epoch must not be taken for those that are given now (I2)."""
    monkeypatch.setattr(local_file, "_boot", lambda: "this one")
    log = LocalLog(path, synchronous=synchronous)
    await log.open()
    node = new_id()
    await fill(log, node, 1)
    epoch = log.epoch
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):  # as it lies there when the process is killed
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    await log.close()
    monkeypatch.setattr(local_file, "_boot", lambda: boot)
    killed = LocalLog(copy, synchronous=synchronous)
    await killed.open()
    assert (killed.epoch == epoch) == is_same
    assert (await killed.head(node)).sequence == 1
    await killed.close()
    closed = LocalLog(path)
    await closed.open()
    assert closed.epoch == epoch
    await closed.close()


async def test_a_file_that_lacks_records_says_so(path: Path) -> None:
    log = LocalLog(path, node_bytes=0)
    await log.open()
    node = new_id()
    await fill(log, node, 1, 2, 3)
    connection = log._file._connection
    assert connection is not None
    connection.execute("DELETE FROM records WHERE sequence = 2")
    with pytest.raises(Unavailable, match="damaged"):
        await log.read(node, 0)
    connection.execute("UPDATE records SET event = x'81a47479706566'")
    with pytest.raises(Unavailable, match="cannot read"):
        await log.read(node, 0, limit=1)
    await log.close()
