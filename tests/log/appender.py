"""The child of the crash test: appends to a local log from many tasks and prints each acknowledgement, until it is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tiled_stream.log.local import LocalLog
from tiled_stream.log.port import Retention
from tiled_stream.testing.factories import draft


async def write(log: LocalLog, node: str, writer: int) -> None:
    """Append for ever; a line is written only after the acknowledgement."""
    n = 0
    while True:
        payload = b"%d.%d.%d" % (os.getpid(), writer, n) + b"." * (n % 5 * 1500)
        position = await log.append(node, draft(n, payload))
        os.write(1, b"%s %d %d.%d.%d\n" % (node.encode(), position.sequence, os.getpid(), writer, n))
        n += 1


async def persist(log: LocalLog) -> None:
    """Settle and trim meanwhile, as a persister does: it must not cost a head."""
    while True:
        await log.wait_dirty()
        for lease in await log.claim("w", ttl=60.0, limit=2):
            await log.settle(lease, max(lease.after, lease.head - 40))
        await log.trim(Retention(node_bytes=100_000), now=0.0)
        await asyncio.sleep(0.003)


async def main(path: Path) -> None:
    log = LocalLog(path, node_bytes=50_000, lazy_seconds=0.005)
    await log.open()
    async with asyncio.TaskGroup() as tasks:
        for writer in range(8):
            tasks.create_task(write(log, f"node{writer % 3}", writer), name=f"writer {writer}")
        tasks.create_task(persist(log), name="persister")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
