"""Pages of records of a log in Redis, with their payloads, wherever these are.

What must stay true: a page is dense from its first record, and is given whole or cut, never with a record left out (I3).
"""

from __future__ import annotations

from ..domain.errors import BodyMissing, Truncated
from ..domain.events import Record
from ..domain.nodes import NodeId
from .codec import decode_event
from .redis_claims import RedisClaims
from .redis_life import AliveLink

__all__ = ["Pages", "cut"]

Entry = tuple[int, dict[bytes, bytes]]


class Pages:
    """Entries of streams as records."""

    def __init__(self, link: AliveLink, claims: RedisClaims, base: str) -> None:
        self._link = link
        self._claims = claims
        self._base = base

    async def records(self, node: NodeId, page: list[Entry], *, headers: bool) -> list[Record]:
        """The records of a page. `Truncated` if they have left the log meanwhile, `BodyMissing`."""
        absent = [] if headers else [sequence for sequence, fields in page if b"p" not in fields and b"c" not in fields]
        payloads: dict[int, bytes] = {}
        if absent:
            entries = await self._link.ask("XRANGE", f"{self._base}p:{node}", f"{absent[0]}-0", f"{absent[-1]}-0")
            payloads = {int(id.split(b"-")[0]): fields[1] for id, fields in entries}
        records: list[Record] = []
        for sequence, fields in page:
            payload = b"" if headers else fields.get(b"p", payloads.get(sequence))
            if payload is None and b"c" in fields:
                try:
                    payload = await self._claims.body(node, sequence, fields[b"c"].decode())
                except BodyMissing:
                    if records:
                        break  # what comes before it can be given; the next reading raises
                    raise
            if payload is None:
                break  # it left the log between the two questions; the next reading raises
            records.append(Record(sequence, float(fields[b"t"]), decode_event(fields[b"e"]), payload))
        if page and not records:
            raise Truncated(page[-1][0] + 1)
        return records


def cut(found: list[tuple[int, list[bytes]]], max_bytes: int) -> list[Entry]:
    """Dense from the first, as many as fit into `max_bytes` of payload, one at least."""
    page: list[Entry] = []
    total = 0
    for sequence, pairs in found:
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        total += int(fields[b"n"])
        if page and (total > max_bytes or sequence != page[-1][0] + 1):
            break
        page.append((sequence, fields))
    return page
