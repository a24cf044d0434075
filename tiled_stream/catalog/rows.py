"""Rows of the catalog from and to domain values. JSON is text here, the same for every engine.

Read and written with msgspec, which keeps integers of any size; what JSON cannot say (NaN, infinities) becomes null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..domain.nodes import DataSource, Node, Spec
from .port import Hit, Revision, Stored

__all__ = [
    "COLUMNS",
    "data_sources_text",
    "hit",
    "json_text",
    "node",
    "path_text",
    "revision",
    "sources",
    "specs_text",
    "stored",
    "value",
]

#: The columns that `node`, `stored` and `hit` expect, in this order.
COLUMNS = (
    "n.row, n.id, (SELECT p.id FROM nodes p WHERE p.row = n.parent), n.key, n.path, n.family, n.metadata, n.specs, "
    "n.access_tags, n.data_sources, n.created, n.revision, n.time_created, n.time_updated, n.watermark, n.children, "
    "n.ended, n.has_odd_keys, n.stored, n.lost"
)

Row = Sequence[Any]

_any: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_specs = msgspec.json.Decoder(tuple[Spec, ...])
_tags = msgspec.json.Decoder(tuple[str, ...])
_sources = msgspec.json.Decoder(tuple[DataSource, ...])
_encoder = msgspec.json.Encoder()


def node(row: Row) -> Node:
    """The node in a row of `COLUMNS`."""
    return Node(
        id=row[1],
        key=row[3],
        parent=row[2],
        family=row[5],
        metadata=_any.decode(row[6]),
        specs=() if row[7] == "[]" else _specs.decode(row[7]),
        access_tags=() if row[8] == "[]" else _tags.decode(row[8]),
        data_sources=() if row[9] == "[]" else _sources.decode(row[9]),
        created=row[10],
        revision=row[11],
        time_created=row[12],
        time_updated=row[13],
    )


def stored(row: Row) -> Stored:
    """The same with its watermark, number of children, and what is marked at it."""
    return Stored(node(row), row[14], row[15], row[16], bool(row[17]), row[18], row[19])


def hit(row: Row, *, above: int | None) -> Hit:
    """The same as a hit. The path loses its first `above` keys; None: all but the node's own."""
    path = (row[3],) if above is None else tuple(_any.decode(row[4])[above:])
    return Hit(node(row), row[0], path, row[15])


def revision(row: Row) -> Revision:
    """From (number, metadata, specs, access_tags, time)."""
    return Revision(row[0], _any.decode(row[1]), _specs.decode(row[2]), _tags.decode(row[3]), row[4])


def sources(text: str) -> tuple[DataSource, ...]:
    """Data sources from their JSON."""
    return _sources.decode(text)


def json_text(value: Any) -> str:
    """JSON of metadata or tags."""
    return _encoder.encode(value).decode()


def value(text: str) -> Any:
    """Any JSON."""
    return _any.decode(text)


def path_text(path: Sequence[str]) -> str:
    """JSON of a path."""
    return _encoder.encode(path).decode()


def specs_text(specs: Sequence[Spec]) -> str:
    """JSON of specs, order kept."""
    return _encoder.encode(specs).decode()


def data_sources_text(sources: Sequence[DataSource]) -> str:
    """JSON of data sources, structures tagged with their family."""
    return _encoder.encode(sources).decode()
