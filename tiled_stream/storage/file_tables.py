"""Tables as files, one directory a node: what a table that is written whole wants, and what others can open without a database.

A directory holds segments (files of rows, never changed) and `table.json`, the list of them with the watermark. What must stay
true: rows and watermark move in one step (I5), for that step is the replacement of `table.json`; a segment that is not in it does
not exist. Many small appends are joined as they come, so that a table is read from few files.

Durability as in `zarr_arrays.py`: what was applied survives the process being killed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..domain.errors import Malformed, Unavailable, UnsupportedType
from ..domain.events import Record, RowsAppended, TableWritten
from ..domain.nodes import NodeId
from ..domain.structures import TableStructure
from .engine_thread import EngineThread
from .layout import array_directory, file_uri
from .port import Allocation, Arrived, TableBatch
from .table_formats import TableFormat

if TYPE_CHECKING:
    import pyarrow

    from .arrivals import Marks

__all__ = ["FileTables"]

_MANIFEST = "table.json"
#: The last segments of a partition are joined when there are this many, and together they are no more than so many bytes.
_MANY = 16
_SMALL = 32 << 20
#: A reader whose files were joined under it looks again, so often.
_LOOKS = 8


class _Segment(msgspec.Struct, frozen=True):
    """Rows of one partition, of the records from `first` to `last`. `size` in bytes. `marks`: which record brought how many rows,
    as runs; empty if that would be too much to keep."""

    partition: int
    first: int
    last: int
    file: str
    rows: int
    size: int
    marks: tuple[tuple[int, int, int], ...] = ()


class _Manifest(msgspec.Struct, frozen=True):
    """What `table.json` says: the segments in order of partition, then of arrival, as of the watermark."""

    watermark: int = 0
    segments: tuple[_Segment, ...] = ()


class FileTables:
    """`TableStore` of one format below `root`, which is made when the first table is written."""

    def __init__(self, root: Path, kind: TableFormat, *, readers: int = 2) -> None:
        self._root = root.absolute()
        self._format = kind
        self._writer = EngineThread(f"{kind.suffix[1:]} writer")
        self._reader = EngineThread(f"{kind.suffix[1:]} reader", threads=readers)

    async def open(self) -> None:
        """Nothing to make ready: directories are made by what is written into them."""

    async def close(self) -> None:
        """Finish what was begun and end the threads. Idempotent."""
        await self._writer.close()
        await self._reader.close()

    def allocate(self, node: NodeId, structure: TableStructure, mimetype: str | None, parameters: dict[str, Any]) -> Allocation:
        """See `TableStore`. `UnsupportedType` for a schema that files of this format do not bring back exactly."""
        kind = self._format
        if mimetype not in (None, kind.mimetype):
            raise UnsupportedType(f"This store keeps tables as {kind.mimetype!r}, not {mimetype!r}.")
        if len(set(structure.columns)) != len(structure.columns):
            raise Malformed("The columns of a table must have different names.")
        if not kind.can_hold(_declared(structure)):
            raise UnsupportedType(
                f"A column of this table is of a type that {kind.mimetype!r} does not keep exactly; leave the mimetype out, or "
                "use 'application/vnd.apache.arrow.file'."
            )
        uri = file_uri(array_directory(self._root, node))
        return Allocation(data_uri=uri, is_directory=True, mimetype=kind.mimetype, parameter="data_uri", parameters={})

    async def apply(self, batches: Sequence[TableBatch]) -> list[int]:
        """See `TableStore`. `Unavailable` if the disk is full or cannot be written."""
        try:
            return await self._writer.run(self._apply, batches)
        except OSError as error:
            raise Unavailable(f"The table storage {self._root} cannot be written now: {error}") from error

    async def read(
        self,
        node: NodeId,
        structure: TableStructure,
        *,
        columns: Sequence[str] | None = None,
        partition: int | None = None,
    ) -> pyarrow.Table:
        """See `TableStore`. What was written in one piece has the schema metadata that it was written with."""
        try:
            return await self._reader.run(self._read, node, structure, columns, partition)
        except OSError as error:
            raise Unavailable(f"The table storage {self._root} cannot be read now: {error}") from error

    async def arrived(self, node: NodeId, structure: TableStructure, *, after: int, upto: int, rows: int) -> Arrived:
        """See `TableStore`."""
        try:
            return await self._reader.run(self._arrived, node, structure, after, upto, rows)
        except OSError as error:
            raise Unavailable(f"The table storage {self._root} cannot be read now: {error}") from error

    async def rows(self, node: NodeId, structure: TableStructure) -> int:
        """See `TableStore`."""
        manifest = await self._reader.run(_manifest, self._directory(node))
        return sum(segment.rows for segment in manifest.segments)

    async def watermark(self, node: NodeId) -> int:
        """See `TableStore`."""
        return (await self._reader.run(_manifest, self._directory(node))).watermark

    async def delete(self, nodes: Sequence[tuple[NodeId, TableStructure]]) -> None:
        """See `TableStore`."""
        try:
            for node, _ in nodes:
                await self._writer.run(_removed, self._directory(node))
        except OSError as error:
            raise Unavailable(f"The table storage {self._root} cannot be written now: {error}") from error

    def _directory(self, node: NodeId) -> Path:
        return array_directory(self._root, node)

    # ------------------------------------------------- in the writer's thread

    def _apply(self, batches: Sequence[TableBatch]) -> list[int]:
        """All segments first, then the manifests: what cannot be read leaves every table as it was."""
        changed: dict[NodeId, _Manifest] = {}
        for batch in batches:
            known = changed.get(batch.node) or _manifest(self._directory(batch.node))
            fresh = [r for r in batch.records if r.sequence > known.watermark] if batch.after <= known.watermark else []
            if fresh:
                known = self._grown(batch, known, fresh)
            changed[batch.node] = known
        for node, manifest in changed.items():
            self._commit(self._directory(node), manifest)
        return [changed[batch.node].watermark for batch in batches]

    def _grown(self, batch: TableBatch, manifest: _Manifest, records: Sequence[Record]) -> _Manifest:
        directory = self._directory(batch.node)
        directory.mkdir(parents=True, exist_ok=True)
        schema = _declared(batch.structure)
        segments = list(manifest.segments)
        for partition, run in _runs(records):
            event = run[0].event
            if isinstance(event, TableWritten):
                segments = [s for s in segments if event.partition is not None and s.partition != partition]
            bodies = [_rows_of(r.payload) for r in run]
            table = _joined(bodies, schema)
            marks = [(r.sequence, body.num_rows) for r, body in zip(run, bodies, strict=True)]
            if table.num_rows or isinstance(event, TableWritten):
                segments.append(self._written(directory, partition, run[0].sequence, run[-1].sequence, table, marks))
        joined = self._joined_segments(directory, segments, schema)
        return _Manifest(records[-1].sequence, tuple(sorted(joined, key=lambda s: s.partition)))

    def _joined_segments(self, directory: Path, segments: list[_Segment], schema: pyarrow.Schema) -> list[_Segment]:
        """The small last ones of each partition in one file, once they are many."""
        result = segments
        for partition in {s.partition for s in segments}:
            own = [s for s in result if s.partition == partition]
            tail: list[_Segment] = []
            size = 0
            while own and (size := size + own[-1].size) <= _SMALL:
                tail.insert(0, own.pop())
            if len(tail) < _MANY:
                continue
            table = _joined([self._format.read(directory / s.file, schema, schema.names) for s in tail], schema)
            from .arrivals import unsqueezed

            marks = [mark for s in tail for mark in unsqueezed(s.marks)] if all(s.marks for s in tail) else []
            whole = self._written(directory, partition, tail[0].first, tail[-1].last, table, marks)
            result = [s for s in result if s not in tail] + [whole]
        return result

    def _written(self, directory: Path, partition: int, first: int, last: int, table: pyarrow.Table, marks: Marks) -> _Segment:
        from .arrivals import squeezed

        name = f"partition-{partition}-{first}-{last}{self._format.suffix}"
        half = directory / (name + ".part")
        self._format.write(table, half)
        os.replace(half, directory / name)  # one of this name that a crash left behind is not in the manifest
        return _Segment(partition, first, last, name, table.num_rows, (directory / name).stat().st_size, squeezed(marks))

    def _commit(self, directory: Path, manifest: _Manifest) -> None:
        if not directory.exists() or manifest == _manifest(directory):
            return
        half = directory / (_MANIFEST + ".part")
        half.write_bytes(msgspec.json.encode(manifest))
        os.replace(half, directory / _MANIFEST)
        present = {_MANIFEST, *(s.file for s in manifest.segments)}
        for path in directory.iterdir():
            if path.name not in present:
                path.unlink(missing_ok=True)

    # ------------------------------------------------- in a reader's thread

    def _read(
        self, node: NodeId, structure: TableStructure, columns: Sequence[str] | None, partition: int | None
    ) -> pyarrow.Table:
        schema = _declared(structure)
        for name in columns or ():
            if name not in schema.names:
                raise Malformed(f"The table has no column {name!r}; it has {schema.names}.")
        names = [n for n in schema.names if columns is None or n in columns]
        directory = self._directory(node)
        for look in range(_LOOKS):
            segments = [s for s in _manifest(directory).segments if partition is None or s.partition == partition]
            try:
                tables = [self._format.read(directory / s.file, schema, names) for s in segments]
            except FileNotFoundError:  # joined meanwhile: the manifest says into what
                if look + 1 == _LOOKS:
                    raise
                continue
            return _joined(tables, _chosen(schema, names))
        raise AssertionError("a look either answers or raises")

    def _arrived(self, node: NodeId, structure: TableStructure, after: int, upto: int, rows: int) -> Arrived:
        from .arrivals import Piece, merged, unsqueezed

        schema, directory = _declared(structure), self._directory(node)

        def piece(segment: _Segment) -> Piece:
            def load() -> tuple[pyarrow.Table, Marks]:
                table = self._format.read(directory / segment.file, schema, schema.names)
                return _joined([table], schema), unsqueezed(segment.marks)

            return Piece(segment.first, segment.partition, load)

        for look in range(_LOOKS):
            found = [s for s in _manifest(directory).segments if s.first <= upto and s.last > after]
            pieces = [piece(s) for s in sorted(found, key=lambda s: s.first)]
            try:
                return merged(pieces, schema.empty_table(), after=after, upto=upto, rows=rows)
            except FileNotFoundError:
                if look + 1 == _LOOKS:
                    raise
        raise AssertionError("a look either answers or raises")


def _declared(structure: TableStructure) -> pyarrow.Schema:
    from .arrow_columns import declared_schema  # pyarrow, which a server without tables does not need

    return declared_schema(structure)


def _chosen(schema: pyarrow.Schema, names: Sequence[str]) -> pyarrow.Schema:
    import pyarrow

    return pyarrow.schema([schema.field(name) for name in names], metadata=schema.metadata)


def _runs(records: Sequence[Record]) -> list[tuple[int, list[Record]]]:
    """Records of rows by what one file can hold: appends to one partition that follow each other, or a replacement."""
    runs: list[tuple[int, list[Record]]] = []
    for record in records:
        event = record.event
        if isinstance(event, RowsAppended):
            if runs and runs[-1][0] == event.partition and isinstance(runs[-1][1][-1].event, RowsAppended):
                runs[-1][1].append(record)
            else:
                runs.append((event.partition, [record]))
        elif isinstance(event, TableWritten):
            runs.append((event.partition or 0, [record]))
    return runs


def _rows_of(payload: bytes) -> pyarrow.Table:
    import pyarrow

    return pyarrow.ipc.open_file(pyarrow.BufferReader(payload)).read_all()


def _joined(tables: Sequence[pyarrow.Table], schema: pyarrow.Schema) -> pyarrow.Table:
    """Below each other in the declared types. One piece keeps its own metadata: its rows may have an index of their own."""
    import pyarrow

    if not tables:
        return schema.empty_table()
    metadata = tables[0].schema.metadata if len(tables) == 1 else None
    wanted = schema.with_metadata(metadata or schema.metadata)
    plain = schema.remove_metadata()
    cast = [t if t.schema.equals(plain) else t.cast(plain) for t in (t.replace_schema_metadata(None) for t in tables)]
    whole = cast[0] if len(cast) == 1 else pyarrow.concat_tables(cast).unify_dictionaries()
    return pyarrow.Table.from_arrays(whole.columns, schema=wanted)


def _manifest(directory: Path) -> _Manifest:
    try:
        return msgspec.json.decode((directory / _MANIFEST).read_bytes(), type=_Manifest)
    except FileNotFoundError:
        return _Manifest()
    except msgspec.DecodeError as error:
        raise Unavailable(f"{directory / _MANIFEST} is damaged: {error}") from error


def _removed(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
