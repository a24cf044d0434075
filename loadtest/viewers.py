"""What viewers cost a server: CPU for each event that reaches one, how late events are, which first ones are missed.

    python loadtest/viewers.py                                            # this server, its log in Redis
    python loadtest/viewers.py --viewers 1,40,100,200 --seconds 10
    python loadtest/viewers.py --server ours='tiled-stream serve … --cache redis://127.0.0.1:{redis}' --server peer='…'

One writer appends rows to one table at a steady pace. `plain`: each viewer has a socket on the table, as any client of the
protocol. `page`: each has one socket on many nodes, with the list of runs and the table at no more than so many updates a second.
An event counts as delivered to a viewer when a message has it or stands for it; every viewer checks that none is missing.
The server's CPU is that of its whole process tree, without Redis; the row `0` says what the writes alone cost, and is taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgpack
import psutil
from run import KEY, cpu, named, ready
from websockets.asyncio.client import ClientConnection, connect
from wire import RowFile, create_container, create_table, sent_at

OURS = (
    f"{shlex.quote(sys.executable)} -m tiled_stream serve catalog --temp --api-key {KEY} "
    "--port {port} --cache redis://127.0.0.1:{redis}"
)
AUTH = {"Authorization": f"Apikey {KEY}"}
ARROW = {"Content-Type": "application/vnd.apache.arrow.file"}
FILE = RowFile(8)
#: Children of the run whose first events are looked for.
CHILDREN = 20


class Outcome(NamedTuple):
    """`cpu`: seconds while `writes` rows reached viewers `events` times, in `messages`. `times`: seconds until delivery."""

    writes: int
    events: int
    messages: int
    cpu: float
    times: list[float]


class Server:
    """One that runs."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.port = port
        self.process = psutil.Process(process.pid)
        self.tables = 0

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}/api/v1", headers=AUTH, timeout=30)

    def stream(self, path: str) -> connect:
        return connect(
            f"ws://127.0.0.1:{self.port}/api/v1/stream/{path}envelope_format=msgpack",
            additional_headers=AUTH,
            max_size=None,
            compression=None,
            proxy=None,
            open_timeout=30,
        )


def main() -> int:
    """All servers, one after the other."""
    options = parsed()
    for name, command in options.server:
        with serving(name, command) as server:
            asyncio.run(judged(server, options))
    return 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", type=named, metavar="NAME=COMMAND", help="{port} and {redis} are filled in")
    parser.add_argument("--viewers", type=lambda text: [int(n) for n in text.split(",")], default=[1, 40, 100, 200])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=25.0, help="rows a second")
    parser.add_argument("--max-hz", type=float, default=10.0, help="of `page`: updates a second at most")
    options = parser.parse_args()
    options.server = options.server or [("tiled_stream", OURS)]
    return options


