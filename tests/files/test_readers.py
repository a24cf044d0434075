"""Every format passes the contract of readers, on files that its own library wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy
import pandas
import pyarrow
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import tifffile
import zarr
from zarr.codecs import ZstdCodec

from tiled_stream.files.csv_text import read_csv
from tiled_stream.testing.reader_contract import ArrayReaderContract
from tiled_stream.testing.table_reader_contract import TableReaderContract, table_source

NUMBERS = ("|i1", "|u1", "<i2", ">u2", "<i4", "<u4", "<i8", "<u8", "<f4", ">f4", "<f8", ">f8")


class TestHdf5(ArrayReaderContract):
    mimetype = "application/x-hdf5"
    parameters = {"dataset": "/entry/data"}
    dtypes = ("|b1", *NUMBERS, "<c8", "|S7", "|V5")

    def write(self, path: Path, values: Any) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("/entry/data", data=values)


class TestHdf5Chunked(ArrayReaderContract):
    mimetype = "application/x-hdf5"
    parameters = {"dataset": "entry/data", "swmr": True, "locking": None}
    dtypes = NUMBERS

    def write(self, path: Path, values: Any) -> None:
        with h5py.File(path, "w", libver="latest") as file:
            options = {"chunks": tuple(min(n, 3) for n in values.shape), "compression": "gzip", "shuffle": True}
            file.create_dataset("entry/data", data=values, maxshape=(None,) * values.ndim, **options)


class TestNpy(ArrayReaderContract):
    mimetype = "application/x-npy"
    dtypes = ("|b1", *NUMBERS, "<c16", "<M8[ns]", "<U5", "|S3", "|V4")

    def write(self, path: Path, values: Any) -> None:
        with path.open("wb") as file:
            numpy.save(file, values)


class TestNpyOfFortran(ArrayReaderContract):
    mimetype = "application/x-npy"

    def write(self, path: Path, values: Any) -> None:
        with path.open("wb") as file:
            numpy.lib.format.write_array(file, numpy.asfortranarray(values), version=(3, 0))


class TestNpySequence(ArrayReaderContract):
    mimetype = "multipart/related;type=application/x-npy"
    is_stack = True
    dtypes = NUMBERS

    def write(self, path: Path, values: Any) -> None:
        with path.open("wb") as file:
            numpy.save(file, values)


class TestTiff(ArrayReaderContract):
    mimetype = "image/tiff"
    dimensions = (2, 3)

    def write(self, path: Path, values: Any) -> None:
        tifffile.imwrite(path, values, photometric="minisblack")


class TestTiffCompressed(ArrayReaderContract):
    """Page by page, none of them told of the others."""

    mimetype = "image/tiff"
    dimensions = (2, 3)

    def write(self, path: Path, values: Any) -> None:
        with tifffile.TiffWriter(path, byteorder=">") as writer:
            for page in values.reshape(-1, *values.shape[-2:]):
                writer.write(page, compression="zlib", contiguous=False, metadata=None, photometric="minisblack")


class TestTiffSequence(ArrayReaderContract):
    mimetype = "multipart/related;type=image/tiff"
    is_stack = True
    dimensions = (2,)

    def write(self, path: Path, values: Any) -> None:
        tifffile.imwrite(path, values, photometric="minisblack")


class TestZarr3(ArrayReaderContract):
    mimetype = "application/x-zarr"
    is_directory = True
    dtypes = ("|b1", "<i2", ">i4", "<u8", "<f4", "<f8", "<c8")

    def write(self, path: Path, values: Any) -> None:
        chunks = tuple(min(n, 4) for n in values.shape)
        array = zarr.create_array(
            path, shape=values.shape, chunks=chunks, dtype=values.dtype, compressors=ZstdCodec(), zarr_format=3
        )
        array[...] = values


class TestZarr3Sharded(ArrayReaderContract):
    mimetype = "application/x-zarr"
    is_directory = True
    dtypes = ("<i2", "<f8")

    def write(self, path: Path, values: Any) -> None:
        shards = tuple(4 for n in values.shape)
        chunks = tuple(2 for n in values.shape)
        array = zarr.create_array(path, shape=values.shape, shards=shards, chunks=chunks, dtype=values.dtype, zarr_format=3)
        array[...] = values


class TestZarr2(ArrayReaderContract):
    mimetype = "application/x-zarr"
    is_directory = True
    dtypes = ("|b1", "<i2", ">i4", "<f8", "<M8[s]")

    def write(self, path: Path, values: Any) -> None:
        chunks = tuple(min(n, 4) for n in values.shape)
        array = zarr.create_array(path, shape=values.shape, chunks=chunks, dtype=values.dtype, zarr_format=2)
        array[...] = values


class TestCsvArray(ArrayReaderContract):
    mimetype = "text/csv;header=absent"
    parameters = {"header": None, "sep": ";"}
    dimensions = (2,)
    dtypes = ("<i2", "<i8", ">f8")
    is_cut_noticed = False

    def write(self, path: Path, values: Any) -> None:
        numpy.savetxt(path, values, delimiter=";", fmt="%d" if values.dtype.kind == "i" else "%.17g")


class TestParquet(TableReaderContract):
    mimetype = "application/x-parquet"

    def write(self, path: Path, table: pyarrow.Table) -> None:
        pyarrow.parquet.write_table(table, path, row_group_size=700)


class TestArrow(TableReaderContract):
    mimetype = "application/vnd.apache.arrow.file"

    def write(self, path: Path, table: pyarrow.Table) -> None:
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)


class TestFeather(TableReaderContract):
    mimetype = "application/vnd.apache.arrow.file"

    def write(self, path: Path, table: pyarrow.Table) -> None:
        pyarrow.feather.write_feather(table, path, compression="zstd")


class TestCsv(TableReaderContract):
    mimetype = "text/csv"
    is_cut_noticed = False

    def write(self, path: Path, table: pyarrow.Table) -> None:
        pyarrow.csv.write_csv(table, path)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        (",a,b\n0,1.5,x\n1,2.5,y\n", {}),
        ("a,a,a\n1,2,3\n", {}),
        ("a;;a;\n1;2;3;4\n", {"sep": ";"}),
        ("told\nby others\n,a\n1,2\n", {"skiprows": 2}),
        ('"two\nlines",,a\n1,2,3\n', {}),
        ("\ufeffa,\n1,2\n", {}),
    ],
)
def test_columns_without_a_name_of_their_own(tmp_path: Path, text: str, parameters: dict[str, Any]) -> None:
    """As pandas names them: it is what clients infer the structure with."""
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf8")
    told = pandas.read_csv(path, **parameters)
    table = pyarrow.Table.from_pandas(told, preserve_index=False)
    source = table_source([path], table.schema, "text/csv", parameters=parameters)
    found = read_csv(source, path, table.column_names)
    assert found.to_pydict() == table.to_pydict()
