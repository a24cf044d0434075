"""Datasets of xarray, written and read by the real client."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import xarray

from tests.client.served import KEY, Served

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tiled") is None, reason="tiled is not installed; `make setup` does")


@pytest.fixture
def client(server: Served) -> Iterator[Any]:
    from tiled.client import from_uri

    found = from_uri(server.uri.split("?")[0], api_key=KEY)
    yield found
    found.context.close()


def wide() -> xarray.Dataset:
    columns = {f"column_{n}": ("time", numpy.arange(3.0) * n, {"unit": "mm"}) for n in range(10)}
    return xarray.Dataset(columns, coords={"time": ("time", numpy.arange(3))}, attrs={"title": "wide"})


def deep() -> xarray.Dataset:
    return xarray.Dataset(
        {"temp": (("x", "y"), numpy.arange(6.0).reshape(2, 3)), "flux": ("x", numpy.array([1, 2], ">i2"))},
        coords={"lon": (("x", "y"), numpy.ones((2, 3))), "x": ("x", numpy.array([5, 6]))},
    )


@pytest.mark.parametrize("made", [wide, deep])
def test_a_dataset_comes_back(client: Any, fresh: Callable[[str], str], made: Callable[[], xarray.Dataset]) -> None:
    from tiled.client.xarray import write_xarray_dataset

    given = made()
    written = write_xarray_dataset(client, given, key=fresh("dataset"))
    xarray.testing.assert_identical(written.read(), given)
    some = written.read(variables=[next(iter(given.data_vars))])
    assert set(some.data_vars) == {next(iter(given.data_vars))}


def test_it_is_exported_by_the_extension_of_a_file(client: Any, fresh: Callable[[str], str], tmp_path: Any) -> None:
    from tiled.client.xarray import write_xarray_dataset

    given = deep()
    written = write_xarray_dataset(client, given, key=fresh("dataset"))
    for name in ("d.nc", "d.h5", "d.csv", "d.xlsx", "d.json", "d.arrow", "d.parquet", "d.html", "d.txt"):
        written.export(tmp_path / name)
        assert (tmp_path / name).stat().st_size
    with xarray.open_dataset(tmp_path / "d.nc", engine="h5netcdf") as found:
        xarray.testing.assert_equal(found.load(), given)
