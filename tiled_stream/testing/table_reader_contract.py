"""What every reader of tables in registered files does: each sentence of `files/port.py` as a test, with pyarrow as the model.

Subclass `TableReaderContract`, say what is read, and how it is written:

    class TestMyFormat(TableReaderContract):
        mimetype = "application/x-mine"

        def write(self, path, table): ...     # one file with these rows, by the library of the format
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from ..domain.errors import Forbidden, Malformed, TooLarge, Unavailable, Unsatisfiable
from ..domain.structures import TableStructure
from ..files.formats import open_table
from ..files.port import Damaged, Missing, Source
from ..files.wall import Wall
from .reader_contract import LIMIT, aged, open_files, uri

if TYPE_CHECKING:
    import pyarrow

__all__ = ["TableReaderContract", "table_source"]


def table_source(
    paths: Sequence[Path], schema: pyarrow.Schema, mimetype: str, *, partitions: int | None = None, **fields: Any
) -> Source:
    """A source that declares `schema`."""
    message = base64.b64encode(schema.serialize().to_pybytes()).decode()
    text = f"data:application/vnd.apache.arrow.file;base64,{message}"
    structure = TableStructure(text, len(paths) if partitions is None else partitions, tuple(schema.names))
    options = {"wall": Wall([paths[0].parent]), "now": time.time(), "limit": LIMIT, **fields}
    return Source(structure=structure, mimetype=mimetype, uris=tuple(map(uri, paths)), schema=schema, **options)


class TableReaderContract:
    """See the module."""

    mimetype: ClassVar[str]
    parameters: ClassVar[dict[str, Any]] = {}
    #: A file knows when it is cut.
    is_cut_noticed: ClassVar[bool] = True

    def write(self, path: Path, table: pyarrow.Table) -> None:
        """One file with these rows, by the library of the format."""
        raise NotImplementedError("give the suite a method `write`")

    def table(self, random: Random, rows: int) -> pyarrow.Table:
        """Random rows. Names hold spaces, dots and capitals."""
        import pyarrow

        columns = {
            "i": pyarrow.array([random.randint(-(2**40), 2**40) for _ in range(rows)], pyarrow.int64()),
            "A b": pyarrow.array([random.uniform(-1e3, 1e3) for _ in range(rows)], pyarrow.float64()),
            "a.b": pyarrow.array(["".join(random.choices('aé水 ",', k=3)) + "." for _ in range(rows)], pyarrow.string()),
            "ok": pyarrow.array([random.random() < 0.5 for _ in range(rows)], pyarrow.bool_()),
        }
        return pyarrow.table(columns)

    def made(self, directory: Path, *tables: pyarrow.Table) -> list[Path]:
        """One file each."""
        paths = [directory / f"part {n}" for n in range(len(tables))]
        for path, table in zip(paths, tables, strict=True):
            self.write(path, table)
        return paths

    def read(
        self,
        paths: Sequence[Path],
        schema: pyarrow.Schema,
        columns: Sequence[str] | None = None,
        partition: int | None = None,
        **fields: Any,
    ) -> pyarrow.Table:
        """What the reader gives."""
        source = table_source(paths, schema, self.mimetype, parameters=self.parameters, **fields)
        return open_table(source).read(columns, partition)

    @pytest.mark.parametrize("rows", [1, 7, 2000])
    def test_rows_and_columns(self, tmp_path: Path, rows: int) -> None:
        table = self.table(Random(rows), rows)
        paths = self.made(tmp_path, table)
        assert self.read(paths, table.schema).equals(table)
        for columns in (["i"], ["a.b", "i"], ["ok", "A b", "a.b"]):
            wanted = table.select([n for n in table.schema.names if n in columns])
            assert self.read(paths, table.schema, columns).equals(wanted)

    def test_a_partition_is_a_file(self, tmp_path: Path) -> None:
        import pyarrow

        tables = [self.table(Random(n), n + 1) for n in range(3)]
        paths = self.made(tmp_path, *tables)
        schema = tables[0].schema
        assert self.read(paths, schema).equals(pyarrow.concat_tables(tables))
        for number, table in enumerate(tables):
            assert self.read(paths, schema, ["i"], number).equals(table.select(["i"]))
        paths[0].unlink()
        assert self.read(paths, schema, None, 2).equals(tables[2])
        with pytest.raises(Unsatisfiable):
            self.read(paths, schema, None, 3)
        with pytest.raises(Unavailable):
            self.read(paths, schema, None, 3, partitions=5)

    def test_types_are_the_declared_ones(self, tmp_path: Path) -> None:
        import pyarrow

        table = self.table(Random(1), 5)
        paths = self.made(tmp_path, table)
        wider = pyarrow.schema([pyarrow.field("i", pyarrow.float64()), pyarrow.field("a.b", pyarrow.large_string())])
        found = self.read(paths, wider)
        assert found.schema.equals(wider)
        assert found.column("i").to_pylist() == table.column("i").to_pylist()
        with pytest.raises((Malformed, Unavailable)):
            self.read(paths, pyarrow.schema([pyarrow.field("a.b", pyarrow.int64())]))

    def test_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        import pyarrow

        table = self.table(Random(2), 5)
        paths = self.made(tmp_path, table)
        aged(tmp_path)
        with pytest.raises(Malformed, match="nothing"):
            self.read(paths, table.schema.append(pyarrow.field("nothing", pyarrow.int64())))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(Missing, match="nowhere"):
            self.read([tmp_path / "nowhere"], self.table(Random(3), 1).schema)

    def test_a_file_that_is_cut_or_something_else(self, tmp_path: Path) -> None:
        table = self.table(Random(4), 500)
        path = self.made(tmp_path, table)[0]
        content = path.read_bytes()
        spoiled = [b"\x00\xff\x00 this is not it\n" * 20]
        for wrong in (*spoiled, *((content[:50], content[: len(content) // 2]) if self.is_cut_noticed else ())):
            path.write_bytes(wrong)
            with pytest.raises(Unavailable):
                self.read([path], table.schema)
            aged(path)
            with pytest.raises(Damaged):
                self.read([path], table.schema)

    def test_the_wall(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        table = self.table(Random(5), 5)
        paths = self.made(tmp_path, table)
        (tmp_path / "in" / "link").symlink_to(paths[0])
        for path in (paths[0], tmp_path / "in" / "link"):
            with pytest.raises(Forbidden):
                self.read([path], table.schema, wall=Wall([tmp_path / "in"]))

    def test_more_than_may_be_held(self, tmp_path: Path) -> None:
        table = self.table(Random(6), 2000)
        paths = self.made(tmp_path, table)
        with pytest.raises(TooLarge):
            self.read(paths, table.schema, limit=table.nbytes // 2)

    def test_nothing_stays_open(self, tmp_path: Path) -> None:
        table = self.table(Random(7), 50)
        paths = self.made(tmp_path, table)
        self.read(paths, table.schema)
        files = open_files()
        for _ in range(3):
            self.read(paths, table.schema)
        assert open_files() == files
