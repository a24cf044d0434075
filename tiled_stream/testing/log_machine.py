"""A state machine that does with a log whatever can be done, and compares it with lists and numbers after every step.

    class MyMachine(LogMachine):
        async def make(self) -> LogEngine: ...
    TestMyLog = MyMachine.TestCase

A durable engine sets `is_durable` and gives `make_again`. Hypothesis finds the shortest sequence of steps that tells engine and
model apart. The model knows nothing of the engine: a node is the list of all that was ever appended, a first retained sequence,
a watermark and a lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ..domain.errors import Conflict, Gone, LeaseLost, Truncated
from ..domain.events import Record
from ..domain.nodes import NodeId
from ..log.port import Lease, LogEngine, NodeState, Retention
from .factories import draft

__all__ = ["LogMachine"]

T = TypeVar("T")
_NODES = st.sampled_from([f"{n:032x}" for n in range(4)])
_HUGE = 1 << 50


class Model(msgspec.Struct):
    """What a node must be. `records` by sequence, those that left too; `floor`: sequences up to it were skipped."""

    head: int = 0
    first: int = 1
    settled: int = 0
    records: dict[int, Record] = {}
    lease: Lease | None = None
    worker: str = ""
    fence: int = 0
    is_gone: bool = False

    @property
    def is_dirty(self) -> bool:
        return not self.is_gone and self.head > self.settled


class LogMachine(RuleBasedStateMachine):
    """Subclasses give `make`."""

    is_durable: ClassVar[bool] = False

    async def make(self) -> LogEngine:
        """A new, empty engine, not opened."""
        raise NotImplementedError

    async def make_again(self) -> LogEngine:
        """Another engine on the data of the last one, which was closed; not opened."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.models: dict[NodeId, Model] = {}
        self.old_leases: list[Lease] = []
        self.time = 0

    @initialize()
    def begin(self) -> None:
        self.engine = self.run(self.make())
        self.run(self.engine.open())
        self.epoch = self.engine.epoch

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "engine"):
            self.run(self.engine.close())
        self.runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Let the engine do it, within a time in which it should."""

        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await coroutine

        return self.runner.run(bounded())

    def model(self, node: NodeId) -> Model:
        """What the node must be."""
        return self.models.setdefault(node, Model())

    # ------------------------------------------------------------- writing

    @rule(
        node=_NODES,
        count=st.integers(1, 3),
        expected=st.sampled_from([None, None, 0, 0, -1, 1]),
        floor=st.sampled_from([None, None, None, -1, 0, 2]),
    )
    def append(self, node: NodeId, count: int, expected: int | None, floor: int | None) -> None:
        """`expected` and `floor` are relative to the head; None: not given."""
        model = self.model(node)
        low = 0 if floor is None else max(0, model.head + floor)
        head = max(model.head, low)
        drafts = [draft(n, b"%d" % (self.time + n), time=float(self.time + n)) for n in range(count)]
        self.time += count
        wanted = None if expected is None else max(0, head + expected)
        call = self.engine.append(node, *drafts, expected=wanted, floor=low)
        if model.is_gone:
            self.refused(call, Gone)
        elif wanted is not None and wanted != head:
            assert self.refused(call, Conflict).head == head
        else:
            position = self.run(call)
            assert (position.epoch, position.sequence) == (self.epoch, head + count)
            if head > model.head:
                model.first, model.settled, model.lease, model.worker = head + 1, head, None, ""
            for sequence, d in enumerate(drafts, head + 1):
                model.records[sequence] = Record(sequence, d.time, d.event, d.payload)
            model.head = head + count

    @rule(nodes=st.lists(_NODES, min_size=2, max_size=6))
    def append_at_once(self, nodes: list[NodeId]) -> None:
        nodes = [node for node in nodes if not self.model(node).is_gone]
        drafts = [(draft(1, b"a%d" % (self.time + n)), draft(2, b"b%d" % (self.time + n))) for n in range(len(nodes))]
        self.time += len(nodes)

        async def all_of_them() -> list[int]:
            positions = await asyncio.gather(*(self.engine.append(n, *d) for n, d in zip(nodes, drafts, strict=True)))
            return [position.sequence for position in positions]

        for node, pair, last in zip(nodes, drafts, self.run(all_of_them()), strict=True):
            model = self.model(node)
            for sequence, d in zip((last - 1, last), pair, strict=True):
                assert sequence not in model.records  # I2
                model.records[sequence] = Record(sequence, d.time, d.event, d.payload)
            model.head = max(model.head, last)
        for node in nodes:
            model = self.model(node)
            assert all(sequence in model.records for sequence in range(model.first, model.head + 1))  # I1

    @rule(node=_NODES)
    def drop(self, node: NodeId) -> None:
        self.run(self.engine.drop(node))
        self.models[node] = Model(is_gone=True)

    # ------------------------------------------------------------- reading

    @rule(node=_NODES, after=st.integers(0, 40), limit=st.integers(1, 50))
    def read(self, node: NodeId, after: int, limit: int) -> None:
        model = self.model(node)
        call = self.engine.read(node, after, limit=limit, epoch=self.epoch)
        if model.is_gone:
            self.refused(call, Gone)
        elif after < model.head and after + 1 < model.first:
            assert self.refused(call, Truncated).first == model.first
        else:
            records = self.run(call)
            expected = [model.records[n] for n in range(after + 1, min(model.head, after + limit) + 1)]
            assert records == expected[: len(records)]
            assert bool(records) == bool(expected)

    @rule(node=_NODES)
    def read_all(self, node: NodeId) -> None:
        model = self.model(node)
        if not model.is_gone:
            records = self.run(self.engine.read(node, model.first - 1))
            assert records == [model.records[n] for n in range(model.first, model.head + 1)]

    @rule(node=_NODES)
    def head(self, node: NodeId) -> None:
        model = self.model(node)
        if model.is_gone:
            self.refused(self.engine.head(node), Gone)
        else:
            assert self.run(self.engine.head(node)).sequence == model.head

    # ---------------------------------------------------------- persisting

    @rule(worker=st.sampled_from("vw"), limit=st.integers(1, 5))
    def claim(self, worker: str, limit: int) -> None:
        free = {node for node, model in self.models.items() if model.is_dirty and model.lease is None}
        leases = self.run(self.engine.claim(worker, ttl=1e6, limit=limit))
        assert len(leases) == min(limit, len(free))
        assert {lease.node for lease in leases} <= free
        for lease in leases:
            model = self.model(lease.node)
            assert (lease.head, lease.after) == (model.head, model.settled)
            if model.worker == worker:
                assert lease.fence == model.fence
            elif model.worker == "?":
                assert lease.fence >= model.fence
            else:
                assert lease.fence > model.fence
            model.lease, model.worker, model.fence = lease, worker, lease.fence

    @precondition(lambda self: any(model.lease for model in self.models.values()))
    @rule(data=st.data(), step=st.sampled_from(["settle", "settle", "settle", "wrong", "release", "renew"]))
    def use_lease(self, data: st.DataObject, step: str) -> None:
        node = data.draw(st.sampled_from(sorted(node for node, model in self.models.items() if model.lease)))
        model = self.model(node)
        lease = model.lease
        assert lease is not None
        if step == "renew":
            self.run(self.engine.renew(lease, ttl=1e6))
            return
        if step == "wrong":
            for watermark in (model.settled - 1, model.head + 1):
                self.refused(self.engine.settle(lease, watermark), ValueError)  # I4
            return
        if step == "settle":
            watermark = data.draw(st.integers(model.settled, model.head))
            assert self.run(self.engine.settle(lease, watermark)) == (watermark == model.head)
            model.settled = watermark
        else:
            self.run(self.engine.release(lease))
        model.lease = None
        self.old_leases.append(lease)

    @precondition(lambda self: bool(self.old_leases))
    @rule(data=st.data())
    def use_old_lease(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.old_leases))
        now = self.model(lease.node).lease
        if now is not None and now.fence == lease.fence:
            return  # the same worker has it again: it is the same right
        self.refused(self.engine.settle(lease, lease.head), LeaseLost)
        self.refused(self.engine.renew(lease, ttl=1e6), LeaseLost)
        self.run(self.engine.release(lease))

    @rule(age=st.integers(0, 10), nodes=st.none() | st.lists(_NODES, max_size=2))
    def trim_by_age(self, age: int, nodes: list[NodeId] | None) -> None:
        policy = Retention(node_bytes=_HUGE, total_bytes=_HUGE, seconds=float(age))
        self.trim(policy, nodes, oldest=float(self.time - age))

    @rule(nodes=st.none() | st.lists(_NODES, max_size=2))
    def trim_all(self, nodes: list[NodeId] | None) -> None:
        policy = Retention(node_bytes=0, total_bytes=_HUGE, seconds=1e9)
        self.trim(policy, nodes, oldest=float("inf"))

    def trim(self, policy: Retention, nodes: list[NodeId] | None, *, oldest: float) -> None:
        """Settled records older than `oldest` leave, up to the first that is not."""
        left = 0
        for node in self.models if nodes is None else set(nodes):
            model = self.model(node)
            while not model.is_gone and model.first <= model.settled and model.records[model.first].time < oldest:
                model.first += 1
                left += 1
        assert self.run(self.engine.trim(policy, now=float(self.time), nodes=nodes)) == left

    @rule(node=_NODES, back=st.integers(-1, 5))
    def reopen_node(self, node: NodeId, back: int) -> None:
        """`back` is relative to the settled watermark."""
        model = self.model(node)
        watermark = max(0, model.settled - back)
        if model.is_gone:
            self.refused(self.engine.reopen(node, watermark), Gone)
            return
        first = self.run(self.engine.reopen(node, watermark))
        assert first == min(max(model.first, watermark + 1), model.head + 1)
        if watermark < model.settled:
            if model.lease is not None:
                self.old_leases.append(model.lease)
            model.settled = max(watermark, model.first - 1)
            model.lease, model.worker = None, ""

    @rule(retained=st.booleans())
    def states(self, retained: bool) -> None:
        async def collected() -> dict[NodeId, NodeState]:
            return {state.node: state async for page in self.engine.states(retained=retained) for state in page}

        assert self.run(collected()) == {
            node: NodeState(node, model.settled, model.first, model.head)
            for node, model in self.models.items()
            if not model.is_gone and model.head and (model.first <= model.head or not retained)
        }

    # ---------------------------------------------------------- begin again

    @precondition(lambda self: self.is_durable)
    @rule()
    def reopen(self) -> None:
        for model in self.models.values():
            if model.lease is not None:  # what becomes of leases is the engine's affair
                self.run(self.engine.release(model.lease))
                self.old_leases.append(model.lease)
                model.lease = None
            model.worker = "?"  # an engine may remember it or not
        self.run(self.engine.close())
        self.engine = self.run(self.make_again())
        self.run(self.engine.open())
        assert self.engine.epoch == self.epoch

    @invariant()
    def backlog(self) -> None:
        """Who owes what is always plain to see."""
        if not hasattr(self, "engine"):
            return
        owed = {node: model.head for node, model in self.models.items() if model.is_dirty}
        assert dict(self.run(self.engine.dirty())) == owed
        lag = self.run(self.engine.lag())
        oldest = [model.records[model.settled + 1].time for model in self.models.values() if model.is_dirty]
        records = sum(model.head - model.settled for model in self.models.values() if model.is_dirty)
        assert (lag.nodes, lag.records, lag.oldest) == (len(owed), records, min(oldest, default=None))

    def refused(self, call: Coroutine[Any, Any, object], error: type[ErrorT]) -> ErrorT:
        """The call must raise this; returns it."""
        try:
            result = self.run(call)
        except error as raised:
            return raised
        raise AssertionError(f"{error.__name__} was expected, but it returned {result!r}")


ErrorT = TypeVar("ErrorT", bound=Exception)
