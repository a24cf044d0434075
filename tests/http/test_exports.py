"""Formats through the edge: chosen, produced, bounded. What the bytes hold is read by libraries that the server did not use."""

from __future__ import annotations

import io
import tempfile
from typing import Any

import h5py
import numpy
import openpyxl
import PIL.Image
import pyarrow
import pytest
import tifffile
import xarray

from tests.http.conftest import array_structure, arrow_file, table_structure
from tiled_stream.http import container_files
from tiled_stream.wire.export_hdf5 import Hdf5File

HDF5 = "application/x-hdf5"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


MOMENTS = numpy.array(["2026-01-02", "NaT"], "M8[ns]")


async def moments(server: Any, path: str, array: numpy.ndarray, **fields: Any) -> None:
    structure = array_structure(array)
    structure["data_type"]["dt_units"] = f"[{numpy.datetime_data(array.dtype)[0]}]"
    await server.create(path, "array", data_sources=[{"structure_family": "array", "structure": structure}], **fields)
    await server.ok("PUT", f"/array/full/{path}", content=array.tobytes())


async def fetched(server: Any, path: str, **options: Any) -> bytes:
    response = await server.client.get(f"/api/v1{path}", **options)
    assert response.status_code == 200, (response.status_code, response.text)
    assert int(response.headers["content-length"]) == len(response.content)
    return response.content


async def hdf5(server: Any, path: str, **options: Any) -> h5py.File:
    return h5py.File(io.BytesIO(await fetched(server, path, **options)))


async def test_pictures(server: Any) -> None:
    array = numpy.arange(12, dtype=">u2").reshape(3, 4)
    await server.array("a", array)
    assert (tifffile.imread(io.BytesIO(await fetched(server, "/array/full/a?format=tiff"))) == array).all()
    response = await server.client.get("/api/v1/array/full/a?slice=:2&filename=a.png", headers={"Accept": "image/*"})
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-disposition"] == 'attachment; filename="a.png"'
    assert PIL.Image.open(io.BytesIO(response.content)).size == (4, 2)
    status, detail = await server.refused("GET", "/array/full/a?slice=0&format=png")
    assert status == 406
    assert "?slice=" in detail


async def test_what_is_not_there_is_told_with_what_is(server: Any) -> None:
    await server.array("a", numpy.zeros(1))
    status, detail = await server.refused("GET", "/array/full/a?format=webp,h5")
    assert status == 406
    assert "webp,h5" in detail
    assert "image/png" in detail


async def test_a_table_as_a_workbook_and_as_hdf5(server: Any) -> None:
    await server.create("c")
    await server.table("c/t", pyarrow.table({"n": [1, 2], "s": ["a", "=1+1"]}))
    rows = openpyxl.load_workbook(io.BytesIO(await fetched(server, "/table/full/c/t?format=xlsx"))).active.values
    assert list(rows) == [("n", "s"), (1, "a"), (2, "=1+1")]
    file = await hdf5(server, "/table/partition/c/t?partition=0&column=n", headers={"Accept": HDF5})
    assert {name: file[name][()].tolist() for name in file} == {"n": [1, 2]}


async def test_spectra_as_xdi(server: Any) -> None:
    metadata = {"fields": {"Element": {"symbol": "Cu"}}}
    table = pyarrow.table({"energy": [1.5, 2.5]})
    await server.table("x", table, metadata=metadata, specs=[{"name": "xdi", "version": "1.0"}])
    await server.table("t", table)
    text = (await fetched(server, "/table/full/x?format=xdi")).decode()
    assert "# Element.symbol: Cu\n" in text
    assert text.endswith("# energy\n1.5\n2.5\n")
    assert (await server.refused("GET", "/table/full/t?format=xdi"))[0] == 406
    # The header follows the metadata, which no record of the table tells.
    tag = (await server.client.get("/api/v1/table/full/x?format=xdi")).headers["etag"]
    await server.ok("PUT", "/metadata/x", json={"metadata": {"fields": {"Element": {"symbol": "Fe"}}}})
    response = await server.client.get("/api/v1/table/full/x?format=xdi", headers={"If-None-Match": tag})
    assert "# Element.symbol: Fe\n" in response.text


