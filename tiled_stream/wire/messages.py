"""Records as the messages of a stream: a schema first, then one message a record.

A `MessageEncoder` is a value: equal ones share their work, so a record is encoded once per envelope and process. The msgpack
envelope carries payloads as they are, the JSON envelope spells them out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import orjson

from ..domain.dtypes import to_numpy
from ..domain.errors import NotFound
from ..domain.events import (
    ArrayReferenced,
    ArrayWritten,
    ChildCreated,
    ChildMetadataUpdated,
    Record,
    RowsAppended,
    TableWritten,
)
from ..domain.nodes import DataSource
from ..domain.structures import ArrayStructure, Structure, TableStructure
from .arrays import OCTET_STREAM, plain_array
from .structures import data_source_to_wire, data_type_to_wire
from .tables import ARROW_FILE, encode_table, read_table

__all__ = ["Envelope", "MessageEncoder"]

Envelope = Literal["json", "msgpack"]

_msgpack = msgspec.msgpack.Encoder()


class MessageEncoder:
    """Encodes the records of one node. `base_url` has no slash at its end and shapes links inside messages."""

    __slots__ = ("_family", "_hash", "_place", "_structure", "base_url", "envelope")

    def __init__(
        self, envelope: Envelope, base_url: str, path: tuple[str, ...], structure: Structure | None, family: str
    ) -> None:
        if family not in ("array", "table", "container"):
            raise NotFound(f"Nodes of family {family!r} have no stream.")
        self.envelope = envelope
        self.base_url = base_url
        self._place = "/".join(path)
        self._structure = structure
        self._family = family
        self._hash = hash((envelope, base_url, self._place))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MessageEncoder)
            and self.envelope == other.envelope
            and self.base_url == other.base_url
            and self._place == other._place
        )

    def __call__(self, record: Record, /) -> bytes | None:
        """One message, or None if the record is not for subscribers."""
        event = record.event
        if isinstance(event, ArrayWritten):
            return self._encode(record, self._array_data(event, record.payload))
        if isinstance(event, RowsAppended | TableWritten):
            return self._encode(record, self._table_data(event, record.payload))
        if isinstance(event, ChildCreated):
            return self._encode(record, self._child_created(event))
        if isinstance(event, ChildMetadataUpdated):
            return self._encode(record, _child_updated(event)) if event.key else None
        if isinstance(event, ArrayReferenced):
            return self._encode(record, self._array_ref(event))
        return None

    def schema(self) -> bytes:
        """The first message of every connection."""
        fields: dict[str, Any] = {"type": f"{self._family}-schema", "version": 1}
        if isinstance(self._structure, ArrayStructure):
            fields["data_type"] = data_type_to_wire(self._structure.data_type)
        elif isinstance(self._structure, TableStructure):
            fields["arrow_schema"] = self._structure.arrow_schema
        return self._dump(fields)

    def notice(self, kind: str, **fields: Any) -> bytes:
        """A message of ours between the others. Plain clients log that they do not know it, and go on."""
        return self._dump({"type": kind, **fields})

    def _encode(self, record: Record, fields: dict[str, Any]) -> bytes:
        when = datetime.fromtimestamp(record.time, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        return self._dump({"sequence": record.sequence, "timestamp": when, **fields})

    def _dump(self, fields: dict[str, Any]) -> bytes:
        return _msgpack.encode(fields) if self.envelope == "msgpack" else orjson.dumps(fields)

    def _array_data(self, event: ArrayWritten, payload: bytes) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "type": "array-data",
            "mimetype": OCTET_STREAM,
            "shape": event.shape,
            "offset": None if event.block is not None else event.offset,
            "block": event.block,
        }
        if self.envelope == "msgpack":
            return fields | {"payload": payload}
        import numpy

        assert isinstance(self._structure, ArrayStructure)
        cells = numpy.frombuffer(payload, to_numpy(self._structure.data_type)).reshape(event.shape)
        return fields | {"content-type": "application/json", "payload": plain_array(cells)}

    def _table_data(self, event: RowsAppended | TableWritten, payload: bytes) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "type": "table-data",
            "mimetype": ARROW_FILE,
            "partition": event.partition,
            "append": isinstance(event, RowsAppended),
        }
        if self.envelope == "msgpack":
            return fields | {"payload": payload}
        columns = orjson.Fragment(encode_table(read_table(payload), "application/json"))
        return fields | {"content-type": "application/json", "payload": columns}

    def _child_created(self, event: ChildCreated) -> dict[str, Any]:
        node = event.node
        return {
            "type": "container-child-created",
            "key": node.key,
            "structure_family": node.family,
            "specs": [{"name": s.name, "version": s.version} for s in node.specs],
            "metadata": node.metadata,
            # Clients refuse assets without a number here, and none looks at them.
            "data_sources": [data_source_to_wire(s) | {"assets": []} for s in node.data_sources],
            "access_tags": list(node.access_tags),
        }

    def _array_ref(self, event: ArrayReferenced) -> dict[str, Any]:
        source = event.data_source
        structure = source.structure
        shape = structure.shape if isinstance(structure, ArrayStructure) else ()
        if event.offset is not None and event.shape is not None:
            patch: dict[str, Any] | None = {"offset": event.offset, "shape": event.shape}
            taken = ",".join(f"{o}:{o + n}" for o, n in zip(event.offset, event.shape, strict=False))
        else:
            patch = None
            taken = ",".join(f":{n}" for n in shape)
        return {
            "type": "array-ref",
            "data_source": _numbered(source),
            "patch": patch,
            "shape": shape,
            "uri": f"{self.base_url}/array/full/{self._place}?slice={taken}",
        }


def _child_updated(event: ChildMetadataUpdated) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "type": "container-child-metadata-updated",
        "key": event.key,
        "specs": [{"name": s.name, "version": s.version} for s in event.specs],
        "metadata": event.metadata,
    }
    if event.revision is not None:
        fields["revision_number"] = event.revision
    return fields


def _numbered(source: DataSource) -> dict[str, Any]:
    """Clients want a number for each asset."""
    wire = data_source_to_wire(source)
    for place, asset in enumerate(wire["assets"]):
        if asset["num"] is None:
            asset["num"] = place
    return wire
