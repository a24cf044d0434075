"""Tables as files, one directory a node: what a table that is written whole wants, and what others can open without a database.

A directory holds segments (files of rows, never changed) and `table.json`, the list of them with the watermark. What must stay
true: rows and watermark move in one step (I5), for that step is the replacement of `table.json`; a segment that is not in it does
not exist. Many small appends are joined as they come, so that a table is read from few files.

All changes go through the hold of the directory (`fenced_directory.py`). The name of a segment has the hold in it, so that no
two processes write to one name; a segment is removed by the holder whose `table.json` superseded it, or swept by the next holder,
for then no other process can have published it.

Durability as in `zarr_arrays.py`: what was applied survives the process being killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..domain.errors import Malformed, Unavailable, UnsupportedType
from ..domain.events import AssetDeleted, Record, TableWritten
from ..domain.nodes import NodeId
from ..domain.structures import TableStructure
from .engine_thread import EngineThread
from .fenced_directory import HOLDS, HeldDirectory, HoldLost, wait_a_moment
from .layout import file_uri
from .node_directories import TRIES, Check, NodeDirectories, Remembered, afterwards
from .port import FENCED, Allocation, Arrived, TableBatch
from .table_formats import TableFormat
from .table_manifest import MANIFEST, Manifest, Segment, read_manifest, runs_of

if TYPE_CHECKING:
    import pyarrow

    from .arrivals import Marks

__all__ = ["FileTables"]

#: The last segments of a partition are joined when there are this many, and together they are no more than so many bytes.
_MANY = 16
_SMALL = 32 << 20
#: A reader whose files were joined under it looks again, so often.
_LOOKS = 8


class _Change:
    """What a call makes of one table: the hold, the manifest before and after, and which batches it answers."""

    def __init__(self, hold: HeldDirectory, manifest: Manifest) -> None:
        self.hold = hold
        self.before = manifest
        self.after = manifest
        self.created: list[str] = []
        self.answers: list[int] = []


class FileTables:
    """`TableStore` of one format below `root`, which is made when the first table is written. `check`: as in `ZarrArrays`."""

    def __init__(self, root: Path, kind: TableFormat, *, readers: int = 2, check: Check | None = None) -> None:
        self._root = root.absolute()
        self._format = kind
        self._writer = EngineThread(f"{kind.suffix[1:]} writer")
        self._reader = EngineThread(f"{kind.suffix[1:]} reader", threads=readers)
        # Only the writer's thread touches these two.
        self._nodes = NodeDirectories(self._root, check)
        self._manifests: Remembered[Manifest] = Remembered()

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
        uri = file_uri(self._nodes.place(node))
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
        (manifest,) = await self._read_manifests([node])
        return sum(segment.rows for segment in manifest.segments)

    async def watermark(self, node: NodeId) -> int:
        """See `TableStore`."""
        return (await self.watermarks([node]))[0]

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """See `TableStore`."""
        return [manifest.watermark for manifest in await self._read_manifests(nodes)]

    async def _read_manifests(self, nodes: Sequence[NodeId]) -> list[Manifest]:
        try:
            return await self._reader.run(lambda: [self._manifest(node) for node in nodes])
        except OSError as error:
            raise Unavailable(f"The table storage {self._root} cannot be read now: {error}") from error

    async def delete(self, nodes: Sequence[tuple[NodeId, TableStructure]]) -> None:
        """See `TableStore`."""
        try:
            await self._writer.run(self._delete, [node for node, _ in nodes])
        except OSError as error:
            raise Unavailable(f"The table storage {self._root} cannot be written now: {error}") from error

    # ------------------------------------------------- in the writer's thread

    def _apply(self, batches: Sequence[TableBatch]) -> list[int]:
        answers: dict[int, int] = {}
        for attempt in range(TRIES):
            self._nodes.check()
            if attempt > 1:
                wait_a_moment(attempt)
            left = [n for n in range(len(batches)) if n not in answers]
            if not left:  # and nothing was written below an empty mount point
                return afterwards(batches, [answers[n] for n in range(len(batches))])
            self._attempt(batches, left, answers)
        raise self._nodes.contended(batches[left[0]].node)

    def _attempt(self, batches: Sequence[TableBatch], left: Sequence[int], answers: dict[int, int]) -> None:
        """Answer those of the batches whose holds last. All segments first, then the manifests: what cannot be read leaves every
        table as it was."""
        changes: dict[NodeId, _Change] = {}
        postponed: set[NodeId] = set()
        try:
            for n in left:
                batch = batches[n]
                change = changes.get(batch.node)
                if batch.node in postponed or (change is not None and batch.fence > change.hold.fence):
                    postponed.add(batch.node)  # the next fence begins after the manifest of this one
                elif change is not None and batch.fence < change.hold.fence:
                    answers[n] = FENCED
                elif not self._collect(batch, n, changes, answers):
                    postponed.add(batch.node)
            for node, change in changes.items():
                if self._commit(node, change):
                    answers |= dict.fromkeys(change.answers, change.after.watermark)
        except BaseException:
            for node in changes:
                self._forget(node)
            raise

    def _collect(self, batch: TableBatch, n: int, changes: dict[NodeId, _Change], answers: dict[int, int]) -> bool:
        """Write the segments of one batch. False if the hold was lost: the table is for the next attempt."""
        node = batch.node
        try:
            if node not in changes:
                hold = self._nodes.hold(node, batch.fence, is_due=partial(self._is_due, batch))
                if isinstance(hold, int):
                    answers[n] = hold if hold == FENCED else read_manifest(self._nodes.place(node)).watermark
                    return True
                changes[node] = _Change(hold, self._held_manifest(node, hold))
            change = changes[node]
            known = change.after.watermark
            fresh = [r for r in batch.records if r.sequence > known] if batch.after <= known else []
            if fresh:
                change.after = self._grown(batch, change, fresh)
            change.answers.append(n)
        except (HoldLost, FileNotFoundError) as error:
            self._forget(node)
            lost = changes.pop(node, None)
            if isinstance(error, FileNotFoundError) and lost is not None and lost.hold.is_valid():
                raise
            return False
        except BaseException:
            self._forget(node)
            raise
        return True

    def _is_due(self, batch: TableBatch) -> bool:
        return bool(batch.records) and batch.after <= read_manifest(self._nodes.place(batch.node)).watermark

    def _held_manifest(self, node: NodeId, hold: HeldDirectory) -> Manifest:
        known = self._manifests.get(node, hold)
        if known is None:
            place = self._nodes.place(node)
            known = read_manifest(place)
            present = {HOLDS, MANIFEST, *(s.file for s in known.segments)}
            for path in place.iterdir():
                if path.name not in present:
                    hold.remove(path.name)
            self._manifests.put(node, hold, known)
        return known

    def _grown(self, batch: TableBatch, change: _Change, records: Sequence[Record]) -> Manifest:
        schema = _declared(batch.structure)
        segments = list(change.after.segments)
        for partition, run in runs_of(records):
            event = run[0].event
            if isinstance(event, AssetDeleted):
                segments = []
                continue
            if isinstance(event, TableWritten):
                segments = [s for s in segments if event.partition is not None and s.partition != partition]
            bodies = [_rows_of(r.payload) for r in run]
            table = _joined(bodies, schema)
            marks = [(r.sequence, body.num_rows) for r, body in zip(run, bodies, strict=True)]
            if table.num_rows or isinstance(event, TableWritten):
                segments.append(self._written(change, partition, run[0].sequence, run[-1].sequence, table, marks))
        joined = self._joined_segments(change, segments, schema)
        return Manifest(records[-1].sequence, tuple(sorted(joined, key=lambda s: s.partition)))

    def _joined_segments(self, change: _Change, segments: list[Segment], schema: pyarrow.Schema) -> list[Segment]:
        """The small last ones of each partition in one file, once they are many."""
        result = segments
        directory = Path(change.hold.place)
        for partition in {s.partition for s in segments}:
            own = [s for s in result if s.partition == partition]
            tail: list[Segment] = []
            size = 0
            while own and (size := size + own[-1].size) <= _SMALL:
                tail.insert(0, own.pop())
            if len(tail) < _MANY:
                continue
            table = _joined([self._format.read(directory / s.file, schema, schema.names) for s in tail], schema)
            from .arrivals import unsqueezed

            marks = [mark for s in tail for mark in unsqueezed(s.marks)] if all(s.marks for s in tail) else []
            whole = self._written(change, partition, tail[0].first, tail[-1].last, table, marks)
            result = [s for s in result if s not in tail] + [whole]
        return result

    def _written(self, change: _Change, partition: int, first: int, last: int, table: pyarrow.Table, marks: Marks) -> Segment:
        from .arrivals import squeezed

        hold = change.hold
        name = f"partition-{partition}-{first}-{last}-{hold.name}{self._format.suffix}"
        staged = Path(hold.staged(name))
        try:
            self._format.write(table, staged)
            size = staged.stat().st_size
        except FileNotFoundError as error:  # only a successor removes staged files
            raise HoldLost(str(error)) from error
        hold.publish(name)
        change.created.append(name)
        return Segment(partition, first, last, name, table.num_rows, size, squeezed(marks))

    def _commit(self, node: NodeId, change: _Change) -> bool:
        """Publish the manifest, then remove what it supersedes. False if the hold was lost before."""
        hold = change.hold
        try:
            if change.after == change.before:
                hold.verify()
                return True
            hold.put(MANIFEST, msgspec.json.encode(change.after))
        except HoldLost:
            self._forget(node)
            return False
        self._manifests.put(node, hold, change.after)
        present = {s.file for s in change.after.segments}
        try:
            for name in [*(s.file for s in change.before.segments), *change.created]:
                if name not in present:
                    hold.remove(name)
        except HoldLost:
            self._forget(node)  # the rows are stored; the successor sweeps the rest
        return True

    def _forget(self, node: NodeId) -> None:
        self._nodes.forget(node)
        self._manifests.pop(node)

    def _delete(self, nodes: Sequence[NodeId]) -> None:
        self._nodes.check()
        for node in nodes:
            self._forget(node)
            self._nodes.delete(node)
        self._nodes.check()

    # ------------------------------------------------- in a reader's thread

    def _read(
        self, node: NodeId, structure: TableStructure, columns: Sequence[str] | None, partition: int | None
    ) -> pyarrow.Table:
        schema = _declared(structure)
        for name in columns or ():
            if name not in schema.names:
                raise Malformed(f"The table has no column {name!r}; it has {schema.names}.")
        names = [n for n in schema.names if columns is None or n in columns]
        directory = self._nodes.place(node)
        for look in range(_LOOKS):
            segments = [s for s in self._manifest(node).segments if partition is None or s.partition == partition]
            try:
                tables = [self._format.read(directory / s.file, schema, names) for s in segments]
            except FileNotFoundError:  # joined meanwhile: the manifest says into what
                self._nodes.check()
                if look + 1 == _LOOKS:
                    raise
                continue
            return _joined(tables, _chosen(schema, names))
        raise AssertionError("a look either answers or raises")

    def _arrived(self, node: NodeId, structure: TableStructure, after: int, upto: int, rows: int) -> Arrived:
        from .arrivals import Piece, merged, unsqueezed

        schema, directory = _declared(structure), self._nodes.place(node)

        def piece(segment: Segment) -> Piece:
            def load() -> tuple[pyarrow.Table, Marks]:
                table = self._format.read(directory / segment.file, schema, schema.names)
                return _joined([table], schema), unsqueezed(segment.marks)

            return Piece(segment.first, segment.partition, load)

        for look in range(_LOOKS):
            found = [s for s in self._manifest(node).segments if s.first <= upto and s.last > after]
            pieces = [piece(s) for s in sorted(found, key=lambda s: s.first)]
            try:
                return merged(pieces, schema.empty_table(), after=after, upto=upto, rows=rows)
            except FileNotFoundError:
                self._nodes.check()
                if look + 1 == _LOOKS:
                    raise
        raise AssertionError("a look either answers or raises")

    def _manifest(self, node: NodeId) -> Manifest:
        """The manifest of a table, of one without rows only if the root is there."""
        self._nodes.check()
        found = read_manifest(self._nodes.place(node))
        if found == Manifest():
            self._nodes.check()
        return found


def _declared(structure: TableStructure) -> pyarrow.Schema:
    from .arrow_columns import declared_schema  # pyarrow, which a server without tables does not need

    return declared_schema(structure)


def _chosen(schema: pyarrow.Schema, names: Sequence[str]) -> pyarrow.Schema:
    import pyarrow

    return pyarrow.schema([schema.field(name) for name in names], metadata=schema.metadata)


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
