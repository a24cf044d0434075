"""The things in the tree, and what is said about them.

A node has an id that is never used again, a key that is unique under its parent, and a family. What *exists* about it
(metadata, specs, data sources) is told by its parent's log; what its *data* look like (structure) by its own.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from .structures import Family, Structure

__all__ = ["ROOT", "Asset", "DataSource", "Management", "Node", "NodeId", "Spec", "is_odd", "wire_number"]

#: 32 hexadecimal digits, random; "root" for the root. Also the key of the node's log, storage and watermark.
NodeId = str
ROOT: NodeId = "root"

_ODD = re.compile(r"[?#]|%[0-9A-Fa-f]{2}")

Management = Literal["external", "immutable", "locked", "writable"]


class Spec(msgspec.Struct, frozen=True):
    """A promise about the contents of a node. Order matters to clients and is kept."""

    name: str
    version: str | None = None


class Asset(msgspec.Struct, frozen=True):
    """Something that holds bytes of a data source: a file, a directory or a database, by URI.

    `num` is None if the reader's argument `parameter` takes one value, else the place in its list. `size` in bytes.
    """

    data_uri: str
    is_directory: bool
    parameter: str | None = None
    num: int | None = None
    size: int | None = None
    id: int | None = None


class DataSource(msgspec.Struct, frozen=True):
    """How to get at the data of a node. `structure` is None for a container."""

    structure_family: Family
    structure: Structure | None
    mimetype: str
    id: int = 0
    parameters: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    assets: tuple[Asset, ...] = ()
    management: Management = "writable"


class Node(msgspec.Struct, frozen=True):
    """One node as of some position of its parent's log (and, for `structure`, of its own).

    `created` is the sequence of its creation in the parent's log: the insertion order of siblings.
    `revision` is the highest revision number given so far (0: never edited). Times are seconds since the epoch, UTC.
    """

    id: NodeId
    key: str
    parent: NodeId | None
    family: Family
    metadata: dict[str, Any] = {}
    specs: tuple[Spec, ...] = ()
    access_tags: tuple[str, ...] = ()
    data_sources: tuple[DataSource, ...] = ()
    created: int = 0
    revision: int = 0
    time_created: float = 0.0
    time_updated: float = 0.0

    @property
    def structure(self) -> Structure | None:
        """Structure of the data; None for a container or a family without one."""
        return self.data_sources[0].structure if self.data_sources else None


def is_odd(key: str) -> bool:
    """True for keys by which another node is asked for, or none, if a client puts them into a URL as they are.

    That is what `?` and `#` do, and `%` before two hexadecimal digits.
    """
    return _ODD.search(key) is not None


def wire_number(text: str) -> int:
    """The integer by which the wire knows something that is unique by `text` (a node id, an asset's URI).

    52 bits of a BLAKE2b digest: the same in every process without asking anyone, exact in JSON's doubles.
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 12
