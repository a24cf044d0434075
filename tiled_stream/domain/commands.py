"""What a client asks for. A command may be refused; if not, `decide` turns it into events.

The bodies are decoded and valid in themselves (`wire/` saw to that); whether they fit the node is for `decide` to say.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .nodes import Asset, Management, Spec
from .structures import Family, Structure

__all__ = [
    "AppendPart",
    "AppendRows",
    "Command",
    "CreateChild",
    "DeleteAsset",
    "DeleteNode",
    "DeleteRevision",
    "EndStream",
    "NewDataSource",
    "PatchArray",
    "PatchMetadata",
    "ReplaceMetadata",
    "UpdateDataSource",
    "WriteArray",
    "WriteBlock",
    "WritePart",
    "WriteTable",
]


class NewDataSource(msgspec.Struct, frozen=True):
    """A data source as a client declares it. `mimetype` None: the server chooses. `id` only when updating one."""

    structure_family: Family
    structure: Structure | None
    mimetype: str | None = None
    parameters: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    assets: tuple[Asset, ...] = ()
    management: Management = "writable"
    id: int | None = None


class CreateChild(msgspec.Struct, frozen=True):
    """POST metadata / register: a new node under the addressed container. `key` None: the server makes one."""

    key: str | None
    family: Family
    metadata: dict[str, Any]
    specs: tuple[Spec, ...] = ()
    access_tags: tuple[str, ...] | None = None
    data_sources: tuple[NewDataSource, ...] = ()
    registered: bool = False


class ReplaceMetadata(msgspec.Struct, frozen=True):
    """PUT metadata: whole replacement; None leaves a part as it is."""

    metadata: dict[str, Any] | None
    specs: tuple[Spec, ...] | None = None
    access_tags: tuple[str, ...] | None = None
    drop_revision: bool = False


class PatchMetadata(msgspec.Struct, frozen=True):
    """PATCH metadata: RFC 6902 operations or an RFC 7386 merge; None leaves a part as it is."""

    kind: Literal["json-patch", "merge-patch"]
    metadata: Any = None
    specs: Any = None
    access_tags: Any = None
    drop_revision: bool = False


class DeleteNode(msgspec.Struct, frozen=True):
    """DELETE metadata. Refused if there are children and not `recursive`, or internal data and `external_only`."""

    recursive: bool = False
    external_only: bool = True


class DeleteAsset(msgspec.Struct, frozen=True):
    """DELETE asset. Refused if this server holds the data and `external_only`. Files of others are never touched."""

    id: int
    external_only: bool = True


class DeleteRevision(msgspec.Struct, frozen=True):
    """DELETE revisions."""

    number: int


class WriteArray(msgspec.Struct, frozen=True):
    """PUT array/full: the whole array, C-order bytes."""

    body: bytes
    persist: bool = True


class WriteBlock(msgspec.Struct, frozen=True):
    """PUT array/block: one chunk, C-order bytes of its actual shape."""

    block: tuple[int, ...]
    body: bytes
    persist: bool = True


class PatchArray(msgspec.Struct, frozen=True):
    """PATCH array/full: a region; `extend` grows the array to hold it."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    body: bytes
    extend: bool = False
    persist: bool = True


class WriteTable(msgspec.Struct, frozen=True):
    """PUT table/full (`partition` None) or table/partition: replace rows. `body` is an Arrow IPC file."""

    partition: int | None
    body: bytes


class AppendRows(msgspec.Struct, frozen=True):
    """PATCH table/partition: append rows. `body` is an Arrow IPC file."""

    partition: int
    body: bytes


class WritePart(msgspec.Struct, frozen=True):
    """PUT of an awkward, ragged or sparse array, whole (`block` None) or one chunk. `body`: a zip, or an Arrow IPC file."""

    block: tuple[int, ...] | None
    body: bytes
    persist: bool = True


class AppendPart(msgspec.Struct, frozen=True):
    """PATCH ragged/full: `length` rows that follow the last one; `offset` is the number of rows before them."""

    offset: tuple[int, ...]
    length: int
    body: bytes
    extend: bool = False
    persist: bool = True


class UpdateDataSource(msgspec.Struct, frozen=True):
    """PUT data_source: files of an external array changed; (`offset`, `shape`) is what is new."""

    data_source: NewDataSource
    offset: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None


class EndStream(msgspec.Struct, frozen=True):
    """DELETE stream/close."""


Command = (
    CreateChild
    | ReplaceMetadata
    | PatchMetadata
    | DeleteAsset
    | DeleteNode
    | DeleteRevision
    | WriteArray
    | WriteBlock
    | PatchArray
    | WriteTable
    | AppendRows
    | WritePart
    | AppendPart
    | UpdateDataSource
    | EndStream
)
