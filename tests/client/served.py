"""A server with real sockets on a thread, written to from inside, and a proxy that tears what goes through it.

Writing from inside is for speed alone: a hundred thousand records over HTTP would take minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import numpy
import pyarrow

from tiled_stream.domain.commands import AppendRows, CreateChild, EndStream, NewDataSource, PatchArray, WriteArray
from tiled_stream.domain.nodes import Spec
from tiled_stream.domain.structures import ArrayStructure, DataType
from tiled_stream.run.assembly import Assembly
from tiled_stream.run.serving import listening_socket, new_loop, serve
from tiled_stream.run.settings import Settings
from tiled_stream.wire.tables import structure_of

KEY = "secret"
_T = TypeVar("_T")


class Served:
    """Words for what tests do to a server. Methods block, from any thread but the server's."""

    def __init__(self, assembly: Assembly, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.assembly = assembly
        self.loop = loop
        self.port = port
        self.uri = f"http://127.0.0.1:{port}?api_key={KEY}"

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """On the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    async def submit(self, path: str, command: Any) -> None:
        await self.assembly.services.writer.submit(tuple(key for key in path.split("/") if key), command)

    def do(self, path: str, command: Any) -> None:
        self.run(self.submit(path, command))

    def container(self, path: str, *, spec: str | None = None, **metadata: Any) -> None:
        parent, _, key = path.rpartition("/")
        specs = (Spec(spec),) if spec else ()
        self.do(parent, CreateChild(key=key, family="container", metadata=metadata, specs=specs))

    def array(self, path: str, shape: tuple[int, ...] = (2,)) -> None:
        parent, _, key = path.rpartition("/")
        structure = ArrayStructure(
            data_type=DataType(itemsize=8, kind="f", endianness="little"), chunks=tuple((n,) for n in shape), shape=shape
        )
        self.do(parent, CreateChild(key=key, family="array", metadata={}, data_sources=(NewDataSource("array", structure),)))

    def table(self, path: str, schema: pyarrow.Schema) -> None:
        parent, _, key = path.rpartition("/")
        source = NewDataSource("table", structure_of(schema))
        self.do(parent, CreateChild(key=key, family="table", metadata={}, data_sources=(source,)))

    def write(self, path: str, *values: float, cells: int = 2) -> None:
        """Each value fills the array once."""
        for value in values:
            self.do(path, WriteArray(numpy.full(cells, float(value)).tobytes()))

    def extend(self, path: str, offset: tuple[int, ...], array: numpy.ndarray[Any, Any]) -> None:
        self.do(path, PatchArray(offset=offset, shape=array.shape, body=array.tobytes(), extend=True))

    def append(self, path: str, **columns: list[Any]) -> None:
        self.do(path, AppendRows(0, arrow_file(pyarrow.table(columns))))

    def end(self, path: str) -> None:
        self.do(path, EndStream())


def without_history() -> dict[str, Any]:
    """Settings of a server that gives what is in the log and no more, so that what was trimmed is missing."""
    return {"history": False} if "history" in Settings.__struct_fields__ else {}


def arrow_file(table: pyarrow.Table) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@contextlib.contextmanager
def served(*, port: int = 0, **settings: Any) -> Iterator[Served]:
    """A server that is stopped afterwards as an operator would: streams are told."""
    given: dict[str, Any] = {"temp": True, "api_key": KEY, "persist_linger_seconds": 0.01, **settings}
    built = Settings(**given)
    sock = listening_socket("127.0.0.1", port, send_timeout_seconds=built.send_timeout_seconds)
    ready: threading.Event = threading.Event()
    found: dict[str, Any] = {}

    async def main() -> None:
        stop = asyncio.Event()

        def told(assembly: Assembly) -> None:
            found.update(assembly=assembly, loop=asyncio.get_running_loop(), stop=stop)
            ready.set()

        await serve(built, sock, stop, told)

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(main())
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="server")
    with sock:
        thread.start()
        assert ready.wait(30)
        assert found, "the server did not start"
        try:
            yield Served(found["assembly"], found["loop"], sock.getsockname()[1])
        finally:
            found["loop"].call_soon_threadsafe(found["stop"].set)
            thread.join(30)
            assert not thread.is_alive()


class Tearing:
    """A proxy: what it did. `port` is where clients connect."""

    def __init__(self, upstream: int, after: Callable[[], int | None]) -> None:
        self._upstream = upstream
        #: Of each connection: after how many bytes towards the client it is torn; None: never.
        self._after = after
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        self.torn = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}?api_key={KEY}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        left = self._after()
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        forward = asyncio.create_task(_pass_on(reader, up_writer), name="forward")
        try:
            while data := await _read(up_reader):
                if left is not None and len(data) >= left:
                    writer.write(data[:left])
                    self.torn += 1
                    break
                left = None if left is None else left - len(data)
                writer.write(data)
                await writer.drain()
        finally:
            forward.cancel()
            await asyncio.wait([forward])
            for stream in (writer, up_writer):
                stream.transport.abort()
            self._tasks.discard(task)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _read(reader: asyncio.StreamReader) -> bytes:
    """What comes; nothing if the other side is gone, however it went."""
    try:
        return await reader.read(1 << 14)
    except OSError:
        return b""


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 14):
            writer.write(data)
            await writer.drain()


def every(least: int, most: int, *, seed: int) -> Callable[[], int]:
    """A random number of bytes in this range for each connection, the same in each run."""
    chance = random.Random(seed)
    return lambda: chance.randint(least, most)


@contextlib.asynccontextmanager
async def tearing(upstream: int, after: Callable[[], int | None]) -> AsyncIterator[Tearing]:
    """A proxy on this loop."""
    proxy = Tearing(upstream, after)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.stop()


@contextlib.contextmanager
def tearing_on_a_thread(upstream: int, after: Callable[[], int | None]) -> Iterator[Tearing]:
    """The same for blocking clients."""
    started, found = threading.Event(), []
    stop: asyncio.Event
    loop: asyncio.AbstractEventLoop

    async def main() -> None:
        nonlocal stop, loop
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with tearing(upstream, after) as proxy:
            found.append(proxy)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="proxy")
    thread.start()
    assert started.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
