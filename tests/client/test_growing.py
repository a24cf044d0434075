"""Columns that grow: against plain lists, whatever comes in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.served import arrow_file
from tiled_stream.client import Columns, Ended, Gap, TableData
from tiled_stream.client.growing import Freshness, GrowingArray
from tiled_stream.domain.errors import NotFound, NotSupported

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def rows(path: tuple[str, ...] = ("t",), *, append: bool = True, partition: int | None = 0, **columns: Any) -> TableData:
    return TableData(
        subscription=1,
        path=path,
        sequence=1,
        time=WHEN,
        covers=(1, 1),
        payload=arrow_file(pyarrow.table(columns)),
        append=append,
        partition=partition,
    )


@given(st.lists(st.lists(st.integers(-(2**62), 2**62), max_size=50), max_size=20))
def test_an_array_equals_what_was_added(parts: list[list[int]]) -> None:
    growing = GrowingArray()
    views = []
    for n, part in enumerate(parts):
        growing.extend(numpy.array(part, "i8"))
        expected = [v for p in parts[: n + 1] for v in p]
        views.append((growing.array, expected))
    for view, expected in views:  # what was handed out stays as it was
        assert view.tolist() == expected


def test_room_is_doubled() -> None:
    """A million values one by one: about twenty times new room, not a million."""
    growing = GrowingArray()
    rooms = set()
    for n in range(100_000):
        growing.extend(numpy.array([n]))
        rooms.add(growing.array.__array_interface__["data"][0])
    assert len(rooms) < 20
    assert growing.array.tolist() == list(range(100_000))


def test_types_widen() -> None:
    growing = GrowingArray()
    for part in (["a"], ["long text"], ["b"]):
        growing.extend(numpy.array(part))
    assert growing.array.tolist() == ["a", "long text", "b"]
    numbers = GrowingArray()
    numbers.extend(numpy.array([1], "i4"))
    numbers.extend(numpy.array([0.5]))
    assert numbers.array.tolist() == [1.0, 0.5]
    with pytest.raises(NotSupported):
        numbers.extend(numpy.array(["2026"], "M8[s]"))
    with pytest.raises(NotSupported):
        numbers.extend(numpy.zeros((1, 2)))


STEPS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([None, 0, 1, 2]), st.lists(st.integers(0, 9), min_size=1, max_size=4)), max_size=12
)


@given(STEPS)
def test_a_table_equals_its_partitions(steps: list[tuple[bool, int | None, list[int]]]) -> None:
    """The oracle: a list for each partition."""
    columns, model = Columns(), dict[int, list[int]]()
    for append, partition, values in steps:
        if append and partition is None:
            continue  # the wire has no such message
        columns.take(rows(append=append, partition=partition, n=values))
        if not append and partition is None:
            model.clear()
        if not append:
            model[partition or 0] = []
        model.setdefault(partition or 0, []).extend(values)
    expected = [v for k in sorted(model) for v in model[k]]
    assert len(columns) == len(expected)
    assert (columns["n"].tolist() if expected else []) == expected


def test_names_and_paths() -> None:
    columns = Columns(("x",), path=("primary", "internal"))
    assert columns["x"].tolist() == []
    assert not columns.take(rows(("run", "baseline", "internal"), x=[1.0]))
    assert columns.take(rows(("run", "primary", "internal"), x=[1.0], y=[2.0]))
    assert not columns.take(rows(("other", "primary", "internal"), x=[3.0], y=[2.0]))
    assert columns.path == ("run", "primary", "internal")
    assert (columns.names, columns["x"].tolist()) == (("x",), [1.0])
    with pytest.raises(NotFound, match="there are x"):
        columns["y"]
    first = Columns(("x", "y"))
    assert not first.take(rows(x=[1]))  # another table
    assert first.take(rows(("u",), x=[1], y=[2]))


def test_gaps_and_the_end() -> None:
    columns = Columns()
    columns.take(rows(x=[1]))
    here: dict[str, Any] = {"subscription": 1, "sequence": 3, "time": WHEN}
    columns.take(Gap(path=("u",), first=2, last=3, reason="truncated", **here))
    columns.take(Ended(path=("u",), reason="", **here))
    assert (columns.gaps, columns.is_complete) == ([], False)
    columns.take(Gap(path=("t",), first=2, last=3, reason="truncated", **here))
    columns.take(Ended(path=("t",), reason="", **here))
    assert ([(gap.first, gap.last) for gap in columns.gaps], columns.is_complete) == ([(2, 3)], True)


def test_columns_without_a_form() -> None:
    lists = pyarrow.array([[1], [1, 2]])
    columns = Columns()
    columns.take(rows(x=[1, 2], lists=lists))
    assert (columns.names, columns.left_out) == (("x",), {"lists"})
    with pytest.raises(NotSupported):
        Columns(("lists",)).take(rows(x=[1, 2], lists=lists))


def test_freshness() -> None:
    """The first at once; what comes within the time later, together; nothing is left unshown."""
    now = [0.0]
    fresh = Freshness(1.0, clock=lambda: now[0])
    assert (fresh.wait(), fresh.is_due()) == (None, False)
    fresh.told(True)
    assert (fresh.wait(), fresh.is_due(), fresh.is_due()) == (0.0, True, False)
    now[0] = 0.4
    fresh.told(True)
    fresh.told(False)
    assert (fresh.wait(), fresh.is_due(), fresh.has_more()) == (pytest.approx(0.6), False, True)
    now[0] = 1.0
    assert (fresh.is_due(), fresh.has_more(), fresh.wait()) == (True, False, None)
