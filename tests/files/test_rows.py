"""The geometry of rows, against numpy's own reshape and indexing."""

from __future__ import annotations

from math import prod

import numpy
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.domain.slices import Along
from tiled_stream.files.rows import grouping, run_of, within

LENGTHS = st.lists(st.integers(1, 4), max_size=3)


@st.composite
def along(draw: st.DrawFn, length: int) -> Along:
    start = draw(st.integers(0, length - 1))
    step = draw(st.integers(1, 3))
    return Along(start, step, draw(st.integers(1, (length - 1 - start) // step + 1)))


@given(lead=LENGTHS, row=LENGTHS, ones=st.lists(st.integers(0, 7), max_size=3), data=st.data())
def test_a_region_of_a_grouped_shape_is_some_runs_of_rows(
    lead: list[int], row: list[int], ones: list[int], data: st.DataObject
) -> None:
    declared = [*lead, *row]
    for place in ones:
        declared.insert(min(place, len(declared)), 1)
    cells = numpy.arange(prod(declared)).reshape(declared)
    found = grouping(declared, row)
    assert found is not None
    axes = [data.draw(along(n)) for n in declared]
    rows = cells.reshape(-1, *row)
    inner = tuple(Along(0, 1, 1) if a is None else axes[a] for a in found.axes)
    index = tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in inner)
    parts = [
        rows[run.start : run.start + run.count * run.step : run.step][(slice(None), *index)]
        for run in run_of(declared[: found.lead], axes[: found.lead])
    ]
    wanted = cells[tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in axes)]
    assert numpy.concatenate(parts).ravel().tolist() == wanted.ravel().tolist()


def test_what_is_simple_is_one_run() -> None:
    whole = [Along(0, 1, 5), Along(0, 1, 2)]
    assert list(run_of((5, 2), whole)) == [Along(0, 1, 10)]
    assert list(run_of((5, 2), [Along(1, 1, 3), Along(0, 1, 2)])) == [Along(2, 1, 6)]
    assert list(run_of((5, 2), [Along(0, 2, 3), Along(1, 1, 1)])) == [Along(1, 4, 3)]
    assert list(run_of((5, 2), [Along(0, 2, 2), Along(0, 1, 2)])) == [Along(0, 1, 2), Along(4, 1, 2)]


def test_shapes_that_are_not_made_of_such_rows() -> None:
    assert grouping((5, 4), (3,)) is None
    assert grouping((4,), (2, 4)) is None
    assert grouping((5, 3, 4), (4, 3)) is None


@given(length=st.integers(1, 40), data=st.data())
def test_a_part_of_a_part(length: int, data: st.DataObject) -> None:
    outer = data.draw(along(length))
    inner = data.draw(along(outer.count))
    numbers = list(range(length))
    taken = [numbers[outer.start + i * outer.step] for i in range(outer.count)]
    both = within(outer, inner)
    assert [both.start + i * both.step for i in range(both.count)] == [
        taken[inner.start + i * inner.step] for i in range(inner.count)
    ]
