"""Records as the messages of a stream: a schema first, then one message a record.

A `MessageEncoder` is a value: equal ones share their work, so a record is encoded once per envelope and process. The msgpack
envelope carries payloads as they are, the JSON envelope spells them out. What must stay true: a record that stands in a log has a
message, whatever its payload; else it would stop every reader, again at each replay.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import orjson

from ..domain.chunks import size
from ..domain.dtypes import to_numpy
from ..domain.errors import NotFound
from ..domain.events import (
    ArrayReferenced,
    ArrayWritten,
    ChildCreated,
    ChildMetadataUpdated,
    PartWritten,
    Record,
    RowsAppended,
    TableWritten,
)
from ..domain.nodes import DataSource
from ..domain.parts import sparse_data_type
from ..domain.structures import (
    ArrayStructure,
    RaggedStructure,
    SparseStructure,
    Structure,
    TableStructure,
)
from .arrays import OCTET_STREAM, encode_json
from .resources import link_path
from .structures import data_source_to_wire, data_type_to_wire
from .tables import ARROW_FILE, encode_table, read_table
from .zipped import ZIP

__all__ = ["Envelope", "MessageEncoder"]

Envelope = Literal["json", "msgpack"]

_msgpack = msgspec.msgpack.Encoder()


class MessageEncoder:
    """Encodes the records of one node. `base_url` has no slash at its end and shapes links inside messages."""

    __slots__ = ("_data_type", "_family", "_hash", "_place", "_structure", "base_url", "envelope")

    def __init__(
        self, envelope: Envelope, base_url: str, path: tuple[str, ...], structure: Structure | None, family: str
    ) -> None:
        if family not in ("array", "container", "ragged", "sparse", "table"):
            raise NotFound(f"Nodes of family {family!r} have no stream.")
        self.envelope = envelope
        self.base_url = base_url
        self._place = link_path(path)
        self._structure = structure
        # Of the structure this alone counts for equality: a growing array has another shape for every subscriber.
        self._data_type = structure.data_type if isinstance(structure, ArrayStructure) else None
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
            and self._data_type == other._data_type
        )

    def __call__(self, record: Record, /) -> bytes | None:
        """One message, or None if the record is not for subscribers."""
        event = record.event
        if isinstance(event, ArrayWritten):
            return self._encode(record, self._array_data(event, record.payload))
        if isinstance(event, PartWritten):
            return self._encode(record, self._part_data(event, record.payload))
        if isinstance(event, RowsAppended | TableWritten):
            return self._encode(record, self._table_data(event, record.payload))
        if isinstance(event, ChildCreated):
            return self._encode(record, self._child_created(event))
        if isinstance(event, ChildMetadataUpdated):
            return self._encode(record, _child_updated(event)) if event.key else None
        if isinstance(event, ArrayReferenced):
            return self._encode(record, self._array_ref(event))
        return None

    def schema(self, *, epoch: str | None = None) -> bytes:
        """The first message of every connection; with the epoch of the log on a socket for one node."""
        kind = "array" if self._family == "sparse" else self._family
        fields: dict[str, Any] = {"type": f"{kind}-schema", "version": 1}
        if epoch is not None:
            fields["epoch"] = epoch
        if isinstance(self._structure, ArrayStructure | RaggedStructure):
            fields["data_type"] = data_type_to_wire(self._structure.data_type)
        elif isinstance(self._structure, SparseStructure):
            fields["data_type"] = data_type_to_wire(sparse_data_type(self._structure))
        elif isinstance(self._structure, TableStructure):
            fields["arrow_schema"] = self._structure.arrow_schema
        return self._dump(fields)

    def notice(self, kind: str, **fields: Any) -> bytes:
        """A message of ours between the others. Plain clients log that they do not know it, and go on."""
        return self._dump({"type": kind, **fields})

    def _encode(self, record: Record, fields: dict[str, Any]) -> bytes:
        when = datetime.fromtimestamp(record.time, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        if record.covers is not None:
            fields["covers"] = record.covers
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
        return fields | {"content-type": "application/json", "payload": orjson.Fragment(self._cells(event.shape, payload))}

    def _part_data(self, event: PartWritten, payload: bytes) -> dict[str, Any]:
        is_sparse = isinstance(event.structure, SparseStructure)
        fields: dict[str, Any] = {
            "type": "array-data" if is_sparse else "ragged-data",
            "mimetype": ARROW_FILE if is_sparse else ZIP,
            "shape": event.shape,
            "offset": event.offset,
            "block": None if event.offset is not None else event.block,
        }
        if self.envelope == "msgpack":
            return fields | {"payload": payload}
        if is_sparse:
            cells = encode_table(read_table(payload), "application/json")
        else:
            from .ragged import encode_ragged, loaded  # heavy, and few want it

            cells = encode_ragged(loaded(payload), "application/json")
        return fields | {"content-type": "application/json", "payload": orjson.Fragment(cells)}

    def _cells(self, shape: tuple[int, ...], payload: bytes) -> bytes:
        """The payload as JSON; null if it was written as another type than the array has now."""
        import numpy

        assert self._data_type is not None
        dtype = to_numpy(self._data_type)
        if len(payload) != size(shape) * dtype.itemsize:
            return b"null"
        return encode_json(numpy.ndarray(shape, dtype, payload))

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
            offset = (*event.offset, *(0,) * (len(event.shape) - len(event.offset)))
            patch: dict[str, Any] | None = {"offset": offset, "shape": event.shape}
            taken = ",".join(f"{o}:{o + n}" for o, n in zip(offset, event.shape, strict=False))
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
    """Clients want a number and a parameter for each asset, though only readers of files use them."""
    wire = data_source_to_wire(source)
    for place, asset in enumerate(wire["assets"]):
        if asset["num"] is None:
            asset["num"] = place
        asset["parameter"] = asset["parameter"] or ""
    return wire
