"""Arrays in every format: what is said about them is true, and no array that was accepted is without a form."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.domain.errors import NotAcceptable, UnsupportedType
from tiled_stream.wire.arrays import check_body_type, encode_array
from tiled_stream.wire.negotiate import FORMATS

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (numpy.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (numpy.arange(6, dtype=">i2").reshape(2, 3)[:, ::-2], [[2, 0], [5, 3]]),
        (numpy.array(7.5), 7.5),
        (numpy.zeros((0, 3)), []),
        (numpy.zeros((2, 0), "<U3"), [[], []]),
        (numpy.array([1.5, NAN, INF, -INF]), [1.5, None, None, None]),
        (numpy.array([1.5, NAN], ">f8"), [1.5, None]),
        (numpy.array([1.5, NAN], "f2"), [1.5, None]),
        (numpy.array(NAN), None),
        (numpy.array([1.5, NAN], numpy.longdouble), [1.5, None]),
        (numpy.array([1 + 2j, complex(NAN, 0)]), [[1, 2], [None, 0]]),
        (numpy.array([[1j]], ">c8"), [[[0, 1]]]),
        (numpy.array([1j], numpy.clongdouble), [[0, 1]]),
        (numpy.array([True, False]), [True, False]),
        (numpy.array([2**64 - 1], "u8"), [2**64 - 1]),
        (numpy.array(["ab", "é"]), ["ab", "é"]),
        (numpy.array([["ab", "é"]], ">U2"), [["ab", "é"]]),
        (numpy.array(["2026-01-02T03:04:05.000000006", "NaT"], "M8[ns]"), ["2026-01-02T03:04:05.000000006", None]),
        (numpy.array("2026-01-02", "M8[D]"), "2026-01-02"),
        (numpy.array([3, -(2**63)]).view("M8"), [3, None]),
        (numpy.array([[90, "NaT"]], "m8[25s]"), [[90, None]]),
        (
            numpy.array([b"ab", b"\xff"]),
            ["data:application/octet-stream;base64,YWI=", "data:application/octet-stream;base64,/w=="],
        ),
        (numpy.array([b"ab"], "V2"), ["data:application/octet-stream;base64,YWI="]),
        (numpy.array([(1, 2.5), (2, NAN)], [("a", "i4"), ("b", "f8")]), [[1, 2.5], [2, None]]),
        (numpy.array((1, [1, 2], "2026"), [("a", ">i4"), ("b", "f8", 2), ("c", "M8[Y]")]), [1, [1, 2], "2026"]),
        (numpy.zeros((2, 1, 2), [("a", "u1")]), [[[[0], [0]]], [[[0], [0]]]]),
    ],
)
def test_json(array: Any, expected: Any) -> None:
    assert json.loads(encode_array(array, "application/json")) == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (numpy.array([[1, 2], [3, 4]]), "1,2\n3,4\n"),
        (numpy.array([1.5, NAN, INF]), "1.5\nnan\ninf\n"),
        (numpy.array([0.1], "f4"), "0.10000000149011612\n"),
        (numpy.array(7), "7\n"),
        (numpy.array([["a,b", 'c"d']]), '"a,b","c""d"\n'),
        (numpy.array([True]), "True\n"),
        (numpy.array(["2026-01-02", "NaT"], "M8[D]"), "2026-01-02\n\n"),
        (numpy.array([1 + 2j]), "(1+2j)\n"),
        (numpy.zeros((0, 2)), ""),
    ],
)
def test_sheets(array: Any, expected: str) -> None:
    for media_type in ("text/csv", "text/x-comma-separated-values", "text/plain", "application/vnd.ms-excel"):
        assert encode_array(array, media_type).decode() == expected


def test_html_is_a_table_and_escaped() -> None:
    text = encode_array(numpy.array([["<b>", "x"]]), "text/html").decode()
    assert "<tr><td>&lt;b&gt;</td><td>x</td></tr>" in text


@pytest.mark.parametrize("array", [numpy.zeros((2, 2, 2)), numpy.zeros(2, [("a", "i4")])])
def test_what_is_no_sheet_is_refused(array: Any) -> None:
    with pytest.raises(NotAcceptable):
        encode_array(array, "text/csv")


def test_raw_bytes_are_c_order_in_the_declared_type() -> None:
    array = numpy.arange(6, dtype=">i2").reshape(2, 3).T
    assert encode_array(array, "application/octet-stream") == b"\0\0\0\3\0\1\0\4\0\2\0\5"


def test_what_is_no_format_of_arrays_is_refused() -> None:
    with pytest.raises(NotAcceptable):
        encode_array(numpy.zeros(1), "application/x-hdf5")


@pytest.mark.parametrize("content_type", [None, "", "application/octet-stream", "Application/Octet-Stream; x=y"])
def test_bodies_of_arrays(content_type: str | None) -> None:
    check_body_type(content_type)


def test_bodies_of_another_type() -> None:
    with pytest.raises(UnsupportedType):
        check_body_type("application/json")


DTYPES = "b1 i1 <i8 >u4 <f2 <f4 >f8 <f16 <c8 >c16 <c32 <M8 <M8[ns] >M8[Y] <M8[as] <M8[25s] <m8[ns] >m8 S3 <U2 >U1 V5"


@given(st.sampled_from(DTYPES.split()), st.binary(min_size=32, max_size=64), st.sampled_from([(), (2,), (2, 1), (1, 0)]))
def test_any_bytes_that_a_client_may_send_have_a_form(text: str, noise: bytes, shape: tuple[int, ...]) -> None:
    dtype = numpy.dtype(text)
    count = int(numpy.prod(shape))
    array = numpy.frombuffer((noise * 2)[: count * dtype.itemsize], dtype).reshape(shape)
    for media_type in FORMATS["array"]:
        if not media_type.startswith("image/"):
            assert isinstance(encode_array(array, media_type), bytes)
    json.loads(encode_array(array, "application/json"))


def test_text_that_is_no_unicode_is_replaced() -> None:
    array = numpy.array([0x41, 0xD800, 0x110000, 0xFFFFFFFF], "<u4").view("<U2")
    assert json.loads(encode_array(array, "application/json")) == ["A\ufffd", "\ufffd\ufffd"]
    assert encode_array(array, "text/csv").decode() == "A\ufffd\n\ufffd\ufffd\n"
