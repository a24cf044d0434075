"""What is registered, what happened, and what became of telling it. Frozen values; times are seconds since the epoch, UTC.

Must stay true: the id of an event is the same whoever derives it, from the place of its record in the log.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID, uuid5

import msgspec

from ..domain.nodes import NodeId

__all__ = [
    "CLOSED",
    "CREATED",
    "DELETED",
    "KINDS",
    "UPDATED",
    "Delivery",
    "Expanded",
    "Happened",
    "Outcome",
    "Webhook",
    "event_id",
]

CREATED = "container-child-created"
UPDATED = "container-child-metadata-updated"
CLOSED = "stream-closed"
#: What can be told.
KINDS = (CREATED, UPDATED, CLOSED)
#: Never told: what is registered on a node goes with the node.
DELETED = "deleted"

Outcome = Literal["pending", "success", "failed"]

_IDS = UUID("5f3a3a0e-5c0b-4b7e-9a55-6f1e2b1f7c11")


def event_id(catalog: str, node: NodeId, sequence: int) -> str:
    """The id of what stands at `sequence` in the log of `node`, unique among deployments by the identity of the `catalog`."""
    return str(uuid5(_IDS, f"{catalog}/{node}/{sequence}"))


class Webhook(msgspec.Struct, frozen=True):
    """A registration. `chain`: ids from the root to `node`. `secret` is encrypted. `events` None: all."""

    id: int
    node: NodeId
    chain: tuple[NodeId, ...]
    url: str
    secret: str | None
    events: tuple[str, ...] | None
    created: float


class Happened(msgspec.Struct, frozen=True):
    """An event in the outbox. `log` is the node in whose log it stands; `child` the one it speaks of, if that is another.

    `about` is JSON: what the message says of the child.
    """

    id: str
    log: NodeId
    kind: str
    time: float
    child: NodeId | None = None
    key: str = ""
    about: str = "{}"


class Expanded(msgspec.Struct, frozen=True):
    """What an event in the outbox becomes: this JSON, sent to these webhooks. `webhooks` empty: it concerns nobody."""

    event: str
    payload: str
    webhooks: tuple[int, ...]


class Delivery(msgspec.Struct, frozen=True):
    """One event for one webhook. `payload` is the JSON that is sent. `delivered`: when it was taken."""

    id: int
    webhook: int
    event: str
    kind: str
    payload: str
    created: float
    outcome: Outcome
    attempts: int = 0
    status_code: int | None = None
    error: str | None = None
    delivered: float | None = None
