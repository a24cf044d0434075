"""Where an event goes that cannot be applied, so that those behind it can.

It was accepted, so it is never thrown away (I6): event and payload are kept as one file, with the reason, for an operator to
look at. An event lands here only through a defect, for what cannot be applied should have been refused at the door (I10).
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from ..domain.events import Record
from ..domain.nodes import NodeId

__all__ = ["Quarantine", "Quarantined"]

logger = logging.getLogger(__name__)


class Quarantined(msgspec.Struct, frozen=True):
    """The content of a quarantine file (msgpack)."""

    node: NodeId
    reason: str
    record: Record


class Quarantine:
    """One file a record, ``<directory>/<node>-<sequence>.msgpack``; the directory is made when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.count = 0

    async def keep(self, node: NodeId, record: Record, reason: Exception) -> None:
        """Write it down; keeping the same record again replaces the file (I5)."""
        self.count += 1
        path = self._directory / f"{node}-{record.sequence}.msgpack"
        kept = Quarantined(node, f"{type(reason).__name__}: {reason}", record)
        await asyncio.to_thread(self._write, path, msgspec.msgpack.encode(kept))
        logger.error("Record %d of node %s cannot be applied (%s); it is kept in %s", record.sequence, node, kept.reason, path)

    def _write(self, path: Path, content: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(content)
        partial.replace(path)
