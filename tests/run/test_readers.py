"""Readers that an operator names: his own, those of the reference server, and those that are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy
import pyarrow
import pytest

from tests.http.conftest import serving
from tests.http.test_assets import array, asset, register, source
from tests.http.test_files_inside import register as register_container
from tiled_stream.files.port import Entry, Reader, Source, Tree
from tiled_stream.run.readers import _SAME, readers_of
from tiled_stream.run.settings import SettingsError

VALUES = numpy.array([1.0, 2.5, 3.0, 4.0])
HERE = f"{__name__}:"


class Numbers:
    """Of a file of texts, times what the file beside it says."""

    def __init__(self, values: Any) -> None:
        self._values = values
        self.shape = values.shape
        self.dtype = values.dtype

    def read(self, axes: Sequence[Any]) -> Any:
        return self._values[tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in axes)]


@contextmanager
def open_numbers(source: Source, path: Path) -> Iterator[Numbers]:
    scale = 1.0
    for uri in source.named.get("scale_uri", ()):
        scale = float(source.wall.path_of(uri).read_text())
    yield Numbers(numpy.array([float(line) for line in path.read_text().split()]) * scale)


def read_lines(source: Source, path: Path, columns: Sequence[str]) -> pyarrow.Table:
    return pyarrow.table({"line": path.read_text().split()}).select(list(columns))


class Lines:
    """Each line is a table of one row."""

    def __init__(self, path: Path) -> None:
        self._lines = path.read_text().split()

    def entry(self, keys: tuple[str, ...]) -> Entry:
        if not keys:
            return Entry(family="container", count=len(self._lines))
        return Entry(family="table", schema=pyarrow.schema([("line", pyarrow.string())]), metadata={"number": keys[0]})

    def names(self, keys: tuple[str, ...], *, offset: int, limit: int, backwards: bool) -> list[str]:
        return [str(n) for n in range(len(self._lines))][offset : offset + limit]


@contextmanager
def open_lines(source: Source, path: Path) -> Iterator[Tree]:
    yield Lines(path)


NUMBERS = Reader(open_array=open_numbers, read_table=read_lines, open_tree=open_lines)
NOTHING = Reader()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "x.txt").write_text("\n".join(map(str, VALUES)))
    (tmp_path / "scale.txt").write_text("2")
    return tmp_path / "x.txt"


async def test_an_own_reader(path: Path) -> None:
    adapters = {"Application/X-Numbers": f"{HERE}NUMBERS"}
    async with serving(read=(str(path.parent),), adapters_by_mimetype=adapters) as server:
        await register(server, "a", source(VALUES, "application/x-numbers", asset(path)))
        assert (await array(server, "a", VALUES, "?slice=::-2")).tolist() == [4.0, 2.5]
        more = [{**asset(path), "parameter": "x"}, {**asset(path.parent / "scale.txt", None), "parameter": "scale_uri"}]
        await register(server, "b", source(VALUES, "application/x-numbers", *more))
        assert (await array(server, "b", VALUES)).tolist() == (VALUES * 2).tolist()
        await register(server, "t", source(pyarrow.table({"line": ["x"]}), "application/x-numbers", asset(path)))
        rows = await server.ok("GET", "/table/full/t?format=application/json")
        assert rows == {"line": ["1.0", "2.5", "3.0", "4.0"]}
        await register_container(server, "c", asset(path), mimetype="application/x-numbers")
        found = await server.ok("GET", "/search/c?page[offset]=1&page[limit]=2")
        assert [(d["id"], d["attributes"]["metadata"]) for d in found["data"]] == [("1", {"number": "1"}), ("2", {"number": "2"})]
        assert (await server.refused("POST", "/register/", json={"structure_family": "array"}))[0] == 422


async def test_names_of_the_reference_server(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["g/x"] = VALUES
    adapters = {"application/x-hdf5-dectris": "tiled.adapters.hdf5:HDF5Adapter"}
    async with serving(read=(str(tmp_path),), adapters_by_mimetype=adapters) as server:
        await register_container(server, "h", asset(tmp_path / "x.h5"), mimetype="application/x-hdf5-dectris")
        assert (await array(server, "h/g/x", VALUES)).tolist() == VALUES.tolist()


def test_all_names_of_the_reference_server_are_read_by_something() -> None:
    readers = readers_of({str(n): f"tiled.adapters.{name}" for n, name in enumerate(_SAME)})
    assert all(r.open_array or r.read_table or r.open_tree for r in readers.values())
    assert readers["6"].is_stack is True


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tiled.adapters.mapping:MapAdapter", "no equal here"),
        ("nowhere.at.all:X", "cannot be loaded"),
        (f"{HERE}MISSING", "cannot be loaded"),
        ("os", "package.module:name"),
        ("os:path", "no Reader"),
        (f"{HERE}NOTHING", "no Reader"),
        (f"{HERE}open_numbers", "no Reader"),
    ],
)
def test_what_is_no_reader(name: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        readers_of({"a/b": name})


async def test_files_of_a_type_that_nothing_looks_into(tmp_path: Path) -> None:
    """They are registered and fetched as they are."""
    file = tmp_path / "paper.pdf"
    file.write_bytes(b"%PDF-1.4")
    own = {"application/pdf": "tiled.adapters.bytes:BytesAdapter"}
    async with serving(read=(str(tmp_path),), adapters_by_mimetype=own) as server:
        opaque = {"structure_family": "bytes", "structure": {}, "mimetype": "application/pdf", "management": "external"}
        await register(server, "paper", opaque | {"assets": [asset(file)]})
        told = (await server.ok("GET", "/metadata/paper?include_data_sources=true"))["data"]["attributes"]["data_sources"][0]
        assert (told["mimetype"], told["structure_family"]) == ("application/pdf", "bytes")
        id = told["assets"][0]["id"]
        assert (await server.client.get(f"/api/v1/asset/bytes/paper?id={id}")).content == b"%PDF-1.4"