@contextlib.contextmanager
def serving(name: str, command: str) -> Iterator[Server]:
    """The server and its Redis, stopped at the end."""
    redis = shutil.which("redis-server") or shutil.which("valkey-server")
    if redis is None:
        sys.exit("There is no redis-server and no valkey-server here.")
    with tempfile.TemporaryDirectory(prefix="viewers-") as directory, contextlib.ExitStack() as stack:

        def started(arguments: list[str]) -> subprocess.Popen[bytes]:
            log = stack.enter_context((Path(directory) / "log").open("ab"))
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        port, redis_port = free_port(), free_port()
        started([redis, "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", directory])
        time.sleep(0.5)
        process = started(shlex.split(command.format(port=port, redis=redis_port)))
        if not ready(process, port):
            sys.exit(f"{name} did not start:\n{(Path(directory) / 'log').read_text()[-3000:]}")
        yield Server(name, port, process)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def judged(server: Server, options: argparse.Namespace) -> None:
    """The three figures of one server."""
    print(f"\n{server.name}: {options.rate:g} rows a second for {options.seconds:g} s\n")
    await watched(server, options, "plain", 0)  # the first writes of a process cost more
    alone = await watched(server, options, "plain", 0)
    a_write = alone.cpu / alone.writes
    print(f"| viewers | kind | messages | events | CPU s | CPU us an event | p50 ms | p99 ms |\n|{'---|' * 8}")
    print(f"| 0 | | | {alone.writes} written | {alone.cpu:.2f} | {1e6 * a_write:.0f} a write | | |")
    has_many = await knows_many(server)
    for kind in ("plain", "page") if has_many else ("plain",):
        for count in options.viewers:
            try:
                found = await watched(server, options, kind, count)
            except Exception as error:  # noqa: BLE001 - what fails is told, the others go on
                print(f"| {count} | {kind} | failed: {type(error).__name__}: {str(error)[:80]} | | | | | |")
                continue
            own = max(0.0, found.cpu - found.writes * a_write)
            cells = (count, kind, found.messages, found.events, f"{found.cpu:.2f}", f"{1e6 * own / found.events:.0f}")
            print(f"| {' | '.join(map(str, cells))} | {spread(found.times)} |")
    for with_slow in (False, True, False, True):
        try:
            found = await watched(server, options, "plain", 100, with_slow=with_slow)
        except Exception as error:  # noqa: BLE001 - as above
            print(f"100 viewers failed: {type(error).__name__}: {str(error)[:80]}")
            break
        company = "beside one that reads a message a second" if with_slow else "alone"
        print(f"100 viewers {company}: {spread(found.times)} (p50, p99 ms)")
    for kind in ("plain", "plain from the first", "subtree") if has_many else ("plain", "plain from the first"):
        print(
            f"first events of {CHILDREN} children created at full speed, {kind}: {await first_events(server, kind)} of {CHILDREN}"
        )


def spread(times: list[float]) -> str:
    """Median and 99th percentile in milliseconds, as two cells."""
    if len(times) < 2:
        return "- | -"
    return f"{1e3 * statistics.median(times):.1f} | {1e3 * statistics.quantiles(times, n=100)[98]:.1f}"


async def knows_many(server: Server) -> bool:
    """Does it have sockets for many nodes?"""
    try:
        async with server.stream("many?"):
            return True
    except Exception:  # noqa: BLE001 - whatever way it says no
        return False


async def watched(server: Server, options: argparse.Namespace, kind: str, count: int, *, with_slow: bool = False) -> Outcome:
    """So many viewers while rows are written."""
    server.tables += 1
    key = f"t{server.tables}"
    writes = max(1, round(options.rate * options.seconds))
    async with server.client() as client, contextlib.AsyncExitStack() as stack:
        (await client.post("/metadata/", json=create_table(key, FILE))).raise_for_status()
        viewers: list[ClientConnection] = []
        for _ in range(count):
            viewers.append(await stack.enter_async_context(viewer(server, kind, key, options.max_hz)))
        tasks = [asyncio.create_task((plain if kind == "plain" else page)(one, writes)) for one in viewers]
        stack.push_async_callback(ended, tasks)
        if with_slow:
            stack.callback(asyncio.create_task(slow(await stack.enter_async_context(viewer(server, "plain", key, 0)))).cancel)
        before = cpu(server.process)
        begin = time.monotonic()
        for n in range(writes):
            await asyncio.sleep(max(0.0, begin + n / options.rate - time.monotonic()))
            body = FILE.body()
            (await client.patch(f"/table/partition/{key}?partition=0", content=body, headers=ARROW)).raise_for_status()
        found = await asyncio.wait_for(asyncio.gather(*tasks), 60)
        used = cpu(server.process) - before
    return Outcome(writes, count * writes, sum(n for n, _ in found), used, [t for _, times in found for t in times])


