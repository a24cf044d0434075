"""Selections, against numpy's own indexing."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.domain.errors import Malformed
from tiled_stream.domain.slices import parse_ints, parse_selection, parse_shape, whole

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
NUMBER = st.integers(-8, 8)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], str, tuple[int | slice, ...]]:
    """A shape, the text of a selection, and the same as an index of numpy."""
    shape = draw(SHAPES)
    texts: list[str] = []
    index: list[int | slice] = []
    for length in shape[: draw(st.integers(0, len(shape)))]:
        if length and draw(st.booleans()):
            number = draw(st.integers(-length, length - 1))
            texts.append(str(number))
            index.append(number)
        else:
            start, stop = draw(st.none() | NUMBER), draw(st.none() | NUMBER)
            step = draw(st.none() | NUMBER.filter(bool))
            pieces = ["" if p is None else str(p) for p in (start, stop, step)]
            texts.append(":".join(pieces[:2] if step is None and draw(st.booleans()) else pieces))
            index.append(slice(start, stop, step))
    return shape, ",".join(texts), tuple(index)


@given(cases())
def test_a_selection_takes_what_numpy_takes(case: tuple[tuple[int, ...], str, tuple[int | slice, ...]]) -> None:
    shape, text, index = case
    cells = numpy.arange(numpy.prod(shape, dtype=int)).reshape(shape)
    selection = parse_selection(text, shape)
    expected = cells[index]
    assert selection.shape == expected.shape
    assert numpy.array_equal(cells[selection.index], expected)
    assert len(selection.axes) == len(shape)
    for along, length in zip(selection.axes, shape, strict=True):
        assert all(0 <= along.start + n * along.step < length for n in (0, along.count - 1)[: along.count])


@given(SHAPES)
def test_the_whole_is_the_whole(shape: tuple[int, ...]) -> None:
    assert whole(shape) == parse_selection("", shape)
    assert whole(shape).shape == shape


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("2:-4:-1,0:4:1", (3, 4)),
        ("1:3:1,0:3:2", (2, 2)),
        ("0,0", ()),
        ("::,-1", (3,)),
        ("3:1", (0, 4)),
        ("0:99999999999", (3, 4)),
        (":3,:4", (3, 4)),
    ],
)
def test_texts_that_clients_send(text: str, shape: tuple[int, ...]) -> None:
    assert parse_selection(text, (3, 4)).shape == shape


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "1,",
        ",1",
        "1,,2",
        "0,0,0",
        "3",
        "-4",
        "0:1:0",
        "1:2:3:4",
        " 1",
        "1.0",
        "...",
        "None",
        "+1",
        "٣",
        "1_0",
        "9" * 30,
        "0x1",
    ],
)
def test_texts_that_are_no_selection(text: str) -> None:
    with pytest.raises(Malformed):
        parse_selection(text, (3, 4))


@given(st.text(alphabet="0123456789:,- .", max_size=12), SHAPES)
def test_any_text_is_a_selection_or_refused(text: str, shape: tuple[int, ...]) -> None:
    try:
        selection = parse_selection(text, shape)
    except Malformed:
        return
    assert numpy.zeros(shape)[selection.index].shape == selection.shape


@given(st.lists(st.integers(0, 10**18 - 1)))
def test_ints(numbers: list[int]) -> None:
    assert parse_ints(",".join(map(str, numbers))) == tuple(numbers)


def test_shapes() -> None:
    assert parse_shape("scalar") == () == parse_shape("")
    assert parse_shape("3,0") == (3, 0)


@pytest.mark.parametrize("text", ["-1", "1,-2", "a", "1,", "1;2", "scalar,1", "1.5", "9" * 19])
def test_what_is_no_list_of_ints(text: str) -> None:
    with pytest.raises(Malformed):
        parse_ints(text)
