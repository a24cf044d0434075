"""`tiled-stream watch` as its users call it: a process, its output, its exit status."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow
import pytest
from rich.console import Console

from tests.client.served import KEY, Served, served, without_history
from tests.client.small_server import SmallServer, on_a_thread
from tests.servers.processes import free_port
from tiled_stream.client import ChildCreated, Gap, Reconnected, TableData
from tiled_stream.domain.nodes import Spec
from tiled_stream.run.watch_cli import split
from tiled_stream.run.watch_lines import KINDS, json_line, text_line
from tiled_stream.run.watch_screen import Screen

Name = Callable[[str], str]
ROWS = pyarrow.schema([("x", pyarrow.float64()), ("name", pyarrow.string())])
ENVIRON = {**os.environ, "TILED_API_KEY": KEY, "COLUMNS": "100", "LINES": "30"}
COMMAND = [sys.executable, "-m", "tiled_stream", "watch"]


def watched(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], **{"env": ENVIRON, "capture_output": True, "text": True, "timeout": 60, **options})


@pytest.fixture
def table(server: Served, fresh: Name) -> str:
    """A table of three rows that has ended."""
    name = fresh("table")
    server.table(name, ROWS)
    for n in range(3):
        server.append(name, x=[n / 2], name=[f"[red]{n}"])
    server.end(name)
    return name


def root(server: Served) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_lines_of_json(server: Served, table: str) -> None:
    run = watched(f"{root(server)}/{table}", "--json")
    assert (run.returncode, run.stderr) == (0, "")
    events = [json.loads(line) for line in run.stdout.splitlines()]
    rows = [event for event in events if event["event"] == "table-data"]
    assert [row["columns"] for row in rows] == [{"x": [n / 2], "name": [f"[red]{n}"]} for n in range(3)]
    assert [row["sequence"] for row in rows] == [1, 2, 3]
    assert {row["path"] for row in rows} == {table}
    assert datetime.fromisoformat(rows[0]["time"]).tzinfo is not None
    assert events[-1]["event"] == "ended"
    assert {event["event"] for event in events} <= set(KINDS.values())


def test_lines_of_text(server: Served, table: str) -> None:
    run = watched(root(server), table, "--start", "3")
    assert run.returncode == 0
    first, last = run.stdout.splitlines()
    assert first.endswith(f"{table}  3  x=1  name=[red]2")
    assert "ended" in last


def test_a_terminal(server: Served, table: str) -> None:
    """Drawn with the rows and the state; what a server sends is text and no markup."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, f"{root(server)}/{table}"], stdout=follower, stderr=follower, env={**ENVIRON, "TERM": "xterm"}
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            data = os.read(leader, 1 << 16)
        except OSError:  # the other side of the terminal is closed
            break
        shown += data
    os.close(leader)
    assert process.wait(20) == 0
    text = shown.decode()
    assert "[red]2" in text
    assert "ended" in text


def test_it_follows_until_the_end(server: Served, fresh: Name) -> None:
    name = fresh("table")
    server.table(name, ROWS)
    process = subprocess.Popen([*COMMAND, f"{root(server)}/{name}", "--json"], stdout=subprocess.PIPE, text=True, env=ENVIRON)
    assert process.stdout is not None
    # "live" comes when everything that was there has come: before the first row, or after it.
    told = (event for event in map(json.loads, process.stdout) if event["event"] != "live")
    server.append(name, x=[1.0], name=["a"])
    assert next(told)["columns"]["name"] == ["a"]
    server.append(name, x=[2.0], name=["b"])
    assert next(told)["columns"]["name"] == ["b"]
    server.end(name)
    assert next(told)["event"] == "ended"
    process.stdout.close()
    assert process.wait(20) == 0


