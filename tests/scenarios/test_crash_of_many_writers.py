"""`kill -9` while five write at once, or while it recovers: every acknowledged write is there, once, in order (I1, I5, I6).

What was on its way when the server died has no acknowledgement: it may be there or not, but not twice, and in its place.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.run import running
from tests.run.running import Running

KILLS = 8
LENGTH = 256  # of the array whose cells are overwritten


class Writes:
    """What one writer has been told, and the one write it was not told of any more."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.unanswered: int | None = None

    def next(self, send: Callable[[int], httpx.Response]) -> None:
        """Write one number more. A refusal fails; a server that is gone raises `httpx.TransportError`."""
        number = self.unanswered = len(self.acknowledged)
        response = send(number)
        assert response.status_code == 200, response.text
        self.acknowledged.append(number)
        self.unanswered = None

    def check(self, found: list[int]) -> None:
        """Exactly what was acknowledged, then perhaps what was not; from now on that is what there is."""
        assert found in (self.acknowledged, [*self.acknowledged, len(self.acknowledged)])
        assert found == self.acknowledged or self.unanswered is not None
        self.acknowledged, self.unanswered = found, None


class Laboratory:
    """Five writers at once: rows, an array that grows, cells of another, children, and metadata of one node."""

    def __init__(self) -> None:
        self.rows, self.growth, self.cells, self.children, self.edits = (Writes() for _ in range(5))

    def create(self, server: Running) -> None:
        """The nodes that are written to."""
        for body in (
            running.table("t"),
            running.array("growing", 0),
            running.array("cells", LENGTH),
            running.container("children"),
            running.container("edited"),
        ):
            server.ok("POST", "/metadata/", json=body)

    def writers(self, client: httpx.Client) -> Iterator[Callable[[], None]]:
        def append(n: int) -> httpx.Response:
            return client.patch("/table/partition/t?partition=0", content=running.rows(n))

        def grow(n: int) -> httpx.Response:
            return client.patch(f"/array/full/growing?offset={n}&shape=1&extend=true", content=running.cells(n))

        def overwrite(n: int) -> httpx.Response:
            return client.patch(f"/array/full/cells?offset={n % LENGTH}&shape=1", content=running.cells(n))

        def create(n: int) -> httpx.Response:
            return client.post("/metadata/children", json=running.container(f"c{n}"))

        def edit(n: int) -> httpx.Response:
            return client.put("/metadata/edited", json={"metadata": {"n": n}})

        yield lambda: self.rows.next(append)
        yield lambda: self.growth.next(grow)
        yield lambda: self.cells.next(overwrite)
        yield lambda: self.children.next(create)
        yield lambda: self.edits.next(edit)

    def write_until_killed(self, server: Running, seconds: float) -> None:
        """Kill it `seconds` after the writers began; returns when all of them have noticed."""
        surprises: list[BaseException] = []

        def go_on(write: Callable[[], None]) -> None:
            try:
                while True:
                    write()
            except httpx.TransportError:
                return
            except BaseException as error:  # noqa: BLE001 - raised below, in the test
                surprises.append(error)

        with httpx.Client(base_url=server.url, headers=running.AUTH, timeout=30) as client:
            threads = [threading.Thread(target=go_on, args=(write,)) for write in self.writers(client)]
            for thread in threads:
                thread.start()
            time.sleep(seconds)
            server.process.kill()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()
        assert surprises == []

    def check(self, server: Running) -> None:
        """Everything that was acknowledged is there, by every way of asking."""
        octets = {"Accept": "application/octet-stream"}
        found = running.numbers_of(server.client.get("/table/full/t", headers=running.ARROW).content)
        self.rows.check(found)
        messages = server.replay("t", len(found))
        assert [m["sequence"] for m in messages] == list(range(1, len(found) + 1))
        assert [n for m in messages for n in running.numbers_of(m["payload"])] == found

        found = running.cells_of(server.client.get("/array/full/growing", headers=octets).content)
        self.growth.check(found)
        messages = server.replay("growing", len(found))
        assert [m["sequence"] for m in messages] == list(range(1, len(found) + 1))
        assert [(m["offset"], running.cells_of(m["payload"])) for m in messages] == [([n], [n]) for n in found]

        self._check_cells(running.cells_of(server.client.get("/array/full/cells", headers=octets).content))
        self.children.check(children(server))
        last = server.ok("GET", "/metadata/edited")["data"]["attributes"]["metadata"].get("n", -1)
        self.edits.check(list(range(last + 1)))
        assert server.ok("GET", "/revisions/edited?page[limit]=1")["meta"]["count"] == last + 1

    def _check_cells(self, found: list[int]) -> None:
        def wanted(count: int) -> list[int]:
            cells = [0] * LENGTH
            for n in range(max(0, count - LENGTH), count):
                cells[n % LENGTH] = n
            return cells

        count = len(self.cells.acknowledged)
        # Whether 0 was written over 0 cannot be seen, and makes no difference.
        is_one_more = self.cells.unanswered is not None and found == wanted(count + 1)
        assert is_one_more or found == wanted(count)
        self.cells.check(list(range(count + is_one_more)))


def children(server: Running) -> list[int]:
    """The numbers in the names of the children, in order of creation, page by page."""
    names: list[str] = []
    path: str | None = "/search/children?page[limit]=300&fields="
    while path is not None:
        page: dict[str, Any] = server.ok("GET", path)
        names += [item["id"] for item in page["data"]]
        following = page["links"].get("next")
        path = following.removeprefix(server.url) if following else None
    assert all(name.startswith("c") for name in names)
    return [int(name[1:]) for name in names]


def test_killed_at_any_moment(tmp_path: Path) -> None:
    places = [
        str(tmp_path / "catalog.db"),
        "--init",
        "-w",
        str(tmp_path / "data"),
        "-w",
        f"duckdb://{tmp_path / 'tables.duckdb'}",
    ]
    chance = random.Random(7)
    laboratory = Laboratory()
    for life in range(KILLS + 1):
        if life % 3 == 2:  # where its start was cut short, the next one goes on
            running.start_and_kill(*places, seconds=chance.uniform(0.4, 0.9))
        with running.serving(*places, errors=tmp_path / f"life{life}.err") as server:
            if life == 0:
                laboratory.create(server)
            else:
                laboratory.check(server)
            if life < KILLS:
                laboratory.write_until_killed(server, chance.uniform(0.02, 0.4))
            else:
                assert server.stop() == 0
    assert not (tmp_path / "quarantine").exists()
    counts = [len(writes.acknowledged) for writes in vars(laboratory).values()]
    assert min(counts) > KILLS  # they did write
