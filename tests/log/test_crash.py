"""Killed at any moment, the local log has every acknowledged record once, in order, and its sequences rise on (I1, I6)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tiled_stream.domain.errors import Truncated
from tiled_stream.log.local import LocalLog
from tiled_stream.testing.factories import draft

ROOT = Path(__file__).parents[2]
KILLS = 10


def write_and_kill(path: Path, seconds: float) -> list[tuple[str, int, bytes]]:
    """Let a child write for so long after its first acknowledgement; node, sequence and payload of what it acknowledged."""
    told = path.with_name("acknowledged")
    with (
        told.open("wb") as output,
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("appender.py")), str(path)],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
            stdout=output,
        ) as child,
    ):
        deadline = time.monotonic() + 60
        while told.stat().st_size == 0:
            assert child.poll() is None and time.monotonic() < deadline, "the child could not begin"  # noqa: PT018
            time.sleep(0.002)
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        assert child.wait(20) == -signal.SIGKILL
    lines = told.read_bytes().split(b"\n")[:-1]  # what follows the last line end was cut short
    return [(node.decode(), int(sequence), payload) for node, sequence, payload in (line.split(b" ") for line in lines)]


async def test_acknowledged_records_survive_being_killed(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    chance = random.Random(4)
    acknowledged: dict[tuple[str, int], bytes] = {}
    heads: dict[str, int] = {}
    epochs = set()
    for _ in range(KILLS):
        for node, sequence, payload in write_and_kill(path, chance.uniform(0.0, 0.12)):
            assert (node, sequence) not in acknowledged  # once
            assert sequence > heads.get(node, 0)  # rising on over lives
            acknowledged[node, sequence] = payload
        log = LocalLog(path)
        await log.open()
        epochs.add(log.epoch)
        for node in {node for node, _ in acknowledged}:
            heads[node] = (await log.head(node)).sequence
            assert heads[node] >= max(sequence for n, sequence in acknowledged if n == node)
            try:
                await log.read(node, 0)
                first = 1
            except Truncated as told:
                first = told.first
            cursor = first - 1
            while records := await log.read(node, cursor):
                for record in records:
                    assert record.sequence == cursor + 1
                    cursor = record.sequence
                    told_then = acknowledged.get((node, cursor))
                    assert told_then is None or record.payload.rstrip(b".") == told_then
            assert cursor == heads[node]
            heads[node] = (await log.append(node, draft(1, b"between"))).sequence
            acknowledged[node, heads[node]] = b"between"
        await log.close()
    assert len(epochs) == 1
    assert len(acknowledged) > KILLS * 20
