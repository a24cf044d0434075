"""Many nodes on one socket, as the protocol says it: a model of a server, and connections that are lost anywhere.

The model keeps the words of the protocol and nothing else: what it is asked on each connection decides what it tells.
"""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.client import (
    Appeared,
    ArrayData,
    Ended,
    Failed,
    Gap,
    Live,
    Other,
    Reconnected,
    TableData,
    Update,
)
from tiled_stream.client.address import Address
from tiled_stream.client.credentials import Credentials
from tiled_stream.client.faults import Lost
from tiled_stream.client.fetch import Fetcher
from tiled_stream.client.session import Followed, Session
from tiled_stream.client.view import View
from tiled_stream.domain.errors import Malformed, NotFound, Unavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIME = "2026-01-01T00:00:00.000000"
Path = tuple[str, ...]


def new_session() -> Session:
    return Session(Fetcher(Address("http://h/api/v1"), Credentials()))


def told(session: Session, number: int, node: int, **message: Any) -> list[Any]:
    return session.received(msgspec.msgpack.encode([number, node, message]), NOW)


def data(sequence: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "array-data",
        "sequence": sequence,
        "timestamp": TIME,
        "mimetype": "application/octet-stream",
        "shape": [1],
        "offset": None,
        "block": None,
        "payload": b"x",
        **more,
    }


def subscribed(session: Session, *, start: int | None = 0, begin: int = 1, head: int = 0, **view: Any) -> Followed:
    followed = session.add(View(("a",), start=start, **view))
    session.restart()
    told(session, 1, 0, type="subscribed", path=["a"], structure_family="array", epoch="e", head=head, **{"from": begin})
    return followed


# ---------------------------------------------------------------- what is asked


def test_a_request() -> None:
    session = new_session()
    view = View.of(("a", "b"), {"start": 3, "columns": ["x"], "max_hz": 2.0, "thin": "minmax", "slice": "::4", "payload": False})
    session.add(view)
    (request,) = session.restart()
    assert json.loads(request) == {
        "type": "subscribe",
        "id": 1,
        "path": ["a", "b"],
        "start": 3,
        "columns": ["x"],
        "max_hz": 2.0,
        "thin": "minmax",
        "slice": "::4",
        "payload": False,
    }


def test_coming_back_names_epoch_and_cursor() -> None:
    session = new_session()
    subscribed(session, start=None, begin=8, head=7)
    (request,) = session.restart()
    assert json.loads(request) == {"type": "subscribe", "id": 1, "path": ["a"], "start": 8, "epoch": "e"}
    told(session, 1, 0, **data(8))
    (request,) = session.restart()
    assert json.loads(request)["start"] == 9


def test_epoch_is_that_of_the_cursors_until_the_notice_came() -> None:
    session = new_session()
    followed = subscribed(session)
    told(session, 1, 0, **data(1))

    def asked() -> dict[str, Any]:
        (request,) = session.restart()
        return dict(json.loads(request))

    told(session, 1, 0, type="subscribed", path=["a"], structure_family="array", epoch="f", head=1, **{"from": 2})
    assert (asked()["start"], asked()["epoch"], followed.epoch) == (2, "e", "e")  # the connection was lost before the notice
    (gap,) = told(session, 1, 0, type="gap", first=2, last=1, reason="epoch", epoch="f", head=0)
    assert (gap.first, gap.last, gap.reason, gap.head) == (2, 1, "epoch", 0)
    assert (asked()["start"], asked()["epoch"], followed.epoch) == (2, "f", "f")
    (lost,) = told(session, 1, 0, type="gap", first=2, last=3, reason="lost")
    assert (lost.reason, lost.head, asked()["start"]) == ("lost", None, 4)
    told(session, 1, 0, type="gap", first=4, last=3, reason="epoch", epoch="g", head=3)  # while connected
    assert (asked()["start"], asked()["epoch"]) == (4, "g")


def test_epoch_of_a_subtree_waits_for_the_notice_of_each_node() -> None:
    session = new_session()
    followed = subscribed(session, subtree=True)
    for number, key in enumerate("xyz", 1):
        told(session, 1, number, type="node", path=["a", key], key=key, structure_family="array", head=0)
    for number in (0, 1, 2):
        told(session, 1, number, **data(1))
    told(session, 1, 1, type="gap", first=2, last=1, reason="epoch", epoch="f", head=1)
    told(session, 1, 0, type="gap", first=2, last=1, reason="epoch", epoch="f", head=1)
    assert followed.epoch == "e"
    told(session, 1, 2, type="deleted")
    assert followed.epoch == "f"


