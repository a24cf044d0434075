"""Large bodies of a log in Redis: put away before the record that names them is appended, fetched when it is read.

What must stay true: an append that may have been done keeps its bodies. A body that is missing while its record is retained is an
error that says so, never a record without its body, and never a record that is taken for lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..domain.errors import BodyMissing, Unavailable
from ..domain.events import Draft
from ..domain.nodes import NodeId
from .claims import Claims
from .codec import encode_event
from .redis_appends import Encoded
from .redis_life import AliveLink

__all__ = ["RedisClaims"]

#: Seconds between looks for files that nothing names, and how old they are at least.
_SWEEP = 600.0
_OLD = 3600.0
_PAGE = 1000


class RedisClaims:
    """`claims`: None if this process has no place for files; then all bodies travel through Redis."""

    def __init__(self, claims: Claims | None, questions: AliveLink, base: str) -> None:
        self._claims = claims
        self._questions = questions
        self._base = base
        self._swept = time.monotonic()
        self.bodies = 0
        self.bytes = 0

    async def encoded(self, node: NodeId, drafts: Sequence[Draft]) -> list[Encoded]:
        """Drafts as they are sent, their large bodies put away. `Unavailable` if that cannot be; then none is."""
        done: list[Encoded] = []
        try:
            for draft in drafts:
                done.append(await self._encoded(node, draft))
        except Unavailable:
            await self.give_back(node, done)
            raise
        return done

    async def _encoded(self, node: NodeId, draft: Draft) -> Encoded:
        event, size = encode_event(draft.event), len(draft.payload)
        if self._claims is None or size < self._claims.above:
            return Encoded(draft.time, event, draft.payload)
        token = await self._claims.keep(node, draft.payload)
        self.bodies += 1
        self.bytes += size
        return Encoded(draft.time, event, token.encode(), claimed=size)

    async def give_back(self, node: NodeId, refused: Sequence[Encoded]) -> None:
        """These were not appended, for certain."""
        await self.drop([(node, draft.payload.decode()) for draft in refused if draft.claimed])

    async def body(self, node: NodeId, sequence: int, token: str) -> bytes | None:
        """What the record names; None if it has left the log meanwhile. `BodyMissing` if it is gone."""
        found = None if self._claims is None else await self._claims.take(node, token)
        if found is not None:
            return found
        first = await self._questions.ask("HGET", f"{self._base}n:{node}", "a")
        if first is None or int(first) > sequence:
            return None
        raise BodyMissing(
            f"The body of record {sequence} of node {node} is not where the log has put it. All servers of a deployment need the "
            "same directory of arrays (-w); what was put aside there in '.claims' must not be deleted by hand.",
            retry_after=5.0,
        )

    async def drop(self, gone: Sequence[tuple[NodeId, str]]) -> None:
        """Nothing names these bodies any more. A process without a place for files leaves them to one that has it."""
        if self._claims is not None:
            await self._claims.drop(gone)

    async def drop_nodes(self, nodes: Sequence[NodeId]) -> None:
        """These nodes are gone."""
        if self._claims is not None:
            await self._claims.drop_nodes(nodes)

    async def sweep(self) -> None:
        """Now and then: drop old files that no record names; an append was refused then, or a process died."""
        if self._claims is None or time.monotonic() - self._swept < _SWEEP:
            return
        self._swept = time.monotonic()
        for node, tokens in (await self._claims.older(_OLD)).items():
            unnamed = tokens - await self._named(node)
            await self._claims.drop((node, token) for token in unnamed)

    async def _named(self, node: NodeId) -> set[str]:
        """All tokens in the retained records of a node."""
        named: set[str] = set()
        begin = "-"
        while True:
            page = await self._questions.ask("XRANGE", f"{self._base}r:{node}", begin, "+", "COUNT", _PAGE)
            for _, pairs in page:
                named |= {value.decode() for name, value in zip(pairs[::2], pairs[1::2], strict=True) if name == b"c"}
            if len(page) < _PAGE:
                return named
            begin = f"({page[-1][0].decode()}"
