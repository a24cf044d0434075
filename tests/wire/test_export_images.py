"""Arrays as pictures, read back by the libraries of pictures."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy
import PIL.Image
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tiled_stream.domain.errors import NotAcceptable
from tiled_stream.wire.arrays import encode_array

PNG, TIFF = "image/png", "image/tiff"
NUMBERS = st.sampled_from(["?", "i1", "<u2", ">i4", "<i8", ">u8", "<f2", ">f4", "<f8"]).map(numpy.dtype)


def png(array: Any) -> numpy.ndarray:
    return numpy.asarray(PIL.Image.open(io.BytesIO(encode_array(array, PNG))))


@given(st.data(), NUMBERS)
def test_a_png_keeps_the_order_of_values(data: Any, dtype: Any) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=4))
    array = data.draw(arrays.arrays(dtype, shape))
    found = png(array)
    assert found.dtype == "u1"
    assert found.shape == array.shape
    with numpy.errstate(all="ignore"):
        wide = array.astype(float)
        finite = wide[numpy.isfinite(wide)]
    if finite.size and finite.min() < finite.max():
        assert set(found[wide == finite.min()]) == {0}
        assert set(found[wide == finite.max()]) == {255}
        order = numpy.argsort(wide.reshape(-1)[numpy.isfinite(wide.reshape(-1))], kind="stable")
        levels = found.reshape(-1)[numpy.isfinite(wide.reshape(-1))][order]
        assert (numpy.diff(levels.astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (numpy.array([[0, 5], [10, 10]]), [[0, 128], [255, 255]]),
        (numpy.array([[0.0, numpy.nan], [numpy.inf, -numpy.inf]]), [[0, 0], [255, 0]]),
        (numpy.array([[numpy.nan]]), [[0]]),
        (numpy.array([[7, 7]]), [[0, 0]]),
        (numpy.array([[False, True]]), [[0, 255]]),
        (numpy.array([[-1.7e308, 1.7e308]]), [[0, 255]]),
        (numpy.array([[[1, 2, 3]]], "u1"), [[[1, 2, 3]]]),
        (numpy.array([[[1, 2, 3, 4]]], "u1"), [[[1, 2, 3, 4]]]),
        (numpy.array([[[0.0, 0.5, 1.0]]]), [[[0, 128, 255]]]),
    ],
)
def test_levels_of_a_png(array: Any, expected: Any) -> None:
    assert png(array).tolist() == expected


@given(st.data(), st.sampled_from(["i1", "<u2", ">i4", "<i8", ">u8", "<f4", ">f8", "<c8"]).map(numpy.dtype))
def test_a_tiff_has_the_values(data: Any, dtype: Any) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=4, max_side=4))
    array = data.draw(arrays.arrays(dtype, shape))
    found = tifffile.imread(io.BytesIO(encode_array(array, TIFF)))
    expected = numpy.ascontiguousarray(numpy.atleast_2d(array), dtype.newbyteorder("="))
    assert found.dtype == expected.dtype
    assert found.reshape(expected.shape).tobytes() == expected.tobytes()  # axes of one are left out


@pytest.mark.parametrize(
    ("array", "expected"), [(numpy.array([[True, False]]), [[1, 0]]), (numpy.array([[1.5]], "longdouble"), [[1.5]])]
)
def test_what_a_tiff_has_no_type_for(array: Any, expected: Any) -> None:
    assert tifffile.imread(io.BytesIO(encode_array(array, TIFF))).reshape(array.shape).tolist() == expected


@pytest.mark.parametrize("media_type", [PNG, TIFF])
@pytest.mark.parametrize(
    "array",
    [
        numpy.zeros((0, 2)),
        numpy.array([["a"]]),
        numpy.array([["2026"]], "M8[Y]"),
        numpy.zeros((2, 2), [("a", "i4")]),
        numpy.zeros((1, 1), "V3"),
    ],
)
def test_what_is_no_picture(media_type: str, array: Any) -> None:
    with pytest.raises(NotAcceptable):
        encode_array(array, media_type)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2), (2, 2, 2, 3)])
def test_a_png_has_rows_and_columns(shape: Any) -> None:
    with pytest.raises(NotAcceptable, match=r"\?slice="):
        encode_array(numpy.zeros(shape), PNG)


@pytest.mark.parametrize(("media_type", "module", "package"), [(PNG, "PIL.Image", "pillow"), (TIFF, "tifffile", "tifffile")])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, media_type: str, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NotAcceptable, match=f"{package}.*pip install"):
        encode_array(numpy.zeros((1, 1)), media_type)