@pytest.mark.parametrize("options", [{"start": -1}, {"max_hz": 0.0}, {"thin": "latest"}])
def test_views_that_contradict_themselves(options: Any) -> None:
    with pytest.raises(Malformed):
        View.of(("a",), options)


# ---------------------------------------------------------------- what is told


def test_doubles_are_dropped_and_holes_are_told() -> None:
    session = new_session()
    subscribed(session)
    assert [e.sequence for e in told(session, 1, 0, **data(1))] == [1]
    assert told(session, 1, 0, **data(1)) == []
    gap, update = told(session, 1, 0, **data(4))
    assert isinstance(gap, Gap)
    assert (gap.first, gap.last, gap.reason, gap.sequence) == (2, 3, "unannounced", 3)
    assert update.sequence == 4
    (announced,) = told(session, 1, 0, type="gap", first=5, last=9, reason="truncated")
    assert (announced.first, announced.last, announced.reason) == (5, 9, "truncated")
    assert [type(e) for e in told(session, 1, 0, **data(10))] == [ArrayData]


def test_another_life_may_number_from_below() -> None:
    session = new_session()
    followed = subscribed(session)
    told(session, 1, 0, **data(1))
    told(session, 1, 0, type="gap", first=2, last=500, reason="truncated")
    told(session, 1, 0, type="gap", first=401, last=400, reason="epoch")
    assert followed.root.cursor == 400
    assert [e.sequence for e in told(session, 1, 0, **data(401))] == [401]


def test_updates_that_stand_for_several() -> None:
    session = new_session()
    subscribed(session)
    (history,) = told(session, 1, 0, **data(7, covers=[1, 7]))
    assert (history.sequence, history.covers) == (7, (1, 7))
    assert told(session, 1, 0, type="thinned", skipped=3) == []
    (thinned,) = told(session, 1, 0, **data(11))
    assert thinned.covers == (8, 11)
    (plain,) = told(session, 1, 0, **data(12))
    assert plain.covers == (12, 12)


def test_headers_only() -> None:
    session = new_session()
    subscribed(session, payload=False)
    message = data(1)
    del message["payload"]
    (event,) = told(session, 1, 0, **message)
    with pytest.raises(Exception, match="payload=True"):
        _ = event.array


def test_ends_and_refusals() -> None:
    session = new_session()
    followed = subscribed(session)
    (live,) = told(session, 1, 0, type="live")
    assert isinstance(live, Live)
    (ended,) = told(session, 1, 0, type="ended", code=1000, reason="Producer ended stream")
    assert isinstance(ended, Ended)
    assert (followed.is_over, session.subscriptions) == (True, {})
    refused = session.add(View(("b",)))
    assert told(session, 2, 0, type="error", status=404, detail="no b") == []
    assert isinstance(refused.error, NotFound)
    session = new_session()
    subscribed(session)
    (failed,) = told(session, 1, 0, type="error", status=429, detail="too many nodes")
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, Unavailable)
    session = new_session()
    followed = subscribed(session)
    with pytest.raises(Lost, match="the log is away"):  # it was subscribed: the client asks again on another connection
        told(session, 1, 0, type="error", status=503, detail="the log is away")
    assert not followed.is_over
    with pytest.raises(Malformed, match="no such message"):
        told(session, 0, 0, type="error", status=422, detail="no such message")
    assert told(session, 0, 0, type="pong") == []
    assert told(session, 77, 0, **data(1)) == []


def test_unknown_messages_are_passed_on() -> None:
    session = new_session()
    subscribed(session)
    (event,) = told(session, 1, 0, type="weather", sequence=1, timestamp=TIME, rain=True)
    assert isinstance(event, Other)
    assert event.message["rain"]
    (event,) = told(session, 1, 0, type="hint")
    assert (event.type, event.sequence) == ("hint", 1)


@pytest.mark.parametrize(
    "junk", [b"", b"\xc1", msgspec.msgpack.encode([1, 0]), msgspec.msgpack.encode([1, 0, {"type": "gap"}]), "{"]
)
def test_what_is_no_message(junk: bytes | str) -> None:
    session = new_session()
    subscribed(session)
    with pytest.raises(Malformed, match="none of the protocol"):
        session.received(junk, NOW)