async def ended(tasks: list[asyncio.Task[tuple[int, list[float]]]]) -> None:
    """Leave none behind, also if the writer failed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def viewer(server: Server, kind: str, key: str, max_hz: float) -> AsyncIterator[ClientConnection]:
    """A socket that stands where the writing begins."""
    if kind == "plain":
        async with server.stream(f"single/{key}?") as made:
            await made.recv()
            yield made
        return
    async with server.stream("many?") as made:
        await made.send(msgpack.packb({"type": "subscribe", "id": 1, "path": ""}))
        await made.send(msgpack.packb({"type": "subscribe", "id": 2, "path": key, "start": 0, "max_hz": max_hz}))
        waiting = {1, 2}
        while waiting:
            subscription, _, message = msgpack.unpackb(await made.recv())
            if message["type"] == "live":
                waiting.discard(subscription)
        yield made


async def plain(socket: ClientConnection, writes: int) -> tuple[int, list[float]]:
    """Messages, and how late each was."""
    times = []
    last = 0
    for _ in range(writes):
        frame = await socket.recv()
        now = time.time()
        assert isinstance(frame, bytes)
        sequence, kind, sent = sent_at(frame)
        if kind != "table-data" or sent is None or (last and sequence != last + 1):
            raise AssertionError(f"{kind} {sequence} after {last}")
        last = sequence
        times.append(now - sent)
    return writes, times


async def page(socket: ClientConnection, writes: int) -> tuple[int, list[float]]:
    """The same of one socket on many nodes: each message stands for those that `thinned` counted before it."""
    times = []
    stood = messages = 0
    while stood < writes:
        frame = await socket.recv()
        now = time.time()
        assert isinstance(frame, bytes)
        subscription, _, message = msgpack.unpackb(frame)
        if subscription != 2:
            continue
        if message["type"] == "thinned":
            stood += message["skipped"]
        elif message["type"] == "table-data":
            stood += 1
            messages += 1
            sent = sent_at(msgpack.packb(message))[2]
            if message["sequence"] != stood or sent is None:
                raise AssertionError(f"{message['sequence']} stands for {stood}")
            times.append(now - sent)
    return messages, times


async def slow(socket: ClientConnection) -> None:
    """Reads a message a second."""
    with contextlib.suppress(Exception):
        while True:
            await socket.recv()
            await asyncio.sleep(1)


async def first_events(server: Server, kind: str) -> int:
    """Of how many children the first row was seen: by sockets opened when the run tells of the child, or by the subtree's."""
    server.tables += 1
    run = f"run{server.tables}"
    keys = [f"s{n}" for n in range(CHILDREN)]
    seen: set[str] = set()
    start = "start=0&" if kind == "plain from the first" else ""
    async with server.client() as client, contextlib.AsyncExitStack() as stack:
        (await client.post("/metadata/", json=create_container(run))).raise_for_status()

        async def child(key: str) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5), server.stream(f"single/{run}/{key}?{start}") as own:
                    while sent_at(bytes(await own.recv()))[1] != "table-data":  # type: ignore[arg-type]
                        pass
                    seen.add(key)

        async def by_children(socket: ClientConnection) -> None:
            async with asyncio.TaskGroup() as group:
                for _ in keys:
                    message = msgpack.unpackb(await socket.recv())
                    group.create_task(child(message["key"]))

        async def by_subtree(socket: ClientConnection) -> None:
            paths: dict[int, str] = {}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    while len(seen) < CHILDREN:
                        _, node, message = msgpack.unpackb(await socket.recv())
                        if message["type"] == "node":
                            paths[node] = message["path"][-1]
                        elif message["type"] == "table-data":
                            seen.add(paths[node])

        if kind != "subtree":
            socket: Any = await stack.enter_async_context(server.stream(f"single/{run}?"))
            await socket.recv()
            task = asyncio.create_task(by_children(socket))
        else:
            socket = await stack.enter_async_context(server.stream("many?"))
            await socket.send(msgpack.packb({"type": "subscribe", "id": 1, "path": run, "subtree": True}))
            while msgpack.unpackb(await socket.recv())[2]["type"] != "live":
                pass
            task = asyncio.create_task(by_subtree(socket))
        for key in keys:
            (await client.post(f"/metadata/{run}", json=create_table(key, FILE))).raise_for_status()
            (
                await client.patch(f"/table/partition/{run}/{key}?partition=0", content=FILE.body(), headers=ARROW)
            ).raise_for_status()
        await asyncio.wait_for(task, 30)
    return len(seen)


if __name__ == "__main__":
    sys.exit(main())