def test_children_of_a_container(server: Served, fresh: Name) -> None:
    name = fresh("container")
    server.container(name)
    server.container(f"{name}/child", spec="BlueskyRun", color="blue")
    server.end(name)
    run = watched(f"{root(server)}/{name}", "--no-subtree")
    assert run.returncode == 0
    assert "+ child (BlueskyRun)" in run.stdout


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_interrupted(server: Served, fresh: Name, number: int) -> None:
    name = fresh("array")
    server.array(name)
    server.write(name, 1)
    process = subprocess.Popen(
        [*COMMAND, f"{root(server)}/{name}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRON
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "")


def test_whoever_reads_it_has_enough(server: Served, fresh: Name) -> None:
    name = fresh("array")
    server.array(name)
    server.write(name, 1)
    process = subprocess.Popen(
        [*COMMAND, f"{root(server)}/{name}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRON
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    server.write(name, 2)
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(20), errors) == (0, "")


def test_something_is_missing() -> None:
    """The log keeps the last records only."""
    with served(cache_node_bytes=2_000, persist_linger_seconds=0.0, **without_history()) as server:
        server.array("x")
        server.write("x", *range(100))
        server.end("x")
        deadline = time.monotonic() + 20
        while (run := watched(f"{root(server)}/x", "--json")).returncode == 0:  # not persisted yet, so nothing could go
            assert time.monotonic() < deadline
            server.end("x")
    assert run.returncode == 4
    gap, *rest = map(json.loads, run.stdout.splitlines())
    assert (gap["event"], gap["first"], gap["reason"]) == ("gap", 1, "truncated")
    assert rest[0]["sequence"] == gap["last"] + 1


def test_a_subtree_once() -> None:
    """Against a server that has many nodes on a socket: everything that is there, then done."""

    def prepare(server: SmallServer) -> None:
        server.create(("run",), "container")
        server.create(("run", "x"))
        server.append(("run", "x"), type="container-child-created", key="y", structure_family="array", metadata={}, specs=[])

    with on_a_thread(prepare) as server:
        run = watched(f"http://127.0.0.1:{server.port}/run", "--subtree", "--once", "--json")
        text = watched(f"http://127.0.0.1:{server.port}/run", "--subtree", "--once")
    assert (run.returncode, run.stderr) == (0, "")
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert {(event["event"], event["path"]) for event in events} >= {
        ("child-created", "run"),
        ("appeared", "run/x"),
        ("child-created", "run/x"),
    }
    assert "run/x  1  + y" in text.stdout


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (3, "nowhere", "{root}/nowhere"),
        (3, "Invalid API key", "{root} --api-key wrong"),
        (3, "cannot be reached", "http://127.0.0.1:{free}/x"),
        (2, "http://", "ftp://x"),
        (2, "--start", "{root} --start -7"),
        (2, "uri", ""),
    ],
)
def test_what_cannot_be(server: Served, status: int, said: str, words: str) -> None:
    run = watched(*words.format(root=root(server), free=free_port()).split())
    assert run.returncode == status, run.stderr
    assert said in run.stderr
    assert KEY not in run.stderr + run.stdout
    assert "Traceback" not in run.stderr


def test_the_key_may_stand_in_the_address(server: Served, table: str) -> None:
    environ = {name: value for name, value in ENVIRON.items() if name != "TILED_API_KEY"}
    assert watched(f"{root(server)}/{table}?api_key={KEY}", env=environ).returncode == 0
    assert watched(f"{root(server)}/{table}", env=environ).returncode == 3


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://h:8000", ("http://h:8000", "")),
        ("http://h:8000/a/b", ("http://h:8000", "/a/b")),
        ("http://h:8000/a?api_key=k", ("http://h:8000?api_key=k", "/a")),
        ("http://h/p/api/v1/a/b", ("http://h/p/api/v1", "a/b")),
        ("http://h/api/v1", ("http://h/api/v1", "")),
        ("http://h/api/v1/", ("http://h/api/v1/", "")),
        ("http://h/api/v1/metadata/a", ("http://h/api/v1/metadata/a", "")),
    ],
)
def test_server_and_node(uri: str, expected: tuple[str, str]) -> None:
    assert split(uri) == expected


# --------------------------------------------------------------------- views alone

HERE: dict[str, Any] = {"subscription": 1, "path": ("run", "t"), "sequence": 2, "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)}


def test_a_gap_is_loud() -> None:
    gap = Gap(first=1, last=2, reason="truncated", **HERE)
    assert json.loads(json_line(gap)) == {
        "event": "gap",
        "path": "run/t",
        "sequence": 2,
        "time": "2026-01-02T03:04:05Z",
        "first": 1,
        "last": 2,
        "reason": "truncated",
    }
    assert "GAP: 1 to 2 do not come (truncated)" in text_line(gap)
    assert "nobody knows" in text_line(Gap(first=None, last=None, reason="unknown", **HERE))


def test_odd_columns_have_a_form() -> None:
    sink = pyarrow.BufferOutputStream()
    columns = {
        "when": pyarrow.array([datetime(2026, 1, 1, tzinfo=UTC)]),
        "b": pyarrow.array([b"\xff"]),
        "n": pyarrow.array([None]),
    }
    written = pyarrow.table(columns)
    with pyarrow.ipc.new_file(sink, written.schema) as writer:
        writer.write_table(written)
    event = TableData(**HERE, covers=(1, 2), payload=sink.getvalue().to_pybytes(), append=True, partition=0)
    line = json.loads(json_line(event))
    assert line["columns"]["when"] == ["2026-01-01T00:00:00.000000Z"]
    assert (line["covers"], line["columns"]["n"], line["rows"]) == ([1, 2], [None], 1)


def test_a_screen_keeps_little() -> None:
    """Ten thousand events on a small screen: it fits, shows the last ones, and markup stays text."""
    console = Console(file=io.StringIO(), width=100, height=24, force_terminal=True)
    with Screen((), console) as screen:
        for n in range(10_000):
            child = ChildCreated(**{**HERE, "path": (f"c{n % 40}",)}, covers=(2, 2), key=f"[bold]{n}", family="container",
                                 specs=(Spec("S"),), metadata={}, data_sources=())  # fmt: skip
            screen.show(child)
        screen.show(Reconnected(attempts=1, seconds=0.5, why="torn", **HERE))
        plain = Console(file=io.StringIO(), width=100, height=24)
        plain.print(screen.picture())
    shown = plain.file.getvalue()
    assert "[bold]9999" in shown
    assert "connected again" in shown
    assert len(shown.splitlines()) <= 24
    assert len(screen._said) <= 200


def test_it_leaves_no_thread() -> None:
    before = threading.active_count()
    with Screen(("x",), Console(file=io.StringIO())) as screen:
        screen.show(None)
    assert threading.active_count() == before
