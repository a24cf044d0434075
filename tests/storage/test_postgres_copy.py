"""Binary COPY against a plain reading and writing of what PostgreSQL documents, cell by cell.

https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

from random import Random
from struct import pack, unpack_from
from typing import Any

import numpy
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.storage import postgres_copy
from tiled_stream.storage.arrow_columns import Column
from tiled_stream.storage.postgres_copy import BYTES, HEADER, TRAILER, Answer, encode, in_order, selected, steps

#: Types as they are stored, and how `struct` writes them.
KINDS: dict[str, tuple[Any, str, Any]] = {
    "bool": (pyarrow.bool_(), ">?", st.booleans()),
    "int16": (pyarrow.int16(), ">h", st.integers(-(2**15), 2**15 - 1)),
    "int32": (pyarrow.int32(), ">i", st.integers(-(2**31), 2**31 - 1)),
    "int64": (pyarrow.int64(), ">q", st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pyarrow.uint64(), ">Q", st.integers(0, 2**64 - 1)),
    "float32": (pyarrow.float32(), ">f", st.floats(width=32, allow_nan=False)),
    "float64": (pyarrow.float64(), ">d", st.floats(allow_nan=False)),
    "bytes": (pyarrow.large_binary(), "", st.binary(max_size=20)),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Kinds of columns, and rows with nulls among them."""
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    rows = draw(st.lists(st.tuples(*(st.none() | KINDS[k][2] for k in kinds)), max_size=12))
    return kinds, rows


def arrow(kinds: list[str], rows: list[tuple[Any, ...]]) -> pyarrow.Table:
    columns = [pyarrow.array([row[n] for row in rows], KINDS[kind][0]) for n, kind in enumerate(kinds)]
    return pyarrow.Table.from_arrays(columns, names=[f"c{n}" for n in range(len(kinds))])


def cell(kind: str, value: Any) -> bytes:
    if value is None:
        return pack(">i", -1)
    body = value if kind == "bytes" else pack(KINDS[kind][1], value)
    return pack(">i", len(body)) + body


def copied(kinds: list[str], rows: list[tuple[Any, ...]]) -> bytes:
    """The rows of a COPY without its ends."""
    return b"".join(pack(">h", len(kinds)) + b"".join(cell(*pair) for pair in zip(kinds, row, strict=True)) for row in rows)


def answered(kinds: list[str], rows: list[tuple[Any, ...]]) -> bytes:
    """What the server answers to `selected`."""
    fixed = [n for n, kind in enumerate(kinds) if kind != "bytes"]
    ragged = [n for n, kind in enumerate(kinds) if kind == "bytes"]
    wide = [kind for n in fixed for kind in (kinds[n], "bool")] + ["bytes"] * len(ragged)
    zeros = {kind: False if kind == "bool" else 0 for kind in kinds}
    return (
        HEADER
        + copied(
            wide,
            [
                tuple(v for n in fixed for v in (zeros[kinds[n]] if row[n] is None else row[n], row[n] is None))
                + tuple(row[n] for n in ragged)
                for row in rows
            ],
        )
        + TRAILER
    )


@given(tables())
def test_rows_are_written_as_documented(table: tuple[list[str], list[tuple[Any, ...]]]) -> None:
    kinds, rows = table
    ordered = sorted(range(len(kinds)), key=lambda n: kinds[n] == "bytes")
    wanted = copied([kinds[n] for n in ordered], [tuple(row[n] for n in ordered) for row in rows])
    incoming = in_order(arrow(kinds, rows))
    assert incoming.column_names == [f"c{n}" for n in ordered]
    assert encode(incoming) == wanted
    assert b"".join(encode(incoming.slice(n, 1)) for n in range(len(rows))) == wanted


@given(tables(), st.randoms(use_true_random=False))
def test_answers_are_read_wherever_they_are_cut(table: tuple[list[str], list[tuple[Any, ...]]], random: Random) -> None:
    kinds, rows = table
    data = answered(kinds, rows)
    answer = Answer([Column("", KINDS[kind][0], KINDS[kind][0]) for kind in kinds])
    while data:
        size = random.randint(1, 40)
        answer.add(data[:size])
        data = data[size:]
        if random.random() < 0.7:
            answer.decode()
    found = answer.columns()
    wanted = arrow(kinds, rows)
    assert [c.type for c in found] == [c.type for c in wanted.columns]
    assert repr([c.to_pylist() for c in found]) == repr([c.to_pylist() for c in wanted.columns])


def test_the_bits_of_a_nan_are_kept() -> None:
    bits = numpy.array([0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001], numpy.uint64)
    row = encode(pyarrow.table({"x": bits.view(numpy.float64)}))
    assert [unpack_from(">Q", row, n * 14 + 6)[0] for n in range(3)] == bits.tolist()
    answer = Answer([Column("", pyarrow.float64(), pyarrow.float64())])
    answer.add(HEADER + b"".join(pack(">hiQi?", 2, 8, b, 1, False) for b in bits.tolist()) + TRAILER)
    assert answer.columns()[0].to_numpy().view(numpy.uint64).tolist() == bits.tolist()


def test_an_answer_that_does_not_end_is_no_answer() -> None:
    answer = Answer([BYTES])
    answer.add(HEADER + copied(["bytes"], [(b"abc",)]))
    with pytest.raises(AssertionError):
        answer.columns()


def test_a_long_cell_is_not_joined_again_with_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_copy, "_PIECE", 1000)
    data = HEADER + copied(["bytes"], [(b"x" * 100_000,)]) + TRAILER
    answer, decoded = Answer([BYTES]), 0
    for start in range(0, len(data), 100):
        answer.add(data[start : start + 100])
        if answer.is_due():
            answer.decode()
            decoded += 1
    assert decoded < 10
    assert answer.columns()[0].to_pylist() == [b"x" * 100_000]


def test_what_is_selected_is_what_is_read() -> None:
    columns = [BYTES, Column("BIGINT", pyarrow.int64(), pyarrow.int64()), BYTES]
    assert selected(["c0", "c1", "c2"], columns) == "coalesce(c1, '0'), c1 IS NULL, c0, c2"


def test_a_table_is_encoded_in_steps() -> None:
    table = pyarrow.table({"x": numpy.arange(500_000)})
    sizes = [step.num_rows for step in steps(table)]
    assert sum(sizes) == 500_000
    assert max(sizes) * 8 <= 1 << 20
    assert [s.num_rows for s in steps(pyarrow.table({"b": [b"x" * (3 << 20)] * 2}))] == [1, 1]
    assert list(steps(table.slice(0, 0))) == []
