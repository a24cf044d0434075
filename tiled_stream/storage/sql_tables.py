"""Tables in an SQL engine that blocks: the port (`TableStore`), kept by a thread that writes and a few that read.

Here is what all such engines share: what a batch changes, which of its records count (I5), which batches are fenced (I4), to
whom a database belongs, how threads are used. An engine (`TableEngine`) is plain blocking code; it never sees two writes at
once. (`postgres_tables.py`, which does not block, takes only `allocation`, `changes` and `check_owner`.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..domain.errors import StorageMissing, UnsupportedType
from ..domain.events import AssetDeleted, RowsAppended, TableWritten
from ..domain.nodes import NodeId
from ..domain.structures import TableStructure
from .engine_thread import EngineThread
from .layout import SQL_TABLE, check_columns, dataset_id, table_name
from .port import FENCED, Allocation, Arrived, TableBatch

if TYPE_CHECKING:
    import pyarrow

    from .arrow_columns import Rows

__all__ = ["Change", "Mark", "SqlTables", "TableEngine", "allocation", "changes", "check_owner"]


class Mark(msgspec.Struct, frozen=True):
    """The two numbers of a dataset: its watermark, and the highest fence that was seen with it."""

    watermark: int = 0
    fence: int = 0


class Change(msgspec.Struct):
    """What becomes of the tables of one schema: first `erased` (dataset, partition; None: all of them), then `rows` are added."""

    structure: TableStructure
    erased: list[tuple[int, int | None]] = []
    rows: list[Rows] = []


class TableEngine(Protocol):
    """Blocking. `read`, `arrived` and `rows` run in the threads of readers, the others in that of the writer."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def apply(self, batches: Sequence[TableBatch]) -> list[int]: ...

    def watermarks(self, datasets: Sequence[int]) -> list[int]: ...

    def bind(self, deployment: str) -> tuple[str, str]:
        """The deployment that the database belongs to, and its incarnation; a database without an owner gets this one."""
        ...

    def delete(self, datasets: Sequence[tuple[int, TableStructure]]) -> None: ...

    def read(
        self, dataset: int, structure: TableStructure, columns: Sequence[str] | None, partition: int | None
    ) -> pyarrow.Table: ...

    def arrived(self, dataset: int, structure: TableStructure, after: int, upto: int, rows: int) -> Arrived: ...

    def rows(self, dataset: int, structure: TableStructure) -> int: ...


class SqlTables:
    """`TableStore` on an engine, `Identified`. `data_uri` names the database in the data sources of nodes."""

    def __init__(self, name: str, engine: TableEngine, *, place: str, data_uri: str, readers: int = 2) -> None:
        self._engine = engine
        self._place = place
        self._data_uri = data_uri
        self._writer = EngineThread(f"{name} writer")
        self._reader = EngineThread(f"{name} reader", threads=readers)
        self._is_open = False

    async def open(self) -> None:
        """Open the database and make what is missing. `Unavailable` if it cannot be opened."""
        await self._writer.run(self._engine.open)
        self._is_open = True

    @property
    def place(self) -> str:
        """See `Identified`."""
        return self._place

    async def bind(self, deployment: str, expected: str | None) -> str:
        """See `Identified`. A blank database is adopted whatever is `expected`: the caller compares incarnations."""
        owner, incarnation = await self._writer.run(self._engine.bind, deployment)
        check_owner(self._place, owner, deployment)
        return incarnation

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
        return (await self.watermarks([node]))[0]

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """See `TableStore`."""
        return await self._writer.run(self._engine.watermarks, [dataset_id(node) for node in nodes])

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


def check_owner(place: str, owner: str, deployment: str) -> None:
    """`StorageMissing` that names the place unless its owner is this deployment."""
    if owner != deployment:
        raise StorageMissing(
            f"The table storage {place} belongs to deployment {owner}, and this server is of deployment {deployment}. Give the "
            "server its own storage (-w), or the catalog that belongs to this one."
        )


def changes(batches: Sequence[TableBatch], stored: Callable[[int], Mark]) -> tuple[list[Change], dict[int, Mark], list[int]]:
    """What the batches change, one `Change` a schema; the marks that move; and the answer to each batch.

    `stored` gives the mark of a dataset as it is in the database. A batch that is not fenced leaves its fence also if none of
    its records is new: its predecessor may be paused, and must find itself fenced when it resumes.
    """
    found: dict[str, Change] = {}
    marks: dict[int, Mark] = {}
    answers: list[int] = []
    for batch in batches:
        dataset = dataset_id(batch.node)
        before = marks[dataset] if dataset in marks else stored(dataset)
        if batch.fence < before.fence:
            answers.append(FENCED)
            continue
        after = Mark(before.watermark, batch.fence)
        if batch.after <= before.watermark:  # else records are missing in between: the caller begins at the watermark again
            change = found.setdefault(batch.structure.arrow_schema, Change(batch.structure))
            after = Mark(_apply(change, dataset, batch, before.watermark), batch.fence)
        if after != before:
            marks[dataset] = after
        answers.append(after.watermark)
    # A later batch of the same call may have moved the watermark of a node.
    reached = {dataset: mark.watermark for dataset, mark in marks.items()}
    nodes = [dataset_id(batch.node) for batch in batches]
    return (
        list(found.values()),
        marks,
        [a if a == FENCED else reached.get(n, a) for n, a in zip(nodes, answers, strict=True)],
    )


def _apply(change: Change, dataset: int, batch: TableBatch, reached: int) -> int:
    """Add the new records of a batch to the change; the watermark afterwards."""
    for record in batch.records:
        if record.sequence <= reached:
            continue  # I5
        event = record.event
        if isinstance(event, TableWritten):
            _erase(change, dataset, event.partition)
        elif isinstance(event, AssetDeleted):
            _erase(change, dataset, None)
        if isinstance(event, TableWritten | RowsAppended) and event.rows:
            change.rows.append(_rows(dataset, event.partition or 0, record.sequence, record.payload))
        reached = record.sequence
    return reached


def _erase(change: Change, dataset: int, partition: int | None) -> None:
    """Remove stored rows, and those that earlier records of the call would have added."""
    change.erased.append((dataset, partition))
    change.rows = [r for r in change.rows if r.dataset != dataset or partition not in (None, r.partition)]


def _rows(dataset: int, partition: int, sequence: int, body: bytes) -> Rows:
    from .arrow_columns import Rows, body_table

    return Rows(dataset, partition, sequence, body_table(body))
