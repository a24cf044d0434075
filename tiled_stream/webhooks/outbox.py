"""From records to events in the outbox. The persister calls this with each batch before it moves the watermark of the catalog.

What must stay true: a batch whose events could not be kept is not settled (I6), so that nothing acknowledged goes untold,
whenever the process dies. A batch that comes again keeps nothing twice: ids of events are those of records.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from ..catalog.port import CatalogBatch
from ..domain.events import ChildCreated, ChildDeleted, ChildMetadataUpdated, Record, StreamEnded
from ..domain.nodes import NodeId, Spec
from .kinship import Kinship
from .model import CLOSED, CREATED, DELETED, UPDATED, Happened, event_id
from .store import Store

__all__ = ["Outbox", "happened"]

logger = logging.getLogger(__name__)


class Outbox:
    """`catalog` is the identity of the catalog. `kept` is called when there is something to tell."""

    def __init__(self, store: Store, kinship: Kinship, *, catalog: str, kept: Callable[[], None]) -> None:
        self._store = store
        self._kinship = kinship
        self._catalog = catalog
        self._kept = kept

    async def take(self, batches: Sequence[CatalogBatch]) -> None:
        """Keep what of these records is to be told. `Unavailable`: nothing of it is kept. Cancelled: all or nothing."""
        events = []
        for batch in batches:
            for record in batch.records:
                if isinstance(record.event, ChildCreated):
                    self._kinship.learn(record.event.node.id, batch.node, record.event.node.key)
                event = happened(self._catalog, batch.node, record)
                if event is not None:
                    events.append(event)
        if events and await self._store.keep(events):
            self._kept()


def happened(catalog: str, log: NodeId, record: Record) -> Happened | None:
    """What a record in the log of a node means for webhooks; None: nothing."""
    event = record.event
    id = event_id(catalog, log, record.sequence)
    if isinstance(event, ChildCreated):
        node = event.node
        about = {"structure_family": node.family, "specs": _specs(node.specs), "metadata": node.metadata}
        return Happened(id, log, CREATED, record.time, node.id, node.key, _json(about, id))
    if isinstance(event, ChildMetadataUpdated):
        about = {"specs": _specs(event.specs), "metadata": event.metadata}
        return Happened(id, log, UPDATED, record.time, event.id if event.key else None, event.key, _json(about, id))
    if isinstance(event, ChildDeleted):
        return Happened(id, log, DELETED, record.time, event.id, event.key)
    if isinstance(event, StreamEnded):
        return Happened(id, log, CLOSED, record.time)
    return None


def _specs(specs: Sequence[Spec]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "version": spec.version} for spec in specs]


def _json(about: dict[str, Any], id: str) -> str:
    """What cannot be written as JSON must not hold up the persister; the event is told all the same."""
    try:
        return orjson.dumps(about, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()
    except (TypeError, ValueError) as error:
        logger.error("Event %s is told without metadata, which are no JSON: %s", id, error)
        return orjson.dumps({**about, "metadata": {}}).decode()
