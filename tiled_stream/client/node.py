"""One node as a subscription follows it: messages in, events out, and the cursor that makes coming back safe.

What must stay true: no sequence is told twice, in whatever order connections end and begin; a sequence of an array or a table
that is passed over is told as a `Gap`. (The numbers of a container may skip: deletions take one and have no message.)
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from ..domain.nodes import Spec
from ..domain.structures import DataType
from ..wire.tables import ARROW_FILE
from .events import (
    ArrayData,
    ArrayRef,
    ChildCreated,
    ChildUpdated,
    Ended,
    Event,
    Gap,
    Live,
    Other,
    RaggedData,
    SparseData,
    TableData,
    Update,
)
from .fetch import Fetcher

__all__ = ["FollowedNode", "specs_of"]

_NO_TYPE = DataType(itemsize=1)
_SCHEMAS = ("array-schema", "table-schema", "container-schema", "ragged-schema")


class FollowedNode:
    """`cursor`: the last sequence that came or is known not to come; None while nobody knows."""

    __slots__ = ("_data_type", "_fetcher", "_skipped", "cursor", "family", "has_ended", "head", "path", "subscription")

    def __init__(self, subscription: int, path: tuple[str, ...], *, cursor: int | None, fetcher: Fetcher) -> None:
        self.subscription = subscription
        self.path = path
        self.cursor = cursor
        self.family = ""
        #: The last sequence it had when it was announced.
        self.head = 0
        #: The end was told; told again (after coming back) it is no news.
        self.has_ended = False
        self._data_type = _NO_TYPE
        self._fetcher = fetcher
        #: How many records the next update stands for beside its own, as the server announced.
        self._skipped = 0

    def take(self, message: dict[str, Any], now: datetime) -> list[Event]:
        """What a message tells. A schema and a double tell nothing."""
        kind = message.get("type", "")
        if "sequence" in message:
            return self._update(kind, message)
        if kind in _SCHEMAS:
            self._schema(kind, message)
            return []
        if kind == "gap":
            return [self._gap(message, now)]
        if kind == "thinned":
            self._skipped = int(message["skipped"])
            return []
        if kind == "live":
            return [Live(**self._here(now))]
        if kind in ("ended", "deleted"):
            return self.end(str(message.get("reason") or "Node deleted"), now, is_deleted=kind == "deleted")
        here = self._here(now)
        return [Other(type=str(kind), message=message, covers=(here["sequence"],) * 2, **here)]

    def end(self, reason: str, now: datetime, *, is_deleted: bool = False) -> list[Event]:
        """Nothing more will come."""
        if self.has_ended:
            return []
        self.has_ended = True
        return [Ended(reason=reason, is_deleted=is_deleted, **self._here(now))]

    def _here(self, now: datetime) -> dict[str, Any]:
        return {"subscription": self.subscription, "path": self.path, "sequence": self.cursor or 0, "time": now}

    def _schema(self, kind: str, message: dict[str, Any]) -> None:
        self.family = kind.removesuffix("-schema")
        if "data_type" in message:
            self._data_type = msgspec.convert(message["data_type"], DataType)

    def _gap(self, message: dict[str, Any], now: datetime) -> Gap:
        first, last, reason = int(message["first"]), int(message["last"]), str(message["reason"])
        # Another life may number from below: there the server's word counts, not what was seen before.
        self.cursor = last if reason == "epoch" or self.cursor is None else max(self.cursor, last)
        head = message.get("head")
        return Gap(first=first, last=last, reason=reason, head=None if head is None else int(head), **self._here(now))

    def _update(self, kind: str, message: dict[str, Any]) -> list[Event]:
        sequence = int(message["sequence"])
        skipped, self._skipped = self._skipped, 0
        if self.cursor is not None and sequence <= self.cursor:
            return []
        covers = message.get("covers") or (sequence - skipped, sequence)
        event = self._event(kind, message, (int(covers[0]), max(int(covers[1]), sequence)))
        events: list[Event] = [event]
        expected = None if self.cursor is None else self.cursor + 1
        if expected is not None and event.covers[0] > expected and not isinstance(event, ChildCreated | ChildUpdated):
            before: dict[str, Any] = {
                "subscription": self.subscription,
                "path": self.path,
                "sequence": event.covers[0] - 1,
                "time": event.time,
            }
            events.insert(0, Gap(first=expected, last=event.covers[0] - 1, reason="unannounced", **before))
        self.cursor = event.covers[1]
        self.has_ended = False
        return events

    def _event(self, kind: str, message: dict[str, Any], covers: tuple[int, int]) -> Update:
        common: dict[str, Any] = {
            "subscription": self.subscription,
            "path": self.path,
            "sequence": int(message["sequence"]),
            "time": _time(message.get("timestamp")),
            "covers": covers,
        }
        match kind:
            case "array-data" if message.get("mimetype") == ARROW_FILE:
                return SparseData(**common, **_region(message))
            case "array-data":
                return ArrayData(**common, **_region(message), data_type=self._data_type)
            case "table-data":
                append = bool(message.get("append"))
                return TableData(**common, payload=message.get("payload"), append=append, partition=message.get("partition"))
            case "array-ref":
                return ArrayRef(**common, **_reference(message), data_type=self._data_type, fetcher=self._fetcher)
            case "ragged-data":
                return RaggedData(**common, **_region(message), mimetype=str(message.get("mimetype")))
            case "container-child-created":
                return ChildCreated(**common, **_created(message))
            case "container-child-metadata-updated":
                return ChildUpdated(**common, **_child(message), revision=message.get("revision_number"))
        return Other(**common, type=str(kind), message=message)


def specs_of(value: Any) -> tuple[Spec, ...]:
    """Specs as the wire spells them."""
    return tuple(Spec(spec["name"], spec.get("version")) for spec in value or ())


def _time(text: Any) -> datetime:
    """Times of the wire have no zone and mean UTC."""
    when = datetime.fromisoformat(text) if isinstance(text, str) else datetime.fromtimestamp(0, UTC)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def _sizes(value: Any) -> tuple[int, ...] | None:
    return None if value is None else tuple(value)


def _region(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "payload": message.get("payload"),
        "shape": tuple(message["shape"]),
        "offset": _sizes(message.get("offset")),
        "block": _sizes(message.get("block")),
    }


def _reference(message: dict[str, Any]) -> dict[str, Any]:
    patch = message.get("patch") or {}
    return {
        "shape": tuple(message["shape"]),
        "patch_offset": _sizes(patch.get("offset")),
        "patch_shape": _sizes(patch.get("shape")),
        "data_source": message["data_source"],
    }


def _child(message: dict[str, Any]) -> dict[str, Any]:
    return {"key": message["key"], "specs": specs_of(message.get("specs")), "metadata": message.get("metadata") or {}}


def _created(message: dict[str, Any]) -> dict[str, Any]:
    return _child(message) | {
        "family": message["structure_family"],
        "data_sources": tuple(message.get("data_sources") or ()),
    }