# ------------------------------------------------------------ one node, one socket


def test_the_other_endpoint() -> None:
    """Bare messages; the end is a close code."""
    session = new_session()
    session.is_many = False
    followed = session.add(View(("a",)))
    assert session.restart() == []

    def take(**message: Any) -> list[Any]:
        return session.received(msgspec.msgpack.encode(message), NOW)

    assert [type(e) for e in take(type="table-schema", version=1)] == [Live]
    before = session.reconnected(1, 0.5, "torn", NOW)
    assert [type(e) for e in before] == [Reconnected, Gap]  # nobody knows what was missed
    assert (before[1].first, before[1].reason) == (None, "unknown")
    (rows,) = take(type="table-data", sequence=5, timestamp=TIME, append=True, partition=0, payload=b"")
    assert isinstance(rows, TableData)
    assert followed.start() == 6
    assert [type(e) for e in session.reconnected(1, 0.5, "torn", NOW)] == [Reconnected]
    take(type="table-schema", version=1, epoch="e")
    assert followed.epoch == "e"
    take(type="table-schema", version=1, epoch="f")  # the log is in another epoch now; its notice is to come
    assert followed.epoch == "e"
    (gap,) = take(type="gap", first=6, last=5, reason="epoch", epoch="f", head=5)
    assert (gap.reason, followed.epoch, followed.start()) == ("epoch", "f", 6)
    address = Address("http://h/api/v1")
    assert address.single(("a",), 6, "f&").endswith("/stream/single/a?envelope_format=msgpack&start=6&epoch=f%26")
    assert "epoch" not in address.single(("a",), None, "f")
    (ended,) = session.closed(Lost(1000, "Node deleted"), NOW)
    assert (ended.is_deleted, followed.is_over) == (True, True)


# ----------------------------------------------------------------------- subtrees


class Model:
    """A server of one tree. Each node counts 1, 2, 3 …; what is said on a connection is queued until it is delivered."""

    def __init__(self) -> None:
        self.heads: dict[Path, int] = {("r",): 0}
        self.sent: deque[list[Any]] | None = None
        self._numbers: dict[Path, int] = {}

    def connect(self, request: str) -> None:
        asked = json.loads(request)
        start, cursors = asked["start"], asked.get("cursors", {})
        root = tuple(asked["path"])
        self.sent = deque()
        self._numbers = {}
        self._say(
            root,
            type="subscribed",
            path=list(root),
            structure_family="container",
            epoch="e",
            head=self.heads[root],
            **{"from": self._after(cursors.get("", None), start, self.heads[root]) + 1},
        )
        for path, head in self.heads.items():  # parents come first: they were made first
            if path != root:
                self._announce(path)
            after = self._after(cursors.get("/".join(path[len(root) :])), start, head)
            for sequence in range(after + 1, head + 1):
                self._say(path, **data(sequence))
            if path != root:
                self._say(path, type="live")
        self._say(root, type="live")

    def lose(self) -> None:
        self.sent = None

    def append(self, path: Path) -> None:
        self.heads[path] += 1
        if self.sent is not None:
            self._say(path, **data(self.heads[path]))

    def create(self, path: Path) -> None:
        self.heads[path] = 0
        self.heads[path[:-1]] += 1
        if self.sent is not None:
            child = {"type": "container-child-created", "key": path[-1], "structure_family": "array", "metadata": {}}
            self._say(path[:-1], sequence=self.heads[path[:-1]], timestamp=TIME, **child)
            self._announce(path)
            self._say(path, type="live")

    def _announce(self, path: Path) -> None:
        self._say(path, type="node", path=list(path), key=path[-1], structure_family="array", head=self.heads[path])

    def _say(self, node: Path, /, **message: Any) -> None:
        assert self.sent is not None
        number = 0 if node == ("r",) else self._numbers.setdefault(node, len(self._numbers) + 1)
        self.sent.append([1, number, message])

    @staticmethod
    def _after(cursor: int | None, start: int | None, head: int) -> int:
        if cursor is not None:
            return cursor
        return head if start is None else max(start - 1, 0)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 30)),
        st.tuples(st.just("create"), st.integers(0, 30)),
        st.tuples(st.just("deliver"), st.integers(1, 6)),
        st.tuples(st.just("lose"), st.just(0)),
    ),
    max_size=60,
)


