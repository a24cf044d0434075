"""The table of formats: what the documentation says of it, what happens without a package, which file is whose partition."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy
import pyarrow
import pytest
import tifffile

from tiled_stream.domain.errors import NotSupported, UnsupportedType
from tiled_stream.domain.slices import whole
from tiled_stream.files.formats import ARRAYS, RAW, STACKS, TABLES, TREES, check_mimetype, open_array, open_table
from tiled_stream.testing.reader_contract import array_source
from tiled_stream.testing.table_reader_contract import table_source

ROOT = Path(__file__).parents[2]


def test_every_format_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "file-formats.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \|", page, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([^`]+/[^`]+)`", row)} == {*ARRAYS, *STACKS, *TABLES, *TREES, *RAW}


def test_what_may_be_registered() -> None:
    for mimetype in (*ARRAYS, *STACKS, *TABLES, *TREES, *RAW, "multipart/related; type=image/tiff", "Image/TIFF"):
        check_mimetype(mimetype)
    for mimetype in ("", "image/png", "text/csv;header=maybe", "application/x-tiled-sql-table"):
        with pytest.raises(UnsupportedType, match="application/x-hdf5"):
            check_mimetype(mimetype)


@pytest.mark.parametrize(
    ("package", "mimetype"), [("h5py", "application/x-hdf5"), ("tifffile", "image/tiff"), ("PIL", "image/jpeg")]
)
def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, mimetype: str) -> None:
    for name in [n for n in sys.modules if n == package or n.startswith("tiled_stream.files.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotSupported, match=rf"'{package}'.*pip install 'tiled-stream\[files\]'"):
        open_array(array_source([tmp_path / "x"], numpy.zeros(3), mimetype))


def test_families_that_a_format_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="'table'"):
        open_table(table_source([tmp_path / "x"], pyarrow.schema([("a", pyarrow.int8())]), "image/tiff"))
    for mimetype in ("application/x-parquet", "application/octet-stream"):
        with pytest.raises(NotSupported, match="'array'"):
            open_array(array_source([tmp_path / "x"], numpy.zeros(3), mimetype))


def test_heavy_packages_wait_for_the_first_file() -> None:
    """An idle server stays small."""
    heavy = {"h5py", "openpyxl", "tifffile", "zarr", "pyarrow", "PIL"}
    code = f"import sys, tiled_stream.query.read; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_pages_of_several_frames_a_file(tmp_path: Path) -> None:
    """Five files of two pages each, declared as ten frames, as five times two, and with axes of length 1."""
    frames = numpy.arange(10 * 4 * 6, dtype="<u2").reshape(5, 2, 4, 6)
    paths = [tmp_path / f"{n}.tif" for n in range(5)]
    for path, pages in zip(paths, frames, strict=True):
        tifffile.imwrite(path, pages, photometric="minisblack", compression="zlib")
    for shape in ((10, 4, 6), (5, 2, 4, 6), (5, 1, 2, 4, 6), (10, 1, 4, 6)):
        source = array_source(paths, frames, "multipart/related;type=image/tiff", shape=shape)
        assert (open_array(source).read(whole(shape)) == frames.reshape(shape)).all(), shape


def test_colours(tmp_path: Path) -> None:
    image = numpy.arange(4 * 6 * 3, dtype="u1").reshape(4, 6, 3)
    tifffile.imwrite(tmp_path / "x.tif", image, photometric="rgb", compression="zlib")
    source = array_source([tmp_path / "x.tif"], image, "image/tiff")
    assert (open_array(source).read(whole(image.shape)) == image).all()


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", numpy.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(NotSupported, match="pickled"):
        open_array(array_source([tmp_path / "x.npy"], numpy.zeros(1), "application/x-npy")).read(whole((1,)))
