"""Arrays, tables and metadata in HDF5, read back by h5py alone; pieces of arrays."""

from __future__ import annotations

import io
from math import prod
from typing import Any

import h5py
import numpy
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.domain.errors import NotAcceptable
from tiled_stream.wire.export_hdf5 import Hdf5File, encode_hdf5
from tiled_stream.wire.slabs import slabs

NUMBERS = ["?", "i1", "<i8", ">i2", ">u4", "<f2", "<f4", ">f8", "<c8", ">c16"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def written(*arrays: tuple[str, Any], metadata: Any = None) -> h5py.File:
    sink = io.BytesIO()
    file = Hdf5File(sink)
    file.describe((), metadata or {})
    for name, array in arrays:
        file.declare((name,), array.shape, array.dtype, {})
        file.fill((name,), tuple(slice(0, n) for n in array.shape), array)
    file.close()
    return h5py.File(io.BytesIO(sink.getvalue()))


@given(st.sampled_from(NUMBERS), st.binary(min_size=96, max_size=96), st.sampled_from([(), (3,), (2, 3), (0, 2)]))
def test_numbers_come_back_bit_by_bit(text: str, noise: bytes, shape: tuple[int, ...]) -> None:
    dtype = numpy.dtype(text)
    raw = bytes(b & 1 for b in noise) if dtype.kind == "b" else noise
    array = numpy.frombuffer(raw[: prod(shape) * dtype.itemsize], dtype).reshape(shape)
    found = written(("a", array))["a"]
    assert found.shape == shape
    assert found.dtype == dtype
    assert numpy.asarray(found[()], dtype).tobytes() == array.tobytes()  # h5py turns single numbers


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=4), max_size=4))
def test_texts_come_back(texts: list[str]) -> None:
    array = numpy.array(texts, dtype="U4")
    # numpy itself does not keep NULs at the end of a text.
    assert written(("a", array))["a"].asstr()[()].tolist() == array.tolist()


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "s", "25s", "ns", "as", "generic"])
@pytest.mark.parametrize("kind", ["<M8", ">M8", "<m8"])
def test_moments_are_their_numbers(kind: str, unit: str) -> None:
    numbers = numpy.array([0, 7, numpy.iinfo("i8").min])
    array = numbers.astype(kind[0] + "i8").view(f"{kind}[{unit}]" if unit != "generic" else kind)
    found = written(("a", array))["a"]
    assert found[()].tolist() == numbers.tolist()
    assert numpy.dtype(found.attrs["dtype"]) == array.dtype.newbyteorder("=")
    assert ("units" in found.attrs) == (unit in ["D", "h", "s", "ns"])


def test_records_texts_in_records_and_wide_numbers() -> None:
    kind = numpy.dtype([("n", ">i4"), ("s", "U3"), ("t", "M8[s]"), ("sub", "f4", (2,)), ("inner", [("x", "u1")])])
    array = numpy.array([(1, "üa", "1970-01-02", (1, 2), (3,))], dtype=kind)
    found = written(("a", array), ("wide", numpy.array([1.5], "longdouble")), ("none", numpy.array([b""], "S0")))
    row = found["a"][0]
    assert (row["n"], row["s"].decode(), row["t"], row["sub"].tolist(), row["inner"]["x"]) == (1, "üa", 86400, [1.0, 2.0], 3)
    assert found["wide"][()].tolist() == [1.5]
    assert found["wide"].dtype == "f8"
    assert found["none"][()].tolist() == [b""]


@given(st.dictionaries(st.text(min_size=1).filter(lambda k: "\0" not in k), JSON, max_size=12))
def test_all_metadata_have_a_form_as_attributes(metadata: dict[str, Any]) -> None:
    """Whatever JSON a client wrote."""
    try:
        for key in metadata:
            key.encode()
    except UnicodeEncodeError:
        return
    found = written(metadata=metadata).attrs
    assert set(found) == set(metadata)
    for key, value in metadata.items():
        is_number = isinstance(value, bool | float) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 63)
        if is_number or (isinstance(value, str) and "\0" not in value):
            assert found[key] == value


def test_many_and_great_attributes() -> None:
    found = written(metadata={f"k{n}": "x" * 70_000 for n in range(20)}).attrs
    assert len(found) == 20
    assert len(found["k7"]) == 70_000


def test_columns_of_tables() -> None:
    table = pyarrow.table(
        {
            "n": pyarrow.array([1, 2], pyarrow.int32()),
            "gap": [1.5, None],
            "s": ["a\0b", None],
            "when": pyarrow.array([1, None], pyarrow.timestamp("us")),
            "deep": [{"a": [1]}, None],
            "ragged": [[1], [1, 2]],
            ".": [True, False],
        }
    )
    file = h5py.File(io.BytesIO(encode_hdf5(table)))
    assert list(file) == ["n", "gap", "s", "when", "deep", "ragged", "%2E"]
    assert file["n"].dtype == "i4"
    assert numpy.isnan(file["gap"][1])
    assert file["s"].asstr()[()].tolist() == ["a\ufffdb", ""]
    assert file["when"].attrs["units"] == "microseconds since 1970-01-01"
    assert file["deep"].asstr()[()].tolist() == ['{"a":[1]}', ""]
    assert file["ragged"].asstr()[()].tolist() == ["[1]", "[1,2]"]
    assert file["%2E"][()].tolist() == [True, False]
    with pytest.raises(NotAcceptable, match="same name"):
        encode_hdf5(pyarrow.table({"a/b": [1], "a%2Fb": [2]}))
    assert list(h5py.File(io.BytesIO(encode_hdf5(table.slice(0, 0))))) == list(file)


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@given(st.lists(SIZES, max_size=3).map(tuple), st.integers(1, 8), st.integers(1, 200))
def test_pieces_cover_an_array_once_and_stay_small(chunks: Any, itemsize: int, limit: int) -> None:
    shape = tuple(map(sum, chunks))
    seen = numpy.zeros(shape, int)
    greatest = itemsize * prod(map(max, chunks))
    for region in slabs(chunks, itemsize, limit=limit):
        seen[tuple(slice(*ends) for ends in region)] += 1
        assert itemsize * prod(stop - start for start, stop in region) <= max(limit, greatest)
        for (start, stop), sizes in zip(region, chunks, strict=True):
            edges = {0, *numpy.cumsum(sizes).tolist()}
            assert {start, stop} <= edges
    assert (seen == 1).all()


def test_an_array_without_cells_has_no_pieces() -> None:
    assert list(slabs(((0,), (2,)), 1, limit=1)) == []
    assert list(slabs(((2,), ()), 1, limit=1)) == []
