"""`kill -9` at random moments of a scan: what was acknowledged is there after the restart, once, in order (I1, I5, I6)."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import httpx
import msgspec
import numpy
import pyarrow
import pytest

from tests.scenarios.server_process import ARROW, OCTETS, ServerProcess, array_source, create
from tiled_stream.wire.structures import structure_to_wire
from tiled_stream.wire.tables import structure_of

KILLS = 20
SCHEMA = pyarrow.schema([("n", pyarrow.int64()), ("x", pyarrow.float64())])


class Producer:
    """Writes rows, images and runs, one after the other, and remembers what was acknowledged and what was in doubt."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.frames: list[int] = []
        self.runs: list[str] = []
        # Sent, but the server died before it answered: may be there, at most once.
        self.doubtful: set[tuple[str, int]] = set()
        self._next = 0

    def produce(self, client: httpx.Client, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                number, self._next = self._next, self._next + 1
                kind = ("row", "frame", "run")[number % 3]
                self.doubtful.add((kind, number))
                self._write(client, kind, number)
                self.doubtful.discard((kind, number))
        except httpx.HTTPError:
            return

    def _write(self, client: httpx.Client, kind: str, number: int) -> None:
        if kind == "row":
            client.patch("/table/partition/t?partition=0", content=arrow(number), headers=ARROW).raise_for_status()
            self.rows.append(number)
        elif kind == "frame":
            place = number // 3  # the n-th frame stands at n, so a doubtful one is written over by nobody
            body = numpy.full(4, float(number)).tobytes()
            url = f"/array/full/a?offset={place},0&shape=1,4&extend=true"
            client.patch(url, content=body, headers=OCTETS).raise_for_status()
            self.frames.append(number)
        else:
            create(client, "runs", f"run{number}")
            self.runs.append(f"run{number}")


def arrow(number: int) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pyarrow.table({"n": [number], "x": [number / 2]}, schema=SCHEMA))
    return sink.getvalue().to_pybytes()


def check(client: httpx.Client, producer: Producer) -> None:
    """Everything acknowledged, once, in order; beside it only what was in doubt."""
    answer = client.get("/table/full/t?format=application/vnd.apache.arrow.file").raise_for_status()
    numbers = pyarrow.ipc.open_file(answer.content).read_all().column("n").to_pylist()
    assert len(set(numbers)) == len(numbers)
    assert numbers == sorted(numbers)
    assert set(producer.rows) <= set(numbers)
    assert {("row", n) for n in set(numbers) - set(producer.rows)} <= producer.doubtful
    cells = numpy.frombuffer(client.get("/array/full/a").raise_for_status().content).reshape(-1, 4)
    for number in producer.frames:
        assert (cells[number // 3] == number).all()
    names = [r["id"] for r in listed(client)]
    assert [name for name in names if name in set(producer.runs)] == producer.runs
    assert len(set(names)) == len(names)


def listed(client: httpx.Client) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    url: str | None = "/search/runs?page[limit]=300&fields="
    while url:
        page = client.get(url).raise_for_status().json()
        found += page["data"]
        url = page["links"]["next"]
    return found


@pytest.mark.timeout(180)
def test_kill_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(20261123)
    arguments = ("catalog.db", "--init", "-w", "data", "-w", f"duckdb://{tmp_path / 'storage.duckdb'}")
    producer, heads = Producer(), {"t": 0, "a": 0, "runs": 0}
    for kill in range(KILLS):
        server = ServerProcess(*arguments, directory=tmp_path)
        try:
            with server.client() as client:
                if kill == 0:
                    structure = structure_to_wire(structure_of(SCHEMA))
                    create(client, "", "t", "table", {"structure_family": "table", "structure": structure, "mimetype": None})
                    create(client, "", "a", "array", array_source([1, 4], [[1], [4]]))
                    create(client, "", "runs")
                else:
                    check(client, producer)
                stop = threading.Event()
                thread = threading.Thread(target=producer.produce, args=(client, stop))
                thread.start()
                time.sleep(chance.uniform(0.02, 0.5))
                for path, head in heads.items():
                    heads[path] = _next_sequence(server, path, head)  # I1
                server.process.send_signal(signal.SIGKILL)
                server.process.wait(10)
                stop.set()
                thread.join(20)
                assert not thread.is_alive()
        finally:
            server.stop(signal.SIGKILL)
    assert min(len(producer.rows), len(producer.frames), len(producer.runs)) > KILLS
    server = ServerProcess(*arguments, directory=tmp_path)
    with server.client() as client:
        check(client, producer)
    assert server.stop() == 0


def _next_sequence(server: ServerProcess, path: str, head: int) -> int:
    """The last sequence that a subscriber is told; it rises from one life of the server to the next."""
    with server.subscribe(path, start=head + 1) as socket:
        last = head
        for _ in range(200):
            try:
                update = msgspec.msgpack.decode(socket.recv(timeout=0.02))
            except TimeoutError:
                return last
            assert update["sequence"] == last + 1, update  # I1, I3
            last = update["sequence"]
        return last
