"""Element types: numpy and the wire say the same, and what numpy does not have is refused."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from tiled_stream.domain.dtypes import check, from_numpy, to_numpy
from tiled_stream.domain.errors import Malformed
from tiled_stream.domain.structures import DataType, Field

SIMPLE = st.one_of(
    np_st.boolean_dtypes(),
    np_st.integer_dtypes(endianness="?"),
    np_st.unsigned_integer_dtypes(endianness="?"),
    np_st.floating_dtypes(endianness="?"),
    np_st.complex_number_dtypes(endianness="?"),
    np_st.datetime64_dtypes(endianness="?"),
    np_st.timedelta64_dtypes(endianness="?"),
    np_st.byte_string_dtypes(min_len=1),
    np_st.unicode_string_dtypes(endianness="?", min_len=1),
)


# Titles, a second name that numpy gives to fields, are not on the wire.
@given((SIMPLE | np_st.array_dtypes(SIMPLE) | np_st.nested_dtypes(SIMPLE)).filter(lambda dtype: "((" not in str(dtype)))
def test_every_type_comes_back(dtype: numpy.dtype) -> None:
    if dtype.subdtype is not None:
        dtype = numpy.dtype([("field", dtype)])
    assert to_numpy(from_numpy(dtype)) == dtype


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<f8", DataType(8, "f", "little")),
        (">i4", DataType(4, "i", "big")),
        ("u1", DataType(1, "u", "not_applicable")),
        ("?", DataType(1, "b", "not_applicable")),
        ("S7", DataType(7, "S", "not_applicable")),
        ("<U3", DataType(12, "U", "little")),
        ("<M8[ns]", DataType(8, "M", "little", "[ns]")),
        ("<m8[25s]", DataType(8, "m", "little", "[25s]")),
        ("V5", DataType(5, "V", "not_applicable")),
    ],
)
def test_simple_types_on_the_wire(text: str, expected: DataType) -> None:
    assert from_numpy(numpy.dtype(text)) == expected
    assert to_numpy(expected) == numpy.dtype(text)


def test_times_without_a_unit_have_two_spellings() -> None:
    for units in (None, "[generic]"):
        assert to_numpy(DataType(8, "M", "little", units)) == numpy.dtype("<M8")


def test_an_aligned_record_is_told_by_its_size() -> None:
    dtype = numpy.dtype([("a", "u1"), ("b", "<f8", (2,))], align=True)
    found = to_numpy(from_numpy(dtype))
    assert (found.itemsize, found.names, found["b"].shape) == (24, ("a", "b"), (2,))


@pytest.mark.parametrize(
    "wrong",
    [
        DataType(8, "O"),
        DataType(8, "x", "little"),
        DataType(8, "", "little"),
        DataType(8, "ff", "little"),
        DataType(3, "f", "little"),
        DataType(7, "U", "little"),
        DataType(-8, "V"),
        DataType(1 << 40, "S"),
        DataType(1 << 70, "V"),
        DataType(8, "M", "little", "[s],i4"),
        DataType(8, "M", "little", "[ns"),
        DataType(8, "M", "little", "[0s]"),
        DataType(8, "m", "little", "[fortnight]"),
        DataType(8, fields=(Field("a", DataType(8, "O")),)),
        DataType(9, fields=(Field("a", DataType(8, "f", "little")),)),
        DataType(8, fields=(Field("", DataType(8, "f", "little")),)),
        DataType(16, fields=(Field("a", DataType(8, "f", "little")),) * 2),
        DataType(8, fields=(Field("a", DataType(8, "f", "little"), (-1,)),)),
        DataType(8, fields=(Field("a", DataType(8, "f", "little"), (1 << 70,)),)),
    ],
)
def test_what_numpy_does_not_have_is_refused(wrong: DataType) -> None:
    with pytest.raises(Malformed):
        check(wrong)


@given(
    st.builds(
        DataType,
        st.integers(-1, 40) | st.integers(),
        st.sampled_from("biufcmMSUVOtX") | st.text(max_size=2),
        st.sampled_from(["little", "big", "not_applicable"]),
        st.none() | st.sampled_from(["[ns]", "[25s]", "[Y/4]", "[s],i4"]) | st.text(max_size=4),
    )
)
def test_any_type_is_right_or_refused(data_type: DataType) -> None:
    try:
        dtype = to_numpy(data_type)
    except Malformed:
        return
    assert (dtype.itemsize, dtype.kind) == (data_type.itemsize, data_type.kind)