@given(st.integers(0, 5), st.integers(0, 4), st.sampled_from([0, None]), OPERATIONS)
def test_a_subtree_through_lost_connections(
    before: int, children: int, start: int | None, operations: list[tuple[str, int]]
) -> None:
    """Each record of each node once and in order; with `start` None from what stood there when it was accepted."""
    model = Model()
    for n in range(children):
        model.create(("r", f"c{n}"))
        for _ in range(before):
            model.append(("r", f"c{n}"))
    session = new_session()
    session.add(View(("r",), start=start, subtree=True))
    seen: dict[Path, list[int]] = {}
    appeared: list[Path] = []
    live: list[Path] = []

    def deliver(count: int) -> None:
        if model.sent is None:
            model.connect(session.restart()[0])
        assert model.sent is not None
        for _ in range(min(count, len(model.sent))):
            for event in session.received(msgspec.msgpack.encode(model.sent.popleft()), NOW):
                if isinstance(event, Appeared):
                    appeared.append(event.path)
                elif isinstance(event, Live):
                    live.append(event.path)
                elif isinstance(event, Update):
                    seen.setdefault(event.path, []).append(event.sequence)
                assert not isinstance(event, Gap)

    deliver(1)
    while ("r",) not in live:  # the model says this when it has listed everything; until then "now" has not begun
        deliver(1)
    existing = {path: 0 if start == 0 else head for path, head in model.heads.items()}
    for operation, number in operations:
        paths = list(model.heads)
        if operation == "append":
            model.append(paths[number % len(paths)])
        elif operation == "create":
            parent = paths[number % len(paths)]
            model.create((*parent, f"n{len(paths)}"))
        elif operation == "deliver":
            deliver(number)
        else:
            model.lose()
    deliver(1)
    deliver(10_000)
    for path, head in model.heads.items():
        assert seen.get(path, []) == list(range(existing.get(path, 0) + 1, head + 1)), path
    assert sorted(appeared) == sorted(path for path in model.heads if path != ("r",))


def test_a_node_that_is_made_anew_under_its_path() -> None:
    session = new_session()
    subscribed(session, subtree=True)
    told(session, 1, 1, type="node", path=["a", "b"], key="b", structure_family="array", head=0)
    told(session, 1, 1, **data(1))
    told(session, 1, 1, **data(2))
    (ended,) = told(session, 1, 1, type="deleted")
    assert (ended.path, ended.is_deleted) == (("a", "b"), True)
    (again,) = told(session, 1, 2, type="node", path=["a", "b"], key="b", structure_family="array", head=0)
    assert isinstance(again, Appeared)
    assert [e.sequence for e in told(session, 1, 2, **data(1))] == [1]


def test_a_node_that_was_made_anew_while_nobody_looked() -> None:
    """Its numbers are lower than what came of it: nobody knows what was missed, and that is told."""
    session = new_session()
    subscribed(session, subtree=True)
    told(session, 1, 1, type="node", path=["a", "b"], key="b", structure_family="array", head=0)
    for sequence in range(1, 6):
        told(session, 1, 1, **data(sequence))
    (request,) = session.restart()
    assert json.loads(request)["cursors"] == {"": 0, "b": 5}
    (gap,) = told(session, 1, 1, type="node", path=["a", "b"], key="b", structure_family="array", head=2)
    assert (gap.path, gap.first, gap.reason) == (("a", "b"), None, "epoch")
    missing, update = told(session, 1, 1, **data(6))
    assert (missing.first, missing.last, update.sequence) == (3, 5, 6)


def test_a_subtree_stays_when_a_node_of_it_ends() -> None:
    session = new_session()
    followed = subscribed(session, subtree=True)
    told(session, 1, 1, type="node", path=["a", "b"], key="b", structure_family="array", head=0)
    (ended,) = told(session, 1, 1, type="ended", code=1000, reason="x")
    assert (ended.path, followed.is_over) == (("a", "b"), False)
    assert told(session, 1, 1, type="ended", code=1000, reason="x") == []  # told before
    told(session, 1, 0, type="ended", code=1000, reason="x")
    assert followed.is_over
