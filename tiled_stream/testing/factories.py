"""Builders of nodes, structures, drafts and records for tests: a valid value from nothing, and a keyword for what matters.

Everything built here is a value of the domain and what the server itself would accept. Ids are given or random, never counted,
so that tests can run in any order. numpy and pyarrow are imported only by what needs them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..domain.events import ArrayWritten, ChildCreated, Draft, Event, Record, RowsAppended
from ..domain.nodes import ROOT, Asset, DataSource, Management, Node, NodeId, Spec
from ..domain.structures import ArrayStructure, DataType, TableStructure

if TYPE_CHECKING:
    import numpy
    import pyarrow

__all__ = [
    "FLOAT64",
    "array_body",
    "array_node",
    "array_structure",
    "array_written",
    "arrow_schema",
    "child_created",
    "container_node",
    "draft",
    "new_id",
    "record",
    "records",
    "rows_appended",
    "table_body",
    "table_node",
    "table_structure",
]

#: Little-endian double: the type of everything that does not say otherwise.
FLOAT64 = DataType(itemsize=8, kind="f", endianness="little")
#: The columns of a table that does not say otherwise.
COLUMNS = {"x": "int64", "y": "float64"}
_URI = "data:application/vnd.apache.arrow.file;base64,"


def new_id() -> NodeId:
    """A random node id: 32 hexadecimal digits."""
    return uuid4().hex


# ------------------------------------------------------------------ structures


def array_structure(
    shape: Sequence[int] = (2, 3),
    *,
    chunks: Sequence[Sequence[int]] | None = None,
    data_type: DataType = FLOAT64,
    dims: Sequence[str] | None = None,
    resizable: bool = False,
) -> ArrayStructure:
    """An array of `shape`, in one chunk unless `chunks` says how each axis is divided."""
    parts = tuple((n,) for n in shape) if chunks is None else tuple(tuple(axis) for axis in chunks)
    return ArrayStructure(data_type, parts, tuple(shape), None if dims is None else tuple(dims), resizable)


def arrow_schema(columns: Mapping[str, str] | None = None) -> pyarrow.Schema:
    """A schema from column names and the aliases of Arrow types (``"int64"``, ``"float64"``, ``"string"`` …)."""
    import pyarrow

    return pyarrow.schema([(name, pyarrow.type_for_alias(alias)) for name, alias in (columns or COLUMNS).items()])


def table_structure(
    columns: Mapping[str, str] | None = None, *, schema: pyarrow.Schema | None = None, npartitions: int = 1
) -> TableStructure:
    """A table of these columns (see `arrow_schema`), or of a whole `schema`."""
    schema = arrow_schema(columns) if schema is None else schema
    encoded = b64encode(schema.serialize().to_pybytes()).decode()
    return TableStructure(_URI + encoded, npartitions, tuple(schema.names))


# ----------------------------------------------------------------------- nodes


def container_node(
    key: str = "c",
    *,
    id: NodeId | None = None,
    parent: NodeId | None = ROOT,
    metadata: dict[str, Any] | None = None,
    specs: Sequence[str] = (),
    access_tags: Sequence[str] = (),
    created: int = 0,
    time: float = 0.0,
) -> Node:
    """A container. `time` (seconds since the epoch) is when it was created and last edited."""
    return Node(
        id=new_id() if id is None else id,
        key=key,
        parent=parent,
        family="container",
        metadata=metadata or {},
        specs=tuple(Spec(name) for name in specs),
        access_tags=tuple(access_tags),
        created=created,
        time_created=time,
        time_updated=time,
    )


def array_node(
    key: str = "a",
    *,
    id: NodeId | None = None,
    parent: NodeId | None = ROOT,
    metadata: dict[str, Any] | None = None,
    structure: ArrayStructure | None = None,
    mimetype: str = "application/x-zarr",
    management: Management = "writable",
) -> Node:
    """An array; 2 x 3 doubles unless `structure` says otherwise."""
    id = new_id() if id is None else id
    asset = Asset(f"file://localhost/data/{id}", is_directory=True, parameter="data_uri")
    source = DataSource("array", structure or array_structure(), mimetype, assets=(asset,), management=management)
    return Node(id=id, key=key, parent=parent, family="array", metadata=metadata or {}, data_sources=(source,))


def table_node(
    key: str = "t",
    *,
    id: NodeId | None = None,
    parent: NodeId | None = ROOT,
    metadata: dict[str, Any] | None = None,
    structure: TableStructure | None = None,
    mimetype: str = "application/x-tiled-sql-table",
    parameters: dict[str, Any] | None = None,
) -> Node:
    """A table; columns x (int64) and y (float64) unless `structure` says otherwise."""
    id = new_id() if id is None else id
    asset = Asset("duckdb:////data/tables.duckdb", is_directory=False, parameter="data_uri")
    chosen = structure or table_structure()
    source = DataSource("table", chosen, mimetype, parameters=parameters or {}, assets=(asset,))
    return Node(id=id, key=key, parent=parent, family="table", metadata=metadata or {}, data_sources=(source,))


# ---------------------------------------------------------------------- bodies


def array_body(values: Any, dtype: str = "<f8") -> bytes:
    """C-order bytes of anything that numpy takes for an array."""
    import numpy

    array: numpy.ndarray = numpy.asarray(values, dtype=dtype)
    return array.tobytes()


def table_body(columns: Mapping[str, Sequence[Any]], *, schema: pyarrow.Schema | None = None) -> bytes:
    """An Arrow IPC file with these columns; `schema` defaults to the types that `COLUMNS` gives them, or Arrow's guess."""
    import pyarrow

    if schema is None and set(columns) == set(COLUMNS):
        schema = arrow_schema()
    table = pyarrow.table(dict(columns), schema=schema)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


# --------------------------------------------------------------- events, records


def child_created(node: Node | None = None) -> ChildCreated:
    """`node` (a container unless given) now exists."""
    return ChildCreated(container_node() if node is None else node)


def array_written(
    shape: Sequence[int] = (2, 3),
    *,
    offset: Sequence[int] | None = None,
    block: Sequence[int] | None = None,
    structure: ArrayStructure | None = None,
    persist: bool = True,
) -> ArrayWritten:
    """The whole array unless `offset` or `block` says which region."""
    at = None if offset is None else tuple(offset)
    return ArrayWritten(tuple(shape), at, None if block is None else tuple(block), structure, persist)


def rows_appended(rows: int = 1, *, partition: int = 0) -> RowsAppended:
    """So many rows."""
    return RowsAppended(partition, rows)


def draft(event: Event | int = 1, payload: bytes = b"", *, time: float = 0.0) -> Draft:
    """A draft of `event`; a number stands for so many appended rows, which makes drafts that can be told apart."""
    return Draft(rows_appended(event) if isinstance(event, int) else event, time, payload)


def record(sequence: int, event: Event | int = 1, payload: bytes = b"", *, time: float = 0.0) -> Record:
    """A record at `sequence`; `event` as in `draft`."""
    return Record(sequence, time, rows_appended(event) if isinstance(event, int) else event, payload)


def records(*events: Event | tuple[Event, bytes], after: int = 0, time: float = 0.0) -> tuple[Record, ...]:
    """Consecutive records that begin at ``after + 1``; an event with a payload is a pair."""
    pairs = [event if isinstance(event, tuple) else (event, b"") for event in events]
    return tuple(Record(n, time, event, payload) for n, (event, payload) in enumerate(pairs, start=after + 1))
