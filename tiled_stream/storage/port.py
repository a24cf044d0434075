"""Storage: where persisted bytes rest. Arrays, tables, and the parts of other families are three ports; the persister is
the only writer of all.

Every engine passes `tiled_stream.testing.array_contract`, `part_contract` or `table_contract`. What must stay true:

- Applying a record twice equals applying it once (I5).
- A store keeps two numbers for each node, beside the data: its *watermark* (the last record that it holds) and the highest
  *fence* that it has seen. Data and numbers change in one atomic step. A batch with a lower fence changes nothing and
  answers `FENCED`; so a persister that was paused and has lost its lease cannot undo what its successor wrote (I4).
- Nothing is created ahead of time: an array or table that was never written reads as zeros / as no rows. A store that is not
  there, because its file system is not mounted, is an error (`StorageMissing`) and never reads as empty.

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

__all__ = [
    "FENCED",
    "Allocation",
    "ArrayBatch",
    "ArrayStore",
    "Arrived",
    "Identified",
    "PartBatch",
    "PartStore",
    "TableBatch",
    "TableStore",
]

#: The answer to a batch whose fence is lower than one that the store has seen: nothing was changed, nor will be by this lease.
FENCED = -1


class Allocation(msgspec.Struct, frozen=True):
    """What a data source says of the place that a store will use: decided from the node's id alone, without I/O."""

    data_uri: str
    is_directory: bool
    mimetype: str
    parameter: str
    parameters: dict[str, Any]


class ArrayBatch(msgspec.Struct, frozen=True):
    """Records of one array's log in order, to be applied in that order.

    `structure` is the structure after the last of them. `after`: the store must hold everything up to this sequence, else
    the batch does not count. `fence`: that of the lease. `ArrayWritten(persist=True)` writes, `AssetDeleted` removes
    everything written before it; other records only move the watermark.
    """

    node: NodeId
    structure: ArrayStructure
    records: tuple[Record, ...]
    after: int = 0
    fence: int = 0


class ArrayStore(Protocol):
    """Internally managed arrays, one per node."""

    async def open(self) -> None: ...

    async def close(self) -> None:
        """Leave no thread or file (I9). Idempotent."""
        ...

    def allocate(self, node: NodeId, structure: ArrayStructure, mimetype: str | None) -> Allocation:
        """Where this array will be. `UnsupportedType` for a mimetype this store cannot write (None: its default)."""
        ...

    async def apply(self, batches: Sequence[ArrayBatch]) -> list[int]:
        """Write regions in order; later ones win. Returns each node's watermark afterwards, or `FENCED`.

        Growth keeps what was there, gaps read as zeros; cells that no record of the batch names keep what they hold. A batch
        counts only if the stored watermark is at least `after`; records up to the stored one are skipped (I5). A whole-array
        write makes earlier records of the batch needless. When it returns, a killed process loses nothing.
        """
        ...

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """The stored watermark of each node; 0 for one that was never written here, or by a version that kept none."""
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
    """Records of the log of an awkward, ragged or sparse array in order; `after` and `fence` as in `ArrayBatch`.

    `PartWritten(persist=True)` writes, `AssetDeleted` removes all parts written before it; other records only move the watermark.
    """

    node: NodeId
    records: tuple[Record, ...]
    after: int = 0
    fence: int = 0


class PartStore(Protocol):
    """Internally managed awkward, ragged and sparse arrays: named parts, one directory of them a node."""

    async def open(self) -> None: ...

    async def close(self) -> None:
        """Leave no thread or file (I9). Idempotent."""
        ...

    def allocate(self, node: NodeId, structure: PartStructure, mimetype: str | None) -> Allocation:
        """Where this array will be. `UnsupportedType` for a mimetype this store cannot write (None: that of the family)."""
        ...

    async def apply(self, batches: Sequence[PartBatch]) -> list[int]:
        """Write parts in order; of each the last one stays. Returns watermarks as `ArrayStore.apply` does.

        When it returns, a killed process loses nothing.
        """
        ...

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """As `ArrayStore.watermarks`."""
        ...

    async def read(self, node: NodeId, names: Sequence[str], *, limit: int) -> dict[str, bytes]:
        """Those of the parts that were written, whole. `TooLarge` if together they have more than `limit` bytes."""
        ...

    async def delete(self, *nodes: NodeId) -> None:
        """Remove the data. Idempotent."""
        ...


class TableBatch(msgspec.Struct, frozen=True):
    """Records of one table's log in order; `after` and `fence` as in `ArrayBatch`.

    `RowsAppended` and `TableWritten` have Arrow IPC file payloads in exactly the declared schema. `AssetDeleted` removes all rows
    added before it; other events only move the watermark.
    """

    node: NodeId
    structure: TableStructure
    after: int
    records: tuple[Record, ...]
    fence: int = 0


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
        """Apply in one transaction: rows, watermarks and fences. Returns each node's watermark afterwards, or `FENCED`.

        A batch counts only if the stored watermark is at least `after`. Where the stored one is higher, records up to it are
        skipped and the rest of the batch is applied (I5). A fenced batch does not hinder the others.
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

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """The stored watermark of each node, in one question; 0 where nothing was applied yet."""
        ...

    async def delete(self, nodes: Sequence[tuple[NodeId, TableStructure]]) -> None:
        """Remove the rows and watermarks; an SQL table that is empty afterwards goes too. Idempotent."""
        ...


class Identified(Protocol):
    """A place that knows which deployment it belongs to: a directory of arrays, a database of tables."""

    @property
    def place(self) -> str:
        """Its path or URI, without a password: what an error names."""
        ...

    async def bind(self, deployment: str, expected: str | None) -> str:
        """Check that this is the storage of `deployment`, and return its incarnation, an id that is made with the storage.

        `expected`: the incarnation that the catalog remembers; None if it knows of none. A storage without a mark is
        marked for this deployment and gets a new incarnation, with one exception: a directory for which the catalog expects an
        incarnation. It is taken for a mount point whose file system is not mounted and raises `StorageMissing`. From then on
        every read and write checks that it is still the same storage. `StorageMissing` names the place if it belongs to another
        deployment.
        """
        ...
