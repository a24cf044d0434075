"""Tables: an upload is right or refused, and every type that Arrow has comes out in every format."""

from __future__ import annotations

import base64
import csv
import datetime
import decimal
import io
import json
import random
from typing import Any

import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from tiled_stream.domain.errors import Malformed, NotAcceptable, NotSupported
from tiled_stream.domain.structures import TableStructure
from tiled_stream.wire.negotiate import FORMATS
from tiled_stream.wire.tables import (
    ARROW_FILE,
    SCHEMA_PREFIX,
    check_table,
    column_array,
    decode_rows,
    encode_table,
    read_table,
    schema_of,
    structure_of,
)


def file_of(table: pyarrow.Table, compression: str | None = None) -> bytes:
    """An Arrow IPC file, by Arrow itself."""
    sink = io.BytesIO()
    with pyarrow.ipc.new_file(sink, table.schema, options=pyarrow.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def stream_of(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def uri(message: bytes) -> str:
    return SCHEMA_PREFIX + base64.b64encode(message).decode()


def one(values: Any, kind: Any = None) -> pyarrow.Table:
    return pyarrow.table({"x": pyarrow.array(values, kind)})


TABLE = pyarrow.table({"x": [1, 2], "y": [0.5, None], "s": ["a", "ü"]})
STRUCTURE = structure_of(TABLE.schema)

UNION = pyarrow.UnionArray.from_dense(
    pyarrow.array([0, 1, 0], pyarrow.int8()),
    pyarrow.array([0, 0, 1], pyarrow.int32()),
    [pyarrow.array([1, None], pyarrow.timestamp("ns")), pyarrow.array(["x"])],
)
RUNS = pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([2, 3], pyarrow.int32()), pyarrow.array([1.5, None]))
TWINS = pyarrow.StructArray.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
URI = "data:application/octet-stream;base64,"

#: Every type, its JSON. (Far dates and nanoseconds are beyond Python's own types.)
ZOO: dict[str, tuple[pyarrow.Array, list[Any]]] = {
    "int": (pyarrow.array([1, None]), [1, None]),
    "uint64": (pyarrow.array([2**64 - 1], pyarrow.uint64()), [2**64 - 1]),
    "double": (pyarrow.array([0.5, float("nan"), float("inf"), None]), [0.5, None, None, None]),
    "half": (pyarrow.array([1.5, None], pyarrow.float16()), [1.5, None]),
    "bool": (pyarrow.array([True, None]), [True, None]),
    "string": (pyarrow.array(['a,"b"\n', None, ""]), ['a,"b"\n', None, ""]),
    "large_string": (pyarrow.array(["ü\0"], pyarrow.large_string()), ["ü\0"]),
    "string_view": (pyarrow.array(["a", None], pyarrow.string_view()), ["a", None]),
    "null": (pyarrow.nulls(2), [None, None]),
    "timestamp[ns]": (pyarrow.array([1, None], pyarrow.timestamp("ns")), ["1970-01-01T00:00:00.000000001", None]),
    "timestamp[s] far": (pyarrow.array([2**40], pyarrow.timestamp("s")), ["36812-02-20T00:36:16"]),
    "timestamp with zone": (pyarrow.array([0], pyarrow.timestamp("s", "Europe/Berlin")), ["1970-01-01T00:00:00Z"]),
    "timestamp, no such zone": (pyarrow.array([0], pyarrow.timestamp("s", "No/Where")), ["1970-01-01T00:00:00Z"]),
    "duration": (pyarrow.array([2**62, None], pyarrow.duration("ns")), [2**62, None]),
    "time64": (pyarrow.array([1, None], pyarrow.time64("ns")), ["00:00:00.000000001", None]),
    "time32": (pyarrow.array([61], pyarrow.time32("s")), ["00:01:01"]),
    "date32": (pyarrow.array([datetime.date(2026, 1, 2), None]), ["2026-01-02", None]),
    "date32 far": (pyarrow.array([10**8], pyarrow.date32()), ["275760-09-13"]),
    "date64": (pyarrow.array([86_400_000], pyarrow.date64()), ["1970-01-02"]),
    "decimal": (pyarrow.array([decimal.Decimal("1.50"), None]), ["1.50", None]),
    "binary": (pyarrow.array([b"\xff", None]), ["\xff", None]),
    "binary_view": (pyarrow.array([b"a"], pyarrow.binary_view()), ["a"]),
    "fixed_size_binary": (pyarrow.array([b"ab"], pyarrow.binary(2)), ["ab"]),
    "uuid": (pyarrow.array([b"a" * 16, None], pyarrow.uuid()), [URI + "YWFhYWFhYWFhYWFhYWFhYQ==", None]),
    "list": (pyarrow.array([[1, 2], None, []]), [[1, 2], None, []]),
    "list of lists": (pyarrow.array([[[1], None], [[]]]), [[[1], None], [[]]]),
    "list of moments": (pyarrow.array([[1]], pyarrow.list_(pyarrow.timestamp("ns"))), [["1970-01-01T00:00:00.000000001"]]),
    "sliced list": (pyarrow.array([[9], None, [1, 2]]).slice(1), [None, [1, 2]]),
    "large_list": (pyarrow.array([["a"]], pyarrow.large_list(pyarrow.string())), [["a"]]),
    "fixed_size_list": (pyarrow.array([[1, 2], None], pyarrow.list_(pyarrow.int32(), 2)), [[1, 2], None]),
    "list_view": (pyarrow.array([[1, 2], None], pyarrow.list_view(pyarrow.int32())), [[1, 2], None]),
    "struct": (pyarrow.array([{"a": 1, "b": [0.5]}, None]), [{"a": 1, "b": [0.5]}, None]),
    "struct of nothing": (pyarrow.array([{}, None], pyarrow.struct([])), [{}, None]),
    "struct with twins": (TWINS, [{"a": 2}]),
    "map": (pyarrow.array([[("a", 1)], None], pyarrow.map_(pyarrow.string(), pyarrow.int32())), [[["a", 1]], None]),
    "dictionary": (pyarrow.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    "run end": (RUNS, [1.5, 1.5, None]),
    "union": (UNION, ["1970-01-01T00:00:00.000000001", "x", None]),
    "interval": (
        pyarrow.array([(1, 2, 3), None], pyarrow.month_day_nano_interval()),
        ["MonthDayNano(months=1, days=2, nanoseconds=3)", None],
    ),
}


class TestUploads:
    """What comes in."""

    def test_a_body_in_the_declared_schema_is_passed_on_as_it_is(self) -> None:
        body = file_of(TABLE)
        rows = decode_rows(body, STRUCTURE)
        assert (rows.body, rows.rows) == (body, 2)
        assert rows.body is body

    @pytest.mark.parametrize("compression", ["lz4", "zstd"])
    def test_compressed_bodies(self, compression: str) -> None:
        assert decode_rows(file_of(TABLE, compression), STRUCTURE).rows == 2

    def test_no_rows(self) -> None:
        assert decode_rows(file_of(TABLE.slice(0, 0)), STRUCTURE).rows == 0

    @pytest.mark.parametrize(
        ("declared", "sent", "expected"),
        [
            (pyarrow.string(), pyarrow.nulls(2), [None, None]),
            (pyarrow.float64(), pyarrow.array([1, None]), [1.0, None]),
            (pyarrow.int64(), pyarrow.array([1.0, 2.0]), [1, 2]),
            (pyarrow.int64(), pyarrow.array([1, 2], pyarrow.int8()), [1, 2]),
            (pyarrow.list_(pyarrow.float64()), pyarrow.array([[1, 2], []]), [[1.0, 2.0], []]),
            (pyarrow.string(), pyarrow.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
            (pyarrow.large_string(), pyarrow.array(["a", "b"]), ["a", "b"]),
        ],
    )
    def test_castable_columns_are_cast(self, declared: Any, sent: pyarrow.Array, expected: list[Any]) -> None:
        structure = structure_of(pyarrow.schema([("x", declared)]))
        rows = decode_rows(file_of(pyarrow.table({"x": sent})), structure)
        table = read_table(rows.body)
        assert table.schema == schema_of(structure)
        assert (rows.rows, table["x"].to_pylist()) == (2, expected)

    def test_an_index_that_was_not_declared_goes(self) -> None:
        sent = TABLE.append_column("__index_level_0__", pyarrow.array([5, 6]))
        assert read_table(decode_rows(file_of(sent), STRUCTURE).body).equals(TABLE)

    @pytest.mark.parametrize(
        "sent",
        [
            TABLE.select(["y", "x", "s"]),
            TABLE.select(["x", "y"]),
            TABLE.append_column("z", pyarrow.array([1, 2])),
            TABLE.rename_columns(["x", "y", "S"]),
            TABLE.set_column(0, "x", pyarrow.array([1.5, 2.0])),
            TABLE.set_column(0, "x", pyarrow.array(["a", "b"])),
            TABLE.set_column(1, "y", pyarrow.array([[1.0], [2.0]])),
        ],
        ids=lambda t: str(t.schema.names) + str(t.schema.types),
    )
    def test_other_columns_are_refused(self, sent: pyarrow.Table) -> None:
        with pytest.raises(Malformed):
            decode_rows(file_of(sent), STRUCTURE)

    def test_nulls_where_none_may_be(self) -> None:
        structure = structure_of(pyarrow.schema([pyarrow.field("x", pyarrow.int64(), nullable=False)]))
        assert decode_rows(file_of(one([1])), structure).rows == 1
        with pytest.raises(Malformed, match="without nulls"):
            decode_rows(file_of(one([1, None])), structure)

    @pytest.mark.parametrize(
        "body", [b"", b"ARROW1", b"nonsense" * 99, stream_of(TABLE), file_of(TABLE)[:-9], file_of(TABLE)[9:]]
    )
    def test_bodies_that_are_no_arrow_file(self, body: bytes) -> None:
        with pytest.raises(Malformed, match="Arrow IPC file"):
            decode_rows(body, STRUCTURE)

    def test_a_poisoned_body_stops_here(self) -> None:
        """Offsets and texts are looked at, too: whoever reads it later must not find out."""
        text = pyarrow.StringArray.from_buffers(1, pyarrow.py_buffer(numpy.array([0, 2], "i4")), pyarrow.py_buffer(b"\xff\xfe"))
        offsets = pyarrow.StringArray.from_buffers(2, pyarrow.py_buffer(numpy.array([0, 999, 2], "i4")), pyarrow.py_buffer(b"ab"))
        moment = pyarrow.array([10**9], pyarrow.time32("s"))
        for array in (text, offsets, moment):
            table = pyarrow.table({"x": array})
            with pytest.raises(Malformed):
                decode_rows(file_of(table), structure_of(table.schema))

    @pytest.mark.parametrize("seed", range(8))
    def test_spoiled_bodies_are_refused_or_harmless(self, seed: int) -> None:
        rng = random.Random(seed)
        tables = [pyarrow.table({"x": array}) for array, _ in ZOO.values()] + [TABLE] * 10
        for _ in range(60):
            table = rng.choice(tables)
            body = bytearray(file_of(table, rng.choice([None, None, "lz4"])))
            for _ in range(rng.choice([1, 1, 2, 5])):
                body[rng.randrange(len(body))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
            try:
                rows = decode_rows(bytes(body), structure_of(table.schema))
            except Malformed:
                continue
            for media_type in ("application/json", "text/csv"):
                assert encode_table(read_table(rows.body), media_type)


class TestDeclarations:
    """Structures of tables."""

    def test_round_trip(self) -> None:
        assert schema_of(STRUCTURE) == TABLE.schema
        assert (STRUCTURE.columns, STRUCTURE.npartitions) == (("x", "y", "s"), 1)
        check_table(STRUCTURE)

    def test_an_index_of_pandas_may_be_in_the_schema(self) -> None:
        schema = TABLE.schema.append(pyarrow.field("__index_level_0__", pyarrow.int64()))
        check_table(TableStructure(uri(schema.serialize().to_pybytes()), 1, ("x", "y", "s")))

    @pytest.mark.parametrize(
        "wrong",
        [
            TableStructure("", 1, ("x",)),
            TableStructure(STRUCTURE.arrow_schema.replace("file", "stream"), 1, ("x",)),
            TableStructure(SCHEMA_PREFIX, 1, ("x",)),
            TableStructure(SCHEMA_PREFIX + "!!!!", 1, ("x",)),
            TableStructure(SCHEMA_PREFIX + "é", 1, ("x",)),
            TableStructure(uri(b"no schema at all"), 1, ("x",)),
            TableStructure(STRUCTURE.arrow_schema, 0, ("x",)),
            TableStructure(STRUCTURE.arrow_schema, 1, ()),
            TableStructure(STRUCTURE.arrow_schema, 1, ("x", "z")),
            TableStructure(STRUCTURE.arrow_schema, 1, ("x", "x")),
            structure_of(pyarrow.schema([("_x", pyarrow.int64())])),
            structure_of(pyarrow.schema([("", pyarrow.int64())])),
            structure_of(pyarrow.schema([("__index_level_0__", pyarrow.int64())])),
            structure_of(pyarrow.schema([("x", pyarrow.int64()), ("x", pyarrow.int64())])),
            structure_of(pyarrow.schema([])),
            TableStructure(uri(pyarrow.schema([("x", "i8"), ("_y", "i8")]).serialize().to_pybytes()), 1, ("x",)),
            TableStructure(
                uri(pyarrow.schema([("abcdefgh", "i8")]).serialize().to_pybytes().replace(b"abcdefgh", b"\xff" * 8)), 1, ("x",)
            ),
        ],
    )
    def test_wrong_declarations(self, wrong: TableStructure) -> None:
        with pytest.raises(Malformed):
            check_table(wrong)


class TestFormats:
    """What goes out."""

    @pytest.mark.parametrize("name", ZOO)
    def test_every_type_has_its_json(self, name: str) -> None:
        array, expected = ZOO[name]
        table = pyarrow.table({"x": array, "n": list(range(len(array)))})
        assert json.loads(encode_table(table, "application/json"))["x"] == expected
        lines = encode_table(table, "application/json-seq").decode().split("\x1e")[1:]
        assert [json.loads(line) for line in lines] == [{"x": v, "n": n} for n, v in enumerate(expected)]
        assert all(line.endswith("\n") for line in lines)

    @pytest.mark.parametrize("name", ZOO)
    def test_every_type_has_every_announced_format(self, name: str) -> None:
        table = pyarrow.table({"x": ZOO[name][0]})
        for media_type in (*FORMATS["table"], "text/csv;header=absent"):
            if media_type == "application/x-parquet" and name in ("union", "interval", "run end", "struct of nothing"):
                with pytest.raises(NotAcceptable):
                    encode_table(table, media_type)
            else:
                assert isinstance(encode_table(table, media_type), bytes)

    def test_arrow_and_parquet_come_back(self) -> None:
        assert read_table(encode_table(TABLE, ARROW_FILE)).equals(TABLE)
        assert pyarrow.parquet.read_table(io.BytesIO(encode_table(TABLE, "application/x-parquet"))).equals(TABLE)

    def test_sheets(self) -> None:
        table = pyarrow.table(
            {"n": [1, None], "a,b": ["x,y", 'q"'], "l": [[1, 2], None], "t": pyarrow.array([0, None], "timestamp[s]")}
        )
        rows = '1,"x,y","[1,2]","1970-01-01T00:00:00"\n,"q""",,\n'
        for media_type in ("text/csv", "text/x-comma-separated-values", "text/plain", "application/vnd.ms-excel"):
            assert encode_table(table, media_type).decode() == 'n,"a,b",l,t\n' + rows
        assert encode_table(table, "text/csv;header=absent").decode() == rows

    def test_html_is_escaped(self) -> None:
        text = encode_table(pyarrow.table({"<x>": ["<b>"]}), "text/html").decode()
        assert "<th>&lt;x&gt;</th>" in text
        assert "<td>&lt;b&gt;</td>" in text

    def test_a_table_without_rows(self) -> None:
        empty = TABLE.slice(0, 0)
        assert encode_table(empty, "application/json") == b'{"x":[],"y":[],"s":[]}'
        assert encode_table(empty, "application/json-seq") == b""
        assert encode_table(empty, "text/csv") == b"x,y,s\n"

    def test_a_column_with_nulls_keeps_its_rows_in_csv(self) -> None:
        """Readers pass over a line with nothing in it."""
        for values in ([0.5, None, 2.5], [None, 3], ["a", None, "", "x,y\nz"], [None]):
            text = encode_table(pyarrow.table({"x": values}), "text/csv").decode()
            rows = list(csv.reader(io.StringIO(text, newline="")))
            assert rows == [["x"], *([("" if v is None else str(v))] for v in values)]

    def test_what_is_no_format_of_tables(self) -> None:
        with pytest.raises(NotAcceptable):
            encode_table(TABLE, "image/png")


class TestColumnsAsArrays:
    """Columns seen as arrays."""

    @pytest.mark.parametrize(
        ("column", "dtype", "expected"),
        [
            (pyarrow.array([1, 2]), "<i8", [1, 2]),
            (pyarrow.array([1, 2], pyarrow.uint8()), "|u1", [1, 2]),
            (pyarrow.array([True, False]), "|b1", [True, False]),
            (pyarrow.array(["a", None, "üxy"]), "<U3", ["a", "", "üxy"]),
            (pyarrow.array([], pyarrow.string()), "<U1", []),
            (pyarrow.nulls(2), "<U1", ["", ""]),
            (pyarrow.array([b"ab", None]), "|S2", [b"ab", b""]),
            (pyarrow.array(["a", None]).dictionary_encode(), "<U1", ["a", ""]),
            (pyarrow.array([[1, 2], [3, 4], [5, 6]]), "<i8", [[1, 2], [3, 4], [5, 6]]),
            (pyarrow.array([[9], [1, 2], [3, 4]]).slice(1), "<i8", [[1, 2], [3, 4]]),
            (pyarrow.array([[1, 2]], pyarrow.list_(pyarrow.int32(), 2)), "<i4", [[1, 2]]),
            (pyarrow.array([[["a"], ["b"]]]), "<U1", [[["a"], ["b"]]]),
            (pyarrow.array([[], []], pyarrow.list_(pyarrow.float64())), "<f8", [[], []]),
            (pyarrow.array([], pyarrow.list_(pyarrow.float64())), "<f8", []),
        ],
    )
    def test_values(self, column: pyarrow.Array, dtype: str, expected: list[Any]) -> None:
        array = column_array(pyarrow.chunked_array([column]))
        assert array.dtype == numpy.dtype(dtype)
        assert array.tolist() == expected

    def test_missing_values(self) -> None:
        assert numpy.isnan(column_array(one([1, None])["x"])[1])
        assert numpy.isnan(column_array(one([0.5, None])["x"])[1])
        assert numpy.isnan(column_array(one([True, None])["x"])[1])
        times = column_array(one([1, None], pyarrow.timestamp("ns"))["x"])
        assert times.dtype == "M8[ns]"
        assert numpy.isnat(times[1])

    def test_many_chunks(self) -> None:
        column = pyarrow.chunked_array([pyarrow.array([[1, 2]]), pyarrow.array([], pyarrow.list_(pyarrow.int64())), [[3, 4]]])
        assert column_array(column).tolist() == [[1, 2], [3, 4]]
        assert column_array(pyarrow.chunked_array([["a"], ["bcd"]])).tolist() == ["a", "bcd"]

    @pytest.mark.parametrize("column", [[[1], [1, 2]], [[1], None], [[[1], [2, 3]]], [{"a": 1}], [decimal.Decimal(1)]])
    def test_no_array(self, column: list[Any]) -> None:
        with pytest.raises(NotSupported):
            column_array(one(column)["x"])

    @pytest.mark.parametrize("name", ZOO)
    def test_every_type_is_an_array_or_refused(self, name: str) -> None:
        array = ZOO[name][0]
        try:
            found = column_array(pyarrow.chunked_array([array]))
        except NotSupported:
            return
        assert len(found) == len(array)
        assert found.dtype.kind != "O"

    def test_one_long_text_does_not_make_all_of_them_long(self) -> None:
        with pytest.raises(NotSupported, match="padding"):
            column_array(one(["a" * 100_000] + ["b"] * 1000)["x"])


def test_the_index_of_a_part_of_a_frame_stays_what_it_was() -> None:
    frame = pandas.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]})
    structure = structure_of(pyarrow.Table.from_pandas(frame).schema)
    part = frame[2:].set_index(pandas.Index([2, 3]))
    rows = decode_rows(file_of(pyarrow.Table.from_pandas(part)), structure)
    assert read_table(rows.body).to_pandas().index.tolist() == [2, 3]
    loose = frame[2:].set_index(pandas.Index([7, 3]))
    assert read_table(decode_rows(file_of(pyarrow.Table.from_pandas(loose)), structure).body).num_columns == 1
