"""Storage: where persisted bytes rest. Arrays, tables, and the parts of other families are three ports; the persister is
the only writer of all.

Every engine passes `tiled_stream.testing.array_contract` or `table_contract`. What must stay true: applying a record twice
equals applying it once (I5) - arrays because regions are absolute, tables because rows and watermark are one transaction.
Nothing is created ahead of time: an array or table that was never written reads as zeros / as no rows.

Calls are async and never block the loop: a blocking engine lives in its own thread (`engine_thread.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..domain.events import Record
from ..domain.nodes import NodeId
from ..domain.slices import Selection
from ..domain.structures import ArrayStructure, PartStructure, TableStructure

if TYPE_CHECKING:
    import numpy
    import pyarrow

__all__ = ["Allocation", "ArrayBatch", "ArrayStore", "Arrived", "PartBatch", "PartStore", "TableBatch", "TableStore"]


class Allocation(msgspec.Struct, frozen=True):
    """What a data source says of the place that a store will use: decided from the node's id alone, without I/O."""

    data_uri: str
    is_directory: bool
    mimetype: str
    parameter: str
    parameters: dict[str, Any]


class ArrayBatch(msgspec.Struct, frozen=True):
    """Consecutive records of one array's log, to be applied in order.

    `structure` is the structure after the last of them. Records that are not `ArrayWritten(persist=True)` are ignored.
    """

    node: NodeId
    structure: ArrayStructure
    records: tuple[Record, ...]


class ArrayStore(Protocol):
    """Internally managed arrays, one per node."""

    async def open(self) -> None: ...

    async def close(self) -> None:
        """Leave no thread or file (I9). Idempotent."""
        ...

    def allocate(self, node: NodeId, structure: ArrayStructure, mimetype: str | None) -> Allocation:
        """Where this array will be. `UnsupportedType` for a mimetype this store cannot write (None: its default)."""
        ...

    async def apply(self, batches: Sequence[ArrayBatch]) -> None:
        """Write regions in order; later ones win. Growth keeps what was there, gaps read as zeros. Twice equals once (I5).

        A whole-array write makes earlier records of the batch needless. When it returns, a killed process loses nothing.
        """
        ...

    async def read(self, node: NodeId, structure: ArrayStructure, selection: Selection) -> numpy.ndarray:
        """The selection of an array of `structure`, dtype exactly as declared (endianness too), C-contiguous.

        Regions never written, also of an array that is not there at all, are zeros (empty strings, NaT is not used).
        """
        ...

    async def is_written(self, node: NodeId, structure: ArrayStructure) -> bool:
        """Was each chunk of an array of `structure` written, in part at least? False too if this store does not know."""
        ...

    async def delete(self, *nodes: NodeId) -> None:
        """Remove the data. Idempotent."""
        ...


class PartBatch(msgspec.Struct, frozen=True):
    """Consecutive records of the log of an awkward, ragged or sparse array, to be applied in order.

    Records that are not `PartWritten(persist=True)` are ignored.
    """

    node: NodeId
    records: tuple[Record, ...]


class PartStore(Protocol):
    """Internally managed awkward, ragged and sparse arrays: named parts, one directory of them a node."""

    async def open(self) -> None: ...

    async def close(self) -> None:
        """Leave no thread or file (I9). Idempotent."""
        ...

    def allocate(self, node: NodeId, structure: PartStructure, mimetype: str | None) -> Allocation:
        """Where this array will be. `UnsupportedType` for a mimetype this store cannot write (None: that of the family)."""
        ...

    async def apply(self, batches: Sequence[PartBatch]) -> None:
        """Write parts in order; of each the last one stays. Twice equals once (I5).

        When it returns, a killed process loses nothing.
        """
        ...

    async def read(self, node: NodeId, names: Sequence[str], *, limit: int) -> dict[str, bytes]:
        """Those of the parts that were written, whole. `TooLarge` if together they have more than `limit` bytes."""
        ...

    async def delete(self, *nodes: NodeId) -> None:
        """Remove the data. Idempotent."""
        ...


class TableBatch(msgspec.Struct, frozen=True):
    """Consecutive records of one table's log, beginning at ``after + 1``. `RowsAppended` and `TableWritten` have Arrow IPC file
    payloads in exactly the declared schema; other events only move the watermark."""

    node: NodeId
    structure: TableStructure
    after: int
    records: tuple[Record, ...]


class Arrived(msgspec.Struct, frozen=True):
    """Rows with the records that they came with: the sequence and the partition of each row, ascending by sequence."""

    table: pyarrow.Table
    sequences: numpy.ndarray
    partitions: numpy.ndarray


class TableStore(Protocol):
    """Internally managed tables, one per node; nodes of one schema may share one SQL table."""

    async def open(self) -> None: ...

    async def close(self) -> None:
        """Leave no thread, connection or file lock (I9). Idempotent."""
        ...

    def allocate(self, node: NodeId, structure: TableStructure, mimetype: str | None, parameters: dict[str, Any]) -> Allocation:
        """Where this table will be.

        `UnsupportedType` for a mimetype, `Malformed` for columns or a `table_name` that SQL cannot take.
        """
        ...

    async def apply(self, batches: Sequence[TableBatch]) -> list[int]:
        """Apply in one transaction: rows and watermarks. Returns each node's watermark afterwards.

        A batch counts only if the stored watermark equals `after`. Where the stored one is higher, records up to it are
        skipped and the rest of the batch is applied (I5).
        """
        ...

    async def read(
        self,
        node: NodeId,
        structure: TableStructure,
        *,
        columns: Sequence[str] | None = None,
        partition: int | None = None,
    ) -> pyarrow.Table:
        """Rows in order of partition, then of arrival, in the declared schema (its metadata too).

        `columns` selects, table order is kept. A table that was never written: zero rows. Unknown column: `Malformed`.
        """
        ...

    async def arrived(self, node: NodeId, structure: TableStructure, *, after: int, upto: int, rows: int) -> Arrived:
        """The rows of the records after `after` up to `upto`, in the order of the records, in the declared schema.

        At most `rows` of them, or those of one record. Rows that were replaced are not there, nor those of which this store does
        not know the record exactly. None: there are no more.
        """
        ...

    async def rows(self, node: NodeId, structure: TableStructure) -> int:
        """Number of rows, all partitions."""
        ...

    async def watermark(self, node: NodeId) -> int:
        """The stored watermark, 0 if nothing was applied yet."""
        ...

    async def delete(self, nodes: Sequence[tuple[NodeId, TableStructure]]) -> None:
        """Remove the rows and watermarks; an SQL table that is empty afterwards goes too. Idempotent."""
        ...
