"""A beamline under load: writers that append rows, subscribers that watch them, readers that browse.

    locust -f loadtest/locustfile.py --headless --host http://127.0.0.1:8000 --api-key secret -u 12 -r 12 -t 30s

How many of each: `--array-writers`, `--table-writers`, `--subscribers`, `--readers` (`-u` must be their sum). Reported besides
the requests: `LIVE array delivery` and `LIVE table delivery`, the time from just before a write was sent until a subscriber had
it decoded; `LIVE replay` is what was written before a subscriber joined, timed from there. A missing, doubled or misplaced
sequence is a failure. It speaks the wire protocol only, so any server of it can be measured.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from typing import Any
from uuid import uuid4

import gevent
import gevent.lock
import websocket
from locust import FastHttpUser, User, constant_throughput, events, task
from locust.env import Environment
from locust.exception import StopUser
from wire import RowFile, create_array, create_container, create_table, row, sent_at

#: Who watches what is settled by turns, so that every node gets its share of subscribers.
_turns = itertools.count()


class Board:
    """What the users of one run share: the container of the run and the paths of the nodes that are written to."""

    def __init__(self) -> None:
        self.container = f"load-{uuid4().hex[:12]}"
        self.made = False
        self.making = gevent.lock.BoundedSemaphore()
        self.nodes: list[str] = []


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    parser.add_argument("--api-key", default="secret", help="of the server", is_secret=True)
    parser.add_argument("--array-writers", type=int, default=2, help="each appends rows to an array of its own")
    parser.add_argument("--table-writers", type=int, default=2, help="each appends rows to a table of its own")
    parser.add_argument("--subscribers", type=int, default=6, help="each watches one of those nodes")
    parser.add_argument("--readers", type=int, default=2, help="each browses: metadata, newest page, data")
    parser.add_argument("--write-rate", type=float, default=10.0, help="rows per second and writer")
    parser.add_argument("--row-length", type=int, default=16, help="float64 values in a row of an array")


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    environment.board = Board()
    if options is None:
        return
    for kind, count in (
        (ArrayWriter, options.array_writers),
        (TableWriter, options.table_writers),
        (Subscriber, options.subscribers),
        (Reader, options.readers),
    ):
        kind.fixed_count = count
        kind.weight = 1 if count else 0


class ApiUser(FastHttpUser):
    """Somebody with the key, and the container of this run."""

    abstract = True

    def on_start(self) -> None:
        """Make the run's container if nobody did."""
        options = self.environment.parsed_options
        self.rate = options.write_rate
        self.headers = {"Authorization": f"Apikey {options.api_key}"}
        board = self.board = self.environment.board
        with board.making:
            if not board.made:
                self.post("", create_container(board.container))
                board.made = True

    def post(self, path: str, body: dict[str, Any]) -> None:
        """Make a node under `path`."""
        url = f"/api/v1/metadata/{path}"
        with self.client.post(url, json=body, name="POST metadata", headers=self.headers, catch_response=True) as answer:
            made = answer.status_code == 200
            if not made:
                answer.failure(f"{answer.status_code} {(answer.text or '')[:200]}")
        if not made:
            raise StopUser

    def request(self, method: str, url: str, name: str, **kwargs: Any) -> None:
        """One request; anything but success is a failure."""
        headers = self.headers | kwargs.pop("headers", {})
        with self.client.request(method, url, name=name, headers=headers, catch_response=True, **kwargs) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code} {(answer.text or '')[:200]}")


class ArrayWriter(ApiUser):
    """Appends rows of float64 to an array, as a detector with a waveform does."""

    fixed_count = 0

    def wait_time(self) -> float:
        """Keeps the pace that was asked for, whatever a write takes."""
        return constant_throughput(self.rate)(self)

    def on_start(self) -> None:
        """Make the array."""
        super().on_start()
        self.length = self.environment.parsed_options.row_length
        self.fill = os.urandom(8 * self.length)
        self.rows = 1
        key = f"array-{uuid4().hex[:8]}"
        self.path = f"{self.board.container}/{key}"
        self.post(self.board.container, create_array(key, self.length))
        self.board.nodes.append(self.path)

    @task
    def append(self) -> None:
        """One row more."""
        self.request(
            "PATCH",
            f"/api/v1/array/full/{self.path}?offset={self.rows}&shape=1,{self.length}&extend=true",
            "PATCH array",
            data=row(self.length, self.fill),
            headers={"Content-Type": "application/octet-stream"},
        )
        self.rows += 1


