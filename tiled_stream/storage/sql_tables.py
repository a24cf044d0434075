"""Tables in an SQL engine that blocks: the port (`TableStore`), kept by a thread that writes and a few that read.

Here is what all such engines share: what a batch changes, which of its records count (I5), how threads are used. An engine
(`TableEngine`) is plain blocking code; it never sees two writes at once. (`postgres_tables.py`, which does not block, takes only
`allocation` and `changes`.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..domain.errors import UnsupportedType
from ..domain.events import RowsAppended, TableWritten
from ..domain.nodes import NodeId
from ..domain.structures import TableStructure
from .engine_thread import EngineThread
from .layout import SQL_TABLE, check_columns, dataset_id, table_name
from .port import Allocation, Arrived, TableBatch

if TYPE_CHECKING:
    import pyarrow

    from .arrow_columns import Rows

__all__ = ["Change", "SqlTables", "TableEngine", "allocation", "changes"]


class Change(msgspec.Struct):
    """What becomes of the tables of one schema: first `erased` (dataset, partition; None: all of them), then `rows` are added."""

    structure: TableStructure
    erased: list[tuple[int, int | None]] = []
    rows: list[Rows] = []


class TableEngine(Protocol):
    """Blocking. `open`, `close`, `apply`, `delete` and `watermark` run in the writer's thread, the others in readers'."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def apply(self, batches: Sequence[TableBatch]) -> list[int]: ...

    def watermark(self, dataset: int) -> int: ...

    def delete(self, datasets: Sequence[tuple[int, TableStructure]]) -> None: ...

    def read(
        self, dataset: int, structure: TableStructure, columns: Sequence[str] | None, partition: int | None
    ) -> pyarrow.Table: ...

    def arrived(self, dataset: int, structure: TableStructure, after: int, upto: int, rows: int) -> Arrived: ...

    def rows(self, dataset: int, structure: TableStructure) -> int: ...


class SqlTables:
    """`TableStore` on an engine. `data_uri` names the database in the data sources of nodes."""

    def __init__(self, name: str, engine: TableEngine, *, data_uri: str, readers: int = 2) -> None:
        self._engine = engine
        self._data_uri = data_uri
        self._writer = EngineThread(f"{name} writer")
        self._reader = EngineThread(f"{name} reader", threads=readers)
        self._is_open = False

    async def open(self) -> None:
        """Open the database and make what is missing. `Unavailable` if it cannot be opened."""
        await self._writer.run(self._engine.open)
        self._is_open = True

    async def close(self) -> None:
        """Finish what was begun, then close the database. Idempotent."""
        await self._reader.close()
        if self._is_open:
            self._is_open = False
            await self._writer.run(self._engine.close)
        await self._writer.close()

    def allocate(self, node: NodeId, structure: TableStructure, mimetype: str | None, parameters: dict[str, Any]) -> Allocation:
        """See `TableStore`."""
        return allocation(self._data_uri, node, structure, mimetype, parameters)

    async def apply(self, batches: Sequence[TableBatch]) -> list[int]:
        """See `TableStore`."""
        return await self._writer.run(self._engine.apply, batches)

    async def read(
        self,
        node: NodeId,
        structure: TableStructure,
        *,
        columns: Sequence[str] | None = None,
        partition: int | None = None,
    ) -> pyarrow.Table:
        """See `TableStore`."""
        return await self._reader.run(self._engine.read, dataset_id(node), structure, columns, partition)

    async def arrived(self, node: NodeId, structure: TableStructure, *, after: int, upto: int, rows: int) -> Arrived:
        """See `TableStore`."""
        return await self._reader.run(self._engine.arrived, dataset_id(node), structure, after, upto, rows)

    async def rows(self, node: NodeId, structure: TableStructure) -> int:
        """See `TableStore`."""
        return await self._reader.run(self._engine.rows, dataset_id(node), structure)

    async def watermark(self, node: NodeId) -> int:
        """See `TableStore`."""
        return await self._writer.run(self._engine.watermark, dataset_id(node))

    async def delete(self, nodes: Sequence[tuple[NodeId, TableStructure]]) -> None:
        """See `TableStore`."""
        await self._writer.run(self._engine.delete, [(dataset_id(node), structure) for node, structure in nodes])


def allocation(
    data_uri: str, node: NodeId, structure: TableStructure, mimetype: str | None, parameters: dict[str, Any]
) -> Allocation:
    """A place in the database `data_uri`.

    A `table_name` of the client is checked and told back; rows lie by schema, whatever it is.
    """
    if mimetype not in (None, SQL_TABLE):
        raise UnsupportedType(
            f"Tables of type {mimetype!r} cannot be written here; leave the mimetype out, or use {SQL_TABLE!r}."
        )
    check_columns(structure)
    return Allocation(
        data_uri=data_uri,
        is_directory=False,
        mimetype=SQL_TABLE,
        parameter="data_uri",
        parameters={"table_name": table_name(structure, parameters), "dataset_id": dataset_id(node)},
    )


def changes(batches: Sequence[TableBatch], stored: Callable[[int], int]) -> tuple[list[Change], dict[int, int]]:
    """What the batches change, one `Change` a schema, and the watermarks that they advance.

    `stored` tells the watermark of a dataset as it is in the database.
    """
    found: dict[str, Change] = {}
    advanced: dict[int, int] = {}
    for batch in batches:
        dataset = dataset_id(batch.node)
        reached = advanced[dataset] if dataset in advanced else stored(dataset)
        if batch.after > reached:
            continue  # what lies between is missing: the caller looks at the watermark and comes again
        change = found.setdefault(batch.structure.arrow_schema, Change(batch.structure))
        for record in batch.records:
            if record.sequence <= reached:
                continue  # I5
            if isinstance(record.event, TableWritten):
                _erase(change, dataset, record.event.partition)
            if isinstance(record.event, TableWritten | RowsAppended) and record.event.rows:
                change.rows.append(_rows(dataset, record.event.partition or 0, record.sequence, record.payload))
            advanced[dataset] = record.sequence
    return list(found.values()), advanced


def _erase(change: Change, dataset: int, partition: int | None) -> None:
    """Stored rows go, and those of the same batch that were to be added before."""
    change.erased.append((dataset, partition))
    change.rows = [r for r in change.rows if r.dataset != dataset or partition not in (None, r.partition)]


def _rows(dataset: int, partition: int, sequence: int, body: bytes) -> Rows:
    from .arrow_columns import Rows, body_table

    return Rows(dataset, partition, sequence, body_table(body))