async def test_the_old_name_of_the_endpoints(server: Any) -> None:
    await server.create("c")
    await server.table("c/t", pyarrow.table({"n": [1, 2], "m": [3, 4]}))
    assert (await server.ok("GET", "/node/full/c/t?format=json&field=m")) == {"m": [3, 4]}
    assert (await server.ok("GET", "/node/full/c?format=json&field=t"))["contents"].keys() == {"t"}
    assert (await server.ok("GET", "/node/full/?format=json"))["contents"].keys() == {"c"}
    await server.array("a", numpy.zeros(1))
    assert (await server.refused("GET", "/node/full/a"))[0] == 404
    structure = table_structure(pyarrow.schema([("n", "i8")]))
    await server.create("p", "table", data_sources=[{"structure_family": "table", "structure": structure}])
    await server.ok("PUT", "/node/full/p", content=arrow_file(pyarrow.table({"n": [5]})))
    assert (await server.ok("GET", "/node/full/p?format=json")) == {"n": [5]}


class TestContainersAsHdf5:
    """Groups, datasets, attributes."""

    @pytest.fixture
    async def tree(self, server: Any) -> Any:
        await server.create("c", metadata={"sample": "Fe", "n": 3, "deep": {"a": [1, {}]}, "none": None, "list": [1, 2.5]})
        await server.create("c/inner", metadata={"key": "ü"})
        await server.array("c/inner/a", numpy.arange(24, dtype=">f4").reshape(2, 3, 4), metadata={"unit": "mm"})
        await moments(server, "c/when", MOMENTS)
        await server.array("c/scalar", numpy.array(7))
        await server.table("c/t", pyarrow.table({"n": [1, 2], "s": ["a", None], "a/b": [[1, 2], [3, 4]]}))
        return server

    async def test_what_is_in_it(self, tree: Any) -> None:
        file = await hdf5(tree, "/container/full/c")
        assert list(file) == ["inner", "when", "scalar", "t"]
        assert {k: file.attrs[k] for k in ("sample", "n", "deep")} == {"sample": "Fe", "n": 3, "deep": '{"a": [1, {}]}'}
        assert file.attrs["list"].tolist() == [1.0, 2.5]
        assert isinstance(file.attrs["none"], h5py.Empty)
        assert file["inner"].attrs["key"] == "ü"
        assert file["inner/a"].dtype == ">f4"
        assert file["inner/a"][()].tolist() == numpy.arange(24).reshape(2, 3, 4).tolist()
        assert file["inner/a"].attrs["unit"] == "mm"
        assert file["when"].attrs["units"] == "nanoseconds since 1970-01-01"
        assert file["when"].attrs["dtype"] == "datetime64[ns]"
        assert file["when"][()].tobytes() == MOMENTS.tobytes()
        assert file["scalar"][()] == 7
        assert list(file["t"]) == ["n", "s", "a%2Fb"]
        assert file["t/s"].asstr()[()].tolist() == ["a", ""]
        assert file["t/a%2Fb"][()].tolist() == [[1, 2], [3, 4]]

    async def test_some_of_it(self, tree: Any) -> None:
        assert list(await hdf5(tree, "/container/full/c?field=t&field=nothing&field=t&field=inner&format=h5")) == ["t", "inner"]
        posted = await tree.client.post("/api/v1/container/full/c", json=["when"])
        assert list(h5py.File(io.BytesIO(posted.content))) == ["when"]
        assert list(await hdf5(tree, "/container/full/")) == ["c"]

    async def test_headers(self, tree: Any) -> None:
        response = await tree.client.get("/api/v1/container/full/c?filename=c.h5")
        assert response.headers["content-type"] == HDF5
        assert response.headers["content-disposition"] == 'attachment; filename="c.h5"'
        known = {"If-None-Match": response.headers["etag"]}
        assert (await tree.client.get("/api/v1/container/full/c", headers=known)).status_code == 304

    async def test_what_cannot_be_read_is_left_out_and_says_so(self, tree: Any) -> None:
        form = {"class": "NumpyArray", "primitive": "int64", "inner_shape": [], "parameters": {}, "form_key": "node0"}
        source = {"structure_family": "awkward", "structure": {"length": 1, "form": form}}
        await tree.create("c/late", "awkward", data_sources=[source], metadata={"m": 1})
        file = await hdf5(tree, "/container/full/c")
        assert "not been written" in file["late"].attrs["_left_out"]
        assert file["late"].attrs["m"] == 1
        assert "inner/a" in file

    @pytest.mark.parametrize("begun", [False, True])
    async def test_a_disk_that_is_full_is_told(
        self, tree: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, begun: bool
    ) -> None:
        def full(*_: Any, **__: Any) -> Any:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        if begun:
            monkeypatch.setattr(Hdf5File, "fill", full)
        else:
            monkeypatch.setattr(container_files, "NamedTemporaryFile", full)
        response = await tree.client.get("/api/v1/container/full/c")
        assert response.status_code == 503
        assert "temporary files" in response.json()["detail"]
        assert "retry-after" in response.headers
        assert list(tmp_path.iterdir()) == []

    async def test_nothing_is_left_in_the_directory(self, tree: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        assert list(await hdf5(tree, "/container/full/c"))
        assert (await tree.refused("GET", "/container/full/c/t"))[0] == 404
        assert list(tmp_path.iterdir()) == []

    async def test_more_than_the_limit_is_refused_before_it_is_read(self, serve: Any) -> None:
        async with serve(response_bytesize_limit=2000) as server:
            await server.create("c")
            await server.array("c/a", numpy.zeros(200))
            await server.array("c/b", numpy.zeros(200))
            status, detail = await server.refused("GET", "/container/full/c")
            assert status == 400
            assert "?field=" in detail
            assert list(await hdf5(server, "/container/full/c?field=b")) == ["b"]


class TestDatasets:
    """Containers with the spec `xarray_dataset`."""

    @pytest.fixture
    async def dataset(self, server: Any) -> Any:
        await server.create("d", metadata={"attrs": {"title": "t"}}, specs=[{"name": "xarray_dataset"}])
        for name, array, dims, role in (
            ("temp", numpy.arange(6.0).reshape(2, 3), ["x", "y"], "xarray_data_var"),
            ("flux", numpy.array([1.5, 2.5]), ["x"], "xarray_data_var"),
            ("x", numpy.array([10, 20]), ["x"], "xarray_coord"),
        ):
            structure = {**array_structure(array, [[1] * array.shape[0], *([n] for n in array.shape[1:])]), "dims": dims}
            source = {"structure_family": "array", "structure": structure}
            metadata = {"attrs": {"unit": "K"}}
            await server.create(f"d/{name}", "array", data_sources=[source], specs=[{"name": role}], metadata=metadata)
            await server.ok("PUT", f"/array/full/d/{name}", content=array.tobytes())
        await server.table("d/else", pyarrow.table({"n": [1]}))
        return server

    async def test_as_one_table(self, dataset: Any) -> None:
        arrow = {"Accept": "application/vnd.apache.arrow.file"}
        body = await fetched(dataset, "/container/full/d?field=flux&field=x", headers=arrow)
        assert pyarrow.ipc.open_file(body).read_all().to_pydict() == {"flux": [1.5, 2.5], "x": [10, 20]}
        assert await dataset.ok("GET", "/container/full/d?format=json") == {
            "x": [10, 10, 10, 20, 20, 20],
            "y": [0, 1, 2, 0, 1, 2],
            "temp": [0, 1, 2, 3, 4, 5],
            "flux": [1.5, 1.5, 1.5, 2.5, 2.5, 2.5],
        }
        assert (await fetched(dataset, "/container/full/d?format=csv&field=flux")).decode() == "flux\n1.5\n2.5\n"
        for name in ("parquet", "xlsx", "html", "txt"):
            assert await fetched(dataset, f"/container/full/d?format={name}")

    async def test_as_netcdf(self, dataset: Any, tmp_path: Any) -> None:
        body = await fetched(dataset, "/container/full/d?format=nc")
        (tmp_path / "d.nc").write_bytes(body)
        with xarray.open_dataset(tmp_path / "d.nc", engine="h5netcdf") as found:
            assert found["temp"].values.tolist() == [[0, 1, 2], [3, 4, 5]]
            assert set(found.coords) == {"x"}
            assert found.attrs == {"title": "t"}
            assert found["flux"].attrs == {"unit": "K"}

    async def test_as_hdf5_it_is_a_container(self, dataset: Any) -> None:
        assert list(await hdf5(dataset, "/container/full/d")) == ["temp", "flux", "x", "else"]

    async def test_a_grid_beyond_the_limit_is_refused_before_it_is_made(self, serve: Any) -> None:
        async with serve(response_bytesize_limit=100_000) as server:
            await server.create("d", specs=[{"name": "xarray_dataset"}])
            for name in "ab":
                array = numpy.zeros(1000, "u1")
                source = {"structure_family": "array", "structure": {**array_structure(array), "dims": [name]}}
                await server.create(f"d/{name}", "array", data_sources=[source])
            assert (await server.refused("GET", "/container/full/d?format=arrow"))[0] == 400
            assert len((await server.ok("GET", "/container/full/d?format=json&field=a"))["a"]) == 1000
