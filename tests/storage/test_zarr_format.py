"""What rests is Zarr: the zarr package opens it with nothing but the path, and sees the same cells."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import numpy
import pytest

from tiled_stream.domain.dtypes import from_numpy
from tiled_stream.storage.layout import array_directory
from tiled_stream.storage.zarr_arrays import ZarrArrays
from tiled_stream.testing.array_contract import ArrayModel
from tiled_stream.testing.factories import array_structure

NATIVE = ["|b1", "|i1", "<i2", ">i4", "<i8", "|u1", ">u2", "<u8", "<f2", "<f4", ">f8", "<c8", ">c16"]


def opened(path: Path) -> Any:
    """The array as the zarr package sees it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        import zarr

        return zarr.open_array(str(path), mode="r")


@pytest.fixture(params=[0, 1], ids=["plain", "zstd"])
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ZarrArrays]:
    store = ZarrArrays(tmp_path, level=request.param)
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("spelling", NATIVE)
async def test_zarr_reads_what_was_written(store: ZarrArrays, tmp_path: Path, spelling: str) -> None:
    dtype = numpy.dtype(spelling)
    structure = array_structure((5, 4), chunks=((2, 2, 1), (3, 1)), dims=("time", "x"), resizable=True)
    model = ArrayModel(structure, dtype, Random(1))
    model.write_whole()
    model.append(gap=3, extent=2)
    await store.apply([model.batch()])
    found = opened(array_directory(tmp_path, model.node))
    assert found.shape == model.structure.shape == (10, 4)
    assert found.chunks == (2, 3)
    assert found.metadata.dimension_names == ("time", "x")
    assert found.attrs["data_type"]["kind"] == dtype.kind
    numpy.testing.assert_array_equal(found[...], model.values)
    assert found[...].dtype.newbyteorder("=") == dtype.newbyteorder("=")


async def test_a_scalar(store: ZarrArrays, tmp_path: Path) -> None:
    model = ArrayModel(array_structure(()), numpy.dtype("<f8"), Random(2))
    model.write_whole()
    await store.apply([model.batch()])
    assert opened(array_directory(tmp_path, model.node))[()] == model.values[()]


@pytest.mark.parametrize("spelling", ["<M8[ns]", ">m8[25s]", "|S5", "<U3", "|V6"])
async def test_other_types_are_found_as_integers_or_bytes(store: ZarrArrays, tmp_path: Path, spelling: str) -> None:
    dtype = numpy.dtype(spelling)
    model = ArrayModel(array_structure((3, 2), chunks=((2, 1), (2,)), data_type=from_numpy(dtype)), dtype, Random(3))
    model.write_whole()
    await store.apply([model.batch()])
    found = opened(array_directory(tmp_path, model.node))[...]
    if dtype.kind in "mM":
        numpy.testing.assert_array_equal(found, model.values.view(dtype.str[0] + "i8"))
    else:
        assert found.shape == (3, 2, dtype.itemsize)
        assert found.tobytes() == model.values.tobytes()
