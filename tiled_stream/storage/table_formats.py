"""The file formats that tables are kept in: Parquet, Arrow IPC, CSV. Blocking, one file at a time.

A format says which schemas it brings back exactly; a table of another schema is refused when it is created, not when its rows
have been acknowledged. CSV tells a missing value (nothing) from an empty text (``""``), so it is exact for plain columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow

__all__ = ["FORMATS", "ArrowFormat", "CsvFormat", "ParquetFormat", "TableFormat"]


class TableFormat(Protocol):
    """`mimetype` of the data source, `suffix` of its files."""

    mimetype: str
    suffix: str

    def can_hold(self, schema: pyarrow.Schema) -> bool:
        """Do rows of this schema come back exactly?"""
        ...

    def write(self, table: pyarrow.Table, path: Path) -> None:
        """One new file."""
        ...

    def read(self, path: Path, schema: pyarrow.Schema, columns: Sequence[str]) -> pyarrow.Table:
        """These columns, in this order, in the types of `schema`, with the schema metadata of the file if it has any."""
        ...


class ParquetFormat:
    """Parquet, with the Arrow schema inside."""

    mimetype = "application/x-parquet"
    suffix = ".parquet"

    def can_hold(self, schema: pyarrow.Schema) -> bool:
        import pyarrow
        import pyarrow.parquet

        if any(_has_categories(field.type) for field in schema):  # those that no row has would be forgotten
            return False
        sink = pyarrow.BufferOutputStream()
        try:
            pyarrow.parquet.write_table(schema.empty_table(), sink)
            found = pyarrow.parquet.read_schema(pyarrow.BufferReader(sink.getvalue()))
        except (pyarrow.ArrowException, NotImplementedError):
            return False
        return bool(found.equals(schema))

    def write(self, table: pyarrow.Table, path: Path) -> None:
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, path, compression="zstd")

    def read(self, path: Path, schema: pyarrow.Schema, columns: Sequence[str]) -> pyarrow.Table:
        import pyarrow.parquet

        # Not by its path: a column of that name in the path (key=value) would be taken for data.
        with path.open("rb") as file:
            return pyarrow.parquet.ParquetFile(file).read(columns=list(columns), use_threads=False).select(list(columns))


class ArrowFormat:
    """Arrow IPC files: every schema, exactly."""

    mimetype = "application/vnd.apache.arrow.file"
    suffix = ".arrow"

    def can_hold(self, schema: pyarrow.Schema) -> bool:
        return True

    def write(self, table: pyarrow.Table, path: Path) -> None:
        import pyarrow

        options = pyarrow.ipc.IpcWriteOptions(compression="lz4", unify_dictionaries=True)
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)

    def read(self, path: Path, schema: pyarrow.Schema, columns: Sequence[str]) -> pyarrow.Table:
        import pyarrow

        with pyarrow.OSFile(str(path)) as source:
            return pyarrow.ipc.open_file(source).read_all().select(list(columns))


class CsvFormat:
    """CSV with a header line, for columns of plain numbers, texts, booleans and dates."""

    mimetype = "text/csv"
    suffix = ".csv"

    def can_hold(self, schema: pyarrow.Schema) -> bool:
        return all(_is_plain(field.type) for field in schema)

    def write(self, table: pyarrow.Table, path: Path) -> None:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(quoting_style="needed"))

    def read(self, path: Path, schema: pyarrow.Schema, columns: Sequence[str]) -> pyarrow.Table:
        import pyarrow.csv

        options = pyarrow.csv.ConvertOptions(
            column_types=schema,
            include_columns=list(columns),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        # A text may hold line breaks.
        parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
        return pyarrow.csv.read_csv(path, pyarrow.csv.ReadOptions(use_threads=False), parse, options)


#: In the order in which they are tried for a table that names none.
FORMATS: tuple[TableFormat, ...] = (ParquetFormat(), ArrowFormat(), CsvFormat())


def _has_categories(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return pyarrow.types.is_dictionary(kind) or any(_has_categories(kind.field(n).type) for n in range(kind.num_fields))


def _is_plain(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    return bool(
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_float32(kind)
        or types.is_float64(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_date32(kind)
    )