class TableWriter(ApiUser):
    """Appends one row to a table, as Bluesky does for each event."""

    fixed_count = 0

    def wait_time(self) -> float:
        """Keeps the pace that was asked for, whatever a write takes."""
        return constant_throughput(self.rate)(self)

    def on_start(self) -> None:
        """Make the table."""
        super().on_start()
        self.file = RowFile(5)
        key = f"table-{uuid4().hex[:8]}"
        self.path = f"{self.board.container}/{key}"
        self.post(self.board.container, create_table(key, self.file))
        self.board.nodes.append(self.path)

    @task
    def append(self) -> None:
        """One row more."""
        self.request(
            "PATCH",
            f"/api/v1/table/partition/{self.path}?partition=0",
            "PATCH table",
            data=self.file.body(),
            headers={"Content-Type": "application/vnd.apache.arrow.file"},
        )


class Reader(ApiUser):
    """Somebody with a notebook: looks around and reads what is there."""

    fixed_count = 0

    def wait_time(self) -> float:
        """Two questions a second."""
        return constant_throughput(2)(self)

    @task(3)
    def look(self) -> None:
        """Metadata of a node."""
        if self.board.nodes:
            self.request("GET", f"/api/v1/metadata/{random.choice(self.board.nodes)}", "GET metadata")

    @task(2)
    def newest(self) -> None:
        """The newest page of the run's container."""
        url = f"/api/v1/search/{self.board.container}?sort=-&page[limit]=20"
        self.request("GET", url, "GET search newest")

    @task(1)
    def read(self) -> None:
        """A node's data; of an array the first row, of a table all."""
        if not self.board.nodes:
            return
        path = random.choice(self.board.nodes)
        if "/array-" in path:
            self.request("GET", f"/api/v1/array/full/{path}?slice=0:1", "GET array")
        else:
            self.request("GET", f"/api/v1/table/partition/{path}?partition=0", "GET table")


class Subscriber(User):
    """A live plot: gets everything of one node from the beginning, then what comes."""

    fixed_count = 0

    def on_start(self) -> None:
        """Nothing is open yet."""
        self.socket: websocket.WebSocket | None = None

    def on_stop(self) -> None:
        """Let go of the socket, so that the server does not wait for a reader that will not come."""
        if self.socket is not None:
            self.socket.close(timeout=1)

    @task
    def watch(self) -> None:
        """Until the test ends, or the server closes."""
        nodes = self._nodes()
        path = nodes[next(_turns) % len(nodes)]
        url = f"{self.host}/api/v1/stream/single/{path}?envelope_format=msgpack&start=0".replace("http", "ws", 1)
        begun = time.perf_counter()
        try:
            self.socket = websocket.create_connection(
                url, header=[f"Authorization: Apikey {self.environment.parsed_options.api_key}"], timeout=30
            )
        except (OSError, websocket.WebSocketException) as error:
            self._report("subscribe", begun, 0, error)
            gevent.sleep(1)
            return
        self._report("subscribe", begun, 0, None)
        self._follow(self.socket)

    def _nodes(self) -> list[str]:
        """The nodes to choose from: all of them, or after a while those that could be made."""
        options = self.environment.parsed_options
        nodes: list[str] = self.environment.board.nodes
        patience = time.monotonic() + 5
        while len(nodes) < options.array_writers + options.table_writers:
            if nodes and time.monotonic() > patience:
                break
            gevent.sleep(0.05)
        return nodes

    def _follow(self, socket: websocket.WebSocket) -> None:
        """Take messages; each sequence must be the one after the last. What was written before is replay, not delivery."""
        expected = 1
        joined = time.time()
        while True:
            try:
                frame = socket.recv()
            except (OSError, websocket.WebSocketException) as error:
                self._fire("stream", 0.0, 0, error)
                return
            if not isinstance(frame, bytes) or not frame:
                return
            now = time.time()
            sequence, kind, sent = sent_at(frame)
            if sequence == 0:
                continue
            wrong = None if sequence == expected else ValueError(f"sequence {sequence} came where {expected} was due")
            expected = sequence + 1
            if sent is not None and sent >= joined:
                self._fire(f"{kind.removesuffix('-data')} delivery", 1000 * (now - sent), len(frame), wrong)
            elif sent is not None:
                self._fire("replay", 1000 * (now - joined), len(frame), wrong)

    def _report(self, name: str, begun: float, size: int, error: Exception | None) -> None:
        self._fire(name, 1000 * (time.perf_counter() - begun), size, error)

    def _fire(self, name: str, milliseconds: float, size: int, error: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type="LIVE", name=name, response_time=milliseconds, response_length=size, exception=error, context={}
        )
